"""What the page of one run shows: report.json, in the order and the words of a reader."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline.metrics.metric_registry import METRICS, in_reading_order, leading_metrics
from pipeline.report.html import plots
from pipeline.report.html.render import mib, ms, signed
from pipeline.report.intervals import difference_interval, metric_interval, worst_samples
from pipeline.report.terminal import format_number

Report = Mapping[str, Any]

VERDICT_ORDER = ("slower", "same", "faster")  # what disappoints is said first


def verdicts(report: Report) -> list[dict[str, Any]]:
    """Return the verdict on each graph in words, slower ones first."""
    found = []
    for graph, measured in report.get("benchmark", {}).items():
        median = measured["speedup"]["median"]
        match measured["verdict"]:
            case "slower":
                words = f"Slower than fp32: {median:.2f} times its speed"
            case "faster":
                words = f"{median:.2f} times as fast as fp32"
            case _:
                words = f"No faster and no slower than fp32: {median:.2f} times its speed"
        found.append({"graph": graph, "kind": measured["verdict"], "words": words, "measured": measured})
    return sorted(found, key=lambda one: VERDICT_ORDER.index(one["kind"]))


def tiles(report: Report) -> list[dict[str, str]]:
    """Return the numbers of the top: a label, the quantized model's value, its interval, and what it is to be read against."""
    found = []
    several = len(report.get("artifacts", [])) > 1
    for artifact in report.get("artifacts", []):
        of = f" of {artifact['graph']}" if several else ""
        share = 100 * artifact["bytes"] / artifact["baseline_bytes"]
        measured = report.get("benchmark", {}).get(artifact["graph"])
        if measured is not None:
            found.append(_latency_tile(of, measured))
        found.append(
            _tile(f"Size{of}", mib(artifact["bytes"]), "", f"{share:.0f} % of fp32’s {mib(artifact['baseline_bytes'])}")
        )
        if measured is not None and measured.get("rtf"):
            found.append(
                _tile(
                    f"Speech{of}", f"{1 / measured['rtf']:.0f} ×", "", f"real time; fp32 {1 / measured['baseline_rtf']:.0f} ×"
                )
            )
    return found + _quality_tiles(report)


def quality(report: Report) -> list[dict[str, Any]]:
    """Return the rows of the table of metrics: what is measured against the truth first."""
    rows = []
    for name, metric in report.get("evaluation", {}).get("metrics", {}).items():
        interval = metric_interval(report, name)
        gap = difference_interval(report, name)
        rows.append({"name": name, "metric": metric, "interval": interval, "gap": gap, "effect": _effect(metric, gap),
                     "against": "fp32" if _is_distance(name, metric) else "the truth"})  # fmt: skip
    first = {name: place for place, name in enumerate(in_reading_order())}
    return sorted(rows, key=lambda row: (row["against"] == "fp32", first.get(row["name"], len(first))))


def worst(report: Report) -> dict[str, Any] | None:
    """Return the samples that quantization changed most, with the metrics that most of them have."""
    found = worst_samples(report)
    if found is None:
        return None
    name, samples = found
    columns = [name, *(key for key in samples[0].values if key != name and key in METRICS and METRICS[key].of_sample)]
    return {"by": name, "columns": columns, "samples": samples, "texts": any(sample.text for sample in samples)}


def node_errors(report: Report) -> list[dict[str, Any]]:
    """Return a picture of the error along each graph, and its worst nodes, where it was measured."""
    found = []
    precisions = {artifact["graph"]: artifact.get("precisions", {}) for artifact in report.get("artifacts", [])}
    for number_, (graph, errors) in enumerate((report.get("evaluation", {}).get("node_errors") or {}).items()):
        known = [error for error in errors if error["sqnr_db"] is not None]
        if not known:
            continue
        quantized = precisions.get(graph, {})
        worst_first = sorted(known, key=lambda error: error["sqnr_db"])
        first, unit = worst_first[0], "SQNR, dB"
        description = (
            f"Signal to quantization noise of {len(errors)} nodes along {graph}, in dB; lowest at {first['node']}: "
            f"{format_number(first['sqnr_db'])}, at the last node {format_number(known[-1]['sqnr_db'])}."
        )
        values = [math.nan if error["sqnr_db"] is None else error["sqnr_db"] for error in errors]
        flags = [error["node"] in quantized for error in errors]
        levels = sorted(error["sqnr_db"] for error in known)
        top = 10.0 * math.ceil(0.1 * levels[int(0.95 * (len(levels) - 1))])  # the nearly exact would press the rest together
        picture = plots.along_graph(values, flags, unit, f"nodes-{number_}", description, top=top)
        worst = [error | {"precision": quantized.get(error["node"], "fp32")} for error in worst_first[:8]]
        found.append(
            {"graph": graph, "picture": picture, "worst": worst, "exact": len(errors) - len(known), "all": len(errors),
                      "clipped": sum(level > top for level in levels), "top": f"{top:.0f}"})  # fmt: skip
    return found


def nodes(report: Report) -> list[dict[str, Any]]:
    """Return each graph's nodes, grouped by how they compute now, or by why they were kept."""
    found = []
    for artifact in report.get("artifacts", []):
        quantized: dict[str, list[str]] = {}
        for node, precision in artifact.get("precisions", {}).items():
            quantized.setdefault(precision, []).append(node)
        kept: dict[str, list[str]] = {}
        for entry in artifact.get("kept", []):
            kept.setdefault(entry["reason"], []).append(entry["node"])
        if quantized or kept:
            found.append(
                {"graph": artifact["graph"], "quantized": quantized, "kept": kept, "kernels": artifact.get("kernels", {})}
            )
    return found


def inputs(report: Report) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the files that a run has read, grouped by their folder."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in report.get("inputs", []):
        folder, _, name = entry["path"].rpartition("/")
        groups.setdefault(folder or ".", []).append(entry | {"name": name})
    return list(groups.items())


def _tile(label: str, value: str, interval: str, against: str, change: str = "", kind: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "interval": interval, "against": against, "change": change, "kind": kind}


def _range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}"


def _latency_tile(of: str, measured: Mapping[str, Any]) -> dict[str, str]:
    """Return the latency at the median length: the ratio of all lengths is not the speed-up."""
    lengths = measured["lengths"]
    one = lengths.get("median") or next(iter(lengths.values()), None)
    if one is None:
        return _tile(f"Latency{of}", ms(measured["quantized_ms"]["p50"]), "", f"fp32 {ms(measured['baseline_ms']['p50'])}")
    heard = f", {one['audio_seconds']:.1f} s of speech" if one["audio_seconds"] else ""
    return _tile(f"Latency{of}", ms(one["quantized_ms"]), "", f"fp32 {ms(one['baseline_ms'])}{heard}")


def _quality_tiles(report: Report) -> list[dict[str, str]]:
    metrics = report.get("evaluation", {}).get("metrics", {})
    leading = [name for name in leading_metrics() if name in metrics]
    truth = next((name for name in leading if not _is_distance(name, metrics[name])), None)
    distance = next((name for name in leading if _is_distance(name, metrics[name])), None)
    found = []
    for name in (truth, distance):
        if name is None:
            continue
        metric, interval, title = metrics[name], metric_interval(report, name), METRICS[name].title or name
        unit = f" {metric['unit']}" if metric["unit"] else ""
        value = "∞" if metric["quantized"] is None else f"{metric['quantized']:.3g}{unit}"
        shown = "" if interval is None else _range(interval.low, interval.high)
        if name == truth:
            gap = difference_interval(report, name)
            effect = _effect(metric, gap) or ""
            change = "" if gap is None else f"{signed(gap.value)}, {effect}"
            kind = effect if effect in ("better", "worse") else ""
            found.append(_tile(title, value, shown, f"fp32 {metric['baseline']:.3g}{unit}", change, kind))
        else:
            found.append(_tile(title, value, shown, METRICS[name].compared))
    return found


def _is_distance(name: str, metric: Mapping[str, Any]) -> bool:
    return METRICS[name].baseline is not None if name in METRICS else metric["baseline"] in (0, None)


def _effect(metric: Mapping[str, Any], gap: Any) -> str | None:  # noqa: ANN401
    """Return what quantization did to a metric against the truth, as far as its paired interval tells."""
    if gap is None:
        return None
    if gap.low <= 0 <= gap.high:
        return "no difference beyond noise"
    return "better" if (gap.value > 0) == metric["higher_is_better"] else "worse"
