"""What a search for the best mixture of precisions has tried and chosen: the report's `search`."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.metrics.metric_registry import METRICS
from pipeline.report.html import plots
from pipeline.report.html.language import said, tr
from pipeline.report.html.render import mib
from pipeline.report.schema import Report
from pipeline.report.search_schema import NodeDecision, SearchReport, TriedCandidate
from pipeline.report.terminal import format_number

SHOWN_NODES = 12  # of the table of nodes; the others are folded away
SHOWN_CANDIDATES = 12


@dataclass(frozen=True)
class CandidateRow:
    """A candidate in words."""

    label: str
    speedup: str
    size: str
    loss: str
    chosen: bool


@dataclass(frozen=True)
class NodeRow:
    """A node in words; what was not measured is empty."""

    node: str
    op: str
    precision: str
    reason: str
    loss: str
    gain: str
    saved: str


@dataclass(frozen=True)
class SearchView:
    """One graph's search.

    Attributes:
        graph: its role.
        metric: what losses are in.
        unit: of the metric.
        budget: the limits that were asked for; of reports that do not know which were, all.
        usual: the limits that were kept without being asked for.
        node_loss: what losses of single nodes are in.
        met: whether they are kept; None: not known.
        seconds: how long the search took.
        timed_on: the device that speed was measured on; None: this machine.
        tried: candidates.
        measured: candidates that were timed.
        chosen: the chosen candidate.
        picture: of speed against loss.
        front: candidates on the front, and the chosen one, fastest first.
        nodes: those that cost most quality.
        other_nodes: the others.
        counts: precision -> nodes, most first.
    """

    graph: str
    metric: str
    unit: str
    budget: list[str]
    usual: list[str]
    node_loss: str
    met: bool | None
    seconds: float | None
    timed_on: str | None
    tried: int
    measured: int
    chosen: CandidateRow | None
    picture: Markup | None
    front: list[CandidateRow]
    nodes: list[NodeRow]
    other_nodes: list[NodeRow]
    counts: list[tuple[str, int]]


def searches(report: Report) -> list[SearchView]:
    """Return each graph's search: what was asked for and chosen, in words; the front as a picture; candidates and nodes."""
    found = []
    for index, (graph, search) in enumerate((report.search or {}).items()):
        chosen = next((one for one in search.candidates if one.index == search.chosen), None)
        front = sorted(
            (one for one in search.candidates if one.on_front or one is chosen), key=lambda one: -(one.speedup or 0.0)
        )
        nodes = [_node(node) for node in sorted(search.nodes, key=lambda node: -(node.loss or 0.0))]
        found.append(
            SearchView(
                graph=graph,
                metric=search.metric,
                unit=search.unit,
                budget=_limits(search, asked=True),
                usual=_limits(search, asked=False),
                node_loss=_with_unit(search.node_metric or search.metric),
                met=search.met,
                seconds=search.seconds,
                timed_on=search.timed_on,
                tried=len(search.candidates),
                measured=sum(one.measured for one in search.candidates),
                chosen=None if chosen is None else _candidate(chosen, chosen, search.unit),
                picture=_picture(graph, search, chosen, index),
                front=[_candidate(one, chosen) for one in front[:SHOWN_CANDIDATES]],
                nodes=nodes[:SHOWN_NODES],
                other_nodes=nodes[SHOWN_NODES:],
                counts=_counts(nodes),
            )
        )
    return found


def _candidate(candidate: TriedCandidate, chosen: TriedCandidate | None, unit: str = "") -> CandidateRow:
    return CandidateRow(
        said(candidate.label),
        tr("not timed") if candidate.speedup is None else f"{candidate.speedup:.2f} ×",
        mib(candidate.bytes),
        f"{format_number(candidate.loss)} {unit}".rstrip() if candidate.scored else tr("not measured"),
        candidate is chosen,
    )


def _node(node: NodeDecision) -> NodeRow:
    return NodeRow(
        node.node,
        node.op,
        node.precision,
        node.reason or "",
        "" if node.loss is None else format_number(node.loss),
        "" if node.gain_ms is None else f"{node.gain_ms:.3g} ms",
        "" if node.bytes_saved is None else f"{node.bytes_saved / 1024:,.0f} KiB",
    )


def _counts(nodes: Sequence[NodeRow]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.precision] = counts.get(node.precision, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _picture(graph: str, search: SearchReport, chosen: TriedCandidate | None, index: int) -> Markup | None:
    points = [
        plots.CandidatePoint(one.speedup, one.loss, one.bytes, one.measured, one.on_front, chosen=one is chosen)
        for one in search.candidates
        if one.loss is not None and one.speedup is not None
    ]
    if not points:
        return None
    unit = f"{search.metric}, {search.unit}" if search.unit else search.metric
    best = ""
    if chosen is not None and chosen.speedup is not None:
        loss = format_number(chosen.loss)
        best = tr(
            " Chosen: {label}, {speedup} and {loss}.", label=said(chosen.label), speedup=f"{chosen.speedup:.2f}", loss=loss
        )
    description = tr(
        "{count} candidates for {graph}: speed-up against loss ({unit}), larger points for larger files.",
        count=len(points), graph=graph, unit=unit,
    ) + best  # fmt: skip
    return plots.search_front(points, unit, f"search-{index}", description)


def _limits(search: SearchReport, *, asked: bool) -> list[str]:
    """Return those limits in words that the user gave, or the others."""
    known = search.budget.keys() if search.asked is None else set(search.asked)
    return [_limit(key, value, search) for key, value in search.budget.items() if value is not None and (key in known) == asked]


def _limit(key: str, value: float | int | str, search: SearchReport) -> str:
    unit = f" {search.unit}" if search.unit else ""
    match key, value:
        case "max_loss", float() | int():
            return tr("{metric} worse by at most {limit}", metric=search.metric, limit=f"{format_number(value)}{unit}")
        case "min_speedup", float() | int():
            return tr("at least {factor} times as fast", factor=format_number(value))
        case "max_bytes", int():
            return tr("at most {size} bytes", size=f"{value:,}")
        case "max_length_change", float() | int():
            return tr("a length changed by at most {change} %", change=f"{100 * value:g}")
        case _:
            return f"{key} {value}"


def _with_unit(metric: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{metric}, {unit}" if unit else metric
