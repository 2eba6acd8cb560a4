"""Jobs that lie in a folder, and those of them that the process that opens graphs first does as well: it is there, and ready.

FOLDER holds job.json and samples.npz; result.json is written there: the figures, or {"error": message}.
"""

import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.graph.session import ERROR, feeds_for, open_with, session_options
from pipeline.sample import Array

Feeds = dict[str, Array]
Json = dict[str, Any]
Task = Callable[[Json, list[Feeds]], Json]
"""(a job, its samples) -> its result."""


def do_job(folder: Path, tasks: Mapping[str, Task]) -> int:
    """Do the job in a folder; return the exit status."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        samples = [{name: arrays[key] for name, key in sample.items()} for sample in job["samples"]]
    try:
        result = tasks[job["task"]](job, samples)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 1 if "error" in result else 0


def do_short_job(folder: str) -> int:
    """Do a job that needs no process of its own; return the exit status that one would have had."""
    return do_job(Path(folder), SHORT_TASKS)


def measured_session(path: str, threads: int, *, as_written: bool = False, profile: Path | None = None) -> ort.InferenceSession:
    """Build a session for measurement: with threads that do not spin.

    ONNX Runtime's idle workers spin by default. With two sessions in one process, the idle one would burn the cores
    that the running one is timed on, and the faster model would suffer more.

    Args:
        path: the model.
        threads: intra-op threads.
        as_written: without ONNX Runtime's optimisations, and without packed weights, which a trace leaves out.
        profile: what the name of a trace begins with.
    """
    options = session_options(
        threads,
        optimization="none" if as_written else "all",
        prepacking=not as_written,
        profile=profile,
        spinning=False,
        log_level=ERROR,
    )
    return open_with(Path(path), options)


def profile(job: Json, samples: list[Feeds]) -> Json:
    """Run one sample under ONNX Runtime's profiler, in one session after the other; their traces stay in the folder."""
    traces = []
    for number, wanted in enumerate(job["wanted"]):
        prefix = Path(f"{job['prefix']}-{number}")
        session = measured_session(job["model"], job["threads"], as_written=not wanted["optimize"], profile=prefix)
        for _ in range(1 + wanted["runs"]):  # the first run also allocates; the reader of the trace leaves it out
            session.run(None, feeds_for(session, samples[0]))
        traces.append(session.end_profiling())
    return {"traces": traces}


SHORT_TASKS: dict[str, Task] = {"profile": profile}
