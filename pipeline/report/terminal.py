"""A report in the terminal: the verdict first, then what it rests on, at the end where the files are."""

import math
from collections.abc import Callable, Mapping

from rich.console import Console, RenderableType
from rich.text import Text

from pipeline.measure.benchmark_result import GraphBenchmark, factor
from pipeline.metrics.metric_registry import SIGNAL_TO_NOISE, in_reading_order
from pipeline.record.console import Paragraph, result_console
from pipeline.record.results import Inspection, Outcome
from pipeline.report.doctor_words import doctor_lines
from pipeline.report.evaluation_schema import EvaluationReport, MetricResult
from pipeline.report.fitted_table import Column, FittedTable
from pipeline.report.schema import ArtifactReport, Report, RerunDifferences
from pipeline.report.search_schema import SearchReport
from pipeline.report.verdict import (
    VERDICT_ORDER,
    integer_verdict,
    quality_outcome,
    quality_verdict,
    size_verdict,
    speed_verdict,
)

VERDICT_STYLES = {"faster": "bold green", "slower": "bold red", "same": "bold yellow"}
QUALITY_STYLES = {
    Outcome.within: "bold green", Outcome.beyond: "bold red",
    Outcome.undecided: "bold yellow", Outcome.unmeasured: "bold yellow",
}  # fmt: skip
MIB = 1 << 20
FEW_MILLIONS = 10  # multiply-accumulates of models for single frames
SEEN_MS, SLOWER_LOAD = 50.0, 0.25  # a longer load is told of: a moment, and more than it varies
SLOW_LOAD = "longer than fp32, at each start of a program: ONNX Runtime optimises the graph then"
MANY_PAIRS = 100  # of fewer, the 99th percentile is the slowest one


def print_report(report: Report, directory: str, console: Console | None = None, *, brief: bool = False) -> None:
    """Print one run's report to standard output, or to another console.

    Args:
        report: of the run.
        directory: of the run.
        console: another one; None: standard output.
        brief: of a run that was quantized the verdict, the warnings and the files alone: it is one of several.
    """
    console = console or result_console()
    if console.is_terminal:
        console.print()  # apart from the log
    for part in _brief(report, directory) if brief and report.artifacts else _parts(report, directory):
        console.print(part, crop=False)


def _brief(report: Report, directory: str) -> list[RenderableType]:
    warnings = [Paragraph(f"warning: {warning}", "yellow") for warning in report.warnings]
    again = [] if report.rerun is None else _rerun(report.rerun)
    return [*_verdict(report), *warnings, *again, *_files(report, directory)]


def _parts(report: Report, directory: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    parts += _verdict(report)
    parts += [Paragraph(f"warning: {warning}", "yellow") for warning in report.warnings]
    parts += [Text()] if parts else []
    if report.inspect is not None:
        parts.append(_inspection(report.inspect, states=report.doctor is None))  # the doctor tells of them
    if report.doctor is not None:
        parts += [*(Paragraph(line) for line in doctor_lines(report)), Text()]
    parts += [_search(graph, found) for graph, found in (report.search or {}).items()]
    parts += [_size_and_speed(artifact, (report.benchmark or {}).get(artifact.graph)) for artifact in report.artifacts or []]
    if report.evaluation is not None:
        parts.append(_quality(report.evaluation))
        if len(report.evaluation.outputs) > 1:
            parts.append(_outputs(report.evaluation))
        if report.evaluation.over_time:
            parts.append(_over_time(report.evaluation))
    if report.package is not None and report.package.trial is not None:
        parts += [Paragraph(report.package.trial.words), Text()]
    if report.rerun is not None:
        parts += _rerun(report.rerun)
    if found := [f"{kind} {use.found} of {use.found + use.made}" for kind, use in (report.cache or {}).items() if use.found]:
        parts.append(Paragraph(f"from the cache: {', '.join(found)}", "dim"))
    parts += [Paragraph(f"note: {note}", "dim") for note in report.notes]
    parts += [Text()] if found or report.notes else []
    return [*parts, *_try_next(report), *_files(report, directory)]


def _try_next(report: Report) -> list[RenderableType]:
    """Return the commands that most likely improve the run, whole, each on a line of its own."""
    if not report.try_next:
        return []
    lines: list[RenderableType] = [Paragraph("Try next:", "bold")]
    for suggestion in report.try_next:
        command = Paragraph(f"  {suggestion.command}", whole=True)  # a line that is broken cannot be pasted
        lines += [command, Paragraph(f"      {suggestion.reason}", "dim")]
    return [*lines, Text()]


def _verdict(report: Report) -> list[RenderableType]:
    """Return the lines of the verdict: quality, speed, size. A model beyond its limit of quality is praised for nothing."""
    if not report.artifacts:
        return []
    outcome = quality_outcome(report)
    lines: list[RenderableType] = [Paragraph(f"{report.model} {report.mode}", "bold")]
    if outcome is not None:
        lines.append(Paragraph(f"quality: {quality_verdict(report, loud=True)}", QUALITY_STYLES[outcome]))
    for graph, measured in sorted((report.benchmark or {}).items(), key=lambda pair: VERDICT_ORDER.index(pair[1].verdict)):
        same = measured.verdict == "same"
        interval = "" if same else f" ({factor(measured.speedup.low)}–{factor(measured.speedup.high)})"
        praised = measured.verdict == "faster" and outcome is Outcome.beyond
        lines.append(Paragraph(f"speed of {graph}: {speed_verdict(measured, loud=True)}{interval}",
                          "bold" if praised else VERDICT_STYLES[measured.verdict]))  # fmt: skip
    lines.append(Paragraph(f"size: {size_verdict(report)}"))
    if (integers := integer_verdict(report)) is not None:
        lines.append(Paragraph(f"in integers: {integers}"))
    return lines


def _files(report: Report, directory: str) -> list[RenderableType]:
    """Return where the results are: a line for each file, which is the last thing that a run says."""
    models = [artifact.file for artifact in report.artifacts or []]
    named = [*(("model", file) for file in models), ("report", "report.json"), ("page", "report.html")]
    if report.doctor is not None:
        named.insert(0, ("script", report.doctor.script))
    if report.package is not None:
        named.append(("package", report.package.directory))
    return [Paragraph(f"{what}: {directory}/{file}") for what, file in named]


def _inspection(inspected: Mapping[str, Inspection], *, states: bool) -> FittedTable:
    table = FittedTable(
        "Graph",
        (
            Column("graph", left=True, names=True), Column("nodes"), Column("opset"), Column("parameters"), Column("MACs"),
            Column("time goes to", left=True),
        ),
    )  # fmt: skip
    for graph, found in inspected.items():
        shares = ", ".join(f"{op} {100 * share:.0f} %" for op, share in list(found.time_share.items())[:4])
        millions = sum(found.macs.values()) / 1e6
        macs = f"{millions:,.0f} M" if millions >= FEW_MILLIONS else f"{millions:.2g} M" if found.time_share else "-"
        table.add(graph, f"{found.nodes:,}", str(found.opset), f"{found.parameters / 1e6:.2f} M", macs, shares)
        table.captions += [f"{graph}: {line}" for line in found.advice_on_states if states]
        table.captions.append(f"advised for {graph}: {found.advised_mode}, because {'; '.join(found.reasons)}")
    machines = dict.fromkeys(found.processor for found in inspected.values() if found.processor)
    table.captions += [f"this machine: {machine}" for machine in machines]
    return table


def _search(graph: str, found: SearchReport) -> FittedTable:
    """Return the front that a search has found, the chosen candidate marked."""
    seconds = "" if found.seconds is None else f", {found.seconds:.0f} s"
    early = ", stopped early" if found.stopped_early else ""
    several = "s" if len(found.candidates) > 1 else ""
    table = FittedTable(
        f"Search for {graph}: {len(found.candidates)} candidate{several}{seconds}{early}",
        (
            Column("candidate", left=True, names=True), Column("", left=True, names=True), Column("speed"), Column("size"),
            Column(f"loss of {found.metric}"),
        ),
    )  # fmt: skip
    table.captions += [f"timed on {found.timed_on}"] if found.timed_on else []
    front = [candidate for candidate in found.candidates if candidate.on_front or candidate.index == found.chosen]
    for candidate in sorted(front, key=lambda candidate: math.inf if candidate.loss is None else candidate.loss):
        chosen = candidate.index == found.chosen
        speed = "not timed" if candidate.speedup is None else f"{candidate.speedup:.2f}"
        loss = f"{change(candidate.loss)} {found.unit}" if candidate.scored else "not measured"
        table.add(candidate.label, "chosen" if chosen else "", speed, _mib(candidate.bytes), loss,
                  style="bold" if chosen else "")  # fmt: skip
    return table


def _size_and_speed(artifact: ArtifactReport, measured: GraphBenchmark | None) -> FittedTable:
    table = FittedTable(
        f"Size and speed of {artifact.graph}",
        (Column("", left=True, names=True), Column("fp32"), Column("quantized"), Column("ratio")),
    )
    table.add("size", _mib(artifact.baseline_bytes), _mib(artifact.bytes), f"{artifact.bytes / artifact.baseline_bytes:.2f}")
    for title, shares in (("weights", artifact.weights), ("multiplications", artifact.multiplications or {})):
        table.captions += [f"{title}: {shares_words(shares)}"] if shares else []
    if artifact.runtime:
        table.captions.append(f"runs on ONNX Runtime {artifact.runtime} ({artifact.runtime_because})")
    if measured is None:
        return table
    _add_latency(table, measured)
    if (check := measured.self_check) is not None:
        table.add("fp32 against itself", "", "", f"{check.median:.2f} ({factor(check.low)}–{factor(check.high)})")
    for other in measured.other_threads:
        _add_latency(table, other)
    rare, share = ("p99", 99) if knows_p99(measured) else ("p90", 90)
    slow = [f"{getattr(latency, rare):.2f} ms" for latency in (measured.baseline_ms, measured.quantized_ms)]
    table.add(f"latency, {share} %", *slow, "")
    if measured.rtf is not None and measured.baseline_rtf is not None:
        table.add("real-time factor", f"{measured.baseline_rtf:.4f}", f"{measured.rtf:.4f}", "")
    load = [measured.baseline_load_ms, measured.quantized_load_ms]
    table.add("load", *(f"{spent:.0f} ms" for spent in load), f"{load[1] / load[0]:.2f}")
    if loads_slowly(measured):
        table.captions.append(SLOW_LOAD)
    table.add("peak memory", _mib(measured.baseline_peak_bytes), _mib(measured.quantized_peak_bytes),
              f"{measured.quantized_peak_bytes / measured.baseline_peak_bytes:.2f}")  # fmt: skip
    return table


def knows_p99(measured: GraphBenchmark) -> bool:
    """Whether so much was timed that the 99th percentile is not just the slowest inference."""
    return measured.pairs >= MANY_PAIRS


def loads_slowly(measured: GraphBenchmark) -> bool:
    """Whether a session of the quantized model takes so much longer to open that a user would see it."""
    longer_ms = measured.quantized_load_ms - measured.baseline_load_ms
    return longer_ms >= SEEN_MS and longer_ms >= SLOWER_LOAD * measured.baseline_load_ms


def _add_latency(table: FittedTable, measured: GraphBenchmark) -> None:
    threads = f"{measured.threads} thread{'s' if measured.threads > 1 else ''}"
    found = measured.speedup
    speed = f"{factor(found.low)}–{factor(found.high)}" if measured.verdict == "same" else f"{found.median:.2f}"
    table.add(f"latency, {threads}", f"{measured.baseline_ms.p50:.2f} ms", f"{measured.quantized_ms.p50:.2f} ms",
              f"{speed} times as fast")  # fmt: skip


def _quality(evaluation: EvaluationReport) -> FittedTable:
    table = FittedTable(
        f"Quality on {evaluation.samples} samples",
        (
            Column("metric", left=True, names=True), Column("fp32"), Column("quantized"), Column("95 % interval", left=True),
            Column("unit", left=True), Column("better is", left=True, optional=True),
        ),
    )  # fmt: skip
    for name, metric in ordered(evaluation.metrics).items():
        some = metric.samples is not None and metric.samples != evaluation.samples
        shown = f"{name}, of {metric.samples} samples" if some else name
        if metric.output is not None:  # of several outputs, the worst
            shown += f" ({metric.output}{', fed back as state' if metric.output in evaluation.states else ''})"
        ends = "" if metric.interval is None else f"{format_number(metric.interval.low)}–{format_number(metric.interval.high)}"
        better = "higher" if metric.higher_is_better else "lower"
        table.add(shown, format_number(metric.baseline), format_number(metric.quantized), ends, metric.unit, better)
    return table


def ordered(metrics: Mapping[str, MetricResult]) -> dict[str, MetricResult]:
    """Return metrics in the order in which a report is read: that of the task first."""
    order = {name: place for place, name in enumerate(in_reading_order())}
    return {name: metrics[name] for name in sorted(metrics, key=lambda name: order.get(name, len(order)))}


def _outputs(evaluation: EvaluationReport) -> FittedTable:
    """Return each output with the metrics that it has, and the input that it is fed back to."""
    metrics = list(dict.fromkeys(metric for found in evaluation.outputs.values() for metric in found))
    columns = (Column("output", left=True, names=True), *(Column(name) for name in metrics))
    table = FittedTable("Outputs, each against fp32's", columns)
    shown_states = _worst_states(evaluation)
    for name, found in evaluation.outputs.items():
        if name in evaluation.states and name not in shown_states:
            continue
        shown = f"{name} (fed back as {evaluation.states[name]})" if name in evaluation.states else name
        table.add(shown, *(format_number(found[metric]) if metric in found else "" for metric in metrics))
    if hidden := len(evaluation.states.keys() & evaluation.outputs.keys()) - len(shown_states):
        table.captions.append(f"{hidden} further states have a better signal to noise; see report.json.")
    if evaluation.states:
        table.captions.append(_on_states(evaluation))
    return table


STATES_SHOWN = 6
GROWTH = {True: "yes", False: "no", None: "not clear"}


def _worst_states(evaluation: EvaluationReport) -> set[str]:
    """Return the states that are shown: a streaming encoder has dozens."""
    known = [name for name in evaluation.outputs if name in evaluation.states]
    ratios = {name: evaluation.outputs[name].get(SIGNAL_TO_NOISE) for name in known}
    return set(sorted(known, key=lambda name: math.inf if (ratio := ratios[name]) is None else ratio)[:STATES_SHOWN])


def _over_time(evaluation: EvaluationReport) -> FittedTable:
    """Return how far each output is from fp32's at the beginning of sequences, on the whole, and at their end."""
    columns = (*(Column(name) for name in ("first tenth", "median", "last tenth")), Column("grows", left=True))
    table = FittedTable("Error over the steps: signal to noise in dB", (Column("output", left=True, names=True), *columns))
    for name, found in evaluation.over_time.items():
        values = ("-" if value is None else f"{value:.1f}" for value in (found.first, found.median, found.last))
        table.add(name, *values, GROWTH[found.grows], style="bold" if found.grows else "")
    return table


def _on_states(evaluation: EvaluationReport) -> str:
    if not (evaluation.rolled_out or evaluation.steps):
        return "What is fed back goes through the graph again at the next call, and its error with it."
    alone = [found[SIGNAL_TO_NOISE] for found in evaluation.one_call.values() if found.get(SIGNAL_TO_NOISE) is not None]
    worst = min((value for value in alone if value is not None), default=None)
    beside = "" if worst is None else f"; with fp32's states at each call, the worst output has {worst:.1f} dB"
    if evaluation.steps:
        of = f"{evaluation.steps:,} steps of {evaluation.samples} sequences"
        few = "" if evaluation.over_time else "; no sequence has ten steps, so that it is not known whether an error grows"
        return f"{of}, each model with the states that it has left itself{beside}{few}."
    return (
        f"{evaluation.rolled_out} of {evaluation.samples} samples got the states that the sample before had left, in both "
        f"models their own{beside}."
    )


def _rerun(rerun: RerunDifferences) -> list[RenderableType]:
    moved = [f"{name} {format_number(was)} -> {format_number(now)}" for name, (was, now) in rerun.metrics_moved.items()]
    lines = [
        *_listed("inputs", rerun.inputs_changed, "unchanged"),
        *_listed("environment", rerun.environment_changed, "unchanged"),
        *(f"{file}: {'bit-identical' if same else 'DIFFERS'}" for file, same in rerun.artifacts_identical.items()),
        *_listed("metrics", moved, "none moved"),
    ]
    return [Paragraph(f"Against {rerun.of}", "bold"), *(Paragraph(f"  {line}") for line in lines), Text()]


def _listed(what: str, entries: list[str], empty: str) -> list[str]:
    return [f"{what}: {entry}" for entry in entries or [empty]]


def format_number(value: float | None) -> str:
    """Return a value in four significant digits; an infinite one arrives as null."""
    return "∞" if value is None or value == float("inf") else f"{value:.4g}"


def change(value: float | None) -> str:
    """Return a change in four significant digits, with its sign."""
    return format_number(value) if value is not None and value <= 0 else f"+{format_number(value)}"


def shares_words(shares: Mapping[str, float], said: Callable[[str], str] = str, apart: str = "; ") -> str:
    """Return shares in percent, the largest first; what rounds to nothing is left out.

    Args:
        shares: what -> its share of 1.
        said: what it is called in the language of the reader.
        apart: stands between two of them; names hold commas.
    """
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return apart.join(f"{100 * share:.0f} % {said(what)}" for what, share in ordered if share >= 0.005)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.2f} MiB"
