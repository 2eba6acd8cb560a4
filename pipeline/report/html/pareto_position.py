"""The place of a run among fp32 and the earlier runs of the same graph under the same conditions: is it on the front?"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from pipeline.errors import ConfigError
from pipeline.measure.benchmark_result import Speedup
from pipeline.record.results import Outcome
from pipeline.record.run_directory import REPORT_FILE
from pipeline.report.evaluation_schema import Bounds, MetricResult
from pipeline.report.html import plots
from pipeline.report.html.language import listed, tr
from pipeline.report.html.render import mib
from pipeline.report.ranking import beaten_by, front_metrics, higher_is_better, interval_of, value_of
from pipeline.report.report_file import read_report
from pipeline.report.run_rows import Row, rows_of
from pipeline.report.schema import Report
from pipeline.report.terminal import format_number

MOST_RUNS = 40  # that are looked at, the newest of them
MOST_ROWS = 8  # of the table
FP32 = "fp32"


@dataclass(frozen=True)
class PlaceRow:
    """A run in the table: its name and time, whether it is the run of the page, and what it has come to."""

    name: str
    when: str
    own: bool
    front: bool
    speedup: str
    size: str
    values: list[str]


@dataclass(frozen=True)
class Place:
    """The place of one graph of a run.

    Attributes:
        graph: its role.
        on_front: whether no other run beats it.
        words: the same in words, with what it was compared with.
        picture: speed against quality.
        rows: this run, fp32, the rest of the front, then others.
        quality: the metrics of the table.
    """

    graph: str
    on_front: bool
    words: str
    picture: Markup | None
    rows: list[PlaceRow]
    quality: list[str]


def places(report: Report, directory: Path) -> list[Place]:
    """Return each timed graph's place: in words, and as a picture of speed against quality.

    Args:
        report: of the run.
        directory: of the run, `outputs/<model>/<mode>/<timestamp>`; its neighbours are what it is compared with.
    """
    if report.status != "done" or report.benchmark is None:
        return []
    found = []
    for index, own in enumerate(row for row in rows_of(directory, report) if row.speedup is not None):
        rows = [own, _fp32(own), *_neighbours(own, directory)]
        beaten, quality = beaten_by(own, rows), front_metrics(rows)
        words = _words(beaten, len(rows) - 2, quality)
        found.append(Place(own.graph, not beaten, words, _picture(own, rows, index), _table(own, rows, quality), quality))
    return found


def _neighbours(own: Row, directory: Path) -> list[Row]:
    """Return the rows of other finished runs that may be ranked with this one, the newest first."""
    if directory.parent.parent.name != own.model:  # hydra.run.dir leads elsewhere: nothing is known of what lies there
        return []
    runs = [path.parent for path in directory.parent.parent.glob(f"*/*/{REPORT_FILE}") if path.parent != directory]
    found: list[Row] = []
    for run in sorted(runs, key=lambda run: run.name, reverse=True)[:MOST_RUNS]:
        with contextlib.suppress(OSError):  # it is gone
            state = (run / REPORT_FILE).stat()
            rows = _rows_of(run, state.st_mtime_ns, state.st_size)
            found += [row for row in rows if row.conditions == own.conditions and row.speedup is not None]
    return found


@lru_cache(maxsize=2 * MOST_RUNS)
def _rows_of(run: Path, changed_ns: int, size: int) -> tuple[Row, ...]:
    """Return the rows of a finished run, read once by all jobs of a sweep: of a file that was changed at that time."""
    del changed_ns, size
    try:
        report = read_report(run, "report")
    except ConfigError:  # damaged, or of another schema: the page is about another run
        return ()
    return tuple(rows_of(run, report)) if report.status == "done" else ()


def _fp32(own: Row) -> Row:
    """Return the original as a row: as fast as itself, and exactly as good as it is."""
    metrics = {name: _as_fp32(metric) for name, metric in own.metrics.items()}
    one = Speedup(1.0, 1.0, 1.0)
    return replace(own, mode=FP32, directory=FP32, bytes=own.baseline_bytes, speedup=one, metrics=metrics, quality=None)


def _as_fp32(metric: MetricResult) -> MetricResult:
    value = metric.baseline
    return replace(metric, quantized=value, interval=None if value is None else Bounds(value, value))


def _words(beaten: Sequence[Row], others: int, quality: Sequence[str]) -> str:
    counted = listed([tr("speed"), tr("size"), *quality])
    among = FP32
    if others:
        among = tr("fp32 and 1 earlier run") if others == 1 else tr("fp32 and {count} earlier runs", count=others)
    if not beaten:
        return tr("Compared with {runs}, nothing is as good in everything: {columns}.", runs=among, columns=counted)
    best = beaten[0]
    name = FP32 if best.mode == FP32 else f"{best.mode} {Path(best.directory).name}"
    if len(beaten) == 1:
        return tr("{run} is nowhere worse, and somewhere better beyond noise: {columns}. Compared with {runs}.", run=name,
                  columns=counted, runs=among)  # fmt: skip
    return tr(
        "{run} and {count} more are nowhere worse, and somewhere better beyond noise: {columns}. Compared with {runs}.",
        run=name, count=len(beaten) - 1, columns=counted, runs=among,
    )  # fmt: skip


def _table(own: Row, rows: Sequence[Row], quality: Sequence[str]) -> list[PlaceRow]:
    """Return this run, fp32, the rest of the front, then others, as far as there is room."""
    front = {id(row): not beaten_by(row, rows) and row.quality != Outcome.beyond for row in rows}
    shown = [*rows[:2], *sorted(rows[2:], key=lambda row: not front[id(row)])][:MOST_ROWS]
    return [
        PlaceRow(
            name=tr("this run") if row is own else row.mode,
            when="" if row.mode == FP32 else row.mode if row is own else Path(row.directory).name,
            own=row is own,
            front=front[id(row)],
            speedup="" if row.speedup is None else f"{row.speedup.median:.2f}",
            size=mib(row.bytes),
            values=[_shown(value_of(row, name)) for name in quality],
        )
        for row in shown
    ]


def _shown(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _picture(own: Row, rows: Sequence[Row], index: int) -> Markup | None:
    name = next(iter(reversed(front_metrics(rows))), None)
    if name is None:
        return None
    dots = []
    for row in reversed(rows):  # the run itself is drawn last, on top
        value = value_of(row, name)
        if value is None or not math.isfinite(value) or row.speedup is None:
            continue
        low, high = interval_of(row, name) or (value, value)
        on_front = not beaten_by(row, rows) and row.quality != Outcome.beyond
        label = tr("this run") if row is own else row.mode if on_front else ""
        speed = plots.speedup_range("", row.speedup)
        dots.append(plots.Dot(label, speed, plots.Range("", value, low, high), on_front, own=row is own))
    if len(dots) < 2:
        return None
    better = tr("higher is better") if higher_is_better(rows, name) else tr("lower is better")
    told = "; ".join(f"{dot.label or tr('a beaten run')}: {dot.speedup.value:.2f}, {dot.quality.value:.4g}" for dot in dots)
    description = tr("Speed-up against {metric} of {graph}: {told}.", metric=name, graph=own.graph, told=told)
    return plots.front(dots, name, better, f"place-{index}", description)
