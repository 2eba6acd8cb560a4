"""Is one graph faster than another? Pairs of runs in one process, one right after the other, until it is clear.

For a choice among rewrites; see session_rounds.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from pipeline.graph.prepare import without_shapes
from pipeline.measure.timing_place import HERE, Place
from pipeline.own_time import own_time
from pipeline.sample import FloatArray, Sample

ROUNDS, MOST_ROUNDS = 4, 10  # pairs of sessions: where weights happen to lie in memory moves a latency by percents
TIMED_SAMPLES = 2
LEAST_GAIN = 1.005
MOST_EXACT = 50  # values
CERTAIN = 0.02  # chance of such ratios, or better ones, where nothing was gained
CLEAR_GAIN, CLEAR = 1.02, 0.001  # more than where weights lie can make, with which no further round is timed


@dataclass(frozen=True)
class Gain:
    """What a change gained: the median ratio of the paired times, whether it is clearly faster, and from how many pairs."""

    speedup: float
    faster: bool
    pairs: int = 0


Measure = Callable[[onnx.ModelProto, onnx.ModelProto, Sequence[Sample], int], Gain]


def measure_gain(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    probe: Sequence[Sample],
    threads: int = 1,
    *,
    min_pairs: int = 10,
    max_seconds: float = 1.6,
    until: float = math.inf,
    place: Place = HERE,
) -> Gain:
    """Time two graphs on the shortest samples of a probe, here or on a device.

    Each round opens both again, one first in one round and the other in the next: what is opened later runs some two percent
    faster (with a 2 ms conformer), which the two orders show and cancel. Faster means: by half a percent, with ratios that
    chance gives once in fifty times where nothing is gained (Wilcoxon's signed-rank test, which weighs by how much a pair was
    won). What is clear after both orders ends it; what looks like a gain but is not certain is timed longer, but not after
    `until`, on the clock of `own_time`.
    """
    models = [without_shapes(model) for model in (before, after)]  # as they ship
    samples = sorted(probe, key=lambda sample: sample.size)[:TIMED_SAMPLES]
    bench = place.bench(models, samples, threads)
    rng = np.random.default_rng(0)
    logs: tuple[list[float], list[float]] = ([], [])
    pairs = -(-min_pairs // ROUNDS)
    for number in range(MOST_ROUNDS):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        turns = bench.round(range(2), together=False, order=order, rng=rng, at_least=pairs, seconds=max_seconds / ROUNDS)
        logs[number % 2].extend(float(np.log(ms / changed_ms)) for ms, changed_ms in turns)
        if number % 2 == 1:
            level, ratios = _without_order(*logs)
            enough = len(ratios) >= min_pairs
            clear = _is_clear(level, ratios) and (enough or level < 0)  # what is slower is not looked at any longer
            if own_time() >= until or clear or (enough and number >= ROUNDS - 1 and not _is_open(level, ratios)):
                break
    level, ratios = _without_order(*logs)
    speedup = float(np.exp(level))
    return Gain(speedup, speedup >= LEAST_GAIN and _chance(ratios, "greater") <= CERTAIN, len(ratios))


def _without_order(first: Sequence[float], second: Sequence[float]) -> tuple[float, FloatArray]:
    """Return the middle between the medians of both orders, and all ratios as if no order favoured one side."""
    middles = [float(np.median(part)) for part in (first, second)]
    level = sum(middles) / 2
    moved = [np.array(part) - middle + level for part, middle in zip((first, second), middles, strict=True)]
    return level, np.concatenate(moved)


def _is_clear(level: float, ratios: FloatArray) -> bool:
    """Return whether further pairs would not change the answer."""
    if level >= np.log(CLEAR_GAIN):
        return _chance(ratios, "greater") <= CLEAR
    return level < 0 and _chance(ratios, "less") <= CERTAIN


def _is_open(level: float, ratios: FloatArray) -> bool:
    """Return whether there seems to be a gain that only more pairs can separate from noise."""
    return level >= np.log(LEAST_GAIN) and _chance(ratios, "greater") > CERTAIN


def _chance(ratios: FloatArray, alternative: Literal["greater", "less"]) -> float:
    return signed_rank(ratios if alternative == "greater" else -ratios)


def signed_rank(values: FloatArray) -> float:
    """Return the chance of such values, or larger ones, where each sign is as likely as the other: Wilcoxon's signed-rank test.

    That is scipy's `wilcoxon(values, alternative="greater")`, which takes a second of CPU time to import. Exact up to 50
    values, with mean ranks for ties and without zeros; the normal approximation above.
    """
    values = values[values != 0]
    _, place, ties = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(ties) - ties + 1)[place]  # twice the mean rank
    found = int(doubled[values > 0].sum())
    if len(values) > MOST_EXACT:
        deviation = math.sqrt(float(np.sum(doubled.astype(np.float64) ** 2)))
        return 0.5 * math.erfc((2 * found - float(doubled.sum())) / deviation / math.sqrt(2.0))
    ways = np.ones(1)  # that the ranks of positive values sum up to each number
    for rank in doubled.tolist():
        more = np.zeros(len(ways) + rank)
        more[: len(ways)] += ways
        more[rank:] += ways
        ways = more / 2.0
    return float(ways[found:].sum())
