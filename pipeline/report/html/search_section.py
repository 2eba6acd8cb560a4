"""What a search for the best mixture of precisions has tried and chosen: the report's `search`."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.report.html import plots
from pipeline.report.html.render import mib
from pipeline.report.terminal import format_number

SHOWN_NODES = 12  # of the table of nodes; the others are folded away
SHOWN_CANDIDATES = 12

Entry = Mapping[str, Any]


def searches(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each graph's search: what was asked for and chosen, in words; the front as a picture; candidates and nodes.

    Args:
        report: report.json; `search` is {graph: {budget, met, seconds, chosen, candidates, nodes, metric, unit}}.
    """
    found = []
    for index, (graph, search) in enumerate((report.get("search") or {}).items()):
        candidates = search.get("candidates") or []
        chosen = next((one for one in candidates if one["index"] == search.get("chosen")), None)
        nodes = _nodes(search)
        front = [one for one in candidates if one.get("on_front") or one is chosen]
        found.append(
            {
                "graph": graph,
                "metric": search["metric"],
                "unit": search.get("unit") or "",
                "budget": [
                    f"{key} {_plain(value)}" for key, value in (search.get("budget") or {}).items() if value is not None
                ],
                "met": search.get("met"),
                "seconds": search.get("seconds"),
                "tried": len(candidates),
                "measured": sum(bool(one.get("measured")) for one in candidates),
                "chosen": None if chosen is None else _candidate(chosen),
                "picture": _picture(graph, search, candidates, chosen, index),
                "front": [_candidate(one) | {"chosen": one is chosen} for one in _fastest_first(front)[:SHOWN_CANDIDATES]],
                "nodes": nodes[:SHOWN_NODES],
                "other_nodes": nodes[SHOWN_NODES:],
                "counts": _counts(nodes),
            }
        )
    return found


def _fastest_first(candidates: Sequence[Entry]) -> list[Entry]:
    return sorted(candidates, key=lambda one: -_speed(one).value)


def _speed(candidate: Entry) -> plots.Range:
    """Return a speed-up: it may come with an interval, or be a number."""
    speedup = candidate["speedup"]
    if isinstance(speedup, Mapping):
        return plots.Range("", speedup["median"], speedup["low"], speedup["high"])
    return plots.Range("", speedup, speedup, speedup)


def _candidate(candidate: Entry) -> dict[str, Any]:
    speed = _speed(candidate)
    return {
        "index": candidate["index"],
        "label": candidate["label"],
        "speedup": f"{speed.value:.2f} ×",
        "interval": f"{speed.low:.2f} to {speed.high:.2f}" if speed.low < speed.high else "",
        "size": mib(candidate["bytes"]),
        "loss": format_number(candidate["loss"]),
        "measured": bool(candidate.get("measured")),
    }


def _nodes(search: Entry) -> list[dict[str, Any]]:
    """Return the decisions, those that cost most quality first."""
    nodes = sorted(search.get("nodes") or [], key=lambda node: -(node.get("loss") or 0.0))
    return [
        {
            "node": node["node"],
            "op": node.get("op", ""),
            "precision": node["precision"],
            "reason": node.get("reason") or "",
            "loss": "" if node.get("loss") is None else format_number(node["loss"]),
            "gain": "" if node.get("gain_ms") is None else f"{node['gain_ms']:.3g} ms",
            "saved": "" if node.get("bytes_saved") is None else f"{node['bytes_saved'] / 1024:,.0f} KiB",
        }
        for node in nodes
    ]


def _counts(nodes: Sequence[Entry]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node["precision"]] = counts.get(node["precision"], 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _picture(graph: str, search: Entry, candidates: Sequence[Entry], chosen: Entry | None, index: int) -> Markup | None:
    shown = [one for one in candidates if one["loss"] is not None and _speed(one).value is not None]
    if not shown:
        return None
    unit = f"{search['metric']}, {search['unit']}" if search.get("unit") else str(search["metric"])
    points = [
        plots.Candidate(
            _speed(one), one["loss"], one["bytes"], bool(one.get("measured")), bool(one.get("on_front")), chosen=one is chosen
        )
        for one in shown
    ]
    best = (
        "" if chosen is None else f" Chosen: {chosen['label']}, {_speed(chosen).value:.2f} and {format_number(chosen['loss'])}."
    )
    description = f"{len(points)} candidates for {graph}: speed-up against loss ({unit}), larger points for larger files.{best}"
    return plots.search_front(points, unit, f"search-{index}", description)


def _plain(value: Any) -> str:  # noqa: ANN401
    return format_number(value) if isinstance(value, float) else str(value)
