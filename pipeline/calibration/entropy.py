"""The range that keeps the most information: a search for the least Kullback-Leibler divergence.

S. Migacz, "8-bit inference with TensorRT", GTC 2017. For each candidate range, P is the distribution of the values clipped to
it, and Q what `levels` levels keep of it: within a level, the mass that was not clipped, spread evenly over the bins that
are not empty. The candidate with the least KL(P || Q) wins. Two corrections that the method needs in practice: the bin of
exact zeros, which quantization keeps exactly, is given its neighbours' mass, or sparse tensors would be clipped to
nothing; and for asymmetric types both ends are searched in turn, each level covering one step of the whole range.

The divergence of one candidate splits into sums over its bins and over its levels, and both are differences of running
sums: a candidate costs as many operations as there are levels, not bins.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.calibration.bins import BINS_PER_OCTAVE
from pipeline.calibration.histogram import Histogram
from pipeline.calibration.numba_jit import compiled
from pipeline.sample import FloatArray

BINS = 2048  # over all that was seen, as in the source: 16 a level for 128 levels, 8 for 256
ROUNDS = 4  # in which both ends of a two-sided range are searched, at most
TWO_SIDED_EVERY = 8  # 16 thresholds an octave: the divergence of two ends is too rough for more to mean anything
COARSELY = 8  # of so many candidates one is tried first
TINY = 1e-300
SHARES = 2.0 ** -(np.arange(int(np.log2(BINS)) * BINS_PER_OCTAVE + 1) / BINS_PER_OCTAVE)  # as far apart as a histogram's bins

Ints = npt.NDArray[np.int64]

COUNT, MASS, FILLED, SPREAD = range(4)  # the rows of what candidates are compared with


@compiled("float64(float64)")
def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0


@compiled("float64(float64, float64)")
def _p_log_p_by_q(p: float, q: float) -> float:
    return p * (math.log(p) - math.log(max(q, TINY))) if p > 0 else 0.0


def _logs(values: FloatArray) -> FloatArray:
    """Return logarithms as `math` computes them, and so compiled code: numpy's can differ in the last bit."""
    return np.array([math.log(value) for value in values.tolist()])


def _reference_by_numpy(counts: FloatArray) -> FloatArray:
    rows = np.zeros((4, len(counts) + 1))
    x_log_x = np.zeros_like(counts)
    filled = counts > 0
    x_log_x[filled] = counts[filled] * _logs(counts[filled])
    rows[COUNT, :-1] = counts
    rows[1:, 1:] = np.cumsum((counts, filled, x_log_x), axis=1)
    return rows


@compiled("float64[:, ::1](float64[::1])", otherwise=_reference_by_numpy)
def reference(counts: FloatArray) -> FloatArray:
    """Return what candidates are compared with, (4, bins + 1): counts, and sums over the bins before each edge.

    The sums are of the counts, of the bins that are not empty, and of count * log(count).
    """
    rows = np.zeros((4, len(counts) + 1))
    for index in range(len(counts)):
        count = counts[index]
        rows[COUNT, index] = count
        rows[MASS, index + 1] = rows[MASS, index] + count
        rows[FILLED, index + 1] = rows[FILLED, index] + (count > 0)
        rows[SPREAD, index + 1] = rows[SPREAD, index] + _x_log_x(count)
    return rows


def _divergence_by_numpy(rows: FloatArray, start: int, end: int, levels: int) -> float:
    counts, mass, filled, spread = rows
    below, above = mass[start], mass[-1] - mass[end]
    first, last = counts[start], counts[end - 1]
    p_log_p = spread[end] - spread[start]
    p_log_p += _x_log_x(first + below) - _x_log_x(first) + _x_log_x(last + above) - _x_log_x(last)
    borders = start + np.rint((end - start) * np.arange(levels + 1) / levels).astype(np.int64)
    kept, used = np.diff(mass[borders]), np.diff(filled[borders])
    beyond = np.zeros(levels)
    for level, mass_beyond, bin_ in ((0, below, first), (-1, above, last)):
        if mass_beyond > 0:
            beyond[level] += mass_beyond
            used[level] += bin_ == 0
    if ((beyond > 0) & (kept <= 0)).any():
        return math.inf
    held = kept + beyond > 0
    kept, used, beyond = kept[held], used[held], beyond[held]
    p_log_q = np.cumsum((kept + beyond) * _logs(np.maximum(kept / np.maximum(used, 1.0), TINY)))[-1]  # as the loop adds
    return float((p_log_p - p_log_q) / mass[-1] + math.log(max(mass[end] - mass[start], TINY) / mass[-1]))


@compiled("float64(float64[:, ::1], int64, int64, int64)", otherwise=_divergence_by_numpy)
def divergence(rows: FloatArray, start: int, end: int, levels: int) -> float:
    """Return KL(P || Q) for the range from edge `start` to `end`; inf where Q misses mass."""
    counts, mass, filled, spread = rows[COUNT], rows[MASS], rows[FILLED], rows[SPREAD]
    below, above = mass[start], mass[-1] - mass[end]  # P: the mass beyond the range lies in its outermost bins
    first, last = counts[start], counts[end - 1]
    p_log_p = spread[end] - spread[start]
    p_log_p += _x_log_x(first + below) - _x_log_x(first) + _x_log_x(last + above) - _x_log_x(last)
    p_log_q, border = 0.0, start
    for level in range(1, levels + 1):
        before, border = border, start + int(np.rint((end - start) * level / levels))
        kept, used = mass[border] - mass[before], filled[border] - filled[before]
        beyond = 0.0
        if level == 1 and below > 0:
            beyond += below
            used += first == 0
        if level == levels and above > 0:
            beyond += above
            used += last == 0
        if beyond > 0 and kept <= 0:
            return np.inf
        if kept + beyond > 0:
            p_log_q += (kept + beyond) * math.log(max(kept / max(used, 1.0), TINY))
    found: float = (p_log_p - p_log_q) / mass[-1] + math.log(max(mass[end] - mass[start], TINY) / mass[-1])
    return found


@compiled("float64(float64[:, ::1], int64, int64, int64)")
def bound(rows: FloatArray, start: int, end: int, levels: int) -> float:
    """Return what the divergence cannot be below: that of three parts, the outermost bins and all between.

    No partition has a greater divergence than the bins that it joins (the data-processing inequality).
    """
    counts, mass, filled = rows[COUNT], rows[MASS], rows[FILLED]
    second = start + int(np.rint((end - start) / levels))
    before_last = start + int(np.rint((end - start) * (levels - 1) / levels))
    total, kept = mass[-1], max(mass[end] - mass[start], TINY)
    p_rest, q_rest, least = 1.0, 1.0, 0.0
    for bin_, from_, to, beyond in ((start, start, second, mass[start]), (end - 1, before_last, end, total - mass[end])):
        inside = counts[bin_]
        if inside + beyond > 0:
            used = filled[to] - filled[from_] + (inside == 0)
            p, q = (inside + beyond) / total, (mass[to] - mass[from_]) / max(used, 1.0) / kept
            least += _p_log_p_by_q(p, q)
            p_rest, q_rest = p_rest - p, q_rest - q
    least += _p_log_p_by_q(max(p_rest, 0.0), q_rest)
    return least * (1 - 1e-9) - 1e-12


@compiled("int64[::1](int64, int64, int64, int64, int64)")
def candidates(bins: int, zero: int, start: int, levels: int, every: int) -> Ints:
    """Return the edges that ranges from `start` may end at, descending.

    They lie as far apart as the histogram resolves; of these, every so many.
    """
    nearest = min(max(start + levels, zero + 1), bins)
    ends = np.empty(len(SHARES), np.int64)
    used = 0
    for share in SHARES[::every]:
        end = zero + int(np.rint((bins - zero) * share))
        if end < nearest:
            break
        if not used or end < ends[used - 1]:
            ends[used] = end
            used += 1
    return ends[:used]


@compiled("Tuple((int64, float64))(float64[:, ::1], int64, int64, int64, float64, int64, int64)")
def _improved(rows: FloatArray, zero: int, start: int, end: int, least: float, levels: int, every: int) -> tuple[int, float]:
    """Return where a range from `start` ends best, and its divergence; `end` and `least` are the best so far.

    A candidate whose divergence cannot be below the least so far is not computed: see `bound`.
    """
    ends = candidates(rows.shape[1] - 1, zero, start, levels, every)
    for coarse in (True, False):
        for index in range(len(ends)):
            if (index % COARSELY == 0) == coarse and bound(rows, start, ends[index], levels) < least:
                found = divergence(rows, start, ends[index], levels)
                if found < least:
                    end, least = ends[index], found
    return end, least


@compiled("UniTuple(int64, 2)(float64[::1], int64, int64, boolean)")
def _search(counts: FloatArray, zero: int, levels: int, two_sided: bool) -> tuple[int, int]:
    """Return the edges of the best range: from the first, or from one that is searched as well."""
    rows = reference(counts)
    bins = len(counts)
    start, end = 0, bins
    least = divergence(rows, start, end, levels)
    if not two_sided:
        return start, _improved(rows, zero, start, end, least, levels, 1)[0]
    mirrored = reference(counts[::-1].copy())
    every = 1 if zero in (0, bins) else TWO_SIDED_EVERY
    tried_from, tried_upto = -1, -1  # one end is searched again where the other has moved since
    for _ in range(ROUNDS):
        if zero < bins and start != tried_from:
            tried_from = start
            end, least = _improved(rows, zero, start, end, least, levels, every)
        if zero > 0 and end != tried_upto:
            tried_upto = end
            from_end, least = _improved(mirrored, bins - zero, bins - end, bins - start, least, levels, every)
            start = bins - from_end
    return start, end


def binned(histogram: Histogram) -> tuple[FloatArray, int, float]:
    """Return the counts of a histogram in `BINS` bins of one width, the index of the edge at zero, and the width.

    What is exactly zero is reduced to its neighbours.
    """
    low, high = min(float(histogram.edges[0]), 0.0), max(float(histogram.edges[-1]), 0.0)
    width = (high - low) / BINS
    zero, above = int(np.ceil(-low / width - 1e-9)), int(np.ceil(high / width - 1e-9))
    mass = histogram.mass_up_to(width * np.arange(-zero, above + 1, dtype=np.float64))
    mass[:1] = 0
    counts = np.diff(mass)
    if above > 1:
        counts[zero] = min(counts[zero], counts[zero + 1])
    if zero > 1:
        counts[zero - 1] = min(counts[zero - 1], counts[zero - 2])
    return counts, zero, width


def entropy_range(histogram: Histogram, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the least divergence for a histogram. It spans no fewer bins than levels."""
    if not histogram.edges.any():
        return 0.0, 0.0
    levels = min(levels, 256)  # the source is about 8 bits: bins must outnumber levels, or all ranges look alike
    counts, zero, width = binned(histogram.magnitudes() if symmetric else histogram)
    start, end = _search(counts, zero, levels // 2 if symmetric else levels, not symmetric)
    return (-width * end, width * end) if symmetric else (width * (start - zero), width * (end - zero))
