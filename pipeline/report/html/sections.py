"""What the page of one run shows: the report, in the order and the words of a reader."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS, in_reading_order, leading_metrics
from pipeline.record.results import NodeError, Outcome, ProcessorFit
from pipeline.report.evaluation_schema import MetricResult
from pipeline.report.html import plots
from pipeline.report.html.language import said, tr
from pipeline.report.html.render import mib, ms, signed
from pipeline.report.intervals import BadSample, difference_interval, effect_of, metric_interval, worst_samples
from pipeline.report.schema import ArtifactReport, InputFile, Report
from pipeline.report.verdict import VERDICT_ORDER, integer_shares, quality_outcome, quality_verdict, speed_verdict

WORST_NODES = 8
QUALITY_KINDS = {
    Outcome.within: "faster", Outcome.beyond: "slower", Outcome.undecided: "same", Outcome.unmeasured: "same",
}  # fmt: skip


@dataclass(frozen=True)
class GraphVerdict:
    """The verdict on the speed of a graph.

    Attributes:
        graph: its role.
        words: the verdict.
        measured: what it rests on.
    """

    graph: str
    words: str
    measured: GraphBenchmark


@dataclass(frozen=True)
class QualityHeadline:
    """The verdict on quality: what follows, in a word that names its colour, and the numbers that it rests on."""

    lead: str
    reasons: str
    kind: str


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page.

    Attributes:
        label: what it is.
        value: of the quantized model.
        interval: of the value; empty where it is not known.
        against: what it is to be read against.
        change: from fp32, in words; empty where there is nothing to say.
        kind: better, worse or empty.
        name: of the metric that it is of; empty for sizes and times.
    """

    label: str
    value: str
    interval: str
    against: str
    change: str = ""
    kind: str = ""
    name: str = ""


@dataclass(frozen=True)
class MetricRow:
    """A row of the table of metrics.

    Attributes:
        name: of the metric.
        metric: its values.
        interval: of the quantized model's value.
        gap: the paired difference from fp32, of a metric against the truth.
        effect: what quantization did to it, in words.
        against: `fp32` or `the truth`.
    """

    name: str
    metric: MetricResult
    interval: Interval | None
    gap: Interval | None
    effect: str | None
    against: str


@dataclass(frozen=True)
class WorstTable:
    """The samples that quantization changed most, worst first, and the metrics that are shown of them."""

    columns: list[str]
    samples: list[BadSample]
    texts: bool


@dataclass(frozen=True)
class WorstNode:
    """A quantized node of low signal to noise, how it computes, and the module that it was exported from, where known."""

    node: str
    op_type: str
    sqnr_db: str
    precision: str
    module: str | None


@dataclass(frozen=True)
class ErrorView:
    """The error along a graph.

    Attributes:
        graph: its role.
        picture: of all nodes.
        worst: quantized nodes, worst first: those that one can keep in float.
        notes: how many nodes there are, and which the picture does not show.
    """

    graph: str
    picture: Markup
    worst: list[WorstNode]
    notes: list[str]


@dataclass(frozen=True)
class NodeGroups:
    """The nodes of a graph: how they compute now -> names, why they were kept -> names, the kernels and processors, modules."""

    graph: str
    quantized: dict[str, list[str]]
    kept: dict[str, list[str]]
    kernels: dict[str, int]
    modules: dict[str, str]
    processors: ProcessorFit | None


def verdicts(report: Report) -> list[GraphVerdict]:
    """Return the verdict on each graph in words, slower ones first."""
    found = [
        GraphVerdict(graph, said(speed_verdict(measured)), measured) for graph, measured in (report.benchmark or {}).items()
    ]
    return sorted(found, key=lambda one: VERDICT_ORDER.index(one.measured.verdict))


def quality_headline(report: Report) -> QualityHeadline | None:
    """Return the verdict on quality; None where nothing was quantized or measured, and of reports that know no limits."""
    words, outcome = quality_verdict(report), quality_outcome(report)
    if not report.artifacts or not (report.benchmark or report.evaluation) or report.status != "done":
        return None
    if words is None or outcome is None:
        return None
    lead, _, reasons = words.partition(": ")
    shown = tr("; ").join(said(reason) for reason in reasons.split("; "))
    return QualityHeadline(said(lead), shown, QUALITY_KINDS[outcome])


def tiles(report: Report) -> list[Tile]:
    """Return the numbers of the top."""
    found = []
    artifacts = report.artifacts or []
    for artifact in artifacts:
        of = artifact.graph if len(artifacts) > 1 else ""
        share = 100 * artifact.bytes / artifact.baseline_bytes
        measured = (report.benchmark or {}).get(artifact.graph)
        if measured is not None:
            found.append(_latency_tile(of, measured))
        against = tr("{percent} % of fp32’s {size}", percent=f"{share:.0f}", size=mib(artifact.baseline_bytes))
        found.append(Tile(_of(tr("Size"), of), mib(artifact.bytes), "", against))
        if measured is not None and measured.rtf and measured.baseline_rtf:
            against = tr("real time; fp32 {factor}", factor=f"{1 / measured.baseline_rtf:.0f}\u00a0×")
            found.append(Tile(_of(tr("Speech"), of), f"{1 / measured.rtf:.0f} ×", "", against))
    if (shares := integer_shares(report)) is not None:
        stored, computed = shares
        told = [tr("of the weights")]
        if computed is not None:
            told.append(tr("{percent} % of the multiplications", percent=f"{100 * computed:.0f}"))
        found.append(Tile(tr("In integers"), f"{100 * stored:.0f} %", "", tr("; ").join(told)))
    return found + _quality_tiles(report)


def quality(report: Report) -> list[MetricRow]:
    """Return the rows of the table of metrics: what is measured against the truth first."""
    rows = []
    for name, metric in ({} if report.evaluation is None else report.evaluation.metrics).items():
        gap = difference_interval(report, name)
        against = "fp32" if _is_distance(name, metric) else "the truth"
        rows.append(MetricRow(name, metric, metric_interval(report, name), gap, _effect(metric, gap), against))
    first = {name: place for place, name in enumerate(in_reading_order())}
    return sorted(rows, key=lambda row: (row.against == "fp32", first.get(row.name, len(first))))


def worst(report: Report) -> WorstTable | None:
    """Return the samples that quantization changed most, with the metrics that most of them have."""
    found = worst_samples(report)
    if found is None:
        return None
    name, samples = found
    columns = [name, *(key for key in samples[0].values if key != name and key in METRICS and METRICS[key].of_sample)]
    return WorstTable(columns, samples, any(sample.text for sample in samples))


def node_errors(report: Report) -> list[ErrorView]:
    """Return a picture of the error along each graph, and its worst nodes, where it was measured."""
    found = []
    artifacts = {artifact.graph: artifact for artifact in report.artifacts or []}
    errors_by_graph = {} if report.evaluation is None else report.evaluation.node_errors
    for number_, (graph, errors) in enumerate(errors_by_graph.items()):
        view = _error_view(graph, errors, artifacts.get(graph), f"nodes-{number_}")
        found += [view] if view is not None else []
    return found


def _error_view(graph: str, errors: list[NodeError], artifact: ArtifactReport | None, name: str) -> ErrorView | None:
    quantized = {} if artifact is None else artifact.quantized_nodes
    modules = {} if artifact is None else artifact.modules
    known = [(error, error.sqnr_db) for error in errors if error.sqnr_db is not None]
    if not known:
        return None
    worst_first = sorted(known, key=lambda pair: pair[1])
    lowest, last = worst_first[0], known[-1]
    description = tr(
        "Signal to quantization noise of {count} nodes along {graph}, in dB; lowest at {node}: {level}, at the last node "
        "{last}.",
        count=len(errors), graph=graph, node=lowest[0].node, level=_decibels(lowest[1]), last=_decibels(last[1]),
    )  # fmt: skip
    values = [math.nan if error.sqnr_db is None else error.sqnr_db for error in errors]
    flags = [error.node in quantized for error in errors]
    levels = [level for _, level in worst_first]
    top = 10.0 * math.ceil(0.1 * levels[int(0.95 * (len(levels) - 1))])  # the nearly exact would press the rest together
    exact, clipped = len(errors) - len(known), sum(level > top for level in levels)
    notes = [tr("{count} nodes.", count=len(errors))]
    notes += [tr("Without any error, and so without a point: {count}.", count=exact)] if exact else []
    notes += [tr("Above {level} dB, drawn at the edge: {count}.", level=f"{top:.0f}", count=clipped)] if clipped else []
    return ErrorView(
        graph,
        plots.along_graph(values, flags, "SQNR, dB", name, description, top=top),
        [
            WorstNode(error.node, error.op_type, _decibels(level), quantized[error.node], modules.get(error.node))
            for error, level in worst_first
            if error.node in quantized
        ][:WORST_NODES],
        notes,
    )


def _decibels(level: float) -> str:
    """Return a level in dB; what is not told from zero has no sign."""
    return f"{round(level, 1) + 0.0:.1f}"


def nodes(report: Report) -> list[NodeGroups]:
    """Return each graph's nodes, grouped by how they compute now, or by why they were kept."""
    found = []
    for artifact in report.artifacts or []:
        quantized: dict[str, list[str]] = {}
        for node, precision in artifact.quantized_nodes.items():
            quantized.setdefault(precision, []).append(node)
        kept: dict[str, list[str]] = {}
        for entry in artifact.kept:
            kept.setdefault(entry.reason, []).append(entry.node)
        if quantized or kept:
            found.append(NodeGroups(artifact.graph, quantized, kept, artifact.kernels, artifact.modules, artifact.processors))
    return found


def inputs(report: Report) -> list[tuple[str, list[tuple[str, InputFile]]]]:
    """Return the files that a run has read, with their names, grouped by their folder."""
    groups: dict[str, list[tuple[str, InputFile]]] = {}
    for entry in report.inputs:
        folder, _, name = entry.path.rpartition("/")
        groups.setdefault(folder or ".", []).append((name, entry))
    return list(groups.items())


def _of(what: str, graph: str) -> str:
    """Return the label of a number; of a model with several graphs, with the graph that it is of."""
    return tr("{what} of {graph}", what=what, graph=graph) if graph else what


def _latency_tile(of: str, measured: GraphBenchmark) -> Tile:
    """Return the latency at the median length: the ratio of all lengths is not the speed-up."""
    lengths = measured.lengths
    one = lengths.get("median") or next(iter(lengths.values()), None)
    label = _of(tr("Latency"), of)
    if one is None:
        return Tile(label, ms(measured.quantized_ms.p50), "", f"fp32 {ms(measured.baseline_ms.p50)}")
    before = ms(one.baseline_ms)
    if not one.audio_seconds:
        return Tile(label, ms(one.quantized_ms), "", f"fp32 {before}")
    against = tr("fp32 {latency}, {seconds} s of speech", latency=before, seconds=f"{one.audio_seconds:.1f}")
    return Tile(label, ms(one.quantized_ms), "", against)


def _quality_tiles(report: Report) -> list[Tile]:
    metrics = {} if report.evaluation is None else report.evaluation.metrics
    leading = [name for name in leading_metrics() if name in metrics]
    truth = next((name for name in leading if METRICS[name].against_truth), None)
    distance = next((name for name in leading if not METRICS[name].against_truth), None)
    found = []
    for name in (truth, distance):
        if name is None:
            continue
        metric, interval, title = metrics[name], metric_interval(report, name), tr(METRICS[name].title or name)
        unit = f" {tr(metric.unit)}" if metric.unit else ""
        value = "∞" if metric.quantized is None else f"{metric.quantized:.3g}{unit}"
        shown = "" if interval is None else tr("{low} to {high}", low=f"{interval.low:.3g}", high=f"{interval.high:.3g}")
        if name == truth:
            gap = difference_interval(report, name)
            effect = _effect(metric, gap) or ""
            change = "" if gap is None else f"{signed(gap.value)}, {tr(effect)}"
            kind = effect if effect in ("better", "worse") else ""
            found.append(Tile(title, value, shown, f"fp32 {metric.baseline:.3g}{unit}", change, kind, name))
        else:
            found.append(Tile(title, value, shown, tr(METRICS[name].compared), name=name))
    return found


def _is_distance(name: str, metric: MetricResult) -> bool:
    return not METRICS[name].against_truth if name in METRICS else metric.baseline in (0, None)


def _effect(metric: MetricResult, gap: Interval | None) -> str | None:
    return None if gap is None else effect_of(gap, higher_is_better=metric.higher_is_better)
