"""Metrics of any two tensors: what quantization did to the numbers that a graph gives.

Every function takes `(reference, test)`, arrays of the same shape, computes in float64 and returns a float. A shape
that differs, an empty array or a value that is not finite is a DataError: a mean over NaN is no result.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.sample import FloatArray


def checked_pair(reference: npt.ArrayLike, test: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both arrays as float64, after the checks that every comparison needs.

    Raises:
        DataError: the shapes differ, the arrays are empty, or a value is not finite.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(test, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(
            f"Cannot compare a reference of shape {a.shape} with a test of shape {b.shape}: shapes must be the same. "
            "Spectra of different lengths can be aligned first (metrics.audio.align_by_dtw)."
        )
    if not a.size:
        raise DataError(f"Cannot compare arrays of shape {a.shape}: they are empty.")
    for role, array in (("reference", a), ("test", b)):
        if bad := array.size - np.count_nonzero(np.isfinite(array)):
            raise DataError(f"Cannot compare: {bad} of {array.size} values of the {role} are NaN or infinite.")
    return a, b


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


TENSOR_METRICS = {
    "mse": mse, "relative_error": relative_error, "sqnr_db": sqnr_db, "cosine": cosine, "max_abs_error": max_abs_error,
}  # fmt: skip
"""Those of any two tensors: what every kind of evaluation computes of each output."""
