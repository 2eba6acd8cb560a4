"""Paired, interleaved timing and what follows from the times. Pure: the clock and the runs are given.

Two models that are timed one after the other see different states of the machine: load, clock rate. Two runs next to each
other see nearly the same state, so the ratio of each pair is taken first, and the median of the ratios is the speed-up.

Pairs of one session share its placement in memory, which moves a latency by percents for as long as the session
lives. Both sessions are therefore built again in every round, and the bootstrap draws rounds, then pairs.

How many rounds are enough may follow from the width of the interval (`Rounds`). Only the width decides, never which model is
ahead: an end as soon as a difference is significant would call equal models different far more often than once in twenty. The
width alone does little harm, but some: it ends where rounds happen to be alike, and then the interval is a little too narrow.
Simulated, it holds the truth in 92 % of the cases instead of 95 %; the interval is widened by what makes up for that.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.measure.benchmark_result import Percentiles, Speedup
from pipeline.sample import FloatArray

LEAST_ROUNDS, LEAST_SHARE = 4, 0.3  # of those that are allowed: before, no interval is looked at
WIDENED_ONCE, WIDENED = 1.1, 1.15  # where the interval is looked at once before the last round, and where more often

Run = Callable[[int], object]  # one inference of the sample with that index
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Pair:
    """Two runs of one sample, one right after the other.

    Attributes:
        round: which pair of sessions ran it.
        sample: index of the sample.
        baseline_ms: latency of the original.
        quantized_ms: latency of the quantized model.
    """

    round: int
    sample: int
    baseline_ms: float
    quantized_ms: float

    @property
    def ratio(self) -> float:
        """How many times faster the quantized run was."""
        return self.baseline_ms / self.quantized_ms


def time_ms(run: Run, sample: int, clock: Clock = time.perf_counter) -> float:
    """Time one inference."""
    start = clock()
    run(sample)
    return (clock() - start) * 1000.0


def warm_up(
    runs: Sequence[Run], samples: int, *, max_seconds: float, max_sweeps: int = 20, clock: Clock = time.perf_counter
) -> bool:
    """Run every sample on every model until nothing gets faster any more.

    A sweep runs each sample once. Warm means: for every model, the best of the last three sweeps is within 3 % of the
    best before them. The best and not the mean, because other programs can only slow a run down. A model that is too
    slow for four sweeps in `max_seconds` gets as many as fit, two at least, and the last one alone is looked at, with
    10 % allowed, because one sweep is easily disturbed.

    Returns:
        Whether the models were warm within `max_seconds` and `max_sweeps`.
    """
    sweeps: list[list[float]] = []
    start = clock()

    def warm(recent: int, gain: float) -> bool:
        times = np.asarray(sweeps)
        return bool((times[-recent:].min(axis=0) >= (1.0 - gain) * times[:-recent].min(axis=0)).all())

    while True:
        sweeps.append([sum(time_ms(run, sample, clock) for sample in range(samples)) for run in runs])
        if len(sweeps) >= 4 and warm(recent=3, gain=0.03):
            return True
        if len(sweeps) >= 2 and (len(sweeps) >= max_sweeps or clock() - start >= max_seconds):
            return warm(recent=1, gain=0.10)


def take_turns(
    runs: Sequence[Run],
    blocks: Iterable[Sequence[int]],
    *,
    rng: np.random.Generator,
    at_least: int,
    seconds: float,
    clock: Clock = time.perf_counter,
    watch: Clock | None = None,
) -> Iterator[tuple[int, list[float]]]:
    """Time several models on one sample after the other, each sample on all models before the next one.

    Which model runs first is drawn each time, so that none always finds another's data in the cache.

    Args:
        runs: the models.
        blocks: samples in the order in which they are run. It ends between blocks, so that samples of one block weigh the same.
        rng: draws the order of the models.
        at_least: number of samples that are run,
        seconds: and for at least so long.
        clock: measures a run.
        watch: measures `seconds`; None: the same clock.

    Yields:
        The sample, and the milliseconds that each model took.
    """
    watch = watch or clock
    start, done = watch(), 0
    for block in blocks:
        if done >= at_least and watch() - start >= seconds:
            return
        for sample in block:
            spent_ms = [0.0] * len(runs)
            for which in rng.permutation(len(runs)).tolist():
                spent_ms[which] = time_ms(runs[which], sample, clock)
            done += 1
            yield sample, spent_ms


def measure_pairs(
    baseline: Run,
    quantized: Run,
    samples: int,
    *,
    round_index: int,
    min_pairs: int,
    min_seconds: float,
    rng: np.random.Generator,
    clock: Clock = time.perf_counter,
) -> list[Pair]:
    """Time pairs until there are at least `min_pairs` and at least `min_seconds` have passed.

    Samples come in shuffled blocks, each sample once a block, so that all lengths weigh the same.
    """
    blocks = (rng.permutation(samples).tolist() for _ in itertools.count())
    turns = take_turns((baseline, quantized), blocks, rng=rng, at_least=min_pairs, seconds=min_seconds, clock=clock)
    return [Pair(round_index, sample, baseline_ms, quantized_ms) for sample, (baseline_ms, quantized_ms) in turns]


@dataclass(frozen=True)
class Rounds:
    """How many rounds are timed, at most, and from which width of the interval on no further one.

    Attributes:
        most: rounds.
        interval: the width of the 95 % interval, as a share of the speed-up, with which it ends; 0: all rounds are timed.
    """

    most: int
    interval: float = 0.0

    @property
    def least(self) -> int:
        """The number of rounds before which it does not end."""
        least = max(LEAST_ROUNDS, round(LEAST_SHARE * self.most))
        return min(least, self.most) if self.interval > 0 else self.most

    @property
    def widened(self) -> float:
        """By what the interval is to be widened, since its own width has decided when to end."""
        looks = len(range(self.least, self.most, 2))
        return (WIDENED_ONCE if looks == 1 else WIDENED) if looks else 1.0

    def are_enough(self, pairs: Sequence[Pair], done: int) -> bool:
        """Return whether no further round is needed after so many.

        Only after an even number, when each model was loaded first in half of them, which is a small advantage. The width is
        that of Student's interval for the medians of rounds; the one that is reported (`speedup_of`) is much the same.
        """
        if done >= self.most:
            return True
        if done < self.least or done % 2:
            return False
        medians = [np.median([math.log(pair.ratio) for pair in pairs if pair.round == index]) for index in range(done)]
        half = self.widened * student(done - 1) * float(np.std(medians, ddof=1)) / math.sqrt(done)
        return 2.0 * math.sinh(half) <= self.interval


def student(free: int) -> float:
    """Return the 97.5 % quantile of Student's distribution, within 0.2 % from three degrees of freedom on.

    Cornish and Fisher's expansion (Abramowitz and Stegun 1972, 26.7.5): the process that times has no scipy.
    """
    z: float = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum((term / float(free) ** power for power, term in enumerate(terms, start=1)), 0.0)


def speedup_of(pairs: Sequence[Pair], *, seed: int = 0, resamples: int = 2000, widened: float = 1.0) -> Speedup:
    """Median of the paired ratios with its 95 % interval, stretched by a factor that is given (`Rounds.widened`).

    The bootstrap draws rounds, then pairs of each. Drawn from a handful of rounds, its intervals come out too narrow,
    so their halves are stretched by t(rounds - 1) / z * sqrt(rounds / (rounds - 1)), as is usual for few clusters
    (Cameron, Gelbach and Miller 2008, "Bootstrap-based improvements for inference with clustered errors"). One round
    gives no information about others: its interval is of that round alone.
    """
    rounds = sorted({pair.round for pair in pairs})
    ratios = [np.log([pair.ratio for pair in pairs if pair.round == index]) for index in rounds]
    rng = np.random.default_rng(seed)

    def draw() -> FloatArray:
        drawn = (ratios[index] for index in rng.integers(0, len(ratios), len(ratios)))
        return np.concatenate([group[rng.integers(0, len(group), len(group))] for group in drawn])

    centre = np.median(np.concatenate(ratios))
    low, high = np.percentile([np.median(draw()) for _ in range(resamples)], [2.5, 97.5])
    stretch = widened
    if len(rounds) > 1:
        from scipy.special import ndtri, stdtrit  # the child, which only times, needs none

        free = len(rounds) - 1
        stretch *= stdtrit(free, 0.975) / ndtri(0.975) * math.sqrt(len(rounds) / free)
    ends = centre + stretch * (np.array([low, high]) - centre)
    return Speedup(*(float(value) for value in np.exp([centre, *ends])))


def percentiles_of(times_ms: Sequence[float]) -> Percentiles:
    """Percentiles of latencies."""
    p50, p90, p99 = np.percentile(np.asarray(times_ms, dtype=np.float64), [50, 90, 99])
    return Percentiles(float(p50), float(p90), float(p99))
