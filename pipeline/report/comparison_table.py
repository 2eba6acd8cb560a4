"""Several runs side by side, in the terminal."""

from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from pipeline.measure.benchmark_result import factor
from pipeline.metrics.metric_registry import leading_metrics
from pipeline.record.console import Paragraph, result_console
from pipeline.record.results import Outcome
from pipeline.record.search_record import DONE, FAILED, SearchRecord, settings_in_words
from pipeline.report.fitted_table import Cell, Column, FittedTable
from pipeline.report.ranking import Comparison, Group, RankedRun
from pipeline.report.terminal import QUALITY_STYLES, VERDICT_STYLES, format_number
from pipeline.shell_words import settings_as_given

METRICS_SHOWN = 3


def print_comparison(comparison: Comparison) -> None:
    """Print runs side by side to standard output."""
    console = result_console()
    for part in comparison_parts(comparison):
        console.print(part, crop=False)


def comparison_parts(comparison: Comparison) -> list[RenderableType]:
    """Return the comparison as it is printed in a terminal."""
    parts: list[RenderableType] = [_group_table(group, comparison.sorted_by) for group in comparison.groups]
    if comparison.failed:
        table = FittedTable(
            "Without numbers", (Column("run", left=True, names=True), Column("", left=True), Column("", left=True))
        )
        for run in comparison.failed:
            table.add(run.label, Text(run.status, "" if run.status == "done" else "bold red"), run.error)
        parts.append(table)
    parts += [Paragraph(f"note: {note}", "yellow") for note in comparison.notes]
    return parts if comparison.search is None else [*parts, _front_table(comparison.search)]


def _front_table(search: SearchRecord) -> FittedTable:
    """Return the trials of a search that no other one dominates, with what they were found by."""
    title = f"Front of the search: {len(search.in_state(DONE))} of {search.asked} trials are done"
    if failed := search.in_state(FAILED):
        title += f", {len(failed)} failed: {', '.join(f'#{trial.number}' for trial in failed)}"
    columns = [Column("trial", names=True), Column("settings", left=True), *(Column(aim.name) for aim in search.aims)]
    table = FittedTable(title, columns)
    for trial in search.front:
        values = [format_number(value) for value in trial.values or []]
        table.add(f"#{trial.number}", settings_in_words(trial), *values)
    better = ", ".join(f"{aim.name} {'higher' if aim.higher_is_better else 'lower'}" for aim in search.aims)
    table.captions.append(f"no other trial is as good in everything and better in something ({better})")
    return table


def _group_table(group: Group, sorted_by: str) -> FittedTable:
    known = {name for row in group.rows for name in row.metrics}
    names = [name for name in leading_metrics() if name in known][:METRICS_SHOWN]
    names += [sorted_by] if sorted_by in known - set(names) else []
    table = FittedTable(
        group.title,
        (
            Column("", names=True), Column("run", left=True, names=True), Column("front", left=True, names=True),
            Column("quality", left=True),
            Column("speed-up", left=True), Column("size"), *(Column(name) for name in names),
            Column("calibrated on", left=True, optional=True), Column("quantize", optional=True),
        ),
    )  # fmt: skip
    for run in group.runs:
        row = run.row
        seconds = "" if row.quantize_seconds is None else f"{row.quantize_seconds:.1f} s"
        table.add(
            str(run.rank), _name(run, group), _star(run), _verdict(run), _speedup(run),
            f"{row.bytes / row.baseline_bytes:.2f}{_tie(run, 'bytes')}", *(_quality(run, name) for name in names),
            row.data, seconds,
        )  # fmt: skip
    table.captions += [f"{column}: {order}" for column, order in group.orders.items()]
    if group.orders:
        table.captions.append("> better beyond noise, ≈ within it; ★ on the front: no other run beats it")
        if any(run.front and run.beyond_limit for run in group.runs):
            table.captions.append("☆ likewise, but beyond the limit of quality")
    return table


def _name(run: RankedRun, group: Group) -> str:
    """Return what sets a run apart from the others: its mode and settings, or else its directory."""
    row = run.row
    names = [] if len({other.mode for other in group.rows}) == 1 and row.settings else [row.mode]
    names += settings_as_given(row.settings)
    alike = [other for other in group.rows if (other.mode, other.settings) == (row.mode, row.settings)]
    return ", ".join([*names, *([Path(row.directory).name] if len(alike) > 1 else [])])


def _star(run: RankedRun) -> str:
    return "" if not run.front else "☆" if run.beyond_limit else "★"


def _verdict(run: RankedRun) -> Cell:
    """Return where the quality lies beside its limit."""
    quality = run.row.quality
    return "" if quality is None else Text(quality, QUALITY_STYLES[Outcome(quality)])


def _speedup(run: RankedRun) -> Cell:
    found, verdict = run.row.speedup, run.row.verdict
    if found is None or verdict is None:
        return ""
    interval = f" ({factor(found.low)}–{factor(found.high)}){_tie(run, 'speedup')}"
    style = "bold" if run.beyond_limit and verdict == "faster" else VERDICT_STYLES[verdict]
    return Text.assemble((f"{found.median:.2f}", style), interval)


def _quality(run: RankedRun, name: str) -> str:
    metric = run.row.metrics.get(name)
    if metric is None:
        return ""
    baseline = "" if metric.baseline in (0, None) else f"{format_number(metric.baseline)} → "
    return f"{baseline}{format_number(metric.quantized)}{_tie(run, name)}"


def _tie(run: RankedRun, column: str) -> str:
    return " ≈" if column in run.ties else ""
