"""What the page of one run shows of size, speed, and where the time goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.report.html import plots
from pipeline.report.html.render import mib, ms
from pipeline.report.terminal import format_number

SHOWN_OPS = 8  # in the picture
TABLE_OPS = 14

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
    """Return where the time of each graph goes, by operator: in both models where both were profiled, else in fp32."""
    found: list[dict[str, Any]] = []
    inspected, timed = report.get("inspect", {}), report.get("benchmark", {})
    for number_, graph in enumerate(dict.fromkeys((*inspected, *timed))):
        seen = inspected.get(graph)
        ops = timed.get(graph, {}).get("op_times")
        before = ops["baseline_ms"] if ops else {op: 100 * share for op, share in (seen or {}).get("time_share", {}).items()}
        after = ops["quantized_ms"] if ops else {}
        if not before:
            continue
        unit = f"ms of one inference, sample {ops['sample']}" if ops else "% of the time of one inference"
        names = sorted({*before, *after}, key=lambda op: -max(before.get(op, 0.0), after.get(op, 0.0)))
        shown, rest = names[:SHOWN_OPS], names[SHOWN_OPS:]
        labels = [*shown, f"{len(rest)} others"] if rest else shown
        columns = [
            [*(side.get(op, 0.0) for op in shown), *([sum(side.get(op, 0.0) for op in rest)] if rest else [])]
            for side in (before, after)
        ]
        lead = ", ".join(f"{label} {value:.3g}" for label, value in list(zip(labels, columns[0], strict=True))[:3])
        description = f"Time of {graph} by operator, in {unit}; fp32: {lead}."
        name = f"ops-{number_}"
        if after:
            picture = plots.pairs(labels, columns[0], columns[1], unit, name, description)
        else:
            picture = plots.bars(labels, columns[0], unit, name, description)
        rows = _op_rows(names, before, after) if ops else []
        found.append({"graph": graph, "picture": picture, "paired": bool(after), "seen": seen, "rows": rows,
                      "trace": ops["trace"] if ops else None})  # fmt: skip
    return found


def _op_rows(names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return operator, ms in fp32 and in the quantized model, the smaller ones as one row, and all of them as the last."""
    rest = names[TABLE_OPS:] if len(names) > TABLE_OPS + 1 else []
    rows: list[tuple[str, Sequence[str]]] = [(op, [op]) for op in names[: len(names) - len(rest)]]
    rows += [(f"{len(rest)} others", rest)] if rest else []
    rows.append(("all", names))

    def shown(times: Mapping[str, float], ops: Sequence[str]) -> str:
        total = sum(times[op] for op in ops if op in times)
        return "–" if not any(op in times for op in ops) else "< 0.01" if total < 0.005 else f"{total:.2f}"

    return [(label, shown(before, ops), shown(after, ops)) for label, ops in rows]


def _share(after: float, before: float) -> str:
    return f"{100 * after / before:.0f} %" if before else ""


def _latency_rows(measured: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    rows = [
        ("Latency", label, ms(measured["baseline_ms"][key]), ms(measured["quantized_ms"][key]),
         _share(measured["quantized_ms"][key], measured["baseline_ms"][key]))
        for key, label in (("p50", "median"), ("p90", "90th percentile"), ("p99", "99th percentile"))
    ]  # fmt: skip
    for other in measured.get("other_threads") or ():
        before, after = other["baseline_ms"]["p50"], other["quantized_ms"]["p50"]
        rows.append(("Latency", f"median, {other['threads']} threads", ms(before), ms(after), _share(after, before)))
    if measured.get("rtf") is not None:
        before, after = measured["baseline_rtf"], measured["rtf"]
        rows.append(
            (
                "Real-time factor",
                "below 1 is faster than speech",
                format_number(before),
                format_number(after),
                _share(after, before),
            )
        )
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
    others = measured.get("other_threads") or ()
    own = f"{measured['threads']} threads" if measured["threads"] > 1 else "1 thread" if others else "quantized"
    rows = [plots.Range(own, found["median"], found["low"], found["high"])]
    for other in others:
        speedup = other["speedup"]
        rows.append(plots.Range(f"{other['threads']} threads", speedup["median"], speedup["low"], speedup["high"]))
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
