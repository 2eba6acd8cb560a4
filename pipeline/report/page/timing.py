"""What the page of one run shows of size, speed, and where the time goes."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipeline.report.page import plots
from pipeline.report.page.render import mib, ms
from pipeline.report.table import number

SHOWN_OPS = 8

Report = Mapping[str, Any]


def speed(report: Report) -> list[dict[str, Any]]:
    """Return size and speed of each graph: rows of a table, and pictures of speed-up and latency per length."""
    found: list[dict[str, Any]] = []
    for artifact in report.get("artifacts", []):
        graph, before, after = artifact["graph"], artifact["baseline_bytes"], artifact["bytes"]
        measured = report.get("benchmark", {}).get(graph)
        rows = [("Size", "", mib(before), mib(after), _share(after, before))]
        pictures: list[Markup] = []
        if measured is not None:
            rows += _latency_rows(measured)
            pictures = _speed_pictures(graph, measured, len(found))
        found.append(
            {"graph": graph, "file": artifact["file"], "sha256": artifact["sha256"], "rows": rows, "pictures": pictures}
        )
    return found


def time_by_op(report: Report) -> list[dict[str, Any]]:
    """Return where the time of each graph goes, by operator; also of the quantized graph where the report knows."""
    found: list[dict[str, Any]] = []
    for number_, (graph, seen) in enumerate(report.get("inspect", {}).items()):
        before, after = seen.get("time_share") or {}, seen.get("quantized_time_share") or {}
        if not before:
            continue
        measured = report.get("benchmark", {}).get(graph)
        scale = (1.0, 1.0)
        unit = "% of the time of one inference"
        if after and measured is not None:
            scale = (measured["baseline_ms"]["p50"] / 100, measured["quantized_ms"]["p50"] / 100)
            unit = "ms of the median inference"
        shares = sorted({*before, *after}, key=lambda op: -max(before.get(op, 0.0), after.get(op, 0.0)))
        names, rest = shares[:SHOWN_OPS], shares[SHOWN_OPS:]
        columns = []
        for side, factor in zip((before, after), scale, strict=True):
            values = [100 * factor * side.get(op, 0.0) for op in names]
            columns.append([*values, 100 * factor * sum(side.get(op, 0.0) for op in rest)] if rest else values)
        labels = [*names, f"{len(rest)} others"] if rest else names
        lead = ", ".join(f"{label} {value:.3g}" for label, value in list(zip(labels, columns[0], strict=True))[:3])
        description = f"Time of {graph} by operator, in {unit}; fp32: {lead}."
        name = f"ops-{number_}"
        if after:
            picture = plots.pairs(labels, columns[0], columns[1], unit, name, description)
        else:
            picture = plots.bars(labels, columns[0], unit, name, description)
        found.append({"graph": graph, "picture": picture, "paired": bool(after), "seen": seen})
    return found


def _share(after: float, before: float) -> str:
    return f"{100 * after / before:.0f} %" if before else ""


def _latency_rows(measured: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    rows = [
        ("Latency", label, ms(measured["baseline_ms"][key]), ms(measured["quantized_ms"][key]),
         _share(measured["quantized_ms"][key], measured["baseline_ms"][key]))
        for key, label in (("p50", "median"), ("p90", "90th percentile"), ("p99", "99th percentile"))
    ]  # fmt: skip
    if measured.get("rtf") is not None:
        before, after = measured["baseline_rtf"], measured["rtf"]
        rows.append(("Real-time factor", "below 1 is faster than speech", number(before), number(after), _share(after, before)))
    for label, key in (("Time to load", "load_ms"), ("First inference", "first_run_ms")):
        before, after = measured[f"baseline_{key}"], measured[f"quantized_{key}"]
        rows.append((label, "", ms(before), ms(after), _share(after, before)))
    before, after = measured["baseline_peak_bytes"], measured["quantized_peak_bytes"]
    runtime = measured.get("runtime_peak_bytes")
    note = f"of which {mib(runtime)} without any model" if runtime else ""
    rows.append(("Peak memory of the process", note, mib(before), mib(after), _share(after, before)))
    return rows


def _speed_pictures(graph: str, measured: Mapping[str, Any], number_: int) -> list[Markup]:
    found = measured["speedup"]
    rows = [plots.Range("quantized", found["median"], found["low"], found["high"])]
    if check := measured.get("self_check"):
        rows.append(plots.Range("fp32 against itself", check["median"], check["low"], check["high"]))
    told = "; ".join(f"{row.label} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)
    pictures = [
        plots.speedups(rows, f"speedup-{number_}", f"Speed of {graph} in multiples of fp32’s, with 95 % intervals: {told}.")
    ]
    lengths = measured["lengths"]
    labels = [f"{name}, {one['audio_seconds']:.1f} s" if one["audio_seconds"] else name for name, one in lengths.items()]
    before, after = ([one[key] for one in lengths.values()] for key in ("baseline_ms", "quantized_ms"))
    if lengths:
        told = "; ".join(f"{label}: {a:.3g} and {b:.3g}" for label, a, b in zip(labels, before, after, strict=True))
        description = f"Median latency of {graph} in ms by length of the input, fp32 and quantized: {told}."
        pictures.append(plots.pairs(labels, before, after, "median latency, ms", f"lengths-{number_}", description))
    return pictures
