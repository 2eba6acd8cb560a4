"""How sure a number is: percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

What is drawn is the utterance (or the pair of runs), never the frame or the word: frames of one utterance are not
independent of each other, and an interval over them would be far too narrow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError
from pipeline.sample import FloatArray


@dataclass(frozen=True)
class Interval:
    """A statistic and where it would lie, most of the time, had other utterances been drawn.

    Attributes:
        value: the statistic of the data as they are.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Interval of the mean of one value per utterance; of paired differences, where those are the values."""
    return _interval(_column(values), lambda rows: float(rows.mean()), seed, resamples, level)


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of sum(numerators) / sum(denominators), for example of errors over words: a corpus' word error rate.

    Args:
        numerators: one number per utterance.
        denominators: one number per utterance, each above zero.
        seed: of the resampling.
        resamples: how many sets of utterances are drawn.
        level: share of them that the interval covers.

    Raises:
        DataError: nothing was given, the lengths differ, or a denominator is not above zero.
    """
    top, bottom = _column(numerators), _column(denominators)
    if top.shape != bottom.shape:
        raise DataError(f"A ratio needs as many numerators as denominators, but got {len(top)} and {len(bottom)}.")
    if not (bottom > 0).all():
        raise DataError("A ratio needs denominators above zero: an utterance without words has no error rate.")

    def ratio(rows: FloatArray) -> float:
        totals = rows.sum(axis=0)
        return float(totals[0] / totals[1])

    return _interval(np.stack([top, bottom], axis=1), ratio, seed, resamples, level)


def _column(values: Sequence[float]) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(f"An interval needs one number per utterance, but got an array of shape {array.shape}.")
    return array


def _interval(rows: FloatArray, statistic: Callable[[FloatArray], float], seed: int, resamples: int, level: float) -> Interval:
    rng = np.random.default_rng(seed)
    count = len(rows)
    drawn = [statistic(rows[rng.integers(0, count, count)]) for _ in range(resamples)]
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Interval(statistic(rows), float(low), float(high))
