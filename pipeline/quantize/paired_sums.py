"""Sums of two products in 16 bits: how x86 processors without VNNI multiply uint8 by int8, and weights that keep them exact.

vpmaddubsw multiplies pairs of neighbouring values and adds the two products in 16 bits with saturation: what exceeds 32767
becomes 32767. Its kernels of ONNX Runtime (MLAS: QgemmU8X8KernelAvx2.asm, ConvSymKernelAvx2.asm, the AVX and AVX-512 forms
without VNNI alike) then widen the sums to 32 bits. All pack a weight in the same order, four inputs of an output channel next
to each other, so that inputs 0 and 1, 2 and 3, and so on, are pairs:

- MatMul, Gemm and LSTM: inputs in their order;
- Conv: the input channels of a group at the first kernel position, then at the second, ... (im2col of channels-last data; also
  the order of the kernels without im2col, which take multiples of four channels). Both layouts of QLinearConv run the same.

A pair of weights of opposite signs cannot saturate, nor can one whose sum is at most 128: 128 * 255 = 32640. Where calibration
has seen how far the two channels of a pair go together, the sum may be larger: seldom are both at their largest at once.

Kernels that compute exactly on every processor: Conv with one channel per group on either side (depthwise), and all with
uint8 weights.
"""

from dataclasses import dataclass, field
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.calibration.channel_pairs import DIRECTIONS, Reach
from pipeline.graph.attributes import int_attribute
from pipeline.sample import Float32Array

Numbers = npt.NDArray[Any]

ROOM = np.iinfo(np.int16).max // np.iinfo(np.uint8).max
"""The largest sum of two int8 weights of one sign whose products with any two uint8 values fit 16 bits: 128."""

MOST = 127
"""The largest weight: symmetric int8."""

HIGHEST = float(np.iinfo(np.uint8).max)

LARGEST_SUM = np.iinfo(np.int16).max / HIGHEST
"""The largest sum of two products, over 255."""

HEADROOM = 1.1
"""How much further than in calibration two activations may go together before their sum is cut at 32767."""


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


ALL = np.full((1, 1, 1, 2), HIGHEST)
"""The corner of activations of which nothing is known: both may be 255, in every pair."""


@dataclass(frozen=True)
class PairLimits:
    """Which pairs of weights are too large for a sum of 16 bits.

    Attributes:
        pairing: the order in which a kernel takes the weights.
        corners: float64 (groups, pairs of channels, corners, 2), or 1 for groups and pairs: points around all that two uint8
            activations were together.
    """

    pairing: Pairing
    corners: Numbers = field(default_factory=ALL.copy)

    def joined(self, other: "PairLimits") -> "PairLimits":
        """Return the limits of a weight that two nodes read: both hold."""
        shape = np.broadcast_shapes(self.corners.shape[:2], other.corners.shape[:2])
        both = [np.broadcast_to(one.corners, (*shape, *one.corners.shape[2:])) for one in (self, other)]
        return PairLimits(self.pairing, np.concatenate(both, axis=2))


def corners_of(reach: Reach, scale: float, zero_point: int, groups: int) -> Numbers:
    """Return points whose convex hull has all pairs of integers that stand for two channels, and a margin around.

    Args:
        reach: how far the channels of each pair go together, in values.
        scale: of the activation.
        zero_point: its integer of value 0, as uint8; padding has it.
        groups: of the convolution.

    Returns:
        float64 (groups, pairs, corners, 2), 0 to 255.
    """
    directions = DIRECTIONS.astype(np.float64)
    total = directions.sum(axis=1)
    rounded = reach.astype(np.float64) / scale + (zero_point + 0.5) * total
    alone = np.maximum(rounded[:, :1] * directions[:, 0], rounded[:, -1:] * directions[:, 1])  # the other one is cut at 0
    padded = np.maximum(np.maximum(rounded, alone), zero_point * total)
    limits = np.minimum(padded * HEADROOM, HIGHEST * total)
    found = []
    for one, other in combinations(range(len(directions)), 2):
        both = directions[[one, other]]
        found.append(limits[:, [one, other]] @ np.linalg.inv(both).T)
    points = np.maximum(np.stack(found, axis=1), 0.0)
    inside = (points @ directions.T <= limits[:, None] + 1e-6 * HIGHEST).all(axis=2)
    order = np.argsort(~inside, axis=1, kind="stable")[:, : int(inside.sum(axis=1).max())]
    kept = np.take_along_axis(np.where(inside[..., None], points, 0.0), order[..., None], axis=1)
    return kept.reshape(groups, -1, kept.shape[1], 2)


def sums_of_pairs(rows: Numbers, corners: Numbers = ALL) -> Numbers:
    """Return the largest sum of the products of each pair of weights with activations, over 255: (outputs, pairs).

    Of weights of opposite signs, that is the product of one alone: the other only takes away from it.

    Args:
        rows: (outputs, inputs), integers or floats.
        corners: (groups, pairs of channels, corners, 2).
    """
    pairs = in_pairs(rows)
    groups, channels, count, _ = corners.shape
    split = pairs.reshape(groups, len(pairs) // groups, -1, channels, 2)
    most = np.zeros(split.shape[:-1])
    for sign in (np.maximum(split, 0), np.maximum(-split, 0)):
        for corner in range(count):
            first, second = (corners[:, None, None, :, corner, place] / HIGHEST for place in (0, 1))
            np.maximum(most, sign[..., 0] * first + sign[..., 1] * second, out=most)
    return most.reshape(pairs.shape[:2])


def largest_sums(rows: Numbers, corners: Numbers = ALL) -> Numbers:
    """Return the largest sum of the products of two paired weights with activations, over 255: (outputs,)."""
    return np.asarray(sums_of_pairs(rows, corners).max(axis=1, initial=0))


def finest_scales(weight: Float32Array, limits: PairLimits, *, per_channel: bool) -> npt.NDArray[np.float64]:
    """Return the smallest scales at which neither a weight nor the sum of two paired ones is too large: (outputs,) or ()."""
    rows = in_rows(weight, limits.pairing).astype(np.float64)
    needed = np.maximum(np.abs(rows).max(axis=1, initial=0) / MOST, largest_sums(rows, limits.corners) / ROOM)
    found: npt.NDArray[np.float64] = needed if per_channel else needed.max(initial=0)
    return found


def made_to_fit(integers: Numbers, limits: PairLimits) -> Numbers:
    """Return integer weights with every pair small enough: where rounding has made a sum too large, the larger gives way."""
    rows = in_rows(integers, limits.pairing).astype(np.int32)
    pairs = in_pairs(rows).copy()
    larger = np.abs(pairs[..., 0]) >= np.abs(pairs[..., 1])
    changed = False
    while (beyond := sums_of_pairs(pairs.reshape(len(rows), -1), limits.corners) > LARGEST_SUM).any():
        changed = True
        for place, chosen in enumerate((larger, ~larger)):
            pairs[..., place] -= np.where(beyond & chosen, np.sign(pairs[..., place]), 0)
    if not changed:
        return integers
    fitted = pairs.reshape(len(rows), -1)[:, : rows.shape[1]]
    return out_of_rows(fitted.astype(integers.dtype), limits.pairing, integers.shape)
