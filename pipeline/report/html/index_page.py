"""The page of all runs: a table and two pictures per model, to filter, with a link to each run's own page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipeline.measure.benchmark_result import factor
from pipeline.metrics.metric_registry import METRICS, leading_metrics
from pipeline.record.run_directory import PAGE_FILE
from pipeline.report.html.failures import failed_groups
from pipeline.report.html.index_charts import ChartPoint, over_time, speed_and_quality
from pipeline.report.html.language import said_of, tr
from pipeline.report.html.render import command, link_to, render, shown_path
from pipeline.report.ranking import Group, RankedRun, interval_of, value_of
from pipeline.report.run_index import RunIndex
from pipeline.report.run_rows import Row
from pipeline.report.terminal import format_number
from pipeline.shell_words import settings_as_given

SHOWN_METRICS = 2  # of a model: the first against the truth, and the first against fp32
TIME_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True)
class IndexRow:
    """A run in the table; `id` ties it to its points in the pictures, `words` are what the filter looks at."""

    id: str
    model: str
    mode: str
    when: str
    link: str | None
    front: bool
    quality: str
    speedup: str
    interval: str
    verdict: str
    size: str
    values: list[str]
    settings: list[str]
    words: str


@dataclass(frozen=True)
class ModelSection:
    """The runs of one graph under the same conditions, the newest first.

    Attributes:
        id: of its heading.
        title: the graph.
        judged: whether a run knows where its quality lies beside its limit.
        metrics: columns of the table.
        charts: captions and pictures.
        runs: rows of the table.
    """

    id: str
    title: str
    judged: bool
    metrics: list[str]
    charts: list[tuple[str, Markup]]
    runs: list[IndexRow]


def index_page(index: RunIndex, root: Path, listen: str | None = None) -> str:
    """Return the text of index.html, which lies in `root`; `listen` is the address of the page to compare by ear, if served."""
    sections = [_section(group, number, root) for number, group in enumerate(index.groups)]
    links = {run.directory: link_to(root / run.directory / PAGE_FILE, root) for run in index.failed}
    rows = [row for group in index.groups for row in group.rows]
    shown = shown_path(root)
    view = {
        "title": tr("1 run") if index.count == 1 else tr("{count} runs", count=index.count),
        "directory": shown,
        "sections": sections,
        "choices": [
            ("model", tr("Model"), sorted({row.model for row in rows})),
            ("mode", tr("Mode"), sorted({row.mode for row in rows})),
        ],
        "failed": failed_groups(index.failed, links),
        "failed_count": len(index.failed),
        "unread": index.unread,
        "command": command("index", shown),
        "listen": listen,
    }
    return render("index.html.j2", view, "index.js")


def _section(group: Group, number: int, root: Path) -> ModelSection:
    newest = sorted(group.runs, key=lambda run: Path(run.row.directory).name, reverse=True)
    metrics = list(dict.fromkeys([*group.quality, *_leading(group.rows)]))[:SHOWN_METRICS]
    ids = {run.rank: f"run-{number}-{place}" for place, run in enumerate(newest)}
    return ModelSection(
        id=f"model-{number}",
        title=said_of(group.title),
        judged=any(row.quality is not None for row in group.rows),
        metrics=metrics,
        charts=_charts(newest, ids, group, metrics, root),
        runs=[_row(run, ids[run.rank], metrics, root, ranked=len(newest) > 1) for run in newest],
    )


def _leading(rows: Sequence[Row]) -> list[str]:
    return [name for name in leading_metrics() if any(name in row.metrics for row in rows)]


def _row(run: RankedRun, id_: str, metrics: Sequence[str], root: Path, *, ranked: bool) -> IndexRow:
    row, speed = run.row, run.row.speedup
    when, settings = _when(row.directory), settings_as_given(row.settings)
    low_high = "" if speed is None else tr("{low} to {high}", low=factor(speed.low), high=factor(speed.high))
    return IndexRow(
        id=id_,
        model=row.model,
        mode=row.mode,
        when=when,
        link=link_to(root / row.directory / PAGE_FILE, root),
        front=run.front and ranked and not run.beyond_limit,
        quality=row.quality or "",
        speedup="–" if speed is None else f"{speed.median:.2f} ×",
        interval=low_high,
        verdict="slower" if row.verdict == "slower" else "",
        size=f"{100 * row.bytes / row.baseline_bytes:.0f} %",
        values=[_value(row, name) for name in metrics],
        settings=settings,
        words=" ".join([row.model, row.graph, row.mode, row.directory, when, *settings]),
    )


def _value(row: Row, name: str) -> str:
    metric = row.metrics.get(name)
    if metric is None:
        return "–"
    truth = METRICS[name].against_truth if name in METRICS else metric.baseline not in (0, None)
    before = f"{format_number(metric.baseline)} → " if truth else ""
    return f"{before}{format_number(metric.quantized)} {tr(metric.unit)}".strip()


def _when(directory: str) -> str:
    name = Path(directory).name
    found = TIME_STAMP.match(name)
    return f"{found[1]} {found[2]}:{found[3]}:{found[4]}{name[found.end() :].replace('_', ' #')}" if found else name


def _charts(
    newest: Sequence[RankedRun], ids: dict[int, str], group: Group, metrics: Sequence[str], root: Path
) -> list[tuple[str, Markup]]:
    """Return speed against quality, and quality over time, in the metric that tells most; nothing of one run alone."""
    if not metrics:
        return []
    name = metrics[-1]
    points = []
    for run in reversed(newest):
        value, row = value_of(run.row, name), run.row
        if value is None or not math.isfinite(value):
            continue
        points.append(
            ChartPoint(
                id=ids[run.rank],
                link=link_to(root / row.directory / PAGE_FILE, root),
                title=f"{row.mode}, {_when(row.directory)}: {_value(row, name)}",
                speedup=None if row.speedup is None else row.speedup.median,
                value=value,
                interval=interval_of(row, name),
                front=run.front and not run.beyond_limit,
            )
        )
    charts = []
    if sum(point.speedup is not None for point in points) > 1:
        told = tr("Speed-up against {metric} of {graph}.", metric=name, graph=group.title)
        picture = speed_and_quality([point for point in points if point.speedup is not None], name, told)
        charts.append((tr("Speed against quality; the front is filled"), picture))
    if len(points) > 1:
        told = tr("{metric} of {graph} from the oldest run to the newest.", metric=name, graph=group.title)
        charts.append((tr("Quality over time, the newest on the right"), over_time(points, name, told)))
    return charts
