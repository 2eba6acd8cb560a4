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

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS_PER_OCTAVE = 128
OCTAVES = 16  # below the largest magnitude; what is smaller, 0.002 % of it, counts as zero
ROWS = OCTAVES * BINS_PER_OCTAVE
CELLS = (1 + ROWS, 2)  # magnitudes below the lowest edge and above; positive and negative
LOWEST_EXPONENT = -100  # keeps the smallest edge a normal number

# every edge from 1 to 2**OCTAVES
MAGNITUDES: Floats = np.ldexp(
    1 + np.arange(ROWS + 1) % BINS_PER_OCTAVE / BINS_PER_OCTAVE, np.arange(ROWS + 1) // BINS_PER_OCTAVE
)
EDGES: Floats = np.concatenate((-MAGNITUDES[::-1], MAGNITUDES))  # of all bins, from negative to positive
SIGNLESS = np.array(0x7FFF, np.uint16)


@dataclass(frozen=True)
class Histogram:
    """Counts of values between edges.

    Attributes:
        edges: float64 (bins + 1,), ascending; equal neighbours hold the values that are exactly there.
        counts: float64 (bins,).
        first: where among `EDGES`, for the exponent of the largest magnitude, the first of its bins lies; None: its bins
            are others.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    first: int | None = None

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


def exponents_of(codes: npt.NDArray[np.uint16]) -> Counts:
    """Return the smallest exponents whose power of two is above the magnitudes, none below `LOWEST_EXPONENT`."""
    exponents: Counts = np.maximum((codes.astype(np.int64) & 0x7FFF) // BINS_PER_OCTAVE + 1 - 127, LOWEST_EXPONENT)
    return exponents


def codes_below(exponents: Counts) -> npt.NDArray[np.uint16]:
    """Return the codes just under the lowest edges of counts with these exponents, of any shape."""
    return ((exponents - OCTAVES + 127) * BINS_PER_OCTAVE - 1).astype(np.uint16)


def bins_of(codes: npt.NDArray[np.uint16], below: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the index of each value's count in flattened `BinCounts.counts`.

    Args:
        codes: of values, (n,).
        below: as `codes_below` returns it, (n,) or ().
    """
    bins = codes & SIGNLESS
    np.maximum(bins, below, out=bins)
    bins -= below
    bins += bins
    bins += codes > SIGNLESS
    return bins


class BinCounts:
    """Counts of values by sign and magnitude, for values below 2**exponent; the exponent follows the values.

    Attributes:
        exponent: of the top: every magnitude counted is below 2**exponent.
        counts: int64 (1 + ROWS, 2): magnitudes ascending, positive and negative; row 0 holds what is below the lowest edge.
    """

    def __init__(self, exponent: int = LOWEST_EXPONENT, counts: Counts | None = None) -> None:
        self.exponent = exponent
        self.counts: Counts = np.zeros(CELLS, np.int64) if counts is None else counts

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count finite values, shape (n,)."""
        if not values.size:
            return
        self.raise_to(int(exponents_of(codes_of(np.abs(values).max(keepdims=True)))[0]))
        places = bins_of(codes_of(values), codes_below(np.array(self.exponent)))
        self.counts += np.bincount(places, minlength=self.counts.size).reshape(CELLS)

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
        mass = np.cumsum(self._ascending())
        lower, upper = np.searchsorted(mass, [share * mass[-1], (1 - share) * mass[-1]])
        edges = np.ldexp(EDGES[[lower, upper + 1]], self.exponent - OCTAVES)
        return np.float32(edges[0]), np.float32(edges[1])

    def histogram(self, low: float, high: float) -> Histogram:
        """Return the histogram, cut to the smallest and the largest value that were counted."""
        counts = self._ascending()
        seen = np.flatnonzero(counts)
        if not seen.size:
            return Histogram(np.zeros(2), np.zeros(1))
        first, last = seen[0], seen[-1] + 1
        edges = np.clip(np.ldexp(EDGES[first : last + 1], self.exponent - OCTAVES), low, high)
        return Histogram(edges, counts[first:last].astype(np.float64), int(first) if self._is_tight(low, high) else None)

    def _is_tight(self, low: float, high: float) -> bool:
        largest = np.array([max(-low, high)], np.float32)
        return bool(np.isfinite(largest[0])) and int(exponents_of(codes_of(largest))[0]) == self.exponent

    def _ascending(self) -> Counts:
        """Return the counts between `EDGES`."""
        return np.concatenate((self.counts[:0:-1, 1], [self.counts[0].sum()], self.counts[1:, 0]))
