"""Sums of two products in 16 bits: how x86 processors without VNNI multiply uint8 by int8, and weights that keep them exact.

vpmaddubsw multiplies pairs of neighbouring values and adds the two products in 16 bits with saturation: what exceeds 32767
becomes 32767. Its kernels of ONNX Runtime (MLAS: QgemmU8X8KernelAvx2.asm, ConvSymKernelAvx2.asm, the AVX and AVX-512 forms
without VNNI alike) then widen the sums to 32 bits. All pack a weight in the same order, four inputs of an output channel next
to each other, so that inputs 0 and 1, 2 and 3, and so on, are pairs:

- MatMul, Gemm and LSTM: inputs in their order;
- Conv: the input channels of a group at the first kernel position, then at the second, ... (im2col of channels-last data; also
  the order of the kernels without im2col, which take multiples of four channels). Both layouts of QLinearConv run the same.

A pair of weights of opposite signs cannot saturate, nor can one whose sum is at most 128: 128 * 255 = 32640. Kernels that
compute exactly on every processor: Conv with one channel per group on either side (depthwise), and all with uint8 weights.
"""

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.attributes import int_attribute
from pipeline.sample import Float32Array

Numbers = npt.NDArray[Any]

ROOM = np.iinfo(np.int16).max // np.iinfo(np.uint8).max
"""The largest sum of two int8 weights of one sign whose products with any two uint8 values fit 16 bits: 128."""

MOST = 127
"""The largest weight: symmetric int8."""


class Pairing(Enum):
    """The order in which a kernel takes the weights of an output channel.

    Attributes:
        conv: (outputs, inputs of the group, *kernel): kernel positions outside, inputs inside.
        rows: (outputs, inputs).
        columns: (..., inputs, outputs).
    """

    conv = "conv"
    rows = "rows"
    columns = "columns"


def pairing_of(node: onnx.NodeProto, shape: tuple[int, ...]) -> Pairing | None:
    """Return the order in which a node's integer kernel pairs its weight of this shape; None: it computes exactly."""
    match node.op_type:
        case "Conv":
            depthwise = shape[1] == 1 and shape[0] == int_attribute(node, "group", 1)
            return None if depthwise else Pairing.conv
        case "MatMul":
            return Pairing.columns if len(shape) > 1 else None
        case "Gemm":
            return Pairing.rows if int_attribute(node, "transB", 0) else Pairing.columns
        case _:
            return None


def in_rows(weight: Numbers, pairing: Pairing) -> Numbers:
    """Return a weight as (outputs, inputs), inputs in the order of the kernel; of a stack of matrices, outputs of all."""
    match pairing:
        case Pairing.conv:
            return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
        case Pairing.rows:
            return weight
        case Pairing.columns:
            return np.swapaxes(weight, -1, -2).reshape(-1, weight.shape[-2])


def out_of_rows(rows: Numbers, pairing: Pairing, shape: tuple[int, ...]) -> Numbers:
    """Return what `in_rows` has made of a weight of this shape in that shape again."""
    match pairing:
        case Pairing.conv:
            moved = rows.reshape(shape[0], *shape[2:], shape[1])
            return np.ascontiguousarray(np.moveaxis(moved, -1, 1))
        case Pairing.rows:
            return rows
        case Pairing.columns:
            return np.ascontiguousarray(np.swapaxes(rows.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2))


def in_pairs(rows: Numbers) -> Numbers:
    """Return (outputs, inputs) as (outputs, pairs, 2); a last input alone is paired with 0, as kernels pad it."""
    odd = rows.shape[1] % 2
    padded = np.pad(rows, ((0, 0), (0, 1))) if odd else rows
    return padded.reshape(len(rows), -1, 2)


def largest_sums(rows: Numbers) -> Numbers:
    """Return the largest sum of two paired weights of one sign, without it: (outputs,). Integers of 16 bits or more."""
    pairs = in_pairs(rows)
    first, second = pairs[..., 0], pairs[..., 1]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.maximum(-first, 0) + np.maximum(-second, 0)
    return np.asarray(np.maximum(above, below).max(axis=1, initial=0))


def finest_scales(weight: Float32Array, pairing: Pairing, *, per_channel: bool) -> npt.NDArray[np.float64]:
    """Return the smallest scales at which neither a weight nor the sum of two paired ones is too large: (outputs,) or ()."""
    rows = in_rows(weight, pairing).astype(np.float64)
    needed = np.maximum(np.abs(rows).max(axis=1, initial=0) / MOST, largest_sums(rows) / ROOM)
    found: npt.NDArray[np.float64] = needed if per_channel else needed.max(initial=0)
    return found


def made_to_fit(integers: Numbers, pairing: Pairing) -> Numbers:
    """Return integer weights with every pair small enough: where rounding has made a sum too large, the larger gives way."""
    rows = in_rows(integers, pairing)
    if not (largest_sums(rows.astype(np.int32)) > ROOM).any():
        return integers
    pairs = in_pairs(rows).astype(np.int32)
    first, second = pairs[..., 0], pairs[..., 1]
    excess = np.where(first * second > 0, np.maximum(np.abs(first + second) - ROOM, 0), 0)
    larger = np.abs(first) >= np.abs(second)
    first = first - np.where(larger, np.sign(first) * excess, 0)
    second = second - np.where(larger, 0, np.sign(second) * excess)
    fitted = np.stack([first, second], axis=2).reshape(len(rows), -1)[:, : rows.shape[1]]
    return out_of_rows(fitted.astype(integers.dtype), pairing, integers.shape)
