"""Graphs are opened in another process first: ONNX Runtime is native code, which some graphs end, and no exception tells.

A run holds one such process (`rehearsals`), which has ONNX Runtime imported before it is needed and is started again where it
ends. `pipeline.graph.session.open_session` asks it before it opens a graph that has not been opened; outside of a run nobody
is asked. A fresh interpreter, not a fork: this process may have threads of numba's, of ONNX Runtime's and of its caller's.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.errors import ModelError, StageError
from pipeline.interruption import ended_with_us, held
from pipeline.limits import MEGABYTE, LimitsConfig, limits
from pipeline.memory import memory_bytes
from pipeline.outside_errors import says_no_memory, spoken_of
from pipeline.sample import Sample

MODULE = "pipeline.graph.rehearsal_child"
SHAPES = "shapes"
LAST_BYTES = 4000  # of what a process has printed
REMEDY = (
    "That is a fault of ONNX Runtime, which no exception tells of; the run goes no further with this graph. Another version of "
    "ONNX Runtime may open it; so may another form of the graph: other operators in integers (mode.op_types, "
    "mode.nodes_to_exclude), another mode, or another export where it is the original."
)

OPTIMIZED_BYTES, HELD_BYTES = 128_000_000, 384_000_000
"""Of one graph, and of all together, that are held as ONNX Runtime has optimised them."""
MORE_MEMORY = "Take shorter samples or a smaller model; where the machine has more memory, raise limits.memory_mb."


class EndedError(ModelError):
    """A process that opened or ran a graph has ended, or had to be ended; this one was spared.

    Attributes:
        how: by which signal or limit.
        by_limit: whether it was a limit.
    """

    def __init__(self, how: str, what: str, remedy: str = REMEDY, *, by_limit: bool = False) -> None:
        """Take how it ended, what was opened, and what a user can do."""
        self.how, self.by_limit = how, by_limit
        super().__init__(f"{what}: {how}. {remedy}")


class Rehearsals:
    """The process that opens graphs first, for as long as a run lasts."""

    def __init__(self, allowed: LimitsConfig) -> None:
        """Start the process, which is ready in a quarter of a second; nothing waits for it."""
        self._limits = allowed
        self._lock = threading.Lock()
        self._known: dict[tuple[object, ...], bool] = {}
        self._optimized: dict[tuple[object, ...], bytes] = {}
        self._last_will: bytes | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None
        self._start()

    def on_death(self, module: str, function: str, *arguments: str) -> None:
        """Let the other process call a function where this one ends without having closed this object."""
        self._last_will = _line({"on_death": {"module": module, "function": function, "arguments": arguments}})
        with self._lock, contextlib.suppress(OSError):
            self._send(self._last_will)

    def rehearse(
        self,
        model: str | bytes,
        threads: int,
        *,
        optimization: str,
        without: Sequence[str] = (),
        sample: Sample | None = None,
        again: bool = False,
    ) -> bool:
        """Open a graph in the other process, unless it has survived that before, and run it where there is a sample.

        An error that ONNX Runtime raises there is none here: it will be raised again.

        Args:
            model: the path of a file, or its contents.
            threads: of ONNX Runtime.
            optimization: as of `session_options`; or `SHAPES`, and ONNX infers the shapes of a file's tensors instead.
            without: optimisers that are not to run.
            sample: what it is run on.
            again: it will be opened again and again: hold it as ONNX Runtime has optimised it, though it may be known already.

        Returns:
            Whether ONNX Runtime raised nothing there.

        Raises:
            EndedError: the process ended, or exceeded its limits.
        """
        if isinstance(model, str):
            model = str(Path(model).absolute())  # the other process may be in another directory
        opened = _opened_as(model, threads, optimization, without)
        key = (*opened, sample is not None)
        wanted = again and opened not in self._optimized and _size(model) <= OPTIMIZED_BYTES
        for seen in (key, (*opened, True)):  # what ran on a sample was opened, too
            if seen in self._known and not wanted:
                return self._known[seen]
        blobs = [model] if isinstance(model, bytes) else []
        names: list[str] = []
        if sample is not None:
            names = list(sample.inputs)
            blobs.append(_packed(sample))
        request = _line(
            {
                "path": model if isinstance(model, str) else None,
                "session": [*_identity(model), optimization, *without, threads] if isinstance(model, str) else None,
                "blobs": [len(blob) for blob in blobs],
                "threads": threads,
                "optimization": optimization,
                "without": list(without),
                "optimized_bytes": OPTIMIZED_BYTES if wanted else 0,
                "sample": "" if sample is None else sample.id,
                "names": names,
                "seconds": self._limits.opening_seconds,
                "memory_bytes": self._memory_bytes,
            }
        )
        where = "it" if sample is None else f"it and ran it on sample {sample.id!r}"
        by = f"ONNX Runtime opened {where}" if optimization != SHAPES else "ONNX inferred its shapes"
        what = f"{_called(model)}, when {by}"
        with self._lock:
            answer = self._ask([request, *blobs], what)
        if answer["error"] is not None and answer["no_memory"]:
            raise self._out_of_memory(what)
        self._known[key] = answer["error"] is None
        if wanted:
            self._hold(opened, answer.get("optimized", b""))
        return self._known[key]

    def optimized(self, model: str | bytes, threads: int, *, optimization: str, without: Sequence[str] = ()) -> bytes:
        """Return a graph that will be opened `again` as ONNX Runtime has optimised it; nothing where it is not held.

        Opened without optimisation it runs the same kernels, and opens in a quarter of the time.
        """
        if isinstance(model, str):
            model = str(Path(model).absolute())
        return self._optimized.get(_opened_as(model, threads, optimization, without), b"")

    def _hold(self, opened: tuple[object, ...], optimized: bytes) -> None:
        """Hold a graph in its optimised form, and let go of the oldest where all together take too much memory.

        Of these the key stays, lest they be made again in each round.
        """
        self._optimized[opened] = optimized
        for oldest in list(self._optimized):
            if sum(map(len, self._optimized.values())) <= HELD_BYTES:
                break
            self._optimized[oldest] = b""

    def call(self, module: str, function: str, *arguments: str, what: str) -> Any:  # noqa: ANN401
        """Call a function in the other process, which has ONNX Runtime imported, without a limit; return what it returns.

        Args:
            module: in which it is.
            function: its name.
            arguments: what it is given.
            what: of the message where the process ends.

        Raises:
            EndedError: the process ended.
            StageError: the function raised an error.
        """
        request = _line({"call": {"module": module, "function": function, "arguments": arguments}})
        with self._lock:
            answer = self._ask([request], what)
        if answer["error"] is not None:
            raise StageError(f"{what}: {answer['error']}") from spoken_of(answer["error"])
        return answer["value"]

    @property
    def _memory_bytes(self) -> int:
        return memory_bytes() if self._limits.memory_mb is None else self._limits.memory_mb * MEGABYTE

    def _out_of_memory(self, what: str) -> EndedError:
        size = f"{self._memory_bytes // MEGABYTE} MB of memory"
        allowed = "which limits.memory_mb allows" if self._limits.memory_mb else "which is all that this machine has"
        return EndedError(f"it needs more than {size}, {allowed}", what, MORE_MEMORY, by_limit=True)

    def close(self, *, keeping_will: bool = False) -> None:
        """End the process.

        Args:
            keeping_will: it does first what it was to do where this process ends: this one may have been unable to.
        """
        with self._lock:
            if not keeping_will:
                self._last_will = None
                with contextlib.suppress(OSError):
                    self._send(_line({"on_death": None}))
            self._end(kill=False)

    def _ask(self, parts: Sequence[bytes], what: str) -> dict[str, Any]:
        """Send a request and return the answer; the lock is held."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            with ended_with_us(process):
                with contextlib.suppress(BrokenPipeError):
                    self._send(*parts)
                line = process.stdout.readline()
        except BaseException:  # an interruption: what is answered later is of no use
            self._end(kill=True)
            raise
        if line:
            answer: dict[str, Any] = json.loads(line)
            if size := answer.pop("optimized_bytes", 0):
                answer["optimized"] = process.stdout.read(size)
            return answer
        last_words = self._last_words()
        status = self._end(kill=False)
        raise self._ended(status, last_words, what)

    def _ended(self, status: int, last_words: str, what: str) -> EndedError | StageError:
        """Return the error that an exit status stands for."""
        if status >= 0:
            left = last_words or "It left no message."
            error = StageError(f"The process that opens graphs first could not work: exit status {status}. {left}")
            error.__cause__ = spoken_of(last_words)
            return error
        name = signal.Signals(-status).name
        if name == "SIGALRM":
            remedy = "Raise it, or take a smaller model or shorter samples."
            return EndedError(
                f"it took longer than limits.opening_seconds={self._limits.opening_seconds:g}", what, remedy, by_limit=True
            )
        if name in ("SIGKILL", "SIGTERM"):
            remedy = "The system ends a process that takes the last memory: close other programs, or take a smaller model."
            return EndedError(f"the process was ended from outside ({name})", what, remedy)
        if says_no_memory(last_words):  # where native code has no way to say so but to end
            return self._out_of_memory(what)
        return EndedError(f"the process ended ({name}{f': {last_words}' if last_words else ''})", what)

    def _start(self) -> None:
        package = Path(__file__).resolve().parents[2]
        path = [str(package), os.environ.get("PYTHONPATH", "")]
        printed: Any = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # a full disk: last words are not that important
            printed = self._printed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed with the process
        with held():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
            )  # fmt: skip
        if self._last_will is not None:
            with contextlib.suppress(OSError):
                self._send(self._last_will)

    def _send(self, *parts: bytes) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            for part in parts:
                self._process.stdin.write(part)
            self._process.stdin.flush()

    def _end(self, *, kill: bool) -> int:
        """Wait for the end of the process, which no pipe is open to any more; return its exit status."""
        process, self._process = self._process, None
        printed, self._printed = self._printed, None
        if printed is not None:
            printed.close()
        if process is None:
            return 0
        if kill:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        return process.wait()

    def _last_words(self) -> str:
        if self._printed is None:
            return ""
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(size - LAST_BYTES, 0))
        text = self._printed.read().decode("utf-8", "replace")
        return " ".join((text.strip().splitlines() or [""])[-1].split())[:300]


@contextlib.contextmanager
def rehearsals() -> Iterator[Rehearsals]:
    """Let graphs be opened in another process first; of nested blocks, the innermost one's process is asked."""
    asked = Rehearsals(limits())
    _asked.append((os.getpid(), asked))
    failed = True
    try:
        yield asked
        failed = False
    finally:
        _asked.pop()
        asked.close(keeping_will=failed)


_asked: list[tuple[int, Rehearsals]] = []


def rehearse(
    model: str | bytes,
    threads: int,
    *,
    optimization: str,
    without: Sequence[str] = (),
    sample: Sample | None = None,
    again: bool = False,
) -> bool:
    """Open a graph in the other process first, where there is one: see `Rehearsals.rehearse`."""
    asked = rehearsing()
    if asked is None:
        return False
    return asked.rehearse(model, threads, optimization=optimization, without=without, sample=sample, again=again)


def rehearsing() -> Rehearsals | None:
    """Return the process that opens graphs first, where there is one."""
    return _asked[-1][1] if _asked and _asked[-1][0] == os.getpid() else None  # a fork has the list, but not the process


def _identity(model: str | bytes) -> tuple[object, ...]:
    """Return by what a graph that has survived is known again."""
    if isinstance(model, bytes):
        return (len(model), hash(model))
    status = Path(model).stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)  # a file that was moved is the same


def _opened_as(model: str | bytes, threads: int, optimization: str, without: Sequence[str]) -> tuple[object, ...]:
    """Return by what a session is known again."""
    return (*_identity(model), threads, optimization, tuple(without))


def _size(model: str | bytes) -> int:
    return len(model) if isinstance(model, bytes) else Path(model).stat().st_size


def _called(model: str | bytes) -> str:
    return model if isinstance(model, str) else f"a graph that was made of the model ({len(model)} bytes)"


def _packed(sample: Sample) -> bytes:
    """Return the arrays of a sample as an npz, which knows not every name: they are numbered. Texts get a type of their own."""
    stream = io.BytesIO()
    arrays = [array.astype(str) if array.dtype.kind == "O" else array for array in sample.inputs.values()]
    np.savez(stream, allow_pickle=False, **{str(number): array for number, array in enumerate(arrays)})
    return stream.getvalue()


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
