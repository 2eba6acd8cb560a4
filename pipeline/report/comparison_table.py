"""Several runs side by side, in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.console import Group as Lines
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.metrics.metric_registry import leading_metrics
from pipeline.record.results import Outcome
from pipeline.report.ranking import Comparison, Group, RankedRun
from pipeline.report.terminal import QUALITY_STYLES, VERDICT_STYLES, format_number

FILE_WIDTH = 160  # columns, where there is no terminal to fit into: rich's 80 would cut every cell


def wide_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for the table where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


def comparison_table(comparison: Comparison) -> Lines:
    """Return the comparison as it is printed in a terminal."""
    parts: list[Table | Text] = [_group_table(group) for group in comparison.groups]
    if comparison.failed:
        table = Table(title="Without numbers", title_justify="left")
        for column in ("run", "status", "why"):
            table.add_column(column)
        for run in comparison.failed:
            table.add_row(
                escape(run.label), run.status if run.status == "done" else f"[bold red]{run.status}[/]", escape(run.error)
            )
        parts.append(table)
    parts += [Text(f"note: {note}", style="yellow") for note in comparison.notes]
    return Lines(*parts)


def _group_table(group: Group) -> Table:
    table = Table(title=escape(group.title), title_justify="left")
    names = [name for name in leading_metrics() if any(name in row.metrics for row in group.rows)][:3]
    for column in ("", "mode", "settings", "calibrated on", "quantize", "size", "speed-up", "quality", *names, "front"):
        left = column in ("mode", "settings", "calibrated on", "speed-up", "quality", "front")
        table.add_column(column, justify="left" if left else "right")
    for run in group.runs:
        row = run.row
        settings = ", ".join(f"{key}={value}" for key, value in row.settings.items()) or Path(row.directory).name
        seconds = "" if row.quantize_seconds is None else f"{row.quantize_seconds:.1f} s"
        table.add_row(
            str(run.rank), row.mode, escape(settings), escape(row.data), seconds,
            f"{row.bytes / row.baseline_bytes:.2f}{_tie(run, 'bytes')}", _speedup(run), _verdict(run),
            *(_quality(run, name) for name in names), "" if not run.front else "☆" if run.beyond_limit else "★",
        )  # fmt: skip
    table.caption = "\n".join(f"{column}: {order}" for column, order in group.orders.items())
    if table.caption:
        table.caption += "\n> better beyond noise, ≈ within it; ★ on the front: no other run beats it"
        if any(run.front and run.beyond_limit for run in group.runs):
            table.caption += "; ☆ likewise, but beyond the limit of quality"
    table.caption_justify = "left"
    return table


def _verdict(run: RankedRun) -> str:
    """Return where the quality lies beside its limit."""
    quality = run.row.quality
    return "" if quality is None else f"[{QUALITY_STYLES[Outcome(quality)]}]{quality}[/]"


def _speedup(run: RankedRun) -> str:
    found, verdict = run.row.speedup, run.row.verdict
    if found is None or verdict is None:
        return ""
    style = "bold" if run.beyond_limit and verdict == "faster" else VERDICT_STYLES[verdict]
    return f"[{style}]{found.median:.2f}[/] ({found.low:.2f}–{found.high:.2f})" + _tie(run, "speedup")


def _quality(run: RankedRun, name: str) -> str:
    metric = run.row.metrics.get(name)
    if metric is None:
        return ""
    baseline = "" if metric.baseline in (0, None) else f"{format_number(metric.baseline)} → "
    return f"{baseline}{format_number(metric.quantized)}{_tie(run, name)}"


def _tie(run: RankedRun, column: str) -> str:
    return " ≈" if column in run.ties else ""
