"""report.json as a file: every reader of one comes here, so that an older or newer schema is refused in one place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.record.run_directory import REPORT_FILE, RunDirectory
from pipeline.report.schema import SCHEMA, Report
from pipeline.typed_json import from_json, to_json

READ = (1, SCHEMA)


class DamagedReportError(ConfigError):
    """A directory has no report, or none that can be read.

    Attributes:
        reason: the message without the setting.
    """

    def __init__(self, setting: str, reason: str) -> None:
        """Take the setting that led to the report, and what is wrong with it."""
        super().__init__(f"{setting}: {reason}")
        self.reason = reason


def read_report(directory: Path, setting: str) -> Report:
    """Return the report of a run.

    Args:
        directory: of the run.
        setting: that names it, for messages.

    Raises:
        DamagedReportError: there is none, or it is not a report.
        ConfigError: it is of a schema that this version does not read.
    """
    path = directory / REPORT_FILE
    if not path.is_file():
        raise DamagedReportError(setting, f"{directory} is not a run's directory: it has no {REPORT_FILE}.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedReportError(setting, f"{path} is damaged: {error}.") from error
    return report_from_json(value, setting, path)


def report_from_json(value: Any, setting: str, path: Path = Path(REPORT_FILE)) -> Report:  # noqa: ANN401
    """Return what a report.json holds as a Report; one of schema 1 becomes one of today's.

    Raises:
        DamagedReportError: it is not a report.
        ConfigError: it is of a schema that this version does not read.
    """
    if not isinstance(value, Mapping) or "schema" not in value or "status" not in value:
        raise DamagedReportError(setting, f"{path} is not a run's report: it has no schema or no status.")
    if value["schema"] not in READ:
        raise ConfigError(
            f"{setting}: {path} is of schema {value['schema']}; this version of the project reads "
            f"{' and '.join(map(str, READ))}. "
            "Leave it out, run it again with this version, or use the version that wrote it (environment.commit in the file)."
        )
    try:
        return from_json(Report, _from_schema_1(value) if value["schema"] == 1 else value)
    except ValueError as error:
        raise DamagedReportError(setting, f"{path} is damaged: {error}.") from error


def report_to_json(report: Report) -> dict[str, Any]:
    """Return what report.json holds of a report.

    Programs that read schema 1 look for `precisions` of an artifact: it is written too, equal to `quantized_nodes`.
    """
    value = {"schema": SCHEMA, **to_json(report)}
    if report.artifacts is not None:
        value["artifacts"] = [{**artifact, "precisions": artifact["quantized_nodes"]} for artifact in value["artifacts"]]
    return value


def write_report(directory: RunDirectory, report: Report) -> Report:
    """Write report.json; return what it holds, in which an infinite number is None."""
    value = report_to_json(report)
    directory.write_report(value)
    return report_from_json(value, "report", directory.path / REPORT_FILE)


def _from_schema_1(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report of schema 1 as one of today's: `quantized_nodes` was a list beside `precisions`, {node: precision}."""
    artifacts = value.get("artifacts")
    if not isinstance(artifacts, list) or not all(isinstance(artifact, Mapping) for artifact in artifacts):
        return dict(value)
    return {**value, "artifacts": [_artifact_of_schema_1(artifact) for artifact in artifacts]}


def _artifact_of_schema_1(artifact: Mapping[str, Any]) -> dict[str, Any]:
    nodes = artifact.get("quantized_nodes", [])
    return {**artifact, "quantized_nodes": artifact.get("precisions", dict.fromkeys(nodes, "quantized"))}
