"""The page of several runs side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipeline.measure.benchmark_result import factor
from pipeline.metrics.metric_registry import leading_metrics
from pipeline.record.run_directory import PAGE_FILE
from pipeline.record.search_record import DONE, FAILED, SearchRecord, settings_in_words
from pipeline.report.html import plots
from pipeline.report.html.failures import failed_groups
from pipeline.report.html.language import listed, tr
from pipeline.report.html.render import hydra_value, link_to, mib, ms, render, shown_path
from pipeline.report.ranking import Comparison, Group, RankedRun, higher_is_better, interval_of, value_of
from pipeline.report.run_rows import Row
from pipeline.report.terminal import format_number
from pipeline.shell_words import settings_as_given, shell_word

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
class Column:
    """A column of the table; `named` where its title is the name of a metric or a setting."""

    title: str
    named: bool
    better: str


@dataclass(frozen=True)
class GroupView:
    """A group on the page.

    Attributes:
        group: the runs.
        id: of its heading.
        words: what the comparison comes to.
        columns: of the table.
        runs: rows of the table.
        pictures: caption and picture.
        orders: title of a column, and the order in it.
        judged: whether a run knows where its quality lies beside its limit.
    """

    group: Group
    id: str
    words: list[str]
    columns: list[Column]
    runs: list[RunView]
    pictures: list[tuple[str, Markup]]
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
        "title": tr("1 run") if count == 1 else tr("{count} runs side by side", count=count),
        "comparison": comparison,
        "groups": [_group(group, index, comparison.sorted_by, folder) for index, group in enumerate(comparison.groups)],
        "sorted_by": _title(comparison.sorted_by),
        "failed": failed_groups(comparison.failed, {run.directory: _link(run.directory, folder) for run in comparison.failed}),
        "failed_count": len(comparison.failed),
        "search": None if comparison.search is None else _search(comparison.search, folder),
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
        words=_words(group),
        columns=[Column(_title(column), column not in TITLES, _better(rows, column)) for column in shown],
        runs=[_run(run, shown, folder) for run in group.runs],
        pictures=_pictures(group, index),
        orders=[(_title(column), order) for column, order in group.orders.items()],
        judged=any(row.quality is not None for row in rows),
    )


@dataclass(frozen=True)
class FrontTrial:
    """A trial of a search on its front: its number, the place of its page, its settings, the values of the aims."""

    number: int
    link: str | None
    settings: str
    values: list[str]


@dataclass(frozen=True)
class SearchView:
    """A search: what it comes to, its aims with their directions, and its front."""

    words: str
    aims: list[tuple[str, str]]
    front: list[FrontTrial]


def _search(search: SearchRecord, folder: Path) -> SearchView:
    failed = search.in_state(FAILED)
    words = tr("{done} of {asked} trials are done.", done=len(search.in_state(DONE)), asked=search.asked)
    if failed:
        words += " " + tr("{count} failed: {trials}.", count=len(failed), trials=listed(f"#{trial.number}" for trial in failed))
    front = [
        FrontTrial(
            trial.number, _link(trial.directory or "", folder), settings_in_words(trial),
            [format_number(value) for value in trial.values or []],
        )
        for trial in search.front
    ]  # fmt: skip
    aims = [(aim.name, tr("higher is better") if aim.higher_is_better else tr("lower is better")) for aim in search.aims]
    return SearchView(words, aims, front)


def _words(group: Group) -> list[str]:
    """Return what the comparison comes to: which runs are the same, and which no other one beats."""
    if len(group.runs) < 2:
        return []
    counted = listed([tr("speed"), tr("size"), *group.quality])
    words = [tr("Runs {runs} have made the same file, bit by bit.", runs=_listed(runs)) for runs in group.identical]
    front = [run for run in group.runs if run.front]
    if group.same_within_noise:
        words.append(tr("No run differs from another one beyond noise ({columns}).", columns=counted))
    elif len(front) == 1:
        text = tr("Run {run} is as good as the others or better in everything that counts ({columns}).", run=front[0].rank,
                  columns=counted)  # fmt: skip
        words.append(text)
    elif len(front) == len(group.runs) and not group.identical:
        words.append(tr("Every run is on the front ★: each one gives something up for something else ({columns}).",
                        columns=counted))  # fmt: skip
    elif front:
        words.append(tr("Runs {runs} are the front ★: no other run beats them ({columns}).", runs=_listed(front),
                        columns=counted))  # fmt: skip
    return words


def _listed(runs: Sequence[RankedRun]) -> str:
    ranks = [str(run.rank) for run in runs]
    return tr("{first} and {last}", first=listed(ranks[:-1]), last=ranks[-1])


def _title(column: str) -> str:
    return tr(TITLES[column]) if column in TITLES else column


def _better(rows: Sequence[Row], column: str) -> str:
    return tr("higher is better") if higher_is_better(rows, column) else tr("lower is better")


def _link(directory: str, folder: Path) -> str | None:
    return link_to(Path(directory) / PAGE_FILE, folder)


def _run(run: RankedRun, columns: Sequence[str], folder: Path) -> RunView:
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
    name, link = Path(run.row.directory).name, _link(run.row.directory, folder)
    return RunView(run, cells, name, link, settings_as_given(run.row.settings))


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
            text = f"{format_number(value)} {'' if metric is None else tr(metric.unit)}".strip()
    return text


def _interval(row: Row, column: str) -> str:
    found = interval_of(row, column)
    if found is None or found[0] == found[1]:
        return ""
    low, high = (factor(end) if column == "speedup" else f"{end:.3g}" for end in found)
    return tr("{low} to {high}", low=low, high=high)


def _pictures(group: Group, index: int) -> list[tuple[str, Markup]]:
    timed = [(run, plots.speedup_range(_label(run), run.row.speedup)) for run in group.runs if run.row.speedup is not None]
    if not timed:
        return []
    ranges = [speed for _, speed in timed]
    told = "; ".join(
        tr("{label} {value} ({low} to {high})", label=speed.label, value=f"{speed.value:.2f}", low=factor(speed.low),
           high=factor(speed.high))
        for speed in ranges
    )  # fmt: skip
    picture = plots.speedups(ranges, f"speedups-{index}", tr("Speed in multiples of fp32’s: {told}.", told=told))
    pictures = [(tr("Speed-up, with 95 % intervals"), picture)]
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
    told = "; ".join(f"{dot.label}: {dot.speedup.value:.2f}, {dot.quality.value:.4g}" for dot in dots)
    dots.reverse()  # the best ones are drawn, and labelled, above the others
    description = tr("Speed-up against {metric}: {told}.", metric=name, told=told)
    picture = plots.front(dots, name, _better(group.rows, name), f"front-{index}", description)
    return [*pictures, (tr("Speed against quality; the front is filled"), picture)]


def _label(run: RankedRun) -> str:
    return f"{run.rank} {run.row.mode}"


def _command(comparison: Comparison) -> str:
    directories = list(
        dict.fromkeys([*(run.row.directory for run in comparison.runs), *(run.directory for run in comparison.failed)])
    )
    shown = ",".join(hydra_value(shown_path(Path(directory))) for directory in directories)
    return f"python run.py {shell_word(f'compare=[{shown}]')} sort_by={comparison.sorted_by}"
