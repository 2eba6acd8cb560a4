"""Metrics of any two tensors: what quantization did to the numbers that a graph gives.

Every function takes `(reference, test)`, arrays of the same shape, computes in float64 and returns a float. Equal infinities
(tokens that a model suppresses) are equal and left out of means. A shape that differs, an empty array or any other value that
is not finite is a DataError: a mean over NaN is not a result.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.sample import Array, FloatArray


def checked_pair(reference: npt.ArrayLike, test: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both arrays as float64, after the checks that every comparison needs.

    Raises:
        DataError: the shapes differ, the arrays are empty, or a value is not finite where the other's is not the same.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(test, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(
            f"Cannot compare a reference of shape {a.shape} with a test of shape {b.shape}: shapes must be the same. "
            "Spectra of different lengths can be aligned first (metrics.audio.align_by_dtw)."
        )
    if not a.size:
        raise DataError(f"Cannot compare arrays of shape {a.shape}: they are empty.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        others = ~_same_infinity(a, b)
        a, b = (a[others], b[others]) if others.any() else (np.zeros(1), np.zeros(1))
    for role, array in (("reference", a), ("test", b)):
        if bad := array.size - np.count_nonzero(np.isfinite(array)):
            raise DataError(f"Cannot compare: {bad} of {array.size} values of the {role} are NaN or infinite.")
    return a, b


def values_to_compare(reference: Array, test: Array) -> tuple[Array, Array]:
    """Return the values of two arrays of one shape that can be compared: those that fp32 gives a finite number for.

    Left out are equal infinities, and what is NaN in the reference itself. Flattened where anything is left out.
    """
    if not np.issubdtype(reference.dtype, np.inexact) or bool(np.isfinite(reference).all()):
        return reference, test
    kept = ~(np.isnan(reference) | _same_infinity(reference, test))
    return reference[kept], test[kept]


def broken_values(reference: Array, test: Array) -> int:
    """Return how many values of a changed graph's output are NaN or infinite, or finite, where the original's are not.

    NaN of the reference itself is nothing that a change is to blame for. Where shapes differ, only the kinds of values can be
    compared.
    """
    if not np.issubdtype(test.dtype, np.inexact) or not np.issubdtype(reference.dtype, np.inexact):
        return 0
    if reference.shape == test.shape:
        usual = np.isfinite(test)
        if usual.all() and (not reference.size or np.isfinite(reference).all()):
            return 0
        fine = (usual & np.isfinite(reference)) | np.isnan(reference) | _same_infinity(reference, test)
        return int(np.count_nonzero(~fine))
    counts = [tuple(int(np.count_nonzero(kind(a))) for a in (reference, test)) for kind in (np.isnan, _above, _below)]
    return sum(broken for known, broken in counts if not known)


def _above(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isinf(array) & (array > 0))


def _below(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isinf(array) & (array < 0))


def _same_infinity(reference: npt.NDArray[Any], test: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isinf(reference) & (reference == test))


def mse(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Mean squared error, in the tensor's own unit squared."""
    a, b = checked_pair(reference, test)
    return float(np.mean((a - b) ** 2))


def relative_error(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Mean relative error: mean |a - b| / mean |a|.

    A ratio of two means, not the mean of ratios: one element near zero would decide that one. 0 for equal arrays,
    infinite for a reference that is zero everywhere.
    """
    a, b = checked_pair(reference, test)
    error, level = float(np.mean(np.abs(a - b))), float(np.mean(np.abs(a)))
    if error == 0.0:
        return 0.0
    return error / level if level else math.inf


def sqnr_db(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Signal to quantization noise ratio, 10 log10(sum a² / sum (a - b)²), in dB.

    Infinite for equal arrays, minus infinity where only the reference is zero everywhere.
    """
    a, b = checked_pair(reference, test)
    signal, noise = float(np.sum(a**2)), float(np.sum((a - b) ** 2))
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf


def cosine(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Cosine of the angle between the flattened tensors: 1 for the same direction, 0 where just one of them is zero."""
    a, b = checked_pair(reference, test)
    # Scaled to a largest value of 1, so that squares of tiny or huge values neither vanish nor overflow.
    a_peak, b_peak = float(np.max(np.abs(a))), float(np.max(np.abs(b)))
    if a_peak == 0.0 or b_peak == 0.0:
        return 1.0 if a_peak == b_peak else 0.0
    a, b = a / a_peak, b / b_peak
    # sqrt(s * s) is exactly s, so that a tensor and itself give exactly 1.
    value = float(np.sum(a * b)) / math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))
    return min(1.0, max(-1.0, value))


def max_abs_error(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Largest absolute difference of any element, in the tensor's own unit."""
    a, b = checked_pair(reference, test)
    return float(np.max(np.abs(a - b)))


def agreement_percent(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Share of equal elements, in percent: for token ids, classes, decisions and lengths, which no distance is defined between.

    Sequences of different lengths are aligned: 100 % minus their edit distance (Levenshtein, 1966) over the longer length.
    Arrays of other shapes agree nowhere.
    """
    a, b = np.asarray(reference), np.asarray(test)
    if a.shape == b.shape:
        return 100.0 * float(np.mean(a == b)) if a.size else 100.0
    if a.size and b.size and max(a.size, b.size) == max(*a.shape, *b.shape, 1):
        return 100.0 * (1.0 - _edit_distance(a.reshape(-1), b.reshape(-1)) / max(a.size, b.size))
    return 0.0


def differing_share(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Share of elements that differ, 0 to 1: the relative error of what is equal or is not."""
    return 1.0 - agreement_percent(reference, test) / 100.0


def _edit_distance(a: Array, b: Array) -> int:
    """Return the insertions, deletions and substitutions between two sequences, row by row of the usual table."""
    row = np.arange(len(b) + 1)
    for number, element in enumerate(a, start=1):
        cost = np.minimum(row[:-1] + (b != element), row[1:] + 1)
        # what is inserted costs one each: a running minimum of cost - position
        steps = np.arange(len(b) + 1)
        row = np.minimum.accumulate(np.concatenate([[number], cost]) - steps) + steps
    return int(row[-1])


TENSOR_METRICS = {
    "mse": mse, "relative_error": relative_error, "sqnr_db": sqnr_db, "cosine": cosine, "max_abs_error": max_abs_error,
}  # fmt: skip
"""Those of any two tensors: what every kind of evaluation computes of each output."""

EXACT_METRICS = {"agreement_percent": agreement_percent, "relative_error": differing_share}
"""Those of integers, booleans and texts."""

DIRECTIONS = frozenset({"cosine"})
"""Those that are the sign of a single value."""

OF_MANY_VALUES = frozenset({"sqnr_db", "cosine"})
"""Those that a few values say little in: a logarithm, or a direction, is then taken of the values of all samples together."""
