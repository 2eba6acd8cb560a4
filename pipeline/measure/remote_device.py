"""The program that runs on a device during a remote benchmark. It is sent over the connection, and needs Python 3.11 alone.

It unpacks what it is sent into a directory of its own, runs jobs of `pipeline.measure.benchmark_child` there, sends their
results back, and removes the directory when it is told to, or when the connection ends, whatever it is doing then.

Standard input and output carry lines of JSON; `bytes` announces as many bytes after the line.
To the device: {"op": "file", "name", "bytes"}, {"op": "remove", "name"}, {"op": "run", "job": a folder with job.json, "kept":
whether by the child that does one job after the other}, {"op": "alone", "wanted": whether other benchmarks are to be kept
out from now on}, {"op": "end"}. Jobs that are not done by the kept child keep others out themselves.
From it: {"hello": what it is}, {"alone": as wanted}, {"steps": done so far}, {"done": exit status, "stderr", "files": [{"name",
"bytes"}, ...]}.
"""

import contextlib
import json
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PYTHON = sys.argv[2] if len(sys.argv) > 2 else sys.executable  # as the user named it: it may be a program that starts one
BLOCK = 1 << 16
LOOK_SECONDS = 0.2
STEPS_FILE = "steps"
LOCK_FILE = "speech-quantization-benchmark.lock"  # that of `child_process.py`
PREFIX = "speech-quantize-"
CHILD = "pipeline.measure.benchmark_child"
KEPT = "--kept"  # that of `benchmark_child.py`
SHELLS_PLACE = "/data/local/tmp"  # where the user of Android's shell may write, which has no /tmp
LAST_BYTES = 4000  # of what a child has printed
ASK = "import json, numpy, onnxruntime; print(json.dumps(onnxruntime.__version__))"
SENT = frozenset({"job.json", "samples.npz", STEPS_FILE})


class Gone(Exception):  # noqa: N818  the end of a connection is no error of this program
    """The other side has closed the connection."""


class Input:
    """Standard input, in lines and in blocks, so that its end is seen while a job runs."""

    def __init__(self) -> None:
        """Begin with an empty buffer."""
        self._held = b""

    def line(self) -> dict[str, object]:
        """Return the next message."""
        while b"\n" not in self._held:
            self._more()
        text, _, self._held = self._held.partition(b"\n")
        message: dict[str, object] = json.loads(text)
        return message

    def copy(self, count: int, target: Path) -> None:
        """Write as many bytes to a file."""
        with target.open("wb") as file:
            while count:
                if not self._held:
                    self._more()
                block, self._held = self._held[:count], self._held[count:]
                count -= file.write(block)

    def check(self) -> None:
        """Raise `Gone` where the connection has ended."""
        if select.select([0], [], [], 0)[0]:
            self._more()

    def _more(self) -> None:
        block = os.read(0, BLOCK)
        if not block:
            raise Gone
        self._held += block


def tell(**message: object) -> None:
    """Send a message."""
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def hello(folder: Path) -> dict[str, object]:
    """Return what this device is; `error` where it has no ONNX Runtime."""
    asked = subprocess.run(
        [PYTHON, "-c", ASK], capture_output=True, text=True, cwd=folder, stdin=subprocess.DEVNULL, check=False
    )
    known: dict[str, object] = {"system": platform.system(), "machine": platform.machine(), "python": platform.python_version()}
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = re.findall(r"^(?:model name|Model|Hardware)\s*: (.*)$", text, flags=re.M)
    with contextlib.suppress(OSError):
        names = names or [Path("/proc/device-tree/model").read_text(encoding="utf-8").rstrip("\0")]
    known["processor"] = names[0] if names else platform.processor() or platform.machine()
    # an emulator of single programs answers for the processor; the kernel (Linux 6.1 and later) says what it was built for
    kernel = ""
    with contextlib.suppress(OSError):
        kernel = Path("/proc/sys/kernel/arch").read_text(encoding="ascii").strip()
    on_arm = platform.machine() in ("aarch64", "armv7l")
    known["emulated"] = on_arm and (kernel in ("x86_64", "i686") or "vendor_id" in text)
    if asked.returncode:
        known["error"] = (asked.stderr.strip().splitlines() or ["it left no message"])[-1]
    else:
        known["onnxruntime"] = json.loads(asked.stdout.strip().splitlines()[-1])
    return known


@contextlib.contextmanager
def alone(given: Input) -> Iterator[None]:
    """Wait until no other benchmark runs on this device, and keep others out."""
    import fcntl

    handle = os.open(Path(tempfile.gettempdir()) / LOCK_FILE, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOOK_SECONDS)
            given.check()
        yield
    finally:
        os.close(handle)


class KeptChild:
    """A child that does one job after the other; it is started again where a job has ended it."""

    def __init__(self, folder: Path) -> None:
        """Start none yet."""
        self._folder, self._errors = folder, folder / "errors"
        self._process: subprocess.Popen[bytes] | None = None

    def do(self, job: Path, given: Input) -> tuple[int, str]:
        """Let the child do a job; return the exit status, and where it was ended what it printed as errors."""
        if self._process is None:
            with self._errors.open("wb") as errors:
                self._process = started(self._folder, KEPT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and its output as well
            process.stdin.write(f"{job}\n".encode())
            process.stdin.flush()
        answers = process.stdout.fileno()
        while answers not in select.select([answers, 0], [], [])[0]:
            given.check()
        if answer := process.stdout.readline():
            return int(answer), ""
        return self.end(), self._errors.read_bytes()[-LAST_BYTES:].decode(errors="replace")

    def end(self, *, kill: bool = False) -> int:
        """Wait for the end of the child; return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if kill:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return process.wait()


def started(folder: Path, argument: str, **pipes: object) -> "subprocess.Popen[bytes]":
    """Start a child."""
    environment = os.environ | {"PYTHONPATH": str(folder / "code.zip"), "ORT_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen([PYTHON, "-m", CHILD, argument], cwd=folder, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


def run(job: Path, given: Input, do: Callable[[Path, Input], tuple[int, str]]) -> None:
    """Do a job, send what it has written, and remove it."""
    status, stderr = do(job, given)
    files = [path for path in sorted(job.iterdir()) if path.is_file() and path.name not in SENT]
    tell(done=status, stderr=stderr, files=[{"name": path.name, "bytes": path.stat().st_size} for path in files])
    for path in files:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    shutil.rmtree(job)


def done_alone(job: Path, given: Input) -> tuple[int, str]:
    """Do a job in a child of its own; return its exit status, and what it printed as errors."""
    nothing = subprocess.DEVNULL
    process = started(job.parent, str(job), stdin=nothing, stdout=nothing, stderr=subprocess.PIPE)
    try:
        told, stderr = 0, b""
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                stderr = process.communicate(timeout=LOOK_SECONDS)[1]
            given.check()
            steps = (job / STEPS_FILE).stat().st_size if (job / STEPS_FILE).is_file() else 0
            if steps > told:
                told = steps
                tell(steps=steps)
            if process.returncode is not None:
                return process.returncode, stderr.decode(errors="replace")[-LAST_BYTES:]
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()


def main() -> None:
    """Serve one connection."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = SHELLS_PLACE
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    given, kept, lock = Input(), KeptChild(folder), contextlib.ExitStack()
    try:
        tell(hello={**hello(folder), "folder": str(folder)})
        while (message := given.line())["op"] != "end":
            name = str(message.get("name", message.get("job")))
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"not a place in the directory of the benchmark: {name!r}")
            if message["op"] == "file":
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                given.copy(int(str(message["bytes"])), target)
            elif message["op"] == "remove":
                shutil.rmtree(folder / name)
            elif message["op"] == "alone":
                lock.close()
                if message["wanted"]:
                    lock.enter_context(alone(given))
                tell(alone=message["wanted"])
            elif message.get("kept"):
                run(folder / name, given, kept.do)
            else:
                with alone(given):
                    run(folder / name, given, done_alone)
    except (Gone, BrokenPipeError):
        pass
    finally:
        lock.close()
        kept.end(kill=True)
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(BrokenPipeError):
        tell(bye=not folder.exists())


if __name__ == "__main__":
    main()
