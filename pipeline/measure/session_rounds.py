"""One round of timing in this process: sessions opened again, warmed up, then run in turn.

For a choice among graphs. The figures of a report are measured by benchmark_graph.py, in separate processes. With one thread
the clock is the CPU time of this process, which other programs on the machine hardly change. With more it is wall time,
since the threads wait for each other.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from pipeline.graph.session import open_session
from pipeline.measure.paired_timing import Clock, take_turns
from pipeline.sample import Array, Sample

if TYPE_CHECKING:  # a device opens files, and has no onnx
    import onnx

LEAST_MS = 1e-6  # that a run is taken to last, on a clock that has not moved


def clock_of(threads: int) -> Clock:
    """Return the clock that a model with so many threads is timed by, in seconds."""
    return time.process_time if threads == 1 else time.perf_counter


def blocks_of(samples: int, *, together: bool) -> Iterable[Sequence[int]]:
    """Return all samples, again and again: as one block, or one by one (see `take_turns`)."""
    return repeat(range(samples)) if together else ([sample] for sample in cycle(range(samples)))


def timed_round(
    models: "Sequence[onnx.ModelProto | Path | bytes]",
    samples: Sequence[Sample],
    blocks: Iterable[Sequence[int]],
    *,
    threads: int,
    order: Sequence[int],
    rng: np.random.Generator,
    at_least: int,
    seconds: float,
    watch: Clock | None = None,
    quick: bool = False,
) -> Iterator[list[float]]:
    """Yield the milliseconds that each model took for one sample, for one sample after the other.

    Args:
        models: graphs, files or their contents, with the same inputs.
        samples: what they are run on; each is run once before the clock starts.
        blocks: see `take_turns`.
        threads: intra-op threads.
        order: in which the sessions are opened: what is opened later runs some percent faster.
        rng: draws which model runs first.
        at_least: see `take_turns`.
        seconds: see `take_turns`.
        watch: see `take_turns`.
        quick: whether sessions are opened as `open_session` does quickly.
    """
    feeds = [dict(sample.inputs) for sample in samples]
    opened = {which: open_session(models[which], threads, quick=quick) for which in order}
    for inputs in feeds:
        for session in opened.values():
            session.run(None, inputs)
    runs = [partial(_run, opened[which], feeds) for which in range(len(models))]
    turns = take_turns(runs, blocks, rng=rng, at_least=at_least, seconds=seconds, clock=clock_of(threads), watch=watch)
    for _, spent_ms in turns:
        yield [max(ms, LEAST_MS) for ms in spent_ms]


def _run(session: onnxruntime.InferenceSession, feeds: Sequence[dict[str, Array]], sample: int) -> None:
    session.run(None, feeds[sample])
