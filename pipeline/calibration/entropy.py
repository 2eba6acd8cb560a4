"""The range that keeps the most information: a search for the least Kullback-Leibler divergence.

S. Migacz, "8-bit inference with TensorRT", GTC 2017. For each candidate range, P is the distribution of the values clipped to
it, and Q what `levels` levels keep of it: within a level, the mass that was not clipped, spread evenly over the bins that
are not empty. The candidate with the least KL(P || Q) wins. Two corrections that the method needs in practice: the bin of
exact zeros, which quantization keeps exactly, is given its neighbours' mass, or sparse tensors would be clipped to
nothing; and for asymmetric types both ends are searched in turn, each level covering one step of the whole range.

The divergence of one candidate splits into sums over its bins and over its levels, and both are differences of running
sums: a candidate costs as many operations as there are levels, not bins.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import BINS_PER_OCTAVE, Histogram

BINS = 2048  # over all that was seen, as in the source: 16 a level for 128 levels, 8 for 256
ROUNDS = 4  # in which both ends of a two-sided range are searched, at most
TWO_SIDED_EVERY = 8  # 16 thresholds an octave: the divergence of two ends is too rough for more to mean anything

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def entropy_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the least divergence. It spans no fewer bins than levels."""
    levels = min(levels, 256)  # the source is about 8 bits: bins must outnumber levels, or nothing tells ranges apart
    if not histogram.edges.any():
        return 0.0, 0.0
    if symmetric:
        reference = Reference.of(histogram.magnitudes(), levels // 2)
        end = reference.best_end(0)
        return -end * reference.width, end * reference.width
    reference = Reference.of(histogram, levels)
    mirrored, bins = reference.mirrored(), len(reference.counts)
    if reference.zero == 0:
        return 0.0, reference.best_end(0) * reference.width
    if reference.zero == bins:
        return -mirrored.best_end(0) * reference.width, 0.0
    start, end = 0, bins
    for _ in range(ROUNDS):
        before = start, end
        end = reference.best_end(start, every=TWO_SIDED_EVERY)
        start = bins - mirrored.best_end(bins - end, every=TWO_SIDED_EVERY)
        if (start, end) == before:
            break
    return (start - reference.zero) * reference.width, (end - reference.zero) * reference.width


@dataclass(frozen=True)
class Reference:
    """The distribution that candidates are compared with.

    Attributes:
        counts: float64 (bins,), of bins of one width.
        zero: the index of the edge at zero.
        width: of a bin.
        levels: of the integer type.
    """

    counts: Floats
    zero: int
    width: float
    levels: int

    @classmethod
    def of(cls, histogram: Histogram, levels: int) -> "Reference":
        """Return the histogram on bins of one width, with what is exactly zero reduced to its neighbours."""
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
        return cls(counts, below, width, levels)

    def mirrored(self) -> "Reference":
        """Return the distribution of the negated values."""
        return Reference(self.counts[::-1].copy(), len(self.counts) - self.zero, self.width, self.levels)

    def best_end(self, start: int, every: int = 1) -> int:
        """Return the end with the least divergence for a range from edge `start`; of `ends`, every so many are tried."""
        ends = self.ends(start)[::-every]
        return int(ends[np.argmin(self.divergence(start, ends))])

    def ends(self, start: int) -> Ints:
        """Return the edges that a range from `start` may end at: as far apart as the histogram can tell them apart."""
        above = len(self.counts) - self.zero
        thresholds = np.rint(above * 2.0 ** -np.arange(0, np.log2(BINS) + 1, 1 / BINS_PER_OCTAVE)).astype(np.int64)
        ends = np.unique(self.zero + thresholds)
        nearest = min(max(start + self.levels, self.zero + 1), len(self.counts))
        return ends[ends >= nearest]

    def divergence(self, start: int, ends: Ints) -> Floats:
        """Return KL(P || Q) for ranges from edge `start` to each of `ends`, shape (candidates,); inf where Q misses mass."""
        mass, filled, spread = (
            np.concatenate(([0.0], np.cumsum(sums))) for sums in (self.counts, self.counts > 0, _x_log_x(self.counts))
        )
        borders = start + np.rint(np.outer(ends - start, np.arange(self.levels + 1) / self.levels)).astype(np.int64)
        kept = np.diff(mass[borders])
        bins = np.diff(filled[borders])
        clipped_below, clipped_above = mass[start], mass[-1] - mass[ends]
        first, last = self.counts[start], self.counts[ends - 1]

        clipped = kept.copy()  # P: the mass beyond the range lies in its outermost bins
        clipped[:, 0] += clipped_below
        clipped[:, -1] += clipped_above
        bins[:, 0] += (first == 0) & (clipped_below > 0)
        bins[:, -1] += (last == 0) & (clipped_above > 0)
        p_log_p = spread[ends] - spread[start]
        p_log_p += _x_log_x(first + clipped_below) - _x_log_x(first) + _x_log_x(last + clipped_above) - _x_log_x(last)
        with np.errstate(divide="ignore", invalid="ignore"):
            p_log_q = np.where(clipped > 0, clipped * np.log(kept / bins), 0).sum(axis=1)
            divergence = (p_log_p - p_log_q) / mass[-1] + np.log((mass[ends] - mass[start]) / mass[-1])
        return np.where(np.isnan(divergence), np.inf, divergence)


def _x_log_x(x: Floats) -> Floats:
    product: Floats = x * np.log(np.maximum(x, 1e-300))
    return product
