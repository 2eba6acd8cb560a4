"""The range with the least expected squared error: wide enough that little is clipped, narrow enough for fine steps.

Choukroun et al. 2019 (arXiv:1902.06822) search the same minimum. The error of a range is computed from moments of the
histogram, exactly where it matters: what is clipped, and what lies within a few steps of zero, where densities are peaked
and zeros cost nothing. Elsewhere a density is flat over a step, and the error of a value is step² / 12.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import BINS_PER_OCTAVE, Histogram

NEAR_ZERO = 32  # steps to either side whose error is computed level by level
SEARCH_OCTAVES = 8  # below the largest value: a range 256 times narrower is never better
SHARES = 2.0 ** -np.arange(0, SEARCH_OCTAVES, 1 / 8)  # of the whole range, which are tried first
# bins from the best threshold so far to those that are tried next: each neighbour, and ever fewer up to three octaves away
NEAR = np.arange(1, 5)
FAR = np.unique(np.rint(4 * 2.0 ** np.arange(0.5, np.log2(3 * BINS_PER_OCTAVE / 4), 0.5)).astype(np.int64))
MOVES = np.concatenate((-FAR[::-1], -NEAR[::-1], [0], NEAR, FAR))
ROUNDS = 16  # in which ends move, at most

Floats = npt.NDArray[np.float64]
Errors = Callable[[Floats], Floats]


def mse_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the least error.

    The search starts from the best of the ranges that shrink both ends alike, and moves one end after the other to a better
    edge of the histogram until there is none. The ends of an asymmetric range are whole numbers of steps from zero, as
    the integer zero point will make them.
    """
    low, high = min(float(histogram.edges[0]), 0.0), max(float(histogram.edges[-1]), 0.0)
    if low == high:
        return 0.0, 0.0
    error = QuantizationError(histogram)
    if symmetric:
        highest = levels // 2 - 1

        def of_threshold(thresholds: Floats) -> Floats:
            return error(thresholds / highest, np.full(len(thresholds), -float(highest)), 2 * highest)

        edges = np.unique(np.abs(histogram.edges))
        threshold = _best(max(-low, high) * SHARES, of_threshold)
        for _ in range(ROUNDS):
            before, threshold = threshold, _move(threshold, edges, of_threshold)
            if threshold == before:
                break
        return -threshold, threshold

    def of_range(low: Floats | float, high: Floats | float) -> Floats:
        lows, highs = np.broadcast_arrays(low, high)
        steps = (highs - lows) / (levels - 1)
        return error(steps, np.rint(lows / steps), levels - 1)

    whole_low, whole_high = low, high
    share = _best(SHARES, lambda shares: of_range(whole_low * shares, whole_high * shares))
    low, high = low * share, high * share
    for _ in range(ROUNDS):
        before_low, before_high = low, high
        if high > 0:
            high = _move(high, histogram.edges, partial(of_range, before_low))
        if low < 0:
            low = _move(low, histogram.edges, partial(of_range, high=high))
        if (low, high) == (before_low, before_high):
            break
    step = (high - low) / (levels - 1)
    lowest = round(low / step)
    return step * lowest, step * (lowest + levels - 1)


class QuantizationError:
    """The error that quantization makes on the values of a histogram, which are spread evenly over each bin."""

    def __init__(self, histogram: Histogram) -> None:
        start, end = histogram.edges[:-1], histogram.edges[1:]
        moments = histogram.counts * np.stack((np.ones_like(start), (start + end) / 2, _mean_square(start, end)))
        self.start, self.end, self.counts = start, end, histogram.counts
        self.below: Floats = np.concatenate((np.zeros((3, 1)), np.cumsum(moments, axis=1)), axis=1)  # each edge

    def __call__(self, steps: Floats, lowest: Floats, span: int) -> Floats:
        """Return the sum of squared errors of candidates, shape (candidates,).

        Args:
            steps: between the levels, (candidates,).
            lowest: level of each candidate, in steps from zero, (candidates,).
            span: from the lowest to the highest level, in steps.
        """
        steps, lowest = steps[:, None], lowest[:, None]
        highest = lowest + span
        near = np.arange(-NEAR_ZERO, NEAR_ZERO + 1)
        near_borders = np.broadcast_to(np.arange(-NEAR_ZERO, NEAR_ZERO + 2) - 0.5, (len(steps), len(near) + 1))
        first, last = np.minimum(lowest, -NEAR_ZERO) - 0.5, np.maximum(highest, NEAR_ZERO) + 0.5
        # cells: what is clipped below; flat; one of each level near zero; flat; what is clipped above
        moments = self._of_cells(steps * np.concatenate((first, near_borders, last), axis=1))
        levels = steps * np.concatenate((lowest, lowest, np.clip(near, lowest, highest), highest, highest), axis=1)
        errors = moments[2] - 2 * levels * moments[1] + levels**2 * moments[0]
        errors[:, [1, -2]] = steps**2 / 12 * moments[0][:, [1, -2]]
        total: Floats = errors.sum(axis=1)
        return total

    def _of_cells(self, borders: Floats) -> Floats:
        """Return count, sum and sum of squares of what lies below, between and above borders (n, k): (3, n, k + 1)."""
        bins = np.clip(np.searchsorted(self.start, borders, side="right") - 1, 0, len(self.start) - 1)
        start, end = self.start[bins], self.end[bins]
        inside = np.clip(borders, start, end)
        share = np.where(end > start, (inside - start) / np.maximum(end - start, np.finfo(float).tiny), borders >= end)
        part = share * self.counts[bins]
        below = self.below[:, bins] + np.stack((part, part * (start + inside) / 2, part * _mean_square(start, inside)))
        total = np.broadcast_to(self.below[:, -1, None, None], (*below.shape[:2], 1))
        moments: Floats = np.diff(np.concatenate((below, total), axis=2), axis=2, prepend=0)
        return moments


def _best(candidates: Floats, errors: Errors) -> float:
    return float(candidates[np.argmin(errors(candidates))])


def _move(end: float, edges: Floats, errors: Errors) -> float:
    """Return the best of the edges around an end of a range, on its side of zero."""
    around = np.searchsorted(edges, end) + MOVES
    candidates = edges[around[(around >= 0) & (around < len(edges))]]
    return _best(candidates[candidates * end > 0], errors)


def _mean_square(start: Floats, end: Floats) -> Floats:
    """Return the mean of x² over [start, end]."""
    mean: Floats = (start**2 + start * end + end**2) / 3
    return mean
