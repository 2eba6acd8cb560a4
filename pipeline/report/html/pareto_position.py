"""The place of a run among fp32 and the earlier runs of the same graph under the same conditions: is it on the front?"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.record.run_directory import REPORT_FILE
from pipeline.report.html import plots
from pipeline.report.html.render import mib
from pipeline.report.ranking import Row, beaten_by, front_metrics, higher_is_better, interval_of, value_of
from pipeline.report.run_rows import rows_of
from pipeline.report.terminal import format_number

MOST_RUNS = 40  # that are looked at, the newest of them
MOST_ROWS = 8  # of the table
FP32 = "fp32"

Report = Mapping[str, Any]


def places(report: Report, directory: Path) -> list[dict[str, Any]]:
    """Return each timed graph's place: in words, and as a picture of speed against quality.

    Args:
        report: of the run.
        directory: of the run, `outputs/<model>/<mode>/<timestamp>`; its neighbours are what it is compared with.
    """
    if report["status"] != "done" or "benchmark" not in report:
        return []
    found = []
    for index, own in enumerate(row for row in rows_of(directory, report) if row["speedup"] is not None):
        rows = [own, _fp32(own), *_neighbours(own, directory)]
        beaten = beaten_by(own, rows)
        others = len(rows) - 2
        found.append(
            {
                "graph": own["graph"],
                "on_front": not beaten,
                "words": _words(own, beaten, others, front_metrics(rows)),
                "picture": _picture(own, rows, index),
                "rows": _table(own, rows),
                "quality": front_metrics(rows),
            }
        )
    return found


def _neighbours(own: Row, directory: Path) -> list[Row]:
    """Return the rows of other finished runs that may be ranked with this one, the newest first."""
    if directory.parent.parent.name != own["model"]:  # hydra.run.dir leads elsewhere: nothing is known of what lies there
        return []
    reports = [path for path in directory.parent.parent.glob(f"*/*/{REPORT_FILE}") if path.parent != directory]
    found: list[Row] = []
    for path in sorted(reports, key=lambda path: path.parent.name, reverse=True)[:MOST_RUNS]:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(report, dict) and report.get("status") == "done" and report.get("schema") == 1:
            rows = rows_of(path.parent, report)
            found += [row for row in rows if row["conditions"] == own["conditions"] and row["speedup"] is not None]
    return found


def _fp32(own: Row) -> Row:
    """Return the original as a row: as fast as itself, and exactly as good as it is."""
    metrics = {}
    for name, metric in own["metrics"].items():
        value = metric["baseline"]
        metrics[name] = {**metric, "quantized": value, "interval": None if value is None else {"low": value, "high": value}}
    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    return {**own, "mode": FP32, "directory": FP32, "bytes": own["baseline_bytes"], "speedup": one, "metrics": metrics}


def _words(own: Row, beaten: list[Row], others: int, quality: list[str]) -> str:
    counted = ", ".join(["speed", "size", *quality])
    among = f"fp32 and {others} earlier {'run' if others == 1 else 'runs'}" if others else "fp32"
    if not beaten:
        return f"Compared with {among}, nothing is as good in everything: {counted}."
    best = beaten[0]
    name = FP32 if best["mode"] == FP32 else f"{best['mode']} {Path(best['directory']).name}"
    more = f" and {len(beaten) - 1} more" if len(beaten) > 1 else ""
    is_ = "are" if more else "is"
    return f"{name}{more} {is_} nowhere worse, and somewhere better beyond noise: {counted}. Compared with {among}."


def _table(own: Row, rows: list[Row]) -> list[dict[str, Any]]:
    """Return what is told of each run: this one, fp32, the rest of the front, then others, as far as there is room."""
    front = {id(row): not beaten_by(row, rows) for row in rows}
    told = [*rows[:2], *sorted(rows[2:], key=lambda row: not front[id(row)])][:MOST_ROWS]
    quality = front_metrics(rows)
    return [
        {
            "name": "this run" if row is own else row["mode"],
            "when": "" if row["mode"] == FP32 else row["mode"] if row is own else Path(row["directory"]).name,
            "own": row is own,
            "front": front[id(row)],
            "speedup": f"{row['speedup']['median']:.2f}",
            "size": mib(row["bytes"]),
            "values": [_shown(value_of(row, name)) for name in quality],
        }
        for row in told
    ]


def _shown(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _picture(own: Row, rows: list[Row], index: int) -> Any:  # noqa: ANN401  Markup, or None
    name = next(iter(reversed(front_metrics(rows))), None)
    if name is None:
        return None
    dots = []
    for row in reversed(rows):  # the run itself is drawn last, on top
        value = value_of(row, name)
        if value is None or not math.isfinite(value):
            continue
        low, high = interval_of(row, name) or (value, value)
        speedup, on_front = row["speedup"], not beaten_by(row, rows)
        label = "this run" if row is own else row["mode"] if on_front else ""
        dots.append(
            plots.Dot(
                label,
                plots.Range("", speedup["median"], speedup["low"], speedup["high"]),
                plots.Range("", value, low, high),
                on_front,
                own=row is own,
            )
        )
    if len(dots) < 2:
        return None
    better = "higher" if higher_is_better(rows, name) else "lower"
    told = "; ".join(f"{dot.label or 'a beaten run'}: {dot.speedup.value:.2f} and {dot.quality.value:.4g}" for dot in dots)
    return plots.front(dots, name, better, f"place-{index}", f"Speed-up against {name} of {own['graph']}: {told}.")
