"""The arithmetic of linear quantization: value ≈ scale * (integer - zero point).

The numbers are those that ONNX Runtime's quantizer computes (quant_utils.py, qdq_quantizer.py), to the last bit, so that a
model means the same whoever rewrote it. They differ where those are not suitable: a tensor in which calibration saw nothing but
zeros gets the zero point at the lowest integer in signed types as well, so that a folded Relu still cuts below zero; and
channels without any value but zero keep the zero point of the others, which QLinearConv wants to be one and the same.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.quantize.paired_sums import PairLimits, finest_scales, made_to_fit
from pipeline.sample import Float32Array

Integers = npt.NDArray[np.generic]

TINY = float(np.finfo(np.float32).tiny)
INT32 = np.iinfo(np.int32)
BIAS_MARGIN = 1.0001  # keeps a widened scale on the right side of its own rounding


@dataclass(frozen=True)
class QuantParams:
    """The integers that stand for a tensor's values, and what they mean.

    Attributes:
        kind: their type.
        scale: float32, () or one per index of `axis`.
        zero_point: the integers of value 0, in the scale's shape.
        axis: the axis that has a scale per index; None: one scale.
        pairs: of weights whose products are added two at a time in 16 bits: the pairs that must not be too large.
    """

    kind: IntegerType
    scale: Float32Array
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None
    pairs: PairLimits | None = None

    def quantize(self, values: Float32Array) -> Integers:
        """Return the nearest integers, saturated, in the values' shape and this grid's type."""
        shape = [1] * values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        low, high = limits(self.kind)
        integers = np.rint(values / self.scale.reshape(shape))
        integers += self.zero_point.reshape(shape).astype(integers.dtype)  # exact: values that are not are beyond the limits
        saturated: Integers = np.clip(integers, low, high).astype(numpy_type(self.kind))
        return saturated if self.pairs is None else made_to_fit(saturated, self.pairs)


def numpy_type(kind: IntegerType) -> np.dtype[np.generic]:
    """Return the numpy type of an integer type; those of 4 bits come from ml_dtypes."""
    kind_of_array: np.dtype[np.generic] = np.dtype(helper.tensor_dtype_to_np_dtype(onnx_type(kind)))
    return kind_of_array


def onnx_type(kind: IntegerType) -> int:
    """Return the number of an integer type in ONNX files."""
    return int(onnx.TensorProto.DataType.Value(kind.name.upper()))


def bits_of(kind: IntegerType) -> int:
    """Return the width of an integer type."""
    return int(kind.name.lstrip("uint"))


def limits(kind: IntegerType, *, symmetric: bool = False, reduced: bool = False) -> tuple[int, int]:
    """Return the lowest and the highest integer that may stand for a value.

    Args:
        kind: the type.
        symmetric: leave out the lowest of a signed type, so that -x is representable where x is (not of 4 bits).
        reduced: one bit less, for processors whose products of 8 bits saturate in 16.
    """
    bits = bits_of(kind)
    if kind.name.startswith("u"):
        return 0, (1 << bits - reduced) - 1
    half = 1 << bits - 1 - reduced
    if reduced and bits >= 8:
        return -half, half
    return (1 - half if symmetric and bits >= 8 and not reduced else -half), half - 1


def qparams_of_range(
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    kind: IntegerType,
    *,
    symmetric: bool,
    reduced: bool = False,
    axis: int | None = None,
) -> QuantParams:
    """Return the grid over ranges of values, each widened to include zero, which is always exact.

    Args:
        low: the lowest values, () or (channels,).
        high: the highest values.
        kind: the type.
        symmetric: the ranges are widened to [-t, t], and the zero point is the middle of the integers.
        reduced: leave one bit unused.
        axis: of the channels.
    """
    lowest = np.minimum(np.asarray(low, np.float32), np.float32(0)).astype(np.float64)
    highest = np.maximum(np.asarray(high, np.float32), np.float32(0)).astype(np.float64)
    if symmetric:
        highest = np.maximum(-lowest, highest)
        lowest = -highest
    first, last = limits(kind, symmetric=symmetric, reduced=reduced)
    exact = (highest - lowest) / (last - first)
    exact = np.where(exact < TINY, 1.0, exact)
    zero = np.full(exact.shape, np.rint((first + last) / 2)) if symmetric else np.rint(first - lowest / exact)
    return QuantParams(kind, exact.astype(np.float32), zero.astype(np.int64), axis)


def qparams_of_weights(
    weights: Float32Array,
    kind: IntegerType,
    *,
    axis: int | None,
    reduced: bool,
    one_zero_point: bool = True,
    pairs: PairLimits | None = None,
) -> QuantParams:
    """Return the grid of constants: symmetric for signed types, and per channel where zero points must not differ.

    Args:
        weights: the constant.
        kind: the type.
        axis: of its output channels; None: one scale.
        reduced: leave one bit unused.
        one_zero_point: of all channels.
        pairs: which are too large for a kernel that adds two products in 16 bits: int8 weights then get the finest scales at
            which no such sum can saturate.
    """
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis)
    low = weights.min(axis=others, initial=0.0)
    high = weights.max(axis=others, initial=0.0)
    symmetric = (axis is not None and one_zero_point) or not kind.name.startswith("u")
    grid = qparams_of_range(low, high, kind, symmetric=symmetric, reduced=reduced, axis=axis)
    if pairs is None or reduced or kind is not IntegerType.int8:
        return grid
    needed = finest_scales(weights, pairs, per_channel=axis is not None)
    coarser = np.maximum(grid.scale, needed.astype(np.float32))
    return replace(grid, scale=np.where(needed < TINY, grid.scale, coarser), pairs=pairs)


def coarser(one: QuantParams, other: QuantParams) -> QuantParams:
    """Return the grid of a weight that two nodes read, which the sums of both allow."""
    pairs = one.pairs if other.pairs is None or one.pairs is None else one.pairs.joined(other.pairs)
    return replace(one, scale=np.maximum(one.scale, other.scale), pairs=pairs)


def widened_for_bias(weights: QuantParams, input_scale: Float32Array, bias: Float32Array) -> QuantParams:
    """Return the grid of weights, with scales so large that each bias fits 32 bits at the scale of its products.

    The way out of TensorFlow Lite (quantization_utils.cc): a channel of tiny weights loses some of their precision, which
    is better than a bias that is clipped.

    Args:
        weights: the grid of weights, with or without an axis.
        input_scale: of the activation that the weights are multiplied with, ().
        bias: (channels,).
    """
    size = np.abs(bias.astype(np.float64))
    needed = BIAS_MARGIN * 2.0 * (size if weights.axis is not None else size.max(initial=0.0)) / (INT32.max - INT32.min - 1)
    scale = weights.scale.astype(np.float64)
    products = scale * float(input_scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        wider = (scale * (needed / products)).astype(np.float32)
    small = (products < needed) & (products > 0)
    return replace(weights, scale=np.where(small, wider, weights.scale))


def quantize_bias(
    bias: Float32Array, input_scale: Float32Array, weights: QuantParams
) -> tuple[npt.NDArray[np.int32], Float32Array]:
    """Return a bias as int32, and its scale: the input's times the weights', as the products that it is added to."""
    scale = np.maximum(input_scale * weights.scale, np.float32(TINY))
    integers = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(integers, INT32.min, INT32.max).astype(np.int32), scale


def tensor_of(values: Integers | Float32Array, name: str) -> onnx.TensorProto:
    """Return an array as a constant of a graph."""
    return numpy_helper.from_array(values, name)
