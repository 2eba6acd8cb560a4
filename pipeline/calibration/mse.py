"""The range with the least expected squared error: wide enough that little is clipped, narrow enough for fine steps.

Choukroun et al. 2019 (arXiv:1902.06822) search the same minimum. The error of a range is computed from moments of the
histogram, exactly where it matters: what is clipped, and what lies within a few steps of zero, where densities are peaked
and zeros cost nothing. Elsewhere a density is flat over a step, and the error of a value is step² / 12. Many tensors are
searched at once, since a search takes many small steps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import BINS_PER_OCTAVE, EDGES, OCTAVES, ROWS, Histogram, codes_below, codes_of, exponents_of

NEAR_ZERO = 32  # steps to either side whose error is computed level by level
SEARCH_OCTAVES = 8  # below the largest value: a range 256 times narrower is never better
SHARES = 2.0 ** -np.arange(0, SEARCH_OCTAVES, 1 / 2)  # of the whole range, which are tried first
BETWEEN = 2.0 ** np.arange(-3 / 8, 1 / 2, 1 / 8)  # of the best of them, which are tried then
# bins from the best threshold so far to those that are tried next: each neighbour, and ever fewer up to three octaves away
NEAR = np.arange(1, 5)
FAR = np.unique(np.rint(4 * 2.0 ** np.arange(0.5, np.log2(3 * BINS_PER_OCTAVE / 4), 0.5)).astype(np.int64))
FAR_MOVES, NEAR_MOVES = (np.concatenate((-moves[::-1], [0], moves)) for moves in (FAR, NEAR))  # one after the other
ROUNDS = 16  # in which ends move, at most

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Errors = Callable[[Ints, Floats], Floats]  # of rows, (n,), and candidates of each, (n, candidates)


def mse_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range of one histogram with the least error: see `mse_ranges`."""
    [(low, high)] = mse_ranges([histogram], levels, symmetric)
    return low, high


def mse_ranges(histograms: Sequence[Histogram], levels: int, symmetric: bool) -> list[tuple[float, float]]:
    """Return the range with the least error for each histogram.

    The search starts from the best of the ranges that shrink both ends alike, and moves one end after the other to a better
    edge of the histogram until there is none. The ends of an asymmetric range are whole numbers of steps from zero, as
    the integer zero point will make them.
    """
    ranges = np.zeros((len(histograms), 2))
    filled = np.array([index for index, histogram in enumerate(histograms) if histogram.edges.any()], np.int64)
    if len(filled):
        search = _symmetric if symmetric else _asymmetric
        ranges[filled] = search([histograms[index] for index in filled], levels)
    return [(float(low), float(high)) for low, high in ranges]


def _symmetric(histograms: Sequence[Histogram], levels: int) -> Floats:
    error = QuantizationError(histograms)
    highest = float(levels // 2 - 1)

    def of_thresholds(rows: Ints, thresholds: Floats) -> Floats:
        return error(rows, thresholds / highest, np.full_like(thresholds, -highest), 2 * highest)

    edges = [np.unique(np.abs(histogram.edges)) for histogram in histograms]
    rows = np.arange(len(edges))
    largest = np.array([edge[-1] for edge in edges])
    thresholds = largest * _best_share(len(edges), lambda rows, shares: of_thresholds(rows, largest[:, None] * shares))
    for moves in (FAR_MOVES, NEAR_MOVES):
        moving = rows
        for _ in range(ROUNDS):
            before = thresholds[moving]
            thresholds[moving] = _moved(before, [edges[row] for row in moving], moves, moving, of_thresholds)
            moving = moving[thresholds[moving] != before]
            if not len(moving):
                break
    return np.stack((-thresholds, thresholds), axis=1)


def _asymmetric(histograms: Sequence[Histogram], levels: int) -> Floats:
    error = QuantizationError(histograms)

    def of_ranges(rows: Ints, lows: Floats, highs: Floats) -> Floats:
        steps = (highs - lows) / (levels - 1)
        return error(rows, steps, np.rint(lows / steps), levels - 1)

    edges = [histogram.edges for histogram in histograms]
    rows = np.arange(len(edges))
    low = np.array([min(edge[0], 0.0) for edge in edges])
    high = np.array([max(edge[-1], 0.0) for edge in edges])
    share = _best_share(len(rows), lambda rows, shares: of_ranges(rows, low[:, None] * shares, high[:, None] * shares))
    low, high = low * share, high * share
    for moves in (FAR_MOVES, NEAR_MOVES):
        moving = rows
        for _ in range(ROUNDS):
            before = np.stack((low[moving], high[moving]))
            up = moving[high[moving] > 0]
            ends = [edges[row] for row in up]
            high[up] = _moved(high[up], ends, moves, up, lambda rows, ends: of_ranges(rows, low[rows, None], ends))
            down = moving[low[moving] < 0]
            ends = [edges[row] for row in down]
            low[down] = _moved(low[down], ends, moves, down, lambda rows, ends: of_ranges(rows, ends, high[rows, None]))
            moving = moving[(before != (low[moving], high[moving])).any(axis=0)]
            if not len(moving):
                break
    step = (high - low) / (levels - 1)
    lowest = np.rint(low / step)
    return np.stack((step * lowest, step * (lowest + levels - 1)), axis=1)


class QuantizationError:
    """The error that quantization makes on the values of histograms, which are spread evenly over each bin.

    All that it needs are functions of a border b, over the values x below it: their number, their sum, the sum of their
    squares, and the sum of their distances b - x. This last is what a border between two levels adds: summed by parts,
    the error of levels one step apart is a sum over the borders between them. Each function is kept at the knots, the
    edges of the bins, and is a polynomial between them.
    """

    def __init__(self, histograms: Sequence[Histogram]) -> None:
        parts = [_knots(histogram) for histogram in histograms]
        self.start, self.density, self.number, self.sum, self.squares = np.concatenate(parts, axis=1)
        firsts = np.cumsum([0, *(part.shape[1] for part in parts)])
        self.all = firsts[1:] - 2  # the knot at the largest value of each histogram
        finite = np.where(np.isinf(self.start), 0, self.start)
        # the sum of distances at a border b: a polynomial in b, the coefficients of b**0, b**1 and b**2
        self.distance = (
            finite * (finite * self.density / 2) - self.sum,
            self.number - finite * self.density,
            self.density / 2,
        )
        top = np.array([np.abs(histogram.edges[[0, -1]]).max() for histogram in histograms], np.float32)
        exponents = exponents_of(codes_of(top))
        self.below = codes_below(exponents)[:, None]
        # the knot at or below where each bin of `EDGES` begins, so that a border leads to its knot without a search
        self.knots = np.stack(
            [
                first + np.maximum(_knots_at(histogram, part[0, :-1], int(exponent)), 0)
                for first, histogram, part, exponent in zip(firsts, histograms, parts, exponents, strict=False)
            ]
        )

    def __call__(self, rows: Ints, steps: Floats, lowest: Floats, span: float) -> Floats:
        """Return the sum of squared errors of candidates, shape (rows, candidates).

        Args:
            rows: which histogram, (rows,).
            steps: between the levels, (rows, candidates).
            lowest: level of each candidate, in steps from zero, (rows, candidates).
            span: from the lowest to the highest level, in steps.
        """
        highest = lowest + span
        bottom, top = np.minimum(lowest, -NEAR_ZERO) - 0.5, np.maximum(highest, NEAR_ZERO) + 0.5
        near = np.full_like(lowest, NEAR_ZERO + 0.5)
        borders = steps * np.stack((bottom, -near, near, top))
        (n0, n1, n2, n3), (s0, s1, s2, s3), (q0, q1, q2, q3) = self._moments(rows, borders)
        number, total, squares = (values[self.all[rows], None] for values in (self.number, self.sum, self.squares))
        low, high = steps * lowest, steps * highest
        first, last = (steps * np.clip(level, lowest, highest) for level in (-NEAR_ZERO, NEAR_ZERO))
        clipped = q0 - 2 * low * s0 + low**2 * n0
        clipped += squares - q3 - 2 * high * (total - s3) + high**2 * (number - n3)
        flat = steps**2 / 12 * (n1 - n0 + n3 - n2)
        ends = q2 - q1 + last**2 * n2 - 2 * last * s2 - first**2 * n1 + 2 * first * s1
        errors: Floats = clipped + flat + ends - 2 * steps * self._distances(rows, steps, lowest, highest)
        return errors

    def _distances(self, rows: Ints, steps: Floats, lowest: Floats, highest: Floats) -> Floats:
        """Return the sum, over the borders near zero, of how far the values below each are from it."""
        upper = np.arange(1, NEAR_ZERO + 1)  # the level above each positive border
        borders = steps[..., None] * (upper - 0.5)
        bins = self._bins(rows[:, None], borders)
        constant, linear, square = self.distance
        lowest, highest = lowest[..., None], highest[..., None]
        sums = np.zeros_like(steps)
        for sign, used in ((1, (lowest < upper) & (upper <= highest)), (-1, (lowest <= -upper) & (1 - upper <= highest))):
            if not used.any():
                continue
            at = borders if sign == 1 else -borders
            knots = self._at(rows[:, None, None], at, ROWS + bins if sign == 1 else ROWS - bins)
            distances = square.take(knots)
            distances *= at
            distances += linear.take(knots)
            distances *= at
            distances += constant.take(knots)
            distances *= used
            sums += distances.sum(axis=-1)
        return sums

    def _moments(self, rows: Ints, borders: Floats) -> tuple[Floats, Floats, Floats]:
        """Return number, sum and sum of squares of what lies below borders, each of the shape of `borders`: (4, n, k)."""
        bins = self._bins(rows, borders)
        knots = self._at(rows[:, None], borders, np.where(borders < 0, ROWS - bins, ROWS + bins))
        start, density = self.start[knots], self.density[knots]
        past = borders - start
        number = self.number[knots] + density * past
        total = self.sum[knots] + density * past * (start + past / 2)
        squares = self.squares[knots] + density * past * (start * (start + past) + past**2 / 3)
        return number, total, squares

    def _bins(self, rows: Ints, borders: Floats) -> Ints:
        """Return how many bins of `EDGES` the magnitudes of borders are from zero, of the shape of `borders`."""
        codes = codes_of(np.abs(borders).astype(np.float32).reshape(-1)).reshape(borders.shape)
        below = self.below[rows]
        bins: Ints = np.minimum(np.maximum(codes, below) - below, ROWS).astype(np.int64)
        return bins

    def _at(self, rows: Ints, borders: Floats, bins: Ints) -> Ints:
        """Return the knot at or below each border."""
        knots: Ints = self.knots.take(bins + rows * self.knots.shape[1])
        knots += borders >= self.start.take(knots + 1)
        return knots


def _knots(histogram: Histogram) -> Floats:
    """Return start, density, number, sum and sum of squares of the values up to there, (5, knots).

    The first knot lies below all values, the last above: neither adds anything.
    """
    edges, counts = histogram.edges, histogram.counts
    start, end = edges[:-1], edges[1:]
    last = np.append(start < end, True)  # of equal edges: beyond what lies exactly there
    knots = np.zeros((5, int(last.sum()) + 2))
    knots[0, 0], knots[0, -1] = edges[0] - 1, np.inf
    knots[0, 1:-1] = edges[last]
    knots[1, 1:-2] = counts[last[:-1]] / np.diff(knots[0, 1:-1])
    for row, mean in ((2, 1), (3, (start + end) / 2), (4, (start * start + start * end + end * end) / 3)):
        below = np.zeros(len(edges))
        np.cumsum(counts * mean, out=below[1:])
        knots[row, 1:-1] = below[last]
    return knots


def _knots_at(histogram: Histogram, knots: Floats, exponent: int) -> Ints:
    """Return how many knots lie at or below where each bin of `EDGES` begins, without the first; or one less."""
    if histogram.first is None:
        return np.searchsorted(knots, np.ldexp(EDGES[:-1], exponent - OCTAVES), side="right") - 1
    equal = int(np.searchsorted(histogram.edges, histogram.edges[0], side="right")) - 1  # edges, before another one
    return np.minimum(np.arange(len(EDGES) - 1) - histogram.first - equal, len(knots) - 1)


def _best(candidates: Floats, rows: Ints, errors: Errors) -> Floats:
    """Return the best candidate of each row."""
    best: Floats = candidates[np.arange(len(rows)), np.argmin(errors(rows, candidates), axis=1)]
    return best


def _best_share(number: int, errors: Errors) -> Floats:
    """Return for each row the best share of the whole range."""
    rows = np.arange(number)
    best = _best(np.tile(SHARES, (number, 1)), rows, errors)
    return _best(np.minimum(best[:, None] * BETWEEN, 1), rows, errors)


def _moved(ends: Floats, edges: Sequence[Floats], moves: Ints, rows: Ints, errors: Errors) -> Floats:
    """Return, for each row, the best of the edges around an end of its range, on the same side of zero."""
    if not len(rows):
        return ends
    sizes = np.array([len(edge) for edge in edges])
    nearest = np.array([np.searchsorted(edge, end) for edge, end in zip(edges, ends, strict=True)])
    around = np.clip(nearest[:, None] + moves, 0, sizes[:, None] - 1)
    candidates = np.concatenate(edges)[(np.cumsum(sizes) - sizes)[:, None] + around]
    return _best(np.where(candidates * ends[:, None] > 0, candidates, ends[:, None]), rows, errors)
