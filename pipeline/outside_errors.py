"""Errors that come from around the program, and that a user can act on: a disk that is full, memory that is used up."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DataError, PipelineError, StageError
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
NO_MEMORY = (
    "bad_alloc", "bad allocation",  # of C++, with GCC and with Microsoft's compiler
    "failed to allocate memory",  # of ONNX Runtime's arena
    "cannot allocate memory",  # of the system, in the words of a library
    "arena alloc failed",  # of protobuf
    "failed to map segment",  # of the loader of shared libraries
    "malloc() failed",  # of libsndfile
    "memoryerror",  # of Python, in the words of another process
)  # fmt: skip
"""How libraries say that memory is used up, in errors that are not `MemoryError`; in small letters."""
LONGEST = 300  # of the words of a library
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


class OutsideError(StageError):
    """What a user is told of an error that comes from around the program."""


def says_no_memory(words: str) -> bool:
    """Return whether the words of a library say that memory is used up."""
    return any(known in words.lower() for known in NO_MEMORY)


def spoken_of(words: str) -> MemoryError | None:
    """Return the error that another process of this machine speaks of where it had no more memory; None: of another."""
    return MemoryError(words) if says_no_memory(words) else None


def lack_of_memory(error: BaseException) -> BaseException | None:
    """Return which error says that memory is used up: this one, or one that it was made of; None: none does.

    An error of this program is asked for its cause only: its own words may hold any name of a file or a node. So may those of
    an error of the system, which has a number instead; that of a library that cannot be loaded has none.
    """
    for one in made_of(error):
        if isinstance(one, MemoryError) or (isinstance(one, OSError) and one.errno == errno.ENOMEM):
            return one
        own_words = isinstance(one, PipelineError) or (isinstance(one, OSError) and one.errno is not None)
        if not own_words and says_no_memory(str(one)):
            return one
        if isinstance(one, SystemError) and "without" in str(one) and _is_limited():
            return one
    return None


def _is_limited() -> bool:
    """Return whether this process has a limit of memory.

    A call of C that failed without saying why has most likely met it: CPython makes a SystemError of that, "error return
    without exception set".
    """
    from pipeline.memory import process_limits

    return bool(process_limits())


def made_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the one that it was made of, and so on."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def unless_memory_is_used_up(error: BaseException) -> None:
    """Let lack of memory pass where another error would say something of a graph or a sample, and not end the run.

    Raises:
        MemoryError: memory is used up.
    """
    if (lack := lack_of_memory(error)) is not None:
        raise MemoryError(_words(lack)) from error


def told_of(error: BaseException, stage: str | None = None) -> PipelineError | None:
    """Return what a user is told of an error; None where it is a defect.

    An error of this program is told as it is, but for one that blames a file, a node or a sample where memory was used up.

    Args:
        error: that was raised.
        stage: in which; None: in none.
    """
    if isinstance(error, PipelineError) and (isinstance(error, OutsideError) or lack_of_memory(error) is None):
        return error
    return outside_error(error, stage)


def outside_error(error: BaseException, stage: str | None = None) -> OutsideError | None:
    """Return what a user is told of an error that comes from around the program; None where it is another.

    Args:
        error: that was raised.
        stage: in which; None: in none.
    """
    where = "" if stage is None else f"{stage}: "
    if (lack := lack_of_memory(error)) is not None:
        lower = LOWER.get(stage or "", "the size of the model or of its samples")
        words = _shortened(_words(lack)) or "an array could not be had"
        if isinstance(error, DataError):  # it may say that it is larger than it is
            words = f"{_words(error).rstrip('.')} ({words})" if words not in _words(error) else _words(error)
        figures = _figures()
        lower += ", or raise that limit" if "ulimit" in figures else ""
        return OutsideError(f"{where}out of memory{figures}: {words.rstrip('.')}. Lower {lower}.")
    if isinstance(error.__cause__, OSError):  # logging's, for one, says only that a handler cannot be configured
        error = error.__cause__
    if isinstance(error, OSError) and error.errno in DISK:
        what = error.filename2 or error.filename
        place = "a file" if what is None else str(what)
        return OutsideError(
            f"{where}{place} cannot be written or read: {error.strerror}. {DISK[error.errno]}; or write elsewhere: a run's "
            "directory with hydra.run.dir, temporary files with the variable TMPDIR."
        )
    if isinstance(error, OSError) and error.errno in FILES:
        return OutsideError(
            f"{where}too many files are open ({error.strerror}). Raise the limit of the system: ulimit -n 4096."
        )
    if str(error) == NO_THREAD or (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        return OutsideError(
            f"{where}the system starts no further thread or process ({_words(error)}): memory is used up, or there are as many "
            "as it allows. Close other programs, or raise its limits: ulimit -v and -u, or those of the container."
        )
    if type(error).__name__ == KILLED_WORKER:
        return OutsideError(
            f"{where}a process that ran a job was killed, perhaps since memory was used up: {_words(error)[:300]} Run fewer at "
            "a time: hydra.launcher.n_jobs=1."
        )
    return None


def _shortened(words: str) -> str:
    """Return the beginning of a library's words, and what it says of memory."""
    if len(words) <= LONGEST:
        return words
    at = next((words.lower().find(known) for known in NO_MEMORY if known in words.lower()), 0)
    return f"{words[: LONGEST // 2]}… {words[max(at, LONGEST // 2) :][: LONGEST // 2]}"


def _figures() -> str:
    """Return how much memory is in use, and may be; nothing where there is not enough left to ask."""
    try:
        from pipeline.memory import memory_bytes, process_limits, used_bytes

        allowed = "".join(f", ulimit {option} allows {size // MEGABYTE} MB" for option, size in process_limits().items())
        return f", with {used_bytes() // MEGABYTE} MB in use of {memory_bytes() // MEGABYTE} MB{allowed}"
    except (MemoryError, OSError, ImportError):
        return ""


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
