"""What a run read and what it has to say: the inputs with their hashes, warnings and notes, for the report."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.paths import HashedFile, hash_files, portable
from pipeline.record.console import IN_REPORT

log = logging.getLogger("pipeline")

Event = tuple[str | int, ...]
"""What was told: the name of the method, and what it was given."""


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
        self._recorders: list[list[Event]] = []

    @contextmanager
    def recorded(self) -> Iterator[list[Event]]:
        """Give what is told meanwhile, so that `tell_again` can repeat it in another run; skipped samples are not in it."""
        events: list[Event] = []
        self._recorders.append(events)
        try:
            yield events
        finally:
            self._recorders.remove(events)

    def tell_again(self, events: Sequence[Event]) -> None:
        """Repeat what was told in another run."""
        for what, *told in events:
            match what:
                case "warn":
                    self.warn(str(told[0]))
                case "warn_first":
                    self.warn_first(str(told[0]))
                case "note":
                    self.note(str(told[0]))
                case "read":
                    self.read_hashed(HashedFile(Path(str(told[0])), str(told[1]), int(told[2])))
                case _:
                    raise ValueError(f"{what!r} is nothing that a run tells")

    def _record(self, *event: str | int) -> None:
        for events in self._recorders:
            events.append(event)

    def warn(self, message: str) -> None:
        """Note something that a user must see, once."""
        self._record("warn", message)
        if message not in self.warnings:
            self.warnings.append(message)
            _log(logging.WARNING, message)

    def warn_first(self, message: str) -> None:
        """Note what a user must see before all else."""
        self._record("warn_first", message)
        self.warnings.insert(0, message)
        _log(logging.WARNING, message)

    def note(self, message: str) -> None:
        """Note, once, a routine step that may explain a result, and that nobody need act on."""
        self._record("note", message)
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
            self._record("read", str(file.path), file.sha256, file.bytes)
            self._inputs[file.path] = {"path": portable(file.path), "sha256": file.sha256, "bytes": file.bytes}

    @property
    def inputs(self) -> list[dict[str, str | int]]:
        """The files that were read: path, sha256, bytes."""
        return list(self._inputs.values())


def _log(level: int, message: str) -> None:
    """Write into run.log; in the terminal, the report tells it."""
    log.log(level, "%s", message, extra={IN_REPORT: True})
