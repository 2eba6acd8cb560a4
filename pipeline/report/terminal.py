"""A report as a table in the terminal: the verdict first, then what it rests on."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

VERDICT_STYLES = {"faster": "bold green", "slower": "bold red", "same": "bold yellow"}
MIB = 1 << 20


def print_report(report: dict[str, Any], directory: str, console: Console | None = None) -> None:
    """Print one run's report."""
    (console or Console()).print(Group(*_parts(report, directory)))


def headline(report: dict[str, Any], graph: str) -> str:
    """Return the verdict on one graph in words: slower than fp32 is said as plainly as faster."""
    speedup = report["benchmark"][graph]["speedup"]
    verdict = report["benchmark"][graph]["verdict"]
    interval = f"{speedup['low']:.2f}–{speedup['high']:.2f}"
    match verdict:
        case "faster":
            return f"FASTER than fp32: {speedup['median']:.2f} times its speed ({interval})"
        case "slower":
            return f"SLOWER than fp32: only {speedup['median']:.2f} times its speed ({interval})"
        case _:
            return f"NO FASTER AND NO SLOWER than fp32: {speedup['median']:.2f} times its speed ({interval})"


def _parts(report: dict[str, Any], directory: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for graph, measured in report.get("benchmark", {}).items():
        parts.append(Text(f"{report['model']} {report['mode']}, {graph}: {headline(report, graph)}",
                          style=VERDICT_STYLES[measured["verdict"]]))  # fmt: skip
    parts += [Text(f"warning: {warning}", style="yellow") for warning in report["warnings"]]
    if "inspect" in report:
        parts.append(_inspection(report))
    parts += [_search(graph, found) for graph, found in report.get("search", {}).items()]
    if "artifacts" in report:
        parts.append(_sizes_and_speed(report))
    if "evaluation" in report:
        parts.append(_quality(report))
        if len(report["evaluation"]["outputs"]) > 1:
            parts.append(_outputs(report["evaluation"]))
    if "rerun" in report:
        parts.append(_rerun(report["rerun"]))
    parts += [
        Text(f"{what}: {directory}/{file}", style="dim", no_wrap=True, overflow="ignore")
        for what, file in (("report", "report.json"), ("page", "report.html"))
    ]
    return parts


def _inspection(report: dict[str, Any]) -> Table:
    table = Table(title="Graph", title_justify="left")
    for column in ("graph", "nodes", "opset", "parameters", "MACs", "time goes to"):
        table.add_column(column, justify="right" if column in ("nodes", "opset", "parameters", "MACs") else "left")
    for graph, found in report["inspect"].items():
        shares = ", ".join(f"{op} {100 * share:.0f} %" for op, share in list(found["time_share"].items())[:4])
        table.add_row(
            graph, f"{found['nodes']:,}", str(found["opset"]), f"{found['parameters'] / 1e6:.2f} M",
            f"{sum(found['macs'].values()) / 1e6:,.0f} M", shares,
        )  # fmt: skip
    table.caption = "\n".join(
        f"advised for {graph}: {found['advised_mode']}, because {'; '.join(found['reasons'])}"
        for graph, found in report["inspect"].items()
    )
    table.caption_justify = "left"
    return table


def _search(graph: str, found: dict[str, Any]) -> Table:
    """Return the front that a search has found, the chosen candidate marked."""
    table = Table(
        title=f"Search for {graph}: {len(found['candidates'])} candidates, {found['seconds']:.0f} s", title_justify="left"
    )
    for column in ("", "candidate", "speed", "size", found["metric"]):
        table.add_column(column, justify="left" if column in ("", "candidate") else "right")
    front = [c for c in found["candidates"] if c["on_front"] or c["index"] == found["chosen"]]
    for candidate in sorted(front, key=lambda c: c["loss"]):
        chosen = candidate["index"] == found["chosen"]
        table.add_row("chosen" if chosen else "", candidate["label"], f"{candidate['speedup']:.2f}", _mib(candidate["bytes"]),
                      f"{change(candidate['loss'])} {found['unit']}", style="bold" if chosen else None)  # fmt: skip
    return table


def _sizes_and_speed(report: dict[str, Any]) -> Table:
    table = Table(title="Size and speed", title_justify="left")
    for column in ("graph", "", "fp32", "quantized", "ratio"):
        table.add_column(column, justify="left" if column in ("graph", "") else "right")
    for artifact in report["artifacts"]:
        graph = artifact["graph"]
        table.add_row(graph, "size", _mib(artifact["baseline_bytes"]), _mib(artifact["bytes"]),
                      f"{artifact['bytes'] / artifact['baseline_bytes']:.2f}")  # fmt: skip
        measured = report.get("benchmark", {}).get(graph)
        if measured is None:
            continue
        speedup = measured["speedup"]
        table.add_row("", f"latency, median, {measured['threads']} thread(s)", f"{measured['baseline_ms']['p50']:.2f} ms",
                      f"{measured['quantized_ms']['p50']:.2f} ms", f"{speedup['median']:.2f} times as fast")  # fmt: skip
        if (check := measured["self_check"]) is not None:
            table.add_row("", "fp32 against itself", "", "", f"{check['median']:.2f} ({check['low']:.2f}–{check['high']:.2f})")
        for other in measured["other_threads"]:
            before, after = (f"{other[side]['p50']:.2f} ms" for side in ("baseline_ms", "quantized_ms"))
            ratio = f"{other['speedup']['median']:.2f} times as fast"
            table.add_row("", f"latency, median, {other['threads']} thread(s)", before, after, ratio)
        table.add_row("", "latency, 99 %", f"{measured['baseline_ms']['p99']:.2f} ms",
                      f"{measured['quantized_ms']['p99']:.2f} ms", "")  # fmt: skip
        if measured["rtf"] is not None:
            table.add_row("", "real-time factor", f"{measured['baseline_rtf']:.4f}", f"{measured['rtf']:.4f}", "")
        table.add_row("", "load", f"{measured['baseline_load_ms']:.0f} ms", f"{measured['quantized_load_ms']:.0f} ms", "")
        table.add_row("", "peak memory", _mib(measured["baseline_peak_bytes"]), _mib(measured["quantized_peak_bytes"]),
                      f"{measured['quantized_peak_bytes'] / measured['baseline_peak_bytes']:.2f}")  # fmt: skip
    return table


def _quality(report: dict[str, Any]) -> Table:
    evaluation = report["evaluation"]
    table = Table(title=f"Quality on {evaluation['samples']} samples", title_justify="left")
    for column in ("metric", "fp32", "quantized", "95 % interval", "unit", "better is"):
        table.add_column(column, justify="right" if column in ("fp32", "quantized") else "left")
    for name, metric in evaluation["metrics"].items():
        better = "higher" if metric["higher_is_better"] else "lower"
        of = metric.get("samples", evaluation["samples"])
        shown = name if of == evaluation["samples"] else f"{name}, of {of} samples"
        if (output := metric.get("output")) is not None:  # of several outputs, the worst
            fed_back = ", fed back as state" if output in evaluation.get("states", {}) else ""
            shown += f" ({output}{fed_back})"
        interval = metric.get("interval")
        ends = "" if interval is None else f"{format_number(interval['low'])}–{format_number(interval['high'])}"
        table.add_row(
            shown, format_number(metric["baseline"]), format_number(metric["quantized"]), ends, metric["unit"], better
        )
    return table


def _outputs(evaluation: dict[str, Any]) -> Table:
    """Return each output with the metrics that it has, and the input that it is fed back to."""
    outputs, states = evaluation["outputs"], evaluation.get("states", {})
    metrics = list(dict.fromkeys(metric for found in outputs.values() for metric in found))
    table = Table(title="Outputs, each against fp32's", title_justify="left")
    for column in ("output", *metrics):
        table.add_column(column, justify="left" if column == "output" else "right")
    for name, found in outputs.items():
        shown = f"{name} (fed back as {states[name]})" if name in states else name
        table.add_row(shown, *(format_number(found[metric]) if metric in found else "" for metric in metrics))
    if states:
        table.caption = "What is fed back goes through the graph again at the next call, and its error with it."
        table.caption_justify = "left"
    return table


def _rerun(rerun: dict[str, Any]) -> Table:
    table = Table(title=f"Against {rerun['of']}", title_justify="left", show_header=False)
    table.add_row("inputs", _listed(rerun["inputs_changed"], "unchanged"))
    table.add_row("environment", _listed(rerun["environment_changed"], "unchanged"))
    for file, identical in rerun["artifacts_identical"].items():
        table.add_row(file, "bit-identical" if identical else "DIFFERS")
    moved = [f"{name} {format_number(was)} -> {format_number(now)}" for name, (was, now) in rerun["metrics_moved"].items()]
    table.add_row("metrics", _listed(moved, "none moved"))
    return table


def _listed(entries: list[str], empty: str) -> str:
    return "\n".join(entries) or empty


def format_number(value: float | None) -> str:
    """Return a value in four significant digits; an infinite one arrives as null."""
    return "∞" if value is None or value == float("inf") else f"{value:.4g}"


def change(value: float | None) -> str:
    """Return a change in four significant digits, with its sign."""
    return format_number(value) if value is not None and value <= 0 else f"+{format_number(value)}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.2f} MiB"
