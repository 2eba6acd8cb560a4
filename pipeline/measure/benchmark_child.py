"""The child process of the benchmark: `python -m pipeline.measure.benchmark_graph FOLDER` does the job that lies in the folder.

A process of its own, because a model can crash it (then nothing was timed, and the parent reports it), because the
parent's threads and memory would disturb the figures, and because peak memory is a property of a process.

FOLDER holds job.json and samples.npz; result.json is written there: the figures, or {"error": message}. With `--kept`, the
process reads names of folders from standard input, one a line, and answers each with the exit status that it would have had.
"""

import ctypes
import dataclasses
import functools
import gc
import itertools
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

try:
    import psutil
except ImportError:  # a device has numpy and onnxruntime, and need not have it: what else the machine does is not known there
    psutil = None

from pipeline.graph.session import feeds_for, infer, named_arrays, open_session
from pipeline.measure import paired_timing
from pipeline.measure.child_job import Feeds, Json, do_job, measured_session, profile
from pipeline.measure.kernel_times import kernel_times
from pipeline.measure.session_rounds import blocks_of, timed_round
from pipeline.metrics.tensor_metrics import broken_values
from pipeline.sample import Array, Sample

KEPT = "--kept"
LINUX = ("linux", "android")  # what Python calls a kernel of Linux; Android's since 3.13
LEAST_WATCHED_S = 1.0  # below which it is not known what else the machine did


def time_models(job: Json, samples: list[Feeds]) -> Json:
    """Time the original against the quantized model; see pipeline.measure.benchmark_graph.timing."""
    rng = np.random.default_rng(job["seed"])
    rounds = paired_timing.Rounds(job["rounds"], job["interval"])
    paths = {"baseline": job["baseline"], "quantized": job["quantized"]}
    load_ms: dict[str, list[float]] = {role: [] for role in paths}
    first_run_ms: dict[str, list[float]] = {role: [] for role in paths}
    pairs: list[paired_timing.Pair] = []
    warm_rounds, wall_s, others_s = 0, 0.0, 0.0
    measured_session(job["baseline"], job["threads"])  # the first session of a process also pays for the library's own start
    # what is loaded first runs a little slower than the same model loaded second: each is first once in two rounds
    firsts = itertools.chain.from_iterable(rng.permutation(2).tolist() for _ in itertools.count())
    for round_index, loaded_first in enumerate(itertools.islice(firsts, rounds.most)):
        runs: dict[str, paired_timing.Run] = {}
        for role in sorted(paths, reverse=bool(loaded_first)):
            start = time.perf_counter()
            session = measured_session(paths[role], job["threads"])
            load_ms[role].append((time.perf_counter() - start) * 1000.0)
            runs[role] = functools.partial(_infer, session, [feeds_for(session, feeds) for feeds in samples])
            first_run_ms[role].append(paired_timing.time_ms(runs[role], len(samples) // 2))
        if round_index == 0:
            check_outputs(runs, len(samples))
        ordered = (runs["baseline"], runs["quantized"])
        gc.collect()
        gc.disable()
        warm_rounds += paired_timing.warm_up(ordered, len(samples), max_seconds=job["warmup_seconds"])
        busy = _busy_seconds()
        start = time.perf_counter()
        pairs += paired_timing.measure_pairs(
            *ordered,
            len(samples),
            round_index=round_index,
            min_pairs=math.ceil(job["min_pairs"] / rounds.most),
            min_seconds=job["min_seconds"] / rounds.most,
            rng=rng,
        )
        wall_s += time.perf_counter() - start
        others_s += _busy_seconds() - busy
        gc.enable()
        _note_step(job)
        if rounds.are_enough(pairs, round_index + 1):
            break
    for _ in range(rounds.most - 1 - round_index):  # that are not needed
        _note_step(job)
    return {
        "rounds": round_index + 1,
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "pairs": [dataclasses.asdict(pair) for pair in pairs],
        "warm_rounds": warm_rounds,
        "others_cores": others_cores(others_s, wall_s),
        "cores": os.cpu_count() or 1,
    }


def others_cores(others_s: float, wall_s: float) -> float | None:
    """Return how many cores other programs kept busy; None where it was timed too briefly to tell: a clock of CPU time ticks.

    Args:
        others_s: CPU seconds that they used.
        wall_s: meanwhile.
    """
    if wall_s < LEAST_WATCHED_S or psutil is None:
        return None
    return min(max(0.0, others_s / wall_s), float(os.cpu_count() or 1))


def _note_step(job: Json) -> None:
    """Tell the parent, which shows how far this is, that another step is done."""
    if "steps" in job:
        with Path(job["steps"]).open("a", encoding="ascii") as steps:
            steps.write(".")


def check_outputs(runs: dict[str, paired_timing.Run], samples: int) -> None:
    """Refuse to time a model whose outputs are not usable: it would be fast for the wrong reason."""
    for index in range(samples):
        outputs = {role: _arrays(run(index)) for role, run in runs.items()}
        if len(outputs["baseline"]) != len(outputs["quantized"]):
            raise ValueError(
                f"the original has {len(outputs['baseline'])} outputs, the quantized model {len(outputs['quantized'])}"
            )
        for position, (a, b) in enumerate(zip(outputs["baseline"], outputs["quantized"], strict=True)):
            if broken_values(a, b):
                raise ValueError(
                    f"output {position} of the quantized model holds NaN or infinity where the original's does not"
                )
            # Lengths may differ (a quantized TTS predicts other durations), ranks may not.
            if a.ndim != b.ndim:
                raise ValueError(f"output {position} has {a.ndim} axes, but {b.ndim} in the quantized model")


def _arrays(outputs: Any) -> list[Array]:  # noqa: ANN401  what ONNX Runtime returns
    return [array for value in outputs for _, array in named_arrays("", value)]


def measure_memory(job: Json, samples: list[Feeds]) -> Json:
    """Peak resident memory of this process after it ran the samples; without a model, of the libraries alone."""
    if job["model"]:
        session = measured_session(job["model"], job["threads"])
        for feeds in samples:
            session.run(None, feeds_for(session, feeds))
    return {"peak_bytes": peak_resident_bytes()}


def peak_resident_bytes() -> int:
    """Peak resident memory of this process.

    Linux' ru_maxrss survives exec, so that a child starts with its parent's peak; VmHWM belongs to this program alone.
    """
    if sys.platform in LINUX:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def open_graph(job: Json, samples: list[Feeds]) -> Json:
    """Run a graph once: does this ONNX Runtime survive it?"""
    infer(open_session(Path(job["model"]), job["threads"]), Sample("0", samples[0]))
    return {}


def one_round(job: Json, samples: list[Feeds]) -> Json:
    """Time graphs in turn: one round of a choice among them (`pipeline.measure.session_rounds`)."""
    turns = timed_round(
        [Path(model) for model in job["models"]],
        [Sample(str(number), feeds) for number, feeds in enumerate(samples)],
        blocks_of(len(samples), together=job["together"]),
        threads=job["threads"],
        order=job["order"],
        rng=np.random.default_rng(job["seed"]),
        at_least=job["at_least"],
        seconds=job["seconds"],
        watch=time.perf_counter,
    )
    return {"turns": list(turns)}


def kernels(job: Json, samples: list[Feeds]) -> Json:
    """Return the time of a graph's kernels."""
    return dataclasses.asdict(kernel_times(Path(job["model"]), Sample("0", samples[0]), job["threads"]))


def _infer(session: ort.InferenceSession, samples: list[Feeds], index: int) -> object:
    return session.run(None, samples[index])


def _busy_seconds() -> float:
    """CPU seconds that the rest of the machine has used up: all but this process and idling."""
    if psutil is None:
        return 0.0
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # Linux counts guests' time twice: in `user` as well.
    idle = sum(getattr(machine, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    return float(sum(machine) - idle - own.user - own.system)


TASKS = {
    "time": time_models, "memory": measure_memory, "profile": profile,
    "open": open_graph, "round": one_round, "kernels": kernels,
}  # fmt: skip


def end_with_parent() -> None:
    """Let the system end this process where its parent is killed: nobody is left to read what it measures (on Linux)."""
    if sys.platform in LINUX:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(folder: Path) -> int:
    """Do the job in the folder; return the exit status."""
    return do_job(folder, TASKS)


def keep() -> None:
    """Do one job after the other."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # where native code prints to standard output, that is no answer
    for line in sys.stdin:
        print(main(Path(line.rstrip("\n"))), file=answers, flush=True)
        gc.collect()  # sessions


if __name__ == "__main__":
    end_with_parent()
    if sys.argv[1] == KEPT:
        keep()
    else:
        sys.exit(main(Path(sys.argv[1])))
