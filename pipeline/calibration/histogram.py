"""A histogram: counts of values between edges, and what range methods ask of it."""

from dataclasses import dataclass

import numpy as np

from pipeline.calibration.derived_tensors import MonotoneOp
from pipeline.calibration.numba_jit import compiled
from pipeline.sample import FloatArray


def _mass_up_to_by_numpy(edges: FloatArray, counts: FloatArray, values: FloatArray) -> FloatArray:
    bins = np.searchsorted(edges[1:], values, side="right")  # the first whose upper edge lies beyond a value
    mass = np.concatenate(([0.0], np.cumsum(counts)))[bins]
    inside = np.flatnonzero((bins < len(counts)) & (values > edges[np.minimum(bins, len(counts) - 1)]))
    bin_ = bins[inside]
    mass[inside] += counts[bin_] * (values[inside] - edges[bin_]) / (edges[bin_ + 1] - edges[bin_])
    return mass


@compiled("float64[::1](float64[::1], float64[::1], float64[::1])", otherwise=_mass_up_to_by_numpy)
def mass_up_to(edges: FloatArray, counts: FloatArray, values: FloatArray) -> FloatArray:
    """Return `Histogram.mass_up_to` for a histogram's edges and counts: numpy.interp, without its search for each value."""
    mass = np.empty(len(values))
    bin_, below = 0, 0.0  # below: what lies in the bins before
    for index, value in enumerate(values):
        while bin_ < len(counts) and edges[bin_ + 1] <= value:
            below += counts[bin_]
            bin_ += 1
        mass[index] = below
        if bin_ < len(counts) and value > edges[bin_]:
            mass[index] += counts[bin_] * (value - edges[bin_]) / (edges[bin_ + 1] - edges[bin_])
    return mass


@dataclass(frozen=True)
class Histogram:
    """Counts of values between edges.

    Attributes:
        edges: float64 (bins + 1,), ascending; equal neighbours hold the values that are exactly there.
        counts: float64 (bins,).
    """

    edges: FloatArray
    counts: FloatArray

    def image(self, step: MonotoneOp) -> "Histogram":
        """Return the histogram of the values after `step`, which never decreases."""
        return Histogram(step(self.edges), self.counts)

    def quantile(self, share: float) -> float:
        """Return the middle of the bin that the smallest value lies in which `share` of all values do not exceed."""
        mass = np.cumsum(self.counts)
        # a share of 1 is the last value, whatever the sum of the counts is rounded to
        index = min(int(np.searchsorted(mass, share * mass[-1] * (1 - 1e-12))), len(mass) - 1)
        return float(self.edges[index] + self.edges[index + 1]) / 2

    def magnitudes(self) -> "Histogram":
        """Return the histogram of absolute values; its first bin holds what is exactly zero."""
        is_negative = (self.edges[1:] <= 0) & (self.edges[:-1] < 0)
        positive = Histogram(np.maximum(self.edges, 0), np.where(is_negative, 0, self.counts))
        negative = Histogram(np.maximum(-self.edges[::-1], 0), np.where(is_negative[::-1], self.counts[::-1], 0))
        edges = np.concatenate(([0.0], np.unique(np.concatenate(([0.0], positive.edges, negative.edges)))))
        mass = positive.mass_up_to(edges) + negative.mass_up_to(edges)
        mass[0] = 0
        return Histogram(edges, np.diff(mass))

    def mass_up_to(self, values: FloatArray) -> FloatArray:
        """Return how much lies at or below each of ascending values, with the values of a bin spread evenly over it."""
        return mass_up_to(self.edges, self.counts, values)
