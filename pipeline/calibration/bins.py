"""Counts of float32 values in bins that need no range in advance, in one pass.

A bin is the set of values that share sign, exponent and the first 7 bits of the mantissa: the upper half of the number, its
code. Bins are at most 1/128 of their value wide, wherever the values lie. So counts can always be added, a percentile read
from the middle of a bin is within 0.4 %, and no first pass over the data is needed to find where it ends.

The loops over values are compiled, and read the bits of IEEE 754 numbers, whose order is that of integers: so each takes many
values at once. A function whose name ends with `_by_numpy` takes the place of a loop where Numba is not installed.
"""

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import Histogram
from pipeline.calibration.numba_jit import compiled
from pipeline.sample import FloatArray

BINS_PER_OCTAVE = 128
OCTAVES = 16  # below the largest magnitude; what is smaller, 0.002 % of it, counts as zero
ROWS = OCTAVES * BINS_PER_OCTAVE
CELLS = (1 + ROWS, 2)  # magnitudes below the lowest edge and above; positive and negative
LOWEST_EXPONENT = -100  # keeps the smallest edge a normal number
BIAS = 127  # of the exponent in a number
BLOCK = 1024  # values whose bins are found before they are counted
NUMPY_BLOCK = 1 << 16  # so many at once by numpy, whose calls cost more than a value

Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Counts32 = npt.NDArray[np.uint32]

# every edge from 1 to 2**OCTAVES
MAGNITUDES: FloatArray = np.ldexp(
    1 + np.arange(ROWS + 1) % BINS_PER_OCTAVE / BINS_PER_OCTAVE, np.arange(ROWS + 1) // BINS_PER_OCTAVE
)
EDGES: FloatArray = np.concatenate((-MAGNITUDES[::-1], MAGNITUDES))  # of all bins, from negative to positive


def _move_down_by_numpy(counts: Counts | Counts32, octaves: int) -> None:
    shift = min(octaves * BINS_PER_OCTAVE, ROWS)
    moved = np.zeros_like(counts)
    moved[0] = counts[: shift + 1].sum(axis=0)
    moved[1 : 1 + ROWS - shift] = counts[1 + shift :]
    counts[:] = moved


@compiled("void(uint32[:, ::1], int64)", "void(int64[:, ::1], int64)", otherwise=_move_down_by_numpy)
def _move_down(counts: Counts | Counts32, octaves: int) -> None:
    """Move counts down by some octaves; those that fall below the lowest edge join row 0."""
    shift = min(octaves * BINS_PER_OCTAVE, ROWS)
    for column in range(2):
        counts[0, column] = counts[: shift + 1, column].sum()
        for row in range(1, 1 + ROWS):
            counts[row, column] = counts[row + shift, column] if row + shift <= ROWS else 0


@compiled("Tuple((uint32, uint32))(Array(float32, 1, 'C', True))")
def _extremes(values: Values) -> tuple[np.uint32, np.uint32]:
    """Return the bits of the smallest and of the largest value; of NaN, where one is: they lie beyond those of infinity."""
    bits, signed = values.view(np.uint32), values.view(np.int32)
    least, most = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    for index in range(bits.size):
        least, most = min(least, signed[index]), max(most, signed[index])
        lowest, highest = min(lowest, bits[index]), max(highest, bits[index])
    # of negative numbers, those with greater bits are smaller
    return highest if least < 0 else lowest, np.uint32(most) if most >= 0 else lowest


@compiled("void(Array(float32, 1, 'C', True), uint32, uint32[:, ::1])")
def _count(values: Values, below: np.uint32, counts: Counts32) -> None:
    """Count finite values in `counts`, (1 + ROWS, 2), whose row 0 ends with the magnitude that has the code `below`."""
    bits, flat = values.view(np.uint32), counts.reshape(-1)
    under = np.uint32(below << 16)
    places = np.empty(BLOCK, np.uint32)
    for start in range(0, bits.size, BLOCK):
        part = bits[start : start + BLOCK]
        for index in range(part.size):  # apart from counting, so that it is done for many values at once
            row = (max(part[index] & np.uint32(0x7FFFFFFF), under) - under) >> np.uint32(16)
            # to count in one place twice in a row takes long: the many zeros of a Relu have two, in turn
            column = part[index] >> np.uint32(31) if row else np.uint32(index & 1)
            places[index] = (row << np.uint32(1)) | column
        for index in range(part.size):
            flat[places[index]] += np.uint32(1)


def _measure_by_numpy(values: Values, tensor: int, low: Values, high: Values, exponents: Counts, counts: Counts32) -> bool:
    if not values.size:
        low[tensor] = high[tensor] = 0
        return True
    low[tensor], high[tensor] = values.min(), values.max()
    if not (np.isfinite(low[tensor]) and np.isfinite(high[tensor])):
        return False
    if counts.size:
        largest = np.maximum(np.abs(low[tensor]), np.abs(high[tensor]))
        exponent = max((int(largest.view(np.uint32)) >> 23) + 1 - BIAS, LOWEST_EXPONENT)
        if exponent > exponents[tensor]:
            _move_down_by_numpy(counts[tensor], exponent - int(exponents[tensor]))
            exponents[tensor] = exponent
        under = np.uint32(((int(exponents[tensor]) - OCTAVES + BIAS) * BINS_PER_OCTAVE - 1) << 16)
        bits, flat = values.view(np.uint32), counts[tensor].reshape(-1)
        for start in range(0, bits.size, NUMPY_BLOCK):
            part = bits[start : start + NUMPY_BLOCK]
            rows = (np.maximum(part & np.uint32(0x7FFFFFFF), under) - under) >> np.uint32(16)
            places = (rows << np.uint32(1)) | (part >> np.uint32(31))
            flat += np.bincount(places, minlength=flat.size).astype(np.uint32)
    return True


@compiled(
    "boolean(Array(float32, 1, 'C', True), int64, float32[::1], float32[::1], int64[::1], uint32[:, :, ::1])",
    otherwise=_measure_by_numpy,
)
def measure(values: Values, tensor: int, low: Values, high: Values, exponents: Counts, counts: Counts32) -> bool:
    """Measure one sample of a tensor; return False, and count nothing, where it has a value that is not finite.

    Args:
        values: of the sample, (n,).
        tensor: its index among the tensors that the other arguments describe.
        low: the minimum of each, (tensors,); this one's is set, to 0 where there are no values.
        high: the maximum of each, (tensors,); this one's is set.
        exponents: as `BinCounts` has them, (tensors,); this one's is raised where it must be.
        counts: as `BinCounts` has them, uint32 (tensors, 1 + ROWS, 2); this one's are added to. Empty: values are not counted.
    """
    if not values.size:
        low[tensor] = high[tensor] = 0
        return True
    lowest, highest = _extremes(values)
    low.view(np.uint32)[tensor], high.view(np.uint32)[tensor] = lowest, highest
    if not (np.isfinite(low[tensor]) and np.isfinite(high[tensor])):
        return False
    if counts.size:
        magnitude = max(lowest & np.uint32(0x7FFFFFFF), highest & np.uint32(0x7FFFFFFF))
        exponent = max(np.int64(magnitude >> np.uint32(23)) + 1 - BIAS, np.int64(LOWEST_EXPONENT))
        if exponent > exponents[tensor]:
            _move_down(counts[tensor], exponent - exponents[tensor])
            exponents[tensor] = exponent
        _count(values, np.uint32((exponents[tensor] - OCTAVES + BIAS) * BINS_PER_OCTAVE - 1), counts[tensor])
    return True


def _ascending_by_numpy(counts: Counts | Counts32) -> tuple[int, FloatArray]:
    ascending = np.concatenate((counts[:0:-1, 1], [counts[0].sum()], counts[1:, 0])).astype(np.float64)
    used = np.flatnonzero(ascending)
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (len(ascending), len(ascending))
    return first, ascending[first:last]


@compiled(
    "Tuple((int64, float64[::1]))(uint32[:, ::1])",
    "Tuple((int64, float64[::1]))(int64[:, ::1])",
    otherwise=_ascending_by_numpy,
)
def _ascending(counts: Counts | Counts32) -> tuple[int, FloatArray]:
    """Return counts in the order of `EDGES`, without empty bins at either end, and which of these bins is the first."""
    ascending = np.empty(2 * ROWS + 1)
    ascending[ROWS] = counts[0, 0] + counts[0, 1]
    for row in range(1, 1 + ROWS):
        ascending[ROWS + row], ascending[ROWS - row] = counts[row, 0], counts[row, 1]
    first, last = 0, len(ascending)
    while first < last and ascending[first] == 0:
        first += 1
    while first < last and ascending[last - 1] == 0:
        last -= 1
    return first, ascending[first:last]


class BinCounts:
    """Counts of values by sign and magnitude, for values below 2**exponent; the exponent follows the values.

    Attributes:
        exponent: of the top: every magnitude counted is below 2**exponent.
        counts: int64 or, where few values were seen, uint32 (1 + ROWS, 2): magnitudes ascending, positive and negative; row 0
            holds what is below the lowest edge, in either column.
    """

    def __init__(self, exponent: int = LOWEST_EXPONENT, counts: Counts | Counts32 | None = None) -> None:
        self.exponent = exponent
        self.counts: Counts | Counts32 = np.zeros(CELLS, np.int64) if counts is None else counts

    def merge(self, other: "BinCounts") -> "BinCounts":
        """Return the sum of two."""
        top = max(self.exponent, other.exponent)
        return BinCounts(top, self._up_to(top) + other._up_to(top))

    def _up_to(self, exponent: int) -> Counts:
        """Return the counts for values below 2**exponent, which is not below the own one."""
        counts = self.counts.astype(np.int64)
        _move_down(counts, exponent - self.exponent)
        return counts

    def histogram(self, low: float, high: float) -> Histogram:
        """Return the histogram, cut to the smallest and the largest value that were counted."""
        first, counts = _ascending(self.counts)
        if not len(counts):
            return Histogram(np.zeros(2), np.zeros(1))
        edges = EDGES[first : first + len(counts) + 1] * 2.0 ** (self.exponent - OCTAVES)
        edges[0], edges[-1] = max(edges[0], low), min(edges[-1], high)
        return Histogram(edges, counts)
