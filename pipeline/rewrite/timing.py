"""Is one graph faster than another? Pairs of runs in this process, one right after the other, until it is clear.

For a choice among rewrites, not for a report (that is pipeline.benchmark, in processes of their own). With one thread the
clock is the time that the processor spent here, so that other programs on the machine disturb little; with more it is the
clock on the wall, since the threads wait for each other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import scipy

from pipeline.graph.prepare import without_shapes
from pipeline.samples import Sample
from pipeline.session import open_session

ROUNDS = 3  # pairs of sessions: where weights happen to lie in memory moves a latency by percents
TIMED_SAMPLES = 2
LEAST_GAIN = 1.005
CERTAIN = 0.02  # chance of such ratios, or better ones, where nothing was gained
CLEAR_GAIN, CLEAR = 1.02, 0.001  # more than where weights lie can make, with which no further round is timed


@dataclass(frozen=True)
class Gain:
    """What a change gained.

    Attributes:
        speedup: median ratio of the paired times.
        faster: whether it clearly is.
        pairs: how many were timed.
    """

    speedup: float
    faster: bool
    pairs: int = 0


Measure = Callable[[onnx.ModelProto, onnx.ModelProto, Sequence[Sample], int], Gain]


def clock_of(threads: int) -> Callable[[], float]:
    """Return the clock that a model with so many threads is timed by, in seconds."""
    return time.process_time if threads == 1 else time.perf_counter


def measure_gain(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    probe: Sequence[Sample],
    threads: int = 1,
    *,
    min_pairs: int = 10,
    max_seconds: float = 1.5,
) -> Gain:
    """Time two graphs on the shortest samples of a probe.

    Faster means: by half a percent in the median, with ratios that chance gives once in fifty times where nothing is gained
    (Wilcoxon's signed-rank test, which weighs by how much a pair was won). What is clear after a round ends it.
    """
    models = [without_shapes(model) for model in (before, after)]  # as they ship
    clock = clock_of(threads)
    samples = sorted(probe, key=lambda sample: sum(array.size for array in sample.inputs.values()))[:TIMED_SAMPLES]
    rng = np.random.default_rng(0)
    ratios: list[float] = []
    for number in range(1, ROUNDS + 1):
        opened = {which: open_session(models[which], threads) for which in rng.permutation(2).tolist()}
        sessions = [opened[which] for which in range(2)]
        for sample in samples:
            for session in sessions:
                session.run(None, dict(sample.inputs))
        start = time.perf_counter()
        while len(ratios) * ROUNDS < min_pairs * number or time.perf_counter() - start < max_seconds / ROUNDS:
            sample = samples[len(ratios) % len(samples)]
            spent = [0.0, 0.0]
            for which in rng.permutation(2).tolist():
                began = clock()
                sessions[which].run(None, dict(sample.inputs))
                spent[which] = clock() - began
            ratios.append(spent[0] / max(spent[1], 1e-9))
        if len(ratios) >= min_pairs and _is_clear(ratios):
            break
    speedup = float(np.median(ratios))
    return Gain(speedup, speedup >= LEAST_GAIN and _chance(ratios, "greater") <= CERTAIN, len(ratios))


def _is_clear(ratios: Sequence[float]) -> bool:
    """Return whether further pairs would not change the answer."""
    speedup = np.median(ratios)
    if speedup >= CLEAR_GAIN:
        return _chance(ratios, "greater") <= CLEAR
    return bool(speedup < 1) and _chance(ratios, "less") <= CERTAIN


def _chance(ratios: Sequence[float], alternative: Literal["greater", "less"]) -> float:
    return float(scipy.stats.wilcoxon(np.log(ratios), alternative=alternative).pvalue)
