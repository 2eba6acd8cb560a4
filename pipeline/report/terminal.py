"""A report as a table in the terminal: the verdict first, then what it rests on."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.record.results import Inspection
from pipeline.report.evaluation_schema import EvaluationReport
from pipeline.report.schema import ArtifactReport, Report, RerunDifferences
from pipeline.report.search_schema import SearchReport
from pipeline.report.verdict import speed_verdict

VERDICT_STYLES = {"faster": "bold green", "slower": "bold red", "same": "bold yellow"}
MIB = 1 << 20


def print_report(report: Report, directory: str, console: Console | None = None) -> None:
    """Print one run's report."""
    (console or Console()).print(Group(*_parts(report, directory)))


def _parts(report: Report, directory: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for graph, measured in (report.benchmark or {}).items():
        interval = f"{measured.speedup.low:.2f}–{measured.speedup.high:.2f}"
        parts.append(Text(f"{report.model} {report.mode}, {graph}: {speed_verdict(measured, loud=True)} ({interval})",
                          style=VERDICT_STYLES[measured.verdict]))  # fmt: skip
    parts += [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    if report.inspect is not None:
        parts.append(_inspection(report.inspect))
    parts += [_search(graph, found) for graph, found in (report.search or {}).items()]
    if report.artifacts is not None:
        parts.append(_sizes_and_speed(report.artifacts, report.benchmark or {}))
    if report.evaluation is not None:
        parts.append(_quality(report.evaluation))
        if len(report.evaluation.outputs) > 1:
            parts.append(_outputs(report.evaluation))
    if report.rerun is not None:
        parts.append(_rerun(report.rerun))
    parts += [
        Text(f"{what}: {directory}/{file}", style="dim", no_wrap=True, overflow="ignore")
        for what, file in (("report", "report.json"), ("page", "report.html"))
    ]
    return parts


def _inspection(inspected: Mapping[str, Inspection]) -> Table:
    table = Table(title="Graph", title_justify="left")
    for column in ("graph", "nodes", "opset", "parameters", "MACs", "time goes to"):
        table.add_column(column, justify="right" if column in ("nodes", "opset", "parameters", "MACs") else "left")
    for graph, found in inspected.items():
        shares = ", ".join(f"{op} {100 * share:.0f} %" for op, share in list(found.time_share.items())[:4])
        table.add_row(
            graph, f"{found.nodes:,}", str(found.opset), f"{found.parameters / 1e6:.2f} M",
            f"{sum(found.macs.values()) / 1e6:,.0f} M", shares,
        )  # fmt: skip
    table.caption = "\n".join(
        f"advised for {graph}: {found.advised_mode}, because {'; '.join(found.reasons)}" for graph, found in inspected.items()
    )
    table.caption_justify = "left"
    return table


def _search(graph: str, found: SearchReport) -> Table:
    """Return the front that a search has found, the chosen candidate marked."""
    seconds = "" if found.seconds is None else f", {found.seconds:.0f} s"
    early = ", stopped early" if found.stopped_early else ""
    table = Table(title=f"Search for {graph}: {len(found.candidates)} candidates{seconds}{early}", title_justify="left")
    for column in ("", "candidate", "speed", "size", found.metric):
        table.add_column(column, justify="left" if column in ("", "candidate") else "right")
    front = [candidate for candidate in found.candidates if candidate.on_front or candidate.index == found.chosen]
    for candidate in sorted(front, key=lambda candidate: math.inf if candidate.loss is None else candidate.loss):
        chosen = candidate.index == found.chosen
        speed = "" if candidate.speedup is None else f"{candidate.speedup:.2f}"
        table.add_row("chosen" if chosen else "", candidate.label, speed, _mib(candidate.bytes),
                      f"{change(candidate.loss)} {found.unit}", style="bold" if chosen else None)  # fmt: skip
    return table


def _sizes_and_speed(artifacts: Sequence[ArtifactReport], timed: Mapping[str, GraphBenchmark]) -> Table:
    table = Table(title="Size and speed", title_justify="left")
    for column in ("graph", "", "fp32", "quantized", "ratio"):
        table.add_column(column, justify="left" if column in ("graph", "") else "right")
    for artifact in artifacts:
        table.add_row(artifact.graph, "size", _mib(artifact.baseline_bytes), _mib(artifact.bytes),
                      f"{artifact.bytes / artifact.baseline_bytes:.2f}")  # fmt: skip
        measured = timed.get(artifact.graph)
        if measured is None:
            continue
        _add_latency(table, measured)
        if (check := measured.self_check) is not None:
            table.add_row("", "fp32 against itself", "", "", f"{check.median:.2f} ({check.low:.2f}–{check.high:.2f})")
        for other in measured.other_threads:
            _add_latency(table, other)
        table.add_row("", "latency, 99 %", f"{measured.baseline_ms.p99:.2f} ms", f"{measured.quantized_ms.p99:.2f} ms", "")
        if measured.rtf is not None and measured.baseline_rtf is not None:
            table.add_row("", "real-time factor", f"{measured.baseline_rtf:.4f}", f"{measured.rtf:.4f}", "")
        table.add_row("", "load", f"{measured.baseline_load_ms:.0f} ms", f"{measured.quantized_load_ms:.0f} ms", "")
        table.add_row("", "peak memory", _mib(measured.baseline_peak_bytes), _mib(measured.quantized_peak_bytes),
                      f"{measured.quantized_peak_bytes / measured.baseline_peak_bytes:.2f}")  # fmt: skip
    return table


def _add_latency(table: Table, measured: GraphBenchmark) -> None:
    table.add_row("", f"latency, median, {measured.threads} thread(s)", f"{measured.baseline_ms.p50:.2f} ms",
                  f"{measured.quantized_ms.p50:.2f} ms", f"{measured.speedup.median:.2f} times as fast")  # fmt: skip


def _quality(evaluation: EvaluationReport) -> Table:
    table = Table(title=f"Quality on {evaluation.samples} samples", title_justify="left")
    for column in ("metric", "fp32", "quantized", "95 % interval", "unit", "better is"):
        table.add_column(column, justify="right" if column in ("fp32", "quantized") else "left")
    for name, metric in evaluation.metrics.items():
        better = "higher" if metric.higher_is_better else "lower"
        some = metric.samples is not None and metric.samples != evaluation.samples
        shown = f"{name}, of {metric.samples} samples" if some else name
        if metric.output is not None:  # of several outputs, the worst
            shown += f" ({metric.output}{', fed back as state' if metric.output in evaluation.states else ''})"
        ends = "" if metric.interval is None else f"{format_number(metric.interval.low)}–{format_number(metric.interval.high)}"
        table.add_row(shown, format_number(metric.baseline), format_number(metric.quantized), ends, metric.unit, better)
    return table


def _outputs(evaluation: EvaluationReport) -> Table:
    """Return each output with the metrics that it has, and the input that it is fed back to."""
    metrics = list(dict.fromkeys(metric for found in evaluation.outputs.values() for metric in found))
    table = Table(title="Outputs, each against fp32's", title_justify="left")
    for column in ("output", *metrics):
        table.add_column(column, justify="left" if column == "output" else "right")
    for name, found in evaluation.outputs.items():
        shown = f"{name} (fed back as {evaluation.states[name]})" if name in evaluation.states else name
        table.add_row(shown, *(format_number(found[metric]) if metric in found else "" for metric in metrics))
    if evaluation.states:
        table.caption = "What is fed back goes through the graph again at the next call, and its error with it."
        table.caption_justify = "left"
    return table


def _rerun(rerun: RerunDifferences) -> Table:
    table = Table(title=f"Against {rerun.of}", title_justify="left", show_header=False)
    table.add_row("inputs", _listed(rerun.inputs_changed, "unchanged"))
    table.add_row("environment", _listed(rerun.environment_changed, "unchanged"))
    for file, identical in rerun.artifacts_identical.items():
        table.add_row(file, "bit-identical" if identical else "DIFFERS")
    moved = [f"{name} {format_number(was)} -> {format_number(now)}" for name, (was, now) in rerun.metrics_moved.items()]
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
