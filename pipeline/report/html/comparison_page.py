"""The page of several runs side by side."""

import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipeline.metrics.metric_registry import leading_metrics
from pipeline.report.html import plots
from pipeline.report.html.render import hydra_value, mib, ms, render, shown_path
from pipeline.report.html.run_page import PAGE_FILE
from pipeline.report.ranking import Group, Row, higher_is_better, interval_of, value_of
from pipeline.report.terminal import format_number

if TYPE_CHECKING:
    from pipeline.report.compare_runs import Comparison

SHOWN_METRICS = 4
TITLES = {"speedup": "Speed-up", "bytes": "Size", "latency_ms": "Latency", "rtf": "Real-time factor", "load_ms": "Time to load",
          "peak_bytes": "Peak memory", "quantize_seconds": "Time to quantize", "size_ratio": "Size, of fp32’s"}  # fmt: skip


def comparison_page(comparison: "Comparison", folder: Path) -> str:
    """Return the text of comparison.html.

    Args:
        comparison: the runs, ranked.
        folder: where the page will lie; links to the runs' own pages are relative to it.
    """
    count = sum(len(group.rows) for group in comparison.groups)
    view = {
        "title": f"{count} runs compared",
        "comparison": comparison,
        "groups": [_group(group, index, comparison.sorted_by, folder) for index, group in enumerate(comparison.groups)],
        "sorted_by": TITLES.get(comparison.sorted_by, comparison.sorted_by),
        "count": count,
        "command": _command(comparison),
    }
    return render("comparison.html.j2", view)


def _group(group: Group, index: int, sorted_by: str, folder: Path) -> dict[str, Any]:
    metrics = [name for name in leading_metrics() if any(name in row["metrics"] for row in group.rows)][:SHOWN_METRICS]
    columns = ["speedup", "bytes", "latency_ms", *metrics]
    if sorted_by not in columns and sorted_by not in ("mode", "directory"):
        columns.append(sorted_by)
    columns = [column for column in columns if any(value_of(row, column) is not None for row in group.rows)]
    return {
        "group": group,
        "id": f"group-{index}",
        "columns": [(column, TITLES.get(column, column), _better(group, column)) for column in columns],
        "rows": [_row(row, columns, folder) for row in group.rows],
        "pictures": _pictures(group, index),
        "front": [str(row["rank"]) for row in group.rows if row["front"]],
        "orders": [(TITLES.get(column, column), order) for column, order in group.orders.items()],
        "quality": group.quality,
    }


def _better(group: Group, column: str) -> str:
    return "higher is better" if higher_is_better(group.rows, column) else "lower is better"


def _row(row: Row, columns: list[str], folder: Path) -> dict[str, Any]:
    directory = Path(row["directory"])
    page = directory / PAGE_FILE
    cells = [
        {
            "value": _shown(row, column),
            "interval": _interval(row, column),
            "best": column in row["best"],
            "tie": column in row["ties"],
            "verdict": row["verdict"] if column == "speedup" else None,
        }
        for column in columns
    ]
    link = Path(os.path.relpath(page, folder)).as_posix() if page.is_file() else None
    return {"row": row, "cells": cells, "name": directory.name, "link": link,
            "settings": [f"{key}={value}" for key, value in row["settings"].items()]}  # fmt: skip


def _shown(row: Row, column: str) -> str:
    value = value_of(row, column)
    if value is None:
        return "∞" if column in row["metrics"] else "–"
    match column:
        case "speedup":
            text = f"{value:.2f} ×"
        case "bytes":
            text = f"{mib(value)}, {100 * value / row['baseline_bytes']:.0f} %"
        case "peak_bytes":
            text = mib(value)
        case "latency_ms" | "load_ms":
            text = ms(value)
        case "quantize_seconds":
            text = f"{value:.1f} s"
        case _:
            text = f"{format_number(value)} {row['metrics'].get(column, {}).get('unit', '')}".strip()
    return text


def _interval(row: Row, column: str) -> str:
    found = interval_of(row, column)
    if found is None or found[0] == found[1]:
        return ""
    digits = "{:.2f} to {:.2f}" if column == "speedup" else "{:.3g} to {:.3g}"
    return digits.format(*found)


def _pictures(group: Group, index: int) -> list[tuple[str, Markup]]:
    timed = [row for row in group.rows if row["speedup"] is not None]
    if not timed:
        return []
    rows = [_speedup(row) for row in timed]
    told = "; ".join(f"{row.label}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)
    pictures = [
        ("Speed-up, with 95 % intervals", plots.speedups(rows, f"speedups-{index}", f"Speed in multiples of fp32’s: {told}."))
    ]
    name = group.quality[-1] if group.quality else None
    placed = [row for row in timed if name is not None and math.isfinite(value_of(row, name))]
    if name is None or len(placed) < 2:
        return pictures
    dots = []
    for row in placed:
        low, high = interval_of(row, name) or (value_of(row, name),) * 2
        quality = plots.Range(name, value_of(row, name), low, high)
        dots.append(plots.Dot(f"{row['rank']} {row['mode']}", _speedup(row), quality, row["front"]))
    told = "; ".join(f"{dot.label}: {dot.speedup.value:.2f} and {dot.quality.value:.4g}" for dot in dots)
    better = "higher" if higher_is_better(placed, name) else "lower"
    dots.reverse()  # the best ones are drawn, and labelled, above the others
    picture = plots.front(dots, name, better, f"front-{index}", f"Speed-up against {name}: {told}.")
    return [*pictures, ("Speed against quality; the front is filled", picture)]


def _speedup(row: Row) -> plots.Range:
    found = row["speedup"]
    return plots.Range(f"{row['rank']} {row['mode']}", found["median"], found["low"], found["high"])


def _command(comparison: "Comparison") -> str:
    directories = list(dict.fromkeys(row["directory"] for row in comparison.rows))
    shown = ",".join(hydra_value(shown_path(Path(directory))) for directory in directories)
    return f"python run.py {shlex.quote(f'compare=[{shown}]')} sort_by={comparison.sorted_by}"
