"""A histogram of float32 values whose bins need no range in advance.

A bin is the set of values that share sign, exponent and the first 7 bits of the mantissa: the upper half of the number.
Bins are at most 1/128 of their value wide, wherever the values lie. So two histograms can always be added, a percentile
read from the middle of a bin is within 0.4 %, and no first pass over the data is needed to find where it ends.
"""

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibration.tensors import Step

BINS_PER_OCTAVE = 128
OCTAVES = 16  # below the largest magnitude; what is smaller, 0.002 % of it, counts as zero
ROWS = OCTAVES * BINS_PER_OCTAVE
LOWEST_EXPONENT = -100  # keeps the smallest edge a normal number

# every edge from 1 to 2**OCTAVES
MAGNITUDES = np.ldexp(1 + np.arange(ROWS + 1) % BINS_PER_OCTAVE / BINS_PER_OCTAVE, np.arange(ROWS + 1) // BINS_PER_OCTAVE)

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """Counts of values between edges.

    Attributes:
        edges: float64 (bins + 1,), ascending; equal neighbours hold the values that are exactly there.
        counts: float64 (bins,).
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]

    @property
    def middles(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, float64 (bins,)."""
        middles: npt.NDArray[np.float64] = (self.edges[:-1] + self.edges[1:]) / 2
        return middles

    def image(self, step: Step) -> "Histogram":
        """Return the histogram of the values after `step`, which never decreases."""
        return Histogram(step(self.edges), self.counts)

    def quantile(self, share: float) -> float:
        """Return the middle of the bin that the smallest value lies in which `share` of all values do not exceed."""
        mass = np.cumsum(self.counts)
        # a share of 1 is the last value, whatever the sum of the counts is rounded to
        index = min(int(np.searchsorted(mass, share * mass[-1] * (1 - 1e-12))), len(mass) - 1)
        return float(self.middles[index])

    def magnitudes(self) -> "Histogram":
        """Return the histogram of absolute values; its first bin holds what is exactly zero."""
        is_negative = (self.edges[1:] <= 0) & (self.edges[:-1] < 0)
        positive = Histogram(np.maximum(self.edges, 0), np.where(is_negative, 0, self.counts))
        negative = Histogram(np.maximum(-self.edges, 0)[::-1], np.where(is_negative, self.counts, 0)[::-1])
        edges = np.concatenate(([0.0], np.unique(np.concatenate(([0.0], positive.edges, negative.edges)))))
        mass = positive.mass_up_to(edges) + negative.mass_up_to(edges)
        mass[0] = 0
        return Histogram(edges, np.diff(mass))

    def mass_up_to(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return how much lies at or below each value, with the values of a bin spread evenly over it."""
        mass: npt.NDArray[np.float64] = np.interp(values, self.edges, np.concatenate(([0.0], np.cumsum(self.counts))))
        return mass


def codes_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return sign, exponent and the first 7 bits of the mantissa of contiguous values, shape (n,), without a copy."""
    return values.view(np.uint16)[1 if sys.byteorder == "little" else 0 :: 2]


class BinCounts:
    """Counts of values by sign and magnitude, for values below 2**exponent; the exponent follows the values.

    Attributes:
        exponent: of the top: every magnitude counted is below 2**exponent.
        counts: int64 (1 + ROWS, 2): magnitudes ascending, positive and negative; row 0 holds what is below the lowest edge.
    """

    def __init__(self, exponent: int = LOWEST_EXPONENT, counts: Counts | None = None) -> None:
        self.exponent = exponent
        self.counts: Counts = np.zeros((1 + ROWS, 2), np.int64) if counts is None else counts

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count finite values, shape (n,)."""
        if values.size:
            self.add_codes(codes_of(values), int(codes_of(np.abs(values).max(keepdims=True))[0]))

    def add_codes(self, codes: npt.NDArray[np.uint16], largest: int, weights: npt.NDArray[np.uint16] | None = None) -> None:
        """Count finite values by their codes.

        Args:
            codes: as `codes_of` returns them, (n,).
            largest: a code, without sign, that no magnitude exceeds.
            weights: how often each counts, (n,); None: once.
        """
        self.raise_to(largest // BINS_PER_OCTAVE + 1 - 127)
        below = np.uint16((self.exponent - OCTAVES + 127) * BINS_PER_OCTAVE - 1)  # the code just under the lowest edge
        bins = codes & np.uint16(0x7FFF)
        np.maximum(bins, below, out=bins)
        bins -= below
        bins <<= 1
        bins |= codes >> 15
        self.counts += np.bincount(bins, weights, self.counts.size).astype(np.int64, copy=False).reshape(-1, 2)

    def raise_to(self, exponent: int) -> None:
        """Make room for magnitudes up to 2**exponent; bins that fall below the lowest edge join row 0."""
        if exponent <= self.exponent:
            return
        shift = min((exponent - self.exponent) * BINS_PER_OCTAVE, ROWS)
        raised = np.zeros_like(self.counts)
        raised[0] = self.counts[: shift + 1].sum(axis=0)
        raised[1 : ROWS + 1 - shift] = self.counts[shift + 1 :]
        self.exponent, self.counts = exponent, raised

    def merge(self, other: "BinCounts") -> "BinCounts":
        """Return the sum of two."""
        total, addend = (BinCounts(part.exponent, part.counts) for part in (self, other))
        top = max(total.exponent, addend.exponent)
        total.raise_to(top)
        addend.raise_to(top)
        return BinCounts(top, total.counts + addend.counts)

    def tails(self, share: float) -> tuple[np.float32, np.float32]:
        """Return two edges; less than `share` of the values lies below the first, and above the second."""
        edges, counts = self._ascending()
        mass = np.cumsum(counts)
        lower = np.searchsorted(mass, share * mass[-1])
        upper = np.searchsorted(mass, (1 - share) * mass[-1])
        return np.float32(edges[lower]), np.float32(edges[upper + 1])

    def histogram(self, low: float, high: float) -> Histogram:
        """Return the histogram, cut to the smallest and the largest value that were counted."""
        edges, counts = self._ascending()
        seen = np.flatnonzero(counts)
        if not seen.size:
            return Histogram(np.zeros(2), np.zeros(1))
        first, last = seen[0], seen[-1] + 1
        return Histogram(np.clip(edges[first : last + 1], low, high), counts[first:last].astype(np.float64))

    def _ascending(self) -> tuple[npt.NDArray[np.float64], Counts]:
        """Return the edges, ascending from negative to positive, and the counts between them."""
        magnitudes = np.ldexp(MAGNITUDES, self.exponent - OCTAVES)
        edges = np.concatenate((-magnitudes[::-1], magnitudes))
        return edges, np.concatenate((self.counts[:0:-1, 1], [self.counts[0].sum()], self.counts[1:, 0]))
