"""Which runs may be ranked together, in what order, what differs beyond noise, and which of them no other one beats."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.errors import ConfigError, did_you_mean
from pipeline.metrics.metric_registry import METRICS, leading_metrics
from pipeline.record.results import Outcome
from pipeline.record.search_record import SearchRecord
from pipeline.report.run_rows import Row, with_differing_settings

DEFAULT_ORDER = "speedup"
# What runs can be sorted by beside their metrics: numbers, and whether more is better; texts.
_NUMBERS: dict[str, tuple[Callable[[Row], float | None], bool]] = {
    "speedup": (lambda row: None if row.speedup is None else row.speedup.median, True),
    "bytes": (lambda row: row.bytes, False),
    "size_ratio": (lambda row: row.bytes / row.baseline_bytes, False),
    "latency_ms": (lambda row: row.latency_ms, False),
    "rtf": (lambda row: row.rtf, False),
    "load_ms": (lambda row: row.load_ms, False),
    "peak_bytes": (lambda row: row.peak_bytes, False),
    "quantize_seconds": (lambda row: row.quantize_seconds, False),
}
_TEXTS: dict[str, Callable[[Row], str]] = {"mode": lambda row: row.mode, "directory": lambda row: row.directory}


@dataclass(frozen=True)
class RankedRun:
    """A run among those that it may be ranked with.

    Attributes:
        row: the run.
        rank: its place, counted through all groups.
        front: whether no other run of the group beats it.
        best: the columns in which it is the best one.
        ties: the columns in which it is within noise of the best one.
    """

    row: Row
    rank: int
    front: bool
    best: tuple[str, ...]
    ties: tuple[str, ...]

    @property
    def beyond_limit(self) -> bool:
        """Whether its quality is beyond the limit: then it is praised for nothing, on the front or not."""
        return self.row.quality == Outcome.beyond


@dataclass(frozen=True)
class Group:
    """Runs that may be ranked together.

    Attributes:
        title: the graph, and in what it stands apart from other groups of the same graph.
        conditions: what they have in common: the graph, its original, the machine, the libraries, the evaluation set.
        runs: best first.
        quality: the metrics that the front is about.
        orders: column -> the ranks of the runs as `1 > 3 ≈ 2`: beyond noise better than, or within noise of, the next one.
    """

    title: str
    conditions: Mapping[str, str]
    runs: list[RankedRun]
    quality: list[str]
    orders: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        """The runs without their ranks."""
        return [run.row for run in self.runs]

    @property
    def identical(self) -> list[list[RankedRun]]:
        """Runs that have made the same file, each time two or more of them."""
        by_file: dict[str, list[RankedRun]] = {}
        for run in self.runs:
            if run.row.sha256:
                by_file.setdefault(run.row.sha256, []).append(run)
        return [runs for runs in by_file.values() if len(runs) > 1]

    @property
    def same_within_noise(self) -> bool:
        """Whether no two runs differ beyond noise, in any column that is ordered."""
        return len(self.runs) > 1 and bool(self.orders) and not any(">" in order for order in self.orders.values())


@dataclass(frozen=True)
class FailedRun:
    """A run that has no numbers to compare, and why."""

    directory: str
    label: str
    status: str
    error: str


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        groups: runs that may be ranked together, in the order in which they were named.
        failed: runs without numbers.
        notes: what must be known before numbers are compared.
        sorted_by: what decides the order within a group.
        search: which trials a search over settings has made, where the runs are those of one.
    """

    groups: list[Group]
    failed: list[FailedRun]
    notes: list[str]
    sorted_by: str
    search: SearchRecord | None = None

    @property
    def runs(self) -> list[RankedRun]:
        """The ranked runs of all groups, one for each graph."""
        return [run for group in self.groups for run in group.runs]


def ranked_groups(rows: Sequence[Row], sort_by: str) -> list[Group]:
    """Return the runs in groups that may be ranked, with those settings in which runs of a group differ.

    Raises:
        ConfigError: no run has what to sort by.
    """
    check_order(rows, sort_by)
    by_conditions: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    graphs = list(dict.fromkeys(row.conditions["graph"] for row in rows))
    for row in sorted(rows, key=lambda row: graphs.index(row.conditions["graph"])):
        by_conditions.setdefault(tuple(row.conditions.items()), []).append(row)
    groups: list[Group] = []
    first = 1
    for conditions, unordered in by_conditions.items():
        members = with_differing_settings(_sorted(unordered, sort_by))
        quality = front_metrics(members)
        columns = [name for name in dict.fromkeys(("speedup", "bytes", *quality, sort_by)) if name not in _TEXTS]
        runs = _ranked(members, columns, first)
        orders = {column: order for column in columns if (order := _order(runs, column))}
        groups.append(Group(_title(conditions, list(by_conditions)), dict(conditions), runs, quality, orders))
        first += len(runs)
    return groups


def beaten_by(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are nowhere worse than this one in speed, size and quality, and somewhere better beyond noise."""
    axes = ["speedup", "bytes", *front_metrics(rows)]
    axes = [axis for axis in axes if all(value_of(other, axis) is not None for other in rows)]
    return [other for other in rows if _dominates(other, row, axes)]


def check_order(rows: Sequence[Row], sort_by: str) -> None:
    """Check that runs can be sorted by this.

    Raises:
        ConfigError: none of them has it.
    """
    known = [*_NUMBERS, *_TEXTS, *dict.fromkeys(name for row in rows for name in row.metrics)]
    if rows and sort_by not in known:
        raise ConfigError(f"sort_by: these runs have no {sort_by!r}.{did_you_mean(sort_by, known)}")


def front_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the metrics that quality is read by: the first against the truth, and the first against fp32."""
    shared = [name for name in leading_metrics() if all(name in row.metrics for row in rows)]
    return [
        name
        for truth in (True, False)
        if (name := next((n for n in shared if METRICS[n].against_truth is truth), None)) is not None
    ]


def has(row: Row, column: str) -> bool:
    """Whether a row holds something in a column."""
    return column in _TEXTS or value_of(row, column) is not None


def value_of(row: Row, column: str) -> float | None:
    """Return the number that a row holds in a column, None where it holds none."""
    if column in _NUMBERS:
        return _NUMBERS[column][0](row)
    metric = row.metrics.get(column)
    if metric is None:
        return None
    infinite = math.inf if metric.higher_is_better else None  # JSON knows no infinity, so the report says null
    return infinite if metric.quantized is None else metric.quantized


def interval_of(row: Row, column: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a value; a number that is known exactly, such as a size, is its own interval."""
    value = value_of(row, column)
    if value is None:
        return None
    if column == "speedup":
        return None if row.speedup is None else (row.speedup.low, row.speedup.high)
    if column in row.metrics:
        interval = row.metrics[column].interval
        return None if interval is None else (interval.low, interval.high)
    return (_rounded(value), _rounded(value)) if column in ("bytes", "size_ratio") else None


def beyond_noise(one: Row, other: Row, column: str) -> bool:
    """Whether two runs differ by more than their intervals; where an interval is not known, that is not claimed."""
    a, b = interval_of(one, column), interval_of(other, column)
    return a is not None and b is not None and (a[1] < b[0] or b[1] < a[0])


def higher_is_better(rows: Sequence[Row], column: str) -> bool:
    """Return the direction of a gain; texts are sorted upwards."""
    if column in _NUMBERS:
        return _NUMBERS[column][1]
    return column not in _TEXTS and next(row.metrics[column].higher_is_better for row in rows if column in row.metrics)


def _title(conditions: Sequence[tuple[str, str]], groups: Sequence[Sequence[tuple[str, str]]]) -> str:
    own = dict(conditions)
    others = [dict(other) for other in groups if dict(other)["graph"] == own["graph"]]
    apart = [key for key in own if any(other[key] != own[key] for other in others)]
    return ", ".join([own["graph"], *(f"{key} {own[key]}" for key in apart)])


def _sorted(rows: Sequence[Row], column: str) -> list[Row]:
    """Return the best rows first, those without a value last."""
    if column in _TEXTS:
        return sorted(rows, key=_TEXTS[column])
    known = [(value, row) for row in rows if (value := value_of(row, column)) is not None]
    rest = [row for row in rows if value_of(row, column) is None]
    if not known:
        return rest
    known.sort(key=lambda pair: pair[0], reverse=higher_is_better(rows, column))
    return [row for _, row in known] + rest


def _dominates(one: Row, other: Row, axes: Sequence[str]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better beyond noise."""
    better = False
    for axis in axes:
        a, b = value_of(one, axis), value_of(other, axis)
        assert a is not None and b is not None
        sign = 1 if higher_is_better([one], axis) else -1
        gap = sign * (_rounded(a) - _rounded(b) if axis == "bytes" else a - b)
        if gap < 0:
            return False
        better |= gap > 0 and beyond_noise(one, other, axis)
    return better


def _rounded(size: float) -> float:
    """Return a size to three digits: a few bytes of a header decide nothing."""
    return float(f"{size:.3g}")


def _ranked(rows: Sequence[Row], columns: Sequence[str], first: int) -> list[RankedRun]:
    best: list[list[str]] = [[] for _ in rows]
    ties: list[list[str]] = [[] for _ in rows]
    place = {id(row): index for index, row in enumerate(rows)}
    for column in columns:
        ordered = [row for row in _sorted(rows, column) if value_of(row, column) is not None]
        if len(ordered) < 2:
            continue
        best[place[id(ordered[0])]].append(column)
        for row in ordered[1:]:
            if not beyond_noise(ordered[0], row, column):
                ties[place[id(row)]].append(column)
    return [
        RankedRun(row, first + index, len(rows) > 1 and not beaten_by(row, rows), tuple(best[index]), tuple(ties[index]))
        for index, row in enumerate(rows)
    ]


def _order(runs: Sequence[RankedRun], column: str) -> str:
    rank = {id(run.row): run.rank for run in runs}
    rows = _sorted([run.row for run in runs], column)
    ordered = [row for row in rows if value_of(row, column) is not None]
    if len(ordered) < 2:
        return ""
    parts = [str(rank[id(ordered[0])])]
    for before, after in pairwise(ordered):
        parts += [">" if beyond_noise(before, after, column) else "≈", str(rank[id(after)])]
    return " ".join(parts)
