"""A past run, again: from its own config.yaml, in a new directory, and what came out differently."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.record.run_directory import REPORT_FILE

NOISE_FREE_TOLERANCE = 1e-9  # relative; a metric that moved by less is the same number computed in another order


def read_past_report(directory: Path) -> dict[str, Any]:
    """Return the report of a past run.

    Raises:
        ConfigError: there is none, or it is not of a finished run.
    """
    path = directory / REPORT_FILE
    if not path.is_file():
        raise ConfigError(f"rerun: {directory} is no run's directory: it has no {REPORT_FILE}.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"rerun: {path} is damaged: {error}.") from error
    if not isinstance(report, dict) or "schema" not in report:
        raise ConfigError(f"rerun: {path} is no run's report: it has no schema.")
    return report


def compare_with_past(directory: Path, past: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return the report's `rerun`: which inputs and libraries differ, which artifacts are identical, which metrics moved.

    Args:
        directory: of the past run.
        past: its report.
        report: of the run that repeated it.
    """
    was, now = past.get("environment", {}), report["environment"]
    return {
        "of": str(directory),
        "inputs_changed": _inputs_changed(past.get("inputs", []), report["inputs"]),
        "environment_changed": [
            f"{key}: {was.get(key)} -> {now.get(key)}" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
        ],
        "artifacts_identical": _artifacts_identical(past.get("artifacts", []), report.get("artifacts", [])),
        "metrics_moved": _metrics_moved(_metrics(past), _metrics(report)),
    }


def _inputs_changed(past: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    before, after = ({entry["path"]: entry["sha256"] for entry in entries} for entries in (past, now))
    changed = [f"{path}: other contents" for path in before if path in after and before[path] != after[path]]
    changed += [f"{path}: no longer read" for path in before if path not in after]
    return changed + [f"{path}: not read before" for path in after if path not in before]


def _artifacts_identical(past: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, bool]:
    before = {artifact["file"]: artifact["sha256"] for artifact in past}
    after = {artifact["file"]: artifact["sha256"] for artifact in now}
    return {file: before.get(file) == after.get(file) for file in {**before, **after}}


def _metrics(report: dict[str, Any]) -> dict[str, float | None]:
    metrics = report.get("evaluation", {}).get("metrics", {})
    return {name: metric["quantized"] for name, metric in metrics.items()}


def _metrics_moved(past: dict[str, float | None], now: dict[str, float | None]) -> dict[str, tuple[float | None, float | None]]:
    moved = {}
    for name in {**past, **now}:
        was, became = past.get(name), now.get(name)
        if was is None or became is None:
            same = was == became
        else:
            same = abs(was - became) <= NOISE_FREE_TOLERANCE * max(abs(was), abs(became))
        if not same:
            moved[name] = (was, became)
    return moved
