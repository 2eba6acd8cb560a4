"""Is one graph faster than another? Pairs of runs in this process, one right after the other, until it is clear.

For a choice among rewrites. What a report says is measured by benchmark_graph.py, in processes of their own. With one thread
the clock is the time that the processor spent here, so that other programs on the machine disturb little. With more it is
the clock on the wall, since the threads wait for each other.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import scipy

from pipeline.graph.prepare import without_shapes
from pipeline.graph.session import open_session
from pipeline.sample import Sample

ROUNDS, MOST_ROUNDS = 4, 10  # pairs of sessions: where weights happen to lie in memory moves a latency by percents
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
    max_seconds: float = 1.6,
) -> Gain:
    """Time two graphs on the shortest samples of a probe.

    Each round opens both anew, one first in one round and the other in the next: what is opened later runs some two percent
    faster (with a 2 ms conformer), which the two orders show and cancel. Faster means: by half a percent, with ratios that
    chance gives once in fifty times where nothing is gained (Wilcoxon's signed-rank test, which weighs by how much a pair was
    won). What is clear after both orders ends it; what looks like a gain but is not certain is timed longer.
    """
    models = [without_shapes(model) for model in (before, after)]  # as they ship
    samples = sorted(probe, key=lambda sample: sample.size)[:TIMED_SAMPLES]
    rng = np.random.default_rng(0)
    logs: tuple[list[float], list[float]] = ([], [])
    pairs = -(-min_pairs // ROUNDS)
    for number in range(MOST_ROUNDS):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        logs[number % 2].extend(_ratios(models, samples, threads, order, rng, pairs, max_seconds / ROUNDS))
        if number % 2 == 1 and len(logs[0]) + len(logs[1]) >= min_pairs:
            level, ratios = _without_order(*logs)
            if _is_clear(level, ratios) or (number >= ROUNDS - 1 and not _is_open(level, ratios)):
                break
    level, ratios = _without_order(*logs)
    speedup = float(np.exp(level))
    return Gain(speedup, speedup >= LEAST_GAIN and _chance(ratios, "greater") <= CERTAIN, len(ratios))


def _ratios(
    models: Sequence[onnx.ModelProto],
    samples: Sequence[Sample],
    threads: int,
    order: Sequence[int],
    rng: np.random.Generator,
    pairs: int,
    seconds: float,
) -> Iterator[float]:
    """Give the logarithms of the ratios of paired times of two models, that were opened in some order."""
    clock = clock_of(threads)
    opened = {which: open_session(models[which], threads) for which in order}
    for sample in samples:
        for session in opened.values():
            session.run(None, dict(sample.inputs))
    start = time.perf_counter()
    done = 0
    while done < pairs or time.perf_counter() - start < seconds:
        spent = [0.0, 0.0]
        for which in rng.permutation(2).tolist():
            began = clock()
            opened[which].run(None, dict(samples[done % len(samples)].inputs))
            spent[which] = clock() - began
        done += 1
        yield float(np.log(max(spent[0], 1e-9) / max(spent[1], 1e-9)))


def _without_order(first: Sequence[float], second: Sequence[float]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the middle between the medians of both orders, and all ratios as if no order favoured one side."""
    middles = [float(np.median(part)) for part in (first, second)]
    level = sum(middles) / 2
    moved = [np.array(part) - middle + level for part, middle in zip((first, second), middles, strict=True)]
    return level, np.concatenate(moved)


def _is_clear(level: float, ratios: npt.NDArray[np.float64]) -> bool:
    """Return whether further pairs would not change the answer."""
    if level >= np.log(CLEAR_GAIN):
        return _chance(ratios, "greater") <= CLEAR
    return level < 0 and _chance(ratios, "less") <= CERTAIN


def _is_open(level: float, ratios: npt.NDArray[np.float64]) -> bool:
    """Return whether there seems to be a gain that only more pairs can tell from noise."""
    return level >= np.log(LEAST_GAIN) and _chance(ratios, "greater") > CERTAIN


def _chance(ratios: npt.NDArray[np.float64], alternative: Literal["greater", "less"]) -> float:
    return float(scipy.stats.wilcoxon(ratios, alternative=alternative).pvalue)
