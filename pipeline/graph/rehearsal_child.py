"""The process that opens graphs before the run does: `python -m pipeline.graph.rehearsal_child`, on two pipes.

Each message is a line of JSON; behind a request come as many bytes as it says. An answer is `{"error": ...}`. What ends this
process, its parent sees. Its limits are those of the request.

It also outlives its parent for a moment: where the parent ends without having said that it is done, it does what it was told
to do then (`on_death`).
"""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime

from pipeline.graph.session import ORT_ERRORS, infer, open_session
from pipeline.outside_errors import says_no_memory
from pipeline.sample import Sample

KEPT_BYTES = 64_000_000  # of a file whose session may stay open: it takes memory beside that of the parent
_open: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}  # one at most


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more, or the parent has gone."""
    last_will: dict[str, Any] | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has gone in the midst of a request
        while line := requests.readline():
            if not line.endswith(b"\n"):
                break
            request = json.loads(line)
            if "on_death" in request:
                last_will = request["on_death"]
                continue
            optimized = b""
            if "call" in request:
                answer = _called(request["call"])
            else:
                blobs = [_exactly(requests, size) for size in request["blobs"]]
                most = request.get("optimized_bytes", 0)
                with _memory_file(wanted=most > 0) as file:
                    answer = _rehearsed(request, blobs, file)
                    optimized = _written(file, most) if answer["error"] is None else b""
            behind = {"optimized_bytes": len(optimized)} if optimized else {}
            answers.write(json.dumps(answer | behind).encode() + b"\n" + optimized)
            answers.flush()
    if last_will is not None:
        getattr(import_module(last_will["module"]), last_will["function"])(*last_will["arguments"])


@contextlib.contextmanager
def _memory_file(*, wanted: bool) -> Iterator[int | None]:
    """Give a file in memory alone, of which nothing is left whatever ends this process; None where it has none (Linux has)."""
    if not wanted or not hasattr(os, "memfd_create"):
        yield None
        return
    file = os.memfd_create("optimized")
    try:
        yield file
    finally:
        os.close(file)


def _written(file: int | None, most: int) -> bytes:
    """Return what a file holds; nothing where that is more than so many bytes."""
    size = 0 if file is None else os.fstat(file).st_size
    return os.pread(file, size, 0) if file is not None and size <= most else b""


def _rehearsed(request: dict[str, Any], blobs: list[bytes], optimized: int | None) -> dict[str, Any]:
    """Open a graph, and run it where there is a sample; write it into a file as ONNX Runtime has optimised it."""
    _limit_memory(request["memory_bytes"])
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # SIGALRM ends this process, in native code too
    try:
        if request["optimization"] == "shapes":
            from pipeline.graph.declared_shapes import infer_file

            infer_file(Path(request["path"]))
            return {"error": None}
        session = _session(request, blobs, None if optimized is None else Path(f"/proc/self/fd/{optimized}"))
        if blobs:
            infer(session, _sample(request["sample"], request["names"], blobs[0]))
    except MemoryError as error:
        return {"error": str(error), "no_memory": True}
    except (*ORT_ERRORS, Exception) as error:
        text = " ".join(str(error).split())
        return {"error": text, "no_memory": says_no_memory(text)}
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    return {"error": None}


def _session(request: dict[str, Any], blobs: list[bytes], optimized: Path | None) -> onnxruntime.InferenceSession:
    """Open a graph; a file that was opened in this way last is open still, where it is small."""
    options = {"optimization": request["optimization"], "without": request["without"], "save_optimized": optimized}
    if request["path"] is None:
        return open_session(blobs.pop(0), request["threads"], **options)
    key, path = tuple(request["session"]), Path(request["path"])
    if key not in _open:
        _open.clear()
        session = open_session(path, request["threads"], **options)
        if path.stat().st_size > KEPT_BYTES:
            return session
        _open[key] = session
    return _open[key]


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """Call a function."""
    _open.clear()  # its threads and its memory could disturb
    _limit_memory(None)
    try:
        value = getattr(import_module(call["module"]), call["function"])(*call["arguments"])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": None, "value": value}


def _sample(identifier: str, names: list[str], blob: bytes) -> Sample:
    with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
        return Sample(identifier, {name: arrays[str(number)] for number, name in enumerate(names)})


def _limit_memory(more_bytes: int | None) -> None:
    """Let this process have so much more memory than it has now; Linux alone keeps to it."""
    if sys.platform != "linux":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if more_bytes is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:")), 0)
    limit = has + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError
    return found


def main() -> None:
    """Serve on what was standard input and output; native code that prints does so elsewhere."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to this process too; the parent decides
        signal.signal(number, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.close(nowhere)
    serve(requests, answers)
    os._exit(0)  # its parent waits for it


if __name__ == "__main__":
    main()
