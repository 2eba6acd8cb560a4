"""The page of several runs side by side."""

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipeline.metrics.metric_registry import leading_metrics
from pipeline.report.html import plots
from pipeline.report.html.render import hydra_value, mib, ms, render, shown_path
from pipeline.report.html.run_page import PAGE_FILE
from pipeline.report.ranking import Comparison, Group, RankedRun, higher_is_better, interval_of, value_of
from pipeline.report.run_rows import Row
from pipeline.report.terminal import format_number

SHOWN_METRICS = 4
TITLES = {"speedup": "Speed-up", "bytes": "Size", "latency_ms": "Latency", "rtf": "Real-time factor", "load_ms": "Time to load",
          "peak_bytes": "Peak memory", "quantize_seconds": "Time to quantize", "size_ratio": "Size, of fp32’s"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number of a run in the table; `verdict` is the one on its speed, in that column."""

    value: str
    interval: str
    best: bool
    tie: bool
    verdict: str | None


@dataclass(frozen=True)
class RunView:
    """A run in the table: its cells, its name, the place of its page, and the settings that tell it apart."""

    run: RankedRun
    cells: list[Cell]
    name: str
    link: str | None
    settings: list[str]


@dataclass(frozen=True)
class GroupView:
    """A group on the page.

    Attributes:
        group: the runs.
        id: of its heading.
        columns: column, title, and which direction is better.
        runs: rows of the table.
        pictures: caption and picture.
        front: ranks of the runs on the front.
        orders: title of a column, and the order in it.
        judged: whether a run knows where its quality lies beside its limit.
    """

    group: Group
    id: str
    columns: list[tuple[str, str, str]]
    runs: list[RunView]
    pictures: list[tuple[str, Markup]]
    front: list[str]
    orders: list[tuple[str, str]]
    judged: bool


def comparison_page(comparison: Comparison, folder: Path) -> str:
    """Return the text of comparison.html.

    Args:
        comparison: the runs, ranked.
        folder: where the page will lie; links to the runs' own pages are relative to it.
    """
    count = len(comparison.runs)
    view = {
        "title": f"{count} runs compared",
        "comparison": comparison,
        "groups": [_group(group, index, comparison.sorted_by, folder) for index, group in enumerate(comparison.groups)],
        "sorted_by": TITLES.get(comparison.sorted_by, comparison.sorted_by),
        "count": count,
        "command": _command(comparison),
    }
    return render("comparison.html.j2", view)


def _group(group: Group, index: int, sorted_by: str, folder: Path) -> GroupView:
    rows = group.rows
    metrics = [name for name in leading_metrics() if any(name in row.metrics for row in rows)][:SHOWN_METRICS]
    columns = dict.fromkeys(("speedup", "bytes", "latency_ms", *metrics, sorted_by))
    shown = [column for column in columns if any(value_of(row, column) is not None for row in rows)]
    return GroupView(
        group=group,
        id=f"group-{index}",
        columns=[(column, TITLES.get(column, column), _better(rows, column)) for column in shown],
        runs=[_run(run, shown, folder) for run in group.runs],
        pictures=_pictures(group, index),
        front=[str(run.rank) for run in group.runs if run.front],
        orders=[(TITLES.get(column, column), order) for column, order in group.orders.items()],
        judged=any(row.quality is not None for row in rows),
    )


def _better(rows: Sequence[Row], column: str) -> str:
    return "higher is better" if higher_is_better(rows, column) else "lower is better"


def _run(run: RankedRun, columns: Sequence[str], folder: Path) -> RunView:
    directory = Path(run.row.directory)
    page = directory / PAGE_FILE
    cells = [
        Cell(
            value=_shown(run.row, column),
            interval=_interval(run.row, column),
            best=column in run.best,
            tie=column in run.ties,
            verdict=run.row.verdict if column == "speedup" else None,
        )
        for column in columns
    ]
    link = Path(os.path.relpath(page, folder)).as_posix() if page.is_file() else None
    return RunView(run, cells, directory.name, link, [f"{key}={value}" for key, value in run.row.settings.items()])


def _shown(row: Row, column: str) -> str:
    value, metric = value_of(row, column), row.metrics.get(column)
    if value is None:
        return "–" if metric is None else "∞"
    match column:
        case "speedup":
            text = f"{value:.2f} ×"
        case "bytes":
            text = f"{mib(value)}, {100 * value / row.baseline_bytes:.0f} %"
        case "peak_bytes":
            text = mib(value)
        case "latency_ms" | "load_ms":
            text = ms(value)
        case "quantize_seconds":
            text = f"{value:.1f} s"
        case _:
            text = f"{format_number(value)} {'' if metric is None else metric.unit}".strip()
    return text


def _interval(row: Row, column: str) -> str:
    found = interval_of(row, column)
    if found is None or found[0] == found[1]:
        return ""
    digits = "{:.2f} to {:.2f}" if column == "speedup" else "{:.3g} to {:.3g}"
    return digits.format(*found)


def _pictures(group: Group, index: int) -> list[tuple[str, Markup]]:
    timed = [(run, plots.speedup_range(_label(run), run.row.speedup)) for run in group.runs if run.row.speedup is not None]
    if not timed:
        return []
    ranges = [speed for _, speed in timed]
    told = "; ".join(f"{speed.label}: {speed.value:.2f} ({speed.low:.2f} to {speed.high:.2f})" for speed in ranges)
    pictures = [
        ("Speed-up, with 95 % intervals", plots.speedups(ranges, f"speedups-{index}", f"Speed in multiples of fp32’s: {told}."))
    ]
    name = group.quality[-1] if group.quality else None
    if name is None:
        return pictures
    dots = []
    for run, speed in timed:
        value = value_of(run.row, name)
        if value is None or not math.isfinite(value):
            continue
        low, high = interval_of(run.row, name) or (value, value)
        dots.append(plots.Dot(_label(run), speed, plots.Range(name, value, low, high), run.front and not run.beyond_limit))
    if len(dots) < 2:
        return pictures
    told = "; ".join(f"{dot.label}: {dot.speedup.value:.2f} and {dot.quality.value:.4g}" for dot in dots)
    better = "higher" if higher_is_better(group.rows, name) else "lower"
    dots.reverse()  # the best ones are drawn, and labelled, above the others
    picture = plots.front(dots, name, better, f"front-{index}", f"Speed-up against {name}: {told}.")
    return [*pictures, ("Speed against quality; the front is filled", picture)]


def _label(run: RankedRun) -> str:
    return f"{run.rank} {run.row.mode}"


def _command(comparison: Comparison) -> str:
    directories = list(
        dict.fromkeys([*(run.row.directory for run in comparison.runs), *(run.directory for run in comparison.failed)])
    )
    shown = ",".join(hydra_value(shown_path(Path(directory))) for directory in directories)
    return f"python run.py {shlex.quote(f'compare=[{shown}]')} sort_by={comparison.sorted_by}"
