"""What has changed since a run: its inputs, what it has made, the versions and the processor. Nothing is run."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.record.environment import environment
from pipeline.report.report_file import read_report
from pipeline.report.restored import changed_artifacts, changed_package
from pipeline.rerun import environment_changed, files_changed


@dataclass(frozen=True)
class Verified:
    """What was found, each in a few words.

    Attributes:
        inputs: how many files the run has read.
        inputs_changed: those that are gone or others.
        files: how many files it has made whose hashes it knows: artifacts, and those of the package.
        files_changed: those that are gone or others.
        environment_changed: versions, commit, processor and its features.
    """

    inputs: int
    inputs_changed: list[str] = field(default_factory=list)
    files: int = 0
    files_changed: list[str] = field(default_factory=list)
    environment_changed: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every file is what it was."""
        return not self.inputs_changed and not self.files_changed


def verify(run: Path) -> Verified:
    """Hash again what a run has read and made, and compare this machine with the run's.

    Args:
        run: its directory; it may have ended early.

    Raises:
        ConfigError: it is not a run's directory, its report is damaged, or it has read nothing.
    """
    report = read_report(run, "verify")
    if not report.inputs:
        raise ConfigError(f"verify: {run} ended before it had read a file: there is nothing to verify.")
    packed = report.package.files if report.package is not None else []
    return Verified(
        len(report.inputs),
        files_changed(report.inputs),
        len(report.artifacts or []) + len(packed),
        [*changed_artifacts(report, run), *changed_package(report, run)],
        environment_changed(report.environment, environment()),
    )
