"""The range with the least expected squared error: wide enough that little is clipped, narrow enough for fine steps.

Choukroun et al. 2019 (arXiv:1902.06822) search the same minimum. The error of a range is computed from moments of the
histogram, exactly where it matters: what is clipped, and what lies within a few steps of zero, where densities are peaked
and zeros cost nothing. Elsewhere a density is flat over a step, and the error of a value is step² / 12.

All that the error needs are functions of a border b, over the values x below it: their number, their sum, the sum of their
squares, and the sum of their distances b - x. This last is what a border between two levels adds: summed by parts, the error
of levels one step apart is a sum over the borders between them. Each function is kept at the knots, the edges of the
histogram, and is a polynomial between them, for values are spread evenly over a bin.
"""

import numpy as np
import numpy.typing as npt

from pipeline.calibration.bins import BINS_PER_OCTAVE, EDGES, MAGNITUDES, OCTAVES, ROWS
from pipeline.calibration.histogram import Histogram
from pipeline.calibration.numba_jit import compiled
from pipeline.sample import FloatArray

NEAR_ZERO = 32  # steps to either side whose error is computed level by level
SEARCH_OCTAVES = 8  # below the largest value: a range 256 times narrower is never better
SHARES = 2.0 ** -np.arange(0, SEARCH_OCTAVES, 1 / 2)  # of the whole range, which are tried first
BETWEEN = 2.0 ** np.arange(-3 / 8, 1 / 2, 1 / 8)  # of the best of them, which are tried then
# bins from the best threshold so far to those that are tried next: ever fewer up to three octaves away, then each neighbour
NEAR = np.arange(1, 5)
FAR = np.unique(np.rint(4 * 2.0 ** np.arange(0.5, np.log2(3 * BINS_PER_OCTAVE / 4), 0.5)).astype(np.int64))
ROUNDS = 16  # in which ends move, at most
ONE = 1023 << 7  # exponent and the first 7 bits of the mantissa of 1.0
START, DENSITY, NUMBER, SUM, SQUARES = range(5)  # of a knot

Ints = npt.NDArray[np.int64]


def _knots_by_numpy(edges: FloatArray, counts: FloatArray) -> FloatArray:
    starts, ends = edges[:-1], edges[1:]
    rows = np.zeros((len(edges), 5))
    rows[:, START] = edges
    rows[:-1, DENSITY] = np.divide(counts, ends - starts, out=np.zeros_like(counts), where=(counts > 0) & (starts < ends))
    rows[1:, NUMBER] = np.cumsum(counts)
    rows[1:, SUM] = np.cumsum(counts * (starts + ends) / 2)
    rows[1:, SQUARES] = np.cumsum(counts * (starts * starts + starts * ends + ends * ends) / 3)
    used = rows[np.append(starts < ends, True)]  # of equal edges, the last: beyond what lies exactly there
    return np.concatenate(([[edges[0] - 1, 0, 0, 0, 0]], used, [[np.inf, 0, 0, 0, 0]]))


@compiled("float64[:, ::1](float64[::1], float64[::1])", otherwise=_knots_by_numpy)
def _knots(edges: FloatArray, counts: FloatArray) -> FloatArray:
    """Return start, density, number, sum and sum of squares of the values up to there, (knots, 5).

    The first knot lies below all values, the last above: neither adds anything.
    """
    knots = np.zeros((len(edges) + 2, 5))
    knots[0, START] = edges[0] - 1
    used, number, total, squares = 1, 0.0, 0.0, 0.0
    for index in range(len(edges)):
        start, end = edges[index], edges[min(index + 1, len(counts))]
        count = counts[index] if index < len(counts) else 0.0
        if index == len(counts) or start < end:  # of equal edges, the last: beyond what lies exactly there
            knots[used, START], knots[used, DENSITY] = start, count / (end - start) if count else 0.0
            knots[used, NUMBER], knots[used, SUM], knots[used, SQUARES] = number, total, squares
            used += 1
        number += count
        total += count * (start + end) / 2
        squares += count * (start * start + start * end + end * end) / 3
    knots[used, START] = np.inf
    return knots[: used + 1]


def _knots_at_by_numpy(knots: FloatArray, scale: float) -> Ints:
    return np.searchsorted(knots[1:, START], EDGES * scale, side="right")


@compiled("int64[::1](float64[:, ::1], float64)", otherwise=_knots_at_by_numpy)
def _knots_at(knots: FloatArray, scale: float) -> Ints:
    """Return the knot at or below where each bin of `EDGES` begins: a border leads to its knot without a search."""
    at = np.zeros(len(EDGES), np.int64)
    knot = 0
    for bin_ in range(len(EDGES)):
        while EDGES[bin_] * scale >= knots[knot + 1, START]:
            knot += 1
        at[bin_] = knot
    return at


@compiled("int64(float64, float64[:, ::1], int64[::1], float64)")
def _knot(border: float, knots: FloatArray, at: Ints, scale: float) -> int:
    """Return the knot at or below a border."""
    magnitude = np.float64(abs(border) / scale)
    code = int(magnitude.view(np.int64) >> 45)  # exponent and the first 7 bits of the mantissa, as bins have them
    row = min(max(code - ONE + 1, 0), ROWS)
    knot: int = at[ROWS - row if border < 0 else ROWS + row]
    while border >= knots[knot + 1, START]:
        knot += 1
    return knot


@compiled("UniTuple(float64, 3)(float64, float64[:, ::1], int64[::1], float64)")
def _moments(border: float, knots: FloatArray, at: Ints, scale: float) -> tuple[float, float, float]:
    """Return number, sum and sum of squares of what lies below a border."""
    knot = _knot(border, knots, at, scale)
    start, density = knots[knot, START], knots[knot, DENSITY]
    past = border - start
    return (
        knots[knot, NUMBER] + density * past,
        knots[knot, SUM] + density * past * (start + past / 2),
        knots[knot, SQUARES] + density * past * (start * (start + past) + past * past / 3),
    )


@compiled("float64(float64, float64[:, ::1], int64[::1], float64)")
def _distances(border: float, knots: FloatArray, at: Ints, scale: float) -> float:
    """Return the sum of how far the values below a border are from it."""
    knot = _knot(border, knots, at, scale)
    past = border - knots[knot, START]
    distances: float = border * knots[knot, NUMBER] - knots[knot, SUM] + knots[knot, DENSITY] * past * past / 2
    return distances


def _between_by_numpy(step: float, lowest: float, highest: float, knots: FloatArray, at: Ints, scale: float) -> float:
    level = np.arange(1, NEAR_ZERO + 1)
    above, below = (lowest < level) & (level <= highest), (lowest <= -level) & (1 - level <= highest)
    border = step * (level - 0.5)
    borders = np.stack((border, -border), axis=1)[np.stack((above, below), axis=1)]  # in the order of the loop
    knot = np.searchsorted(knots[1:, START], borders, side="right")
    past = borders - knots[knot, START]
    distances = borders * knots[knot, NUMBER] - knots[knot, SUM] + knots[knot, DENSITY] * past * past / 2
    return float(np.cumsum(distances)[-1]) if len(distances) else 0.0  # `sum` adds in another order


@compiled("float64(float64, float64, float64, float64[:, ::1], int64[::1], float64)", otherwise=_between_by_numpy)
def _between(step: float, lowest: float, highest: float, knots: FloatArray, at: Ints, scale: float) -> float:
    """Return the sum of `_distances` of the borders near zero that lie between two levels of a range."""
    between = 0.0
    for level in range(1, NEAR_ZERO + 1):  # above a positive border, and below its mirror image
        border = step * (level - 0.5)
        if lowest < level <= highest:
            between += _distances(border, knots, at, scale)
        if lowest <= -level and 1 - level <= highest:
            between += _distances(-border, knots, at, scale)
    return between


@compiled("float64(float64, float64, int64, boolean, float64, float64[:, ::1], int64[::1], float64)")
def _error(
    low: float, high: float, levels: int, symmetric: bool, best: float, knots: FloatArray, at: Ints, scale: float
) -> float:
    """Return the sum of squared errors of a range; inf where it is above `best`, as a part of it shows."""
    if symmetric:
        highest = float(levels // 2 - 1)  # the lowest level stays unused
        lowest, step = -highest, high / highest
    else:
        step = (high - low) / (levels - 1)
        lowest = np.rint(low / step)
        highest = lowest + levels - 1
    near = NEAR_ZERO + 0.5
    n0, s0, q0 = _moments(step * min(lowest, -near), knots, at, scale)
    n1, s1, q1 = _moments(step * -near, knots, at, scale)
    n2, s2, q2 = _moments(step * near, knots, at, scale)
    n3, s3, q3 = _moments(step * max(highest, near), knots, at, scale)
    number, total, squares = knots[-2, NUMBER], knots[-2, SUM], knots[-2, SQUARES]
    bottom, top = step * lowest, step * highest
    error = q0 - 2 * bottom * s0 + bottom * bottom * n0  # what is clipped
    error += squares - q3 - 2 * top * (total - s3) + top * top * (number - n3)
    error += step * step / 12 * (n1 - n0 + n3 - n2)  # where a density is flat over a step
    if error > best * (1 + 1e-9):
        return np.inf
    first, last = step * min(max(-NEAR_ZERO, lowest), highest), step * min(max(NEAR_ZERO, lowest), highest)
    error += q2 - q1 + last * last * n2 - 2 * last * s2 - first * first * n1 + 2 * first * s1
    whole: float = error - 2 * step * _between(step, lowest, highest, knots, at, scale)
    return whole


@compiled("float64(float64, int64, float64, float64)")
def _moved(end: float, move: int, furthest: float, scale: float) -> float:
    """Return the edge that lies some edges from an end of a range, no further than the largest value that was seen."""
    place = int(np.searchsorted(MAGNITUDES, abs(end) / scale)) + move
    moved: float = MAGNITUDES[min(max(place, 0), ROWS)] * scale
    return min(moved, furthest) if furthest > 0 else max(-moved, furthest)


@compiled("Tuple((float64, float64))(float64[::1], float64[::1], int64, boolean)")
def _search(edges: FloatArray, counts: FloatArray, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the ends of the range with the least error; of a symmetric one, the upper end counts."""
    knots = _knots(edges, counts)
    furthest = min(edges[0], 0.0), max(edges[-1], 0.0)
    if symmetric:
        furthest = 0.0, max(-furthest[0], furthest[1])
    scale = 2.0 ** (np.floor(np.log2(max(-furthest[0], furthest[1]))) + 1 - OCTAVES)  # of `EDGES`: all values lie within
    at = _knots_at(knots, scale)
    low, high, best = furthest[0], furthest[1], np.inf
    for shares in (SHARES, BETWEEN):
        around_low, around_high = low, high
        for share in shares:
            a, b = max(around_low * share, furthest[0]), min(around_high * share, furthest[1])
            error = _error(a, b, levels, symmetric, best, knots, at, scale)
            if error < best:
                low, high, best = a, b, error
    for moves in (FAR, NEAR):
        for _ in range(ROUNDS):
            before = best
            for side in (1, 0):
                end = high if side else low
                for direction in (1, -1):
                    for move in moves if furthest[side] != 0 else moves[:0]:
                        moved = _moved(end, direction * move, furthest[side], scale)
                        a, b = (low, moved) if side else (moved, high)
                        error = _error(a, b, levels, symmetric, best, knots, at, scale)
                        if error < best:
                            low, high, best = a, b, error
                        if moved == furthest[side]:
                            break
            if best == before:
                break
    return low, high


def mse_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the least error for a histogram.

    The search starts from the best of the ranges that shrink both ends alike, and moves one end after the other to a better
    edge of a bin until there is none. The ends of an asymmetric range are whole numbers of steps from zero, as the integer
    zero point will make them.
    """
    if not histogram.edges.any():
        return 0.0, 0.0
    low, high = _search(histogram.edges, histogram.counts, levels, symmetric)
    if symmetric:
        return -high, high
    step = (high - low) / (levels - 1)
    lowest = round(low / step)
    return step * lowest, step * (lowest + levels - 1)
