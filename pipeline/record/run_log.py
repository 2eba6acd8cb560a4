"""What a run read and what it has to say: the inputs with their hashes, warnings and notes, for the report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.paths import HashedFile, hash_files, portable
from pipeline.record.console import IN_REPORT

log = logging.getLogger("pipeline")


class RunLog:
    """Collects, over all stages of a run, the files that were read, and what a user must see or may want to know.

    Attributes:
        warnings: what a user must see.
        notes: what was done as it always is, and may explain a result.
        skipped: samples that the run goes on without.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self._inputs: dict[Path, dict[str, str | int]] = {}
        self._skipped_before: list[dict[str, str]] = []

    def warn(self, message: str) -> None:
        """Note something that a user must see, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            _log(logging.WARNING, message)

    def warn_first(self, message: str) -> None:
        """Note what a user must see before all else."""
        self.warnings.insert(0, message)
        _log(logging.WARNING, message)

    def note(self, message: str) -> None:
        """Note, once, a routine step that may explain a result, and that nobody need act on."""
        if message not in self.notes:
            self.notes.append(message)
            _log(logging.INFO, message)

    def skip(self, key: str, sample: str, reason: str) -> None:
        """Note a sample that the run goes on without: the setting that names its set, its id, and why."""
        entry = {"set": key, "sample": sample, "reason": reason}
        if entry in self._skipped_before:  # of a run that goes on: its set is read again
            self._skipped_before.remove(entry)
            return
        self.skipped.append(entry)
        log.info("%s: skipped %r: %s", key, sample, reason)

    def restore(
        self,
        warnings: Sequence[str],
        notes: Sequence[str],
        skipped: Sequence[dict[str, str]],
        inputs: Mapping[Path, dict[str, str | int]],
    ) -> None:
        """Begin with what a run has noted before it ended early; what is noted again does not stand twice."""
        self.warnings, self.notes, self.skipped = list(warnings), list(notes), list(skipped)
        self._skipped_before, self._inputs = list(skipped), dict(inputs)

    def read(self, *files: Path) -> None:
        """Note that the run's results depend on these files."""
        for file in files:
            if file not in self._inputs and file.is_file():
                self.read_hashed(hash_files(file)[0][0])

    def read_hashed(self, *files: HashedFile) -> None:
        """Note files whose hashes are known already."""
        for file in files:
            self._inputs[file.path] = {"path": portable(file.path), "sha256": file.sha256, "bytes": file.bytes}

    @property
    def inputs(self) -> list[dict[str, str | int]]:
        """The files that were read: path, sha256, bytes."""
        return list(self._inputs.values())


def _log(level: int, message: str) -> None:
    """Write into run.log; in the terminal, the report tells it."""
    log.log(level, "%s", message, extra={IN_REPORT: True})
