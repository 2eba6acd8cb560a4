"""Errors that come from around the program, and that a user can act on: a disk that is full, memory that is used up."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StageError
from pipeline.limits import MEGABYTE

DISK = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "The file system takes no larger files",
    errno.EROFS: "It is read-only",
    errno.EACCES: "Its permissions forbid it",
    errno.EPERM: "Its permissions forbid it",
    errno.EIO: "The device is damaged, or gone",
    errno.ENOTDIR: "A file is in the place of a directory",
    errno.ENAMETOOLONG: "The file system takes no longer names",
}
FILES = frozenset({errno.EMFILE, errno.ENFILE})
LOWER = {
    "quantize": "calibration.samples, or give shorter samples",
    "benchmark": "benchmark.threads, or give shorter samples",
    "evaluate": "evaluation.samples, evaluation.listen or evaluation.node_samples, or give shorter samples",
}
NO_THREAD = "can't start new thread"  # Python's, a RuntimeError
KILLED_WORKER = "TerminatedWorkerError"  # joblib's, which need not be installed


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Let an error of the system name the file that is written: one of a write, unlike one of an opening, names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


def outside_error(error: BaseException, stage: str | None = None) -> StageError | None:
    """Return what a user is told of an error that comes from around the program; None where it is another.

    Args:
        error: that was raised.
        stage: in which; None: in none.
    """
    where = "" if stage is None else f"{stage}: "
    if isinstance(error.__cause__, OSError | MemoryError):  # logging's, for one, says only that a handler cannot be configured
        error = error.__cause__
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        from pipeline.memory import memory_bytes, used_bytes

        lower = LOWER.get(stage or "", "the size of the model or of its samples")
        used = f"with {used_bytes() // MEGABYTE} MB in use of {memory_bytes() // MEGABYTE} MB"
        return StageError(f"{where}out of memory, {used}: {_words(error) or 'an array could not be had'}. Lower {lower}.")
    if isinstance(error, OSError) and error.errno in DISK:
        what = error.filename2 or error.filename
        place = "a file" if what is None else str(what)
        return StageError(
            f"{where}{place} cannot be written or read: {error.strerror}. {DISK[error.errno]}; or write elsewhere: a run's "
            "directory with hydra.run.dir, temporary files with the variable TMPDIR."
        )
    if isinstance(error, OSError) and error.errno in FILES:
        return StageError(f"{where}too many files are open ({error.strerror}). Raise the limit of the system: ulimit -n 4096.")
    if str(error) == NO_THREAD or (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        return StageError(
            f"{where}the system starts no further thread or process ({_words(error)}): memory is used up, or there are as many "
            "as it allows. Close other programs, or raise its limits: ulimit -v and -u, or those of the container."
        )
    if type(error).__name__ == KILLED_WORKER:
        return StageError(
            f"{where}a process that ran a job was killed, perhaps since memory was used up: {_words(error)[:300]} Run fewer at "
            "a time: hydra.launcher.n_jobs=1."
        )
    return None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
