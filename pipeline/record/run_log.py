"""What a run read and what it has to say: the inputs with their hashes, and the warnings, for the report."""

import logging
from pathlib import Path

from pipeline.paths import HashedFile, hash_files, portable

log = logging.getLogger("pipeline")


class RunLog:
    """Collects, over all stages of a run, the files that were read and the warnings that a user must see."""

    def __init__(self) -> None:
        """Start empty."""
        self.warnings: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self._inputs: dict[Path, dict[str, str | int]] = {}

    def warn(self, message: str) -> None:
        """Note something that a user must see, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            log.warning(message)

    def warn_first(self, message: str) -> None:
        """Note what a user must see before all else."""
        self.warnings.insert(0, message)
        log.warning(message)

    def skip(self, key: str, sample: str, reason: str) -> None:
        """Note a sample that the run goes on without: the setting that names its set, its id, and why."""
        self.skipped.append({"set": key, "sample": sample, "reason": reason})
        log.info("%s: skipped %r: %s", key, sample, reason)

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
