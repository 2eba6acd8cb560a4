"""Which runs may be ranked together, in what order, what differs beyond noise, and which of them no other one beats."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.errors import ConfigError, did_you_mean
from pipeline.metrics.metric_registry import METRICS, leading_metrics

Row = dict[str, Any]

DEFAULT_ORDER = "speedup"
# What runs can be sorted by beside their metrics: where it stands, and whether more of it is better.
_COLUMNS: dict[str, tuple[Callable[[Row], Any], bool]] = {
    "speedup": (lambda row: (row["speedup"] or {}).get("median"), True),
    "bytes": (lambda row: row["bytes"], False),
    "size_ratio": (lambda row: row["bytes"] / row["baseline_bytes"], False),
    "latency_ms": (lambda row: row["latency_ms"], False),
    "rtf": (lambda row: row["rtf"], False),
    "load_ms": (lambda row: row["load_ms"], False),
    "peak_bytes": (lambda row: row["peak_bytes"], False),
    "quantize_seconds": (lambda row: row["quantize_seconds"], False),
    "mode": (lambda row: row["mode"], False),
    "directory": (lambda row: row["directory"], False),
}


@dataclass(frozen=True)
class Group:
    """Runs that may be ranked together.

    Attributes:
        title: the graph, and in what it stands apart from other groups of the same graph.
        conditions: what they have in common: the graph, its original, the machine, the libraries, the evaluation set.
        rows: the runs, best first.
        quality: the metrics that the front is about.
        orders: column -> the ranks of the rows as `1 > 3 ≈ 2`: beyond noise better than, or within noise of, the next one.
    """

    title: str
    conditions: Mapping[str, str]
    rows: list[Row]
    quality: list[str]
    orders: dict[str, str]


def ranked_groups(rows: Sequence[Row], sort_by: str) -> list[Group]:
    """Return the runs in groups that may be ranked; each row gets `rank`, `front`, `best` and `ties`.

    Raises:
        ConfigError: no run has what to sort by.
    """
    check_order(rows, sort_by)
    by_conditions: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    graphs = list(dict.fromkeys(row["conditions"]["graph"] for row in rows))
    for row in sorted(rows, key=lambda row: graphs.index(row["conditions"]["graph"])):
        by_conditions.setdefault(tuple(row["conditions"].items()), []).append(row)
    groups, rank = [], 0
    for conditions, unordered in by_conditions.items():
        members = _sorted(unordered, sort_by)
        for row in members:
            rank += 1
            row["rank"] = rank
        quality = front_metrics(members)
        columns = [name for name in dict.fromkeys(("speedup", "bytes", *quality, sort_by)) if name not in ("mode", "directory")]
        for row in members:
            row["front"] = len(members) > 1 and not beaten_by(row, members)
            row["best"], row["ties"] = [], []
        for column in columns:
            _mark_best(members, column)
        orders = {column: order for column in columns if (order := _order(members, column))}
        groups.append(Group(_title(conditions, list(by_conditions)), dict(conditions), members, quality, orders))
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
    known = [*_COLUMNS, *dict.fromkeys(name for row in rows for name in row["metrics"])]
    if rows and sort_by not in known:
        raise ConfigError(f"sort_by: these runs have no {sort_by!r}.{did_you_mean(sort_by, known)}")


def front_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the metrics that quality is read by: the first against the truth, and the first against fp32."""
    shared = [name for name in leading_metrics() if all(name in row["metrics"] for row in rows)]
    return [
        name
        for kind in (True, False)
        if (name := next((n for n in shared if METRICS[n].against_truth is kind), None)) is not None
    ]


def value_of(row: Row, column: str) -> Any:  # noqa: ANN401
    """Return what a row holds in a column, None where it holds nothing."""
    if column in _COLUMNS:
        return _COLUMNS[column][0](row)
    metric = row["metrics"].get(column)
    if metric is None:
        return None
    infinite = math.inf if metric["higher_is_better"] else None  # JSON knows no infinity, so the report says null
    return infinite if metric["quantized"] is None else metric["quantized"]


def interval_of(row: Row, column: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a value; a number that is known exactly, such as a size, is its own interval."""
    value = value_of(row, column)
    if value is None:
        return None
    if column == "speedup":
        return row["speedup"]["low"], row["speedup"]["high"]
    if column in row["metrics"]:
        interval = row["metrics"][column].get("interval")
        return (interval["low"], interval["high"]) if interval else None
    return (_rounded(value), _rounded(value)) if column in ("bytes", "size_ratio") else None


def beyond_noise(one: Row, other: Row, column: str) -> bool:
    """Whether two runs differ by more than their intervals; where an interval is not known, that is not claimed."""
    a, b = interval_of(one, column), interval_of(other, column)
    return a is not None and b is not None and (a[1] < b[0] or b[1] < a[0])


def higher_is_better(rows: Sequence[Row], column: str) -> bool:
    """Return the direction of a gain."""
    if column in _COLUMNS:
        return _COLUMNS[column][1]
    return next(bool(row["metrics"][column]["higher_is_better"]) for row in rows if column in row["metrics"])


def _title(conditions: Sequence[tuple[str, str]], groups: Sequence[Sequence[tuple[str, str]]]) -> str:
    own = dict(conditions)
    others = [dict(other) for other in groups if dict(other)["graph"] == own["graph"]]
    apart = [key for key in own if any(other[key] != own[key] for other in others)]
    return ", ".join([own["graph"], *(f"{key} {own[key]}" for key in apart)])


def _sorted(rows: list[Row], column: str) -> list[Row]:
    known = [row for row in rows if value_of(row, column) is not None]
    rest = [row for row in rows if value_of(row, column) is None]
    if not known:
        return rest
    return sorted(known, key=lambda row: value_of(row, column), reverse=higher_is_better(known, column)) + rest


def _dominates(one: Row, other: Row, axes: Sequence[str]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better beyond noise."""
    better = False
    for axis in axes:
        sign = 1 if higher_is_better([one], axis) else -1
        a, b = (value_of(row, axis) for row in (one, other))
        gap = sign * (_rounded(a) - _rounded(b) if axis == "bytes" else a - b)
        if gap < 0:
            return False
        better |= gap > 0 and beyond_noise(one, other, axis)
    return better


def _rounded(size: float) -> float:
    """Return a size to three digits: nobody chooses between models by a few bytes of a header."""
    return float(f"{size:.3g}")


def _mark_best(rows: Sequence[Row], column: str) -> None:
    ordered = [row for row in _sorted(list(rows), column) if value_of(row, column) is not None]
    if len(ordered) < 2:
        return
    best = ordered[0]
    best["best"].append(column)
    for row in ordered[1:]:
        if not beyond_noise(best, row, column):
            row["ties"].append(column)


def _order(rows: Sequence[Row], column: str) -> str:
    ordered = [row for row in _sorted(list(rows), column) if value_of(row, column) is not None]
    if len(ordered) < 2:
        return ""
    parts = [str(ordered[0]["rank"])]
    for before, after in pairwise(ordered):
        parts += [">" if beyond_noise(before, after, column) else "≈", str(after["rank"])]
    return " ".join(parts)
