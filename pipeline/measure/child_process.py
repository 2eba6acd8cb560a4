"""The parent's side of the child process, and the lock that lets one benchmark run at a time on a machine."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StageError
from pipeline.graph.rehearsal import EndedError, rehearsing
from pipeline.interruption import run_and_end_with_us
from pipeline.measure import child_job
from pipeline.measure.child_job import SHORT_TASKS, do_short_job
from pipeline.measure.other_runtime import OtherRuntime, own_runtime
from pipeline.outside_errors import spoken_of
from pipeline.own_time import waiting
from pipeline.sample import Sample

log = logging.getLogger(__name__)

LOCK_FILE = "speech-quantization-benchmark.lock"
STEPS_FILE = "steps"  # one byte for each step that the child has done
LOOK_SECONDS = 0.5

OnStep = Callable[[], None]


def run_child(
    folder: Path,
    task: str,
    samples: Sequence[Sample],
    what: str,
    *,
    runtime: OtherRuntime | None = None,
    on_step: OnStep = lambda: None,
    **job: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Do one task of `python -m pipeline.measure.benchmark_graph` and return its result.

    Args:
        folder: an empty directory for the job, its arrays and its result.
        task: a key of `pipeline.measure.benchmark_child.TASKS`.
        samples: what the model is run on.
        what: of the message where it fails, for example "the benchmark of acoustic.int8.onnx".
        runtime: the ONNX Runtime that the child runs in; None: that of this process.
        on_step: called for each step that the child has done, from another thread.
        job: settings of the task; they must be JSON.

    Raises:
        StageError: the child crashed or refused. Nothing it measured is used.
    """
    # An npz can't hold every name that an ONNX input may have, so arrays are numbered.
    arrays: dict[str, Any] = {}
    names: list[dict[str, str]] = []
    for index, sample in enumerate(samples):
        keys = {name: f"{index}-{position}" for position, name in enumerate(sample.inputs)}
        arrays |= {keys[name]: array for name, array in sample.inputs.items()}
        names.append(keys)
    np.savez(folder / "samples.npz", **arrays)
    (folder / "job.json").write_text(
        json.dumps({"task": task, "samples": names, "steps": str(folder / STEPS_FILE), **job}), encoding="utf-8"
    )

    status, stderr = _done_by_child(folder, runtime, task, on_step, what)
    log.debug("%s, stderr of the child: %s", what, stderr)
    result_file = folder / "result.json"
    if result_file.exists() and status in (0, 1):
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        if "error" not in result:
            return result
        cause = spoken_of(result["error"]) if runtime is None or runtime.remote is None else None
        raise StageError(f"{what} was given up, nothing was timed: {result['error']}") from cause
    last_words = "\n".join(stderr.strip().splitlines()[-8:]) or "it left no message"
    cause = spoken_of(last_words) if runtime is None or runtime.remote is None else None
    raise StageError(f"{what} crashed ({_exit(status)}), nothing was timed. {last_words}") from cause


def _done_by_child(folder: Path, runtime: OtherRuntime | None, task: str, on_step: OnStep, what: str) -> tuple[int, str]:
    """Let a child do the job of a folder, here or on a device; return its exit status and what it printed as errors."""
    if runtime is None and task in SHORT_TASKS and (others := rehearsing()) is not None:
        try:
            return int(others.call(child_job.__name__, do_short_job.__name__, str(folder), what=what)), ""
        except EndedError as error:
            raise StageError(f"{what} crashed ({error.how}), nothing was timed.") from error
    runtime = runtime or own_runtime()
    if runtime.remote is not None:
        return runtime.remote.run(folder, on_step)
    with _steps_told(folder / STEPS_FILE, on_step):
        done = run_and_end_with_us(
            [runtime.python, "-P", "-m", "pipeline.measure.benchmark_child", str(folder)],
            env=runtime.environment(folder),
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    return done.returncode, done.stderr


@contextlib.contextmanager
def _steps_told(file: Path, on_step: OnStep) -> Iterator[None]:
    """Watch the file that a child notes its steps in: seldom, since something is timed meanwhile."""
    over = threading.Event()

    def watch() -> None:
        told, last = 0, False
        while not last:
            last = over.wait(LOOK_SECONDS)
            done = file.stat().st_size if file.exists() else 0
            for _ in range(told, done):
                on_step()
            told = done

    watcher = threading.Thread(target=watch, name="steps of a child", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def machine_lock(runtime: OtherRuntime | None = None) -> Iterator[None]:
    """Wait until no other benchmark runs on this machine, and keep others out; on a device, each job sees to that there.

    An advisory lock on a file in the directory for temporary files (under Slurm, in /dev/shm): the system frees it when its
    holder dies. It does not nest. Windows has no such lock; parallel sweeps there disturb each other.
    """
    if sys.platform == "win32" or (runtime is not None and runtime.remote is not None):
        yield
        return
    import fcntl

    path = _lock_directory() / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDONLY)  # another user's file may be read, and that is enough to lock it
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Waiting for another benchmark on this machine to end")
            with waiting():
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock_directory() -> Path:
    """Return where the lock of this machine lies; Slurm gives each job a directory for temporary files of its own."""
    shared = Path("/dev/shm")
    return shared if "SLURM_JOB_ID" in os.environ and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _exit(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
