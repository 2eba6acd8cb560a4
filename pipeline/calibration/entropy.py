"""The range that keeps the most information: a search for the least Kullback-Leibler divergence.

S. Migacz, "8-bit inference with TensorRT", GTC 2017. For each candidate range, P is the distribution of the values clipped to
it, and Q what `levels` levels keep of it: within a level, the mass that was not clipped, spread evenly over the bins that
are not empty. The candidate with the least KL(P || Q) wins. Two corrections that the method needs in practice: the bin of
exact zeros, which quantization keeps exactly, is given its neighbours' mass, or sparse tensors would be clipped to
nothing; and for asymmetric types both ends are searched in turn, each level covering one step of the whole range.

The divergence of one candidate splits into sums over its bins and over its levels, and both are differences of running
sums: a candidate costs as many operations as there are levels, not bins.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import BINS_PER_OCTAVE, Histogram

BINS = 2048  # over all that was seen, as in the source: 16 a level for 128 levels, 8 for 256
ROUNDS = 4  # in which both ends of a two-sided range are searched, at most
TWO_SIDED_EVERY = 8  # 16 thresholds an octave: the divergence of two ends is too rough for more to mean anything
COARSELY = 8  # of so many candidates one is tried first
TINY = 1e-300

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def entropy_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range of one histogram with the least divergence: see `entropy_ranges`."""
    [(low, high)] = entropy_ranges([histogram], levels, symmetric)
    return low, high


def entropy_ranges(histograms: Sequence[Histogram], levels: int, symmetric: bool) -> list[tuple[float, float]]:
    """Return the range with the least divergence for each histogram. It spans no fewer bins than levels."""
    levels = min(levels, 256)  # the source is about 8 bits: bins must outnumber levels, or nothing tells ranges apart
    ranges = np.zeros((len(histograms), 2))
    filled = np.array([index for index, histogram in enumerate(histograms) if histogram.edges.any()], np.int64)
    if len(filled):
        search = _symmetric if symmetric else _asymmetric
        ranges[filled] = search([histograms[index] for index in filled], levels)
    return [(float(low), float(high)) for low, high in ranges]


def _symmetric(histograms: Sequence[Histogram], levels: int) -> Floats:
    references = References([histogram.magnitudes() for histogram in histograms], levels // 2)
    starts, ends = references.zeros.copy(), references.bins.copy()
    references.improve(starts, ends, references.divergence(np.arange(len(ends)), starts, ends), every=1)
    thresholds = ends * references.widths
    return np.stack((-thresholds, thresholds), axis=1)


def _asymmetric(histograms: Sequence[Histogram], levels: int) -> Floats:
    references = References(histograms, levels)
    zeros, bins = references.zeros, references.bins
    mirrored = references.mirrored()
    starts, ends = np.zeros_like(bins), bins.copy()
    least = references.divergence(np.arange(len(ends)), starts, ends)
    one_sided = (zeros == 0) | (zeros == bins)
    for every, which in ((1, one_sided), (TWO_SIDED_EVERY, ~one_sided)):
        rows = np.flatnonzero(which)
        for _ in range(ROUNDS):
            before = np.stack((starts[rows], ends[rows]))
            references.improve(starts, ends, least, every, rows[zeros[rows] < bins[rows]])
            from_end, from_start = bins - ends, bins - starts
            mirrored.improve(from_end, from_start, least, every, rows[zeros[rows] > 0])
            starts = bins - from_start
            rows = rows[(before != (starts[rows], ends[rows])).any(axis=0)]
            if not len(rows):
                break
    return (np.stack((starts, ends), axis=1) - zeros[:, None]) * references.widths[:, None]


class References:
    """The distributions that candidates are compared with, each on bins of one width.

    Attributes:
        counts: float64 (tensors, bins), what is exactly zero reduced to its neighbours; empty beyond a tensor's own bins.
        zeros: the index of the edge at zero, int64 (tensors,).
        bins: how many bins a tensor has, int64 (tensors,).
        widths: of a tensor's bins, float64 (tensors,).
        levels: of the integer type.
    """

    def __init__(self, histograms: Sequence[Histogram], levels: int) -> None:
        self.levels = levels
        self.counts = np.zeros((len(histograms), BINS + 2))
        self.widths = np.zeros(len(histograms))
        self.zeros, self.bins = (np.zeros(len(histograms), np.int64) for _ in range(2))
        for row, histogram in enumerate(histograms):
            low, high = min(float(histogram.edges[0]), 0.0), max(float(histogram.edges[-1]), 0.0)
            width = (high - low) / BINS
            below, above = int(np.ceil(-low / width - 1e-9)), int(np.ceil(high / width - 1e-9))
            mass = histogram.mass_up_to(width * np.arange(-below, above + 1, dtype=np.float64))
            mass[:1] = 0
            counts = np.diff(mass)
            if above > 1:
                counts[below] = min(counts[below], counts[below + 1])
            if below > 1:
                counts[below - 1] = min(counts[below - 1], counts[below - 2])
            self.counts[row, : below + above] = counts
            self.widths[row], self.zeros[row], self.bins[row] = width, below, below + above
        self._add_up()

    def _add_up(self) -> None:
        self.mass, self.filled, self.spread = map(_running, (self.counts, self.counts > 0, _x_log_x(self.counts)))

    def mirrored(self) -> "References":
        """Return the distributions of the negated values."""
        other = References([], self.levels)
        other.widths, other.bins, other.zeros = self.widths, self.bins, self.bins - self.zeros
        other.counts = np.zeros_like(self.counts)
        for row, size in enumerate(self.bins):
            other.counts[row, :size] = self.counts[row, :size][::-1]
        other._add_up()
        return other

    def candidates(self, rows: Ints, starts: Ints, every: int) -> Ints:
        """Return the edges that ranges from `starts` may end at, (rows, candidates), descending; 0 where there are fewer.

        They lie as far apart as the histogram can tell them apart; of these, every so many.
        """
        above = (self.bins - self.zeros)[rows, None]
        thresholds = np.rint(above * 2.0 ** -np.arange(0, np.log2(BINS) + 1, every / BINS_PER_OCTAVE)).astype(np.int64)
        thresholds[:, 1:][thresholds[:, 1:] == thresholds[:, :-1]] = -1
        ends = self.zeros[rows, None] + thresholds
        nearest = np.minimum(np.maximum(starts[rows] + self.levels, self.zeros[rows] + 1), self.bins[rows])
        return np.where((thresholds >= 0) & (ends >= nearest[:, None]), ends, 0)

    def improve(self, starts: Ints, ends: Ints, least: Floats, every: int, rows: Ints | None = None) -> None:
        """Move the ends of ranges to where the divergence is least.

        A candidate whose divergence cannot be below the least so far is not computed: see `bound`.

        Args:
            starts: of each tensor's range, (tensors,).
            ends: of each tensor's range, (tensors,); changed.
            least: the divergence of each tensor's range, (tensors,); changed.
            every: of the candidates, every so many are tried.
            rows: the tensors whose ends may move; None: all.
        """
        rows = np.arange(len(ends)) if rows is None else rows
        candidates = self.candidates(rows, starts, every)
        open_ = candidates > 0
        of, column = np.nonzero(open_)
        bounds = np.full(candidates.shape, np.inf)
        bounds[of, column] = self.bound(rows[of], starts[rows[of]], candidates[of, column])
        for step in (COARSELY, 1):
            tried = np.zeros_like(open_)
            tried[:, ::step] = True
            tried &= open_ & (bounds < least[rows, None])
            open_ &= ~tried
            of, column = np.nonzero(tried)
            divergence = np.full(candidates.shape, np.inf)
            divergence[of, column] = self.divergence(rows[of], starts[rows[of]], candidates[of, column])
            best = np.argmin(divergence, axis=1)
            found = divergence[np.arange(len(rows)), best]
            better = found < least[rows]
            least[rows[better]] = found[better]
            ends[rows[better]] = candidates[np.arange(len(rows)), best][better]

    def bound(self, rows: Ints, starts: Ints, ends: Ints) -> Floats:
        """Return what the divergence cannot be below: that of three parts, the outermost bins and all between.

        No partition has a greater divergence than the bins that it joins (the data-processing inequality).
        """
        size = ends - starts
        second, last = starts + np.rint(size / self.levels).astype(np.int64), ends - 1
        before_last = starts + np.rint(size * (self.levels - 1) / self.levels).astype(np.int64)
        total, kept = self.mass[rows, -1], self.mass[rows, ends] - self.mass[rows, starts]
        clipped = self.mass[rows, starts], total - self.mass[rows, ends]
        p_rest, q_rest = np.ones(len(rows)), np.ones(len(rows))
        divergence = np.zeros(len(rows))
        for bin_, start, end, beyond in ((starts, starts, second, clipped[0]), (last, before_last, ends, clipped[1])):
            inside = self.counts[rows, bin_]
            filled = self.filled[rows, end] - self.filled[rows, start] + ((inside == 0) & (beyond > 0))
            p = (inside + beyond) / total
            q = (self.mass[rows, end] - self.mass[rows, start]) / np.maximum(filled, 1) / np.maximum(kept, TINY)
            q = np.where(inside + beyond > 0, q, 0)
            divergence += _p_log_p_by_q(p, q)
            p_rest, q_rest = p_rest - p, q_rest - q
        divergence += _p_log_p_by_q(np.maximum(p_rest, 0), np.maximum(q_rest, TINY))
        return divergence * (1 - 1e-9) - 1e-12

    def divergence(self, rows: Ints, starts: Ints, ends: Ints) -> Floats:
        """Return KL(P || Q) for ranges from edge `starts` to `ends`, shape (candidates,); inf where Q misses mass."""
        borders = np.outer(ends - starts, np.arange(self.levels + 1) / self.levels)
        np.rint(borders, out=borders)
        places = borders.astype(np.int64)
        places += (starts + rows * self.mass.shape[1])[:, None]
        kept = np.diff(self.mass.take(places))
        bins = np.diff(self.filled.take(places))
        total, before, upto = self.mass[rows, -1], self.mass[rows, starts], self.mass[rows, ends]
        below, above = before, total - upto  # P: the mass beyond the range lies in its outermost bins
        first, last = self.counts[rows, starts], self.counts[rows, ends - 1]
        bins[:, 0] += (first == 0) & (below > 0)
        bins[:, -1] += (last == 0) & (above > 0)
        p_log_p = self.spread[rows, ends] - self.spread[rows, starts]
        p_log_p += _x_log_x(first + below) - _x_log_x(first) + _x_log_x(last + above) - _x_log_x(last)
        np.maximum(bins, 1, out=bins)
        bins = kept / bins
        np.maximum(bins, TINY, out=bins)
        logs = np.log(bins, out=bins)
        p_log_q = np.einsum("cl,cl->c", kept, logs) + below * logs[:, 0] + above * logs[:, -1]
        divergence: Floats = (p_log_p - p_log_q) / total + np.log(np.maximum(upto - before, TINY) / total)
        missed = ((below > 0) & (kept[:, 0] <= 0)) | ((above > 0) & (kept[:, -1] <= 0))
        return np.where(missed, np.inf, divergence)


def _running(sums: npt.NDArray[np.generic]) -> Floats:
    """Return the sums of what lies before each edge, (tensors, bins + 1)."""
    running = np.zeros((sums.shape[0], sums.shape[1] + 1))
    np.cumsum(sums, axis=1, out=running[:, 1:])
    return running


def _p_log_p_by_q(p: Floats, q: Floats) -> Floats:
    product: Floats = p * (np.log(np.maximum(p, TINY)) - np.log(np.maximum(q, TINY)))
    return product


def _x_log_x(x: Floats) -> Floats:
    product: Floats = x * np.log(np.maximum(x, TINY))
    return product
