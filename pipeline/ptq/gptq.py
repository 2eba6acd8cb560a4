"""Weight rounding by reconstruction: up or down, whichever keeps a node's output.

Rounding each weight to the nearest integer is not best for the sum of products (Nagel et al. 2020, "Up or Down? Adaptive
Rounding", arXiv:2004.10568). Given H = E[x xᵀ] of a node's inputs, the expected squared error of its output is e H eᵀ for the
error e of a row of weights. Weights are rounded one after the other, and each error is made up for by those still to come,
in closed form: Frantar et al. 2022, "GPTQ" (arXiv:2210.17323). A convolution is a matrix product over patches (im2col).

The result lies on the grid of integers that a quantizer chooses by the largest weight of a channel, or by its largest pair of
weights (`pipeline.quantize.paired_sums`): those stay at the end of the grid, so that the scale is the same as without
rounding, and the quantizer finds exactly these integers. Where `Ranges.weights` has the scale, nothing has to stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import StaticConfig
from pipeline.graph.attributes import int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.ptq.own_weights import separate_weights
from pipeline.ptq.second_moments import reads_patches, second_moments
from pipeline.ptq.simulate import steps_of, weight_grid, weighted_nodes
from pipeline.quantize.paired_sums import HIGHEST, LARGEST_SUM, MOST, ROOM, PairLimits
from pipeline.quantize.plan import Plan
from pipeline.quantize.qparams import limits
from pipeline.quantize.static import Ranges
from pipeline.quantize.target import activation_type_of
from pipeline.sample import Float32Array, FloatArray, Sample

Indices = npt.NDArray[np.int64]

DAMPING = 1e-4  # of the mean of H's diagonal, added to it: directions that the data never took stay near the nearest integer
AT_ONCE = 64  # inputs whose errors are made up for in the inputs behind them together, as one product of matrices
BUDGET_BYTES = 256 << 20  # for the moments of the nodes that one pass over the samples serves


def round_weights(
    model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges, samples: Sequence[Sample], *, threads: int = 1
) -> onnx.ModelProto:
    """Return the float graph with weights that lie on the grid of their integers and keep the outputs of their nodes.

    A weight that a float node or an output reads too stays as it is; the planned nodes get one of their own.

    Covers Conv and MatMul with int8 weights; others are left to the quantizer.

    Args:
        model: the float graph; it is not changed.
        plan: which node becomes what.
        mode: types of weights and activations.
        ranges: of the tensors that static nodes read; their rounding is noise on the inputs, and counted as such.
        samples: calibration data, read once per `BUDGET_BYTES` of moments.
        threads: of ONNX Runtime.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    separate_weights(rounded, {node.name for node in weighted_nodes(model, plan)}, "rounded")
    own = {node.name: node.input[1] for node in rounded.graph.node if len(node.input) > 1}
    constants = initializers_of(rounded)
    shapes = {name: tuple(tensor.dims) for name, tensor in constants.items()}
    nodes = [node for node in weighted_nodes(model, plan) if reads_patches(node, shapes[node.input[1]])]
    lowest, highest = limits(activation_type_of(mode.activation_type, mode.target))
    for batch in _batches(nodes, shapes):
        moments = second_moments(model, batch, samples, threads)
        for name, node in {node.input[1]: node for node in batch}.items():
            target = own[node.name]
            weight = numpy_helper.to_array(constants[target])
            grid = weight_grid(weight, node, plan, mode, ranges)
            if grid.kind is IntegerType.int8:
                low, high = ranges.get(node.input[0], (0.0, 0.0))
                noise = ((high - low) / (highest - lowest)) ** 2 / 12  # the variance of a uniform rounding error
                pairs = None if grid.pairs is None else columns_in_pairs(node, weight.shape, grid.pairs)
                steps, transposed = steps_of(grid, weight.ndim), node.op_type == "MatMul"
                new = reconstruct(weight, steps, moments[name], noise, transposed=transposed, pairs=pairs)
                constants[target].CopyFrom(numpy_helper.from_array(new, target))
    return rounded


def reconstruct(
    weight: Float32Array,
    scale: Float32Array,
    moments: FloatArray,
    noise: float,
    *,
    transposed: bool,
    pairs: "ColumnPairs | None" = None,
) -> Float32Array:
    """Return the weight on its grid.

    Args:
        weight: (outputs, inputs of a group, ...) of a Conv, or (inputs, outputs) where `transposed`.
        scale: of the same rank; broadcasts against the weight.
        moments: E[x xᵀ] (groups, inputs, inputs).
        noise: variance of the rounding errors of inputs.
        transposed: outputs are the last axis.
        pairs: see `round_rows`.
    """
    groups, size, _ = moments.shape

    def rows(array: npt.NDArray[np.generic]) -> FloatArray:
        return (array.T if transposed else array).reshape(groups, -1, size).astype(np.float64)

    steps = rows(np.broadcast_to(scale, weight.shape))[:, :, :1]
    values = (round_rows(rows(weight) / steps, moments, noise, pairs) * steps).astype(np.float32).reshape(-1, size)
    return np.ascontiguousarray((values.T if transposed else values).reshape(weight.shape))


@dataclass(frozen=True)
class ColumnPairs:
    """Which inputs of a row are multiplied and added in one step.

    Attributes:
        partners: (inputs,): the one that shares a sum of 16 bits with each, or -1.
        corners: (groups, inputs, corners, 2): points around what the activations of an input and of its partner were together,
            over 255; None: they may be 255 both.
    """

    partners: Indices
    corners: FloatArray | None = None


def columns_in_pairs(node: onnx.NodeProto, shape: tuple[int, ...], limits: PairLimits) -> ColumnPairs:
    """Return the pairs of the inputs of a row, in the order of the weight: (channel, kernel position) of a Conv."""
    partners = _partners_of(node, shape)
    groups, channels, count, _ = limits.corners.shape
    if channels == 1 and count == 1 and (limits.corners == HIGHEST).all():
        return ColumnPairs(partners)
    own = np.stack([limits.corners, limits.corners[..., ::-1]], axis=2)  # seen from the first of a pair, and from the second
    each = own.reshape(groups, 2 * channels, count, 2) / HIGHEST
    return ColumnPairs(partners, np.repeat(each, len(partners) // (2 * channels), axis=1))


def _partners_of(node: onnx.NodeProto, shape: tuple[int, ...]) -> Indices:
    """Return which input is multiplied and added in one step with each input of a row, or -1: (inputs,)."""
    if node.op_type == "MatMul":
        order = np.arange(shape[0])
    else:  # rows hold the kernel positions of each channel, a processor takes the channels of each position
        order = np.arange(int(np.prod(shape[1:]))).reshape(shape[1], -1).T.reshape(-1)
    partners = np.full(len(order), -1)
    first, second = order[: len(order) // 2 * 2 : 2], order[1::2]
    partners[first], partners[second] = second, first
    return partners


def round_rows(weights: FloatArray, moments: FloatArray, noise: float, pairs: ColumnPairs | None = None) -> FloatArray:
    """Return integers that keep the products of rows and inputs.

    Args:
        weights: in units of their scale: (groups, rows, inputs).
        moments: (groups, inputs, inputs).
        noise: added to the diagonal of the moments.
        pairs: inputs that share a sum of 16 bits; None: sums have more bits. Two partners of one sign then sum up to `ROOM` at
            most, or their products with activations to 16 bits, where these are known; scales are then given, not found again.
    """
    size = weights.shape[2]
    levels = np.rint(np.abs(weights).max()) if pairs is None else float(MOST)
    diagonal = np.einsum("gii->gi", moments)
    ridge = np.maximum(noise + DAMPING * diagonal.mean(axis=1), np.finfo(np.float32).tiny)
    order = np.argsort(-diagonal.sum(axis=0), kind="stable")  # the loudest inputs first: most are left to make up for them
    hessian = (moments + ridge[:, None, None] * np.eye(size))[:, order][:, :, order]
    # row j of `later`: what an error of weight j asks of the weights after it
    later = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    rest = weights[:, :, order]
    ends = np.where(np.abs(rest) > levels - 0.5, np.sign(rest), 0.0)
    ends *= np.arange(size) == np.abs(rest).argmax(axis=2, keepdims=True)  # one weight of a row defines its scale
    fixed = ends * levels  # integers that define a scale; 0: to be chosen
    integers = np.zeros_like(rest)
    beside = np.full(size, -1)
    corners = None
    if pairs is not None:
        position = np.argsort(order)
        beside = np.where(pairs.partners[order] < 0, -1, position[pairs.partners[order]])
        corners = None if pairs.corners is None else pairs.corners[:, order]
        fixed = np.where(fixed != 0, fixed, _largest_pairs(rest, beside)) if corners is None else np.zeros_like(rest)
        integers[...] = fixed  # what a partner chosen before it must leave room for
    for start in range(0, size, AT_ONCE):
        end = min(start + AT_ONCE, size)
        errors = np.empty((*rest.shape[:2], end - start))
        for j in range(start, end):
            low, high = -levels, levels
            if beside[j] >= 0:
                other = integers[:, :, beside[j]]
                room = ROOM - np.abs(other) if corners is None else _room_beside(np.abs(other), corners[:, j])
                low, high = np.where(other < 0, np.maximum(low, -room), low), np.where(other > 0, np.minimum(high, room), high)
            nearest = np.clip(np.rint(rest[:, :, j]), low, high)
            integers[:, :, j] = np.where(fixed[:, :, j] != 0, fixed[:, :, j], nearest)
            error = (rest[:, :, j] - integers[:, :, j]) / later[:, None, j, j]
            rest[:, :, j + 1 : end] -= error[:, :, None] * later[:, None, j, j + 1 : end]
            errors[:, :, j - start] = error
        rest[:, :, end:] -= errors @ later[:, start:end, end:]
    restored = np.empty_like(integers)
    restored[:, :, order] = integers
    return restored


def _room_beside(other: FloatArray, corners: FloatArray) -> FloatArray:
    """Return the largest integers whose products, with those of partners of the same sign, fit 16 bits: (groups, rows).

    Args:
        other: magnitudes of the partners, (groups, rows).
        corners: of the input and of its partner: (groups, corners, 2).
    """
    own, theirs = corners[:, None, :, 0], corners[:, None, :, 1]
    left = LARGEST_SUM - other[:, :, None] * theirs
    room: FloatArray = np.divide(left, own, out=np.full(left.shape, np.inf), where=own > 0).min(axis=2)
    return np.floor(room)


def _largest_pairs(weights: FloatArray, beside: Indices) -> FloatArray:
    """Return the integers of the pair of each row that defines its scale, which sum up to `ROOM`; 0 elsewhere.

    Args:
        weights: in units of their scale: (groups, rows, inputs).
        beside: the partner of each input, or -1.
    """
    found = np.zeros_like(weights)
    first = np.flatnonzero(beside > np.arange(len(beside)))  # each pair once
    if not len(first):
        return found
    second = beside[first]
    one, two = weights[:, :, first], weights[:, :, second]
    sums = np.where(one * two > 0, np.abs(one + two), 0.0)
    best = sums.argmax(axis=2)[:, :, None]
    defines = np.take_along_axis(sums, best, axis=2) > ROOM - 0.5
    sign = np.sign(np.take_along_axis(one, best, axis=2))
    larger = np.clip(np.rint(np.abs(np.take_along_axis(one, best, axis=2))), 1, MOST)
    np.put_along_axis(found, first[best], np.where(defines, sign * larger, 0.0), axis=2)
    np.put_along_axis(found, second[best], np.where(defines, sign * (ROOM - larger), 0.0), axis=2)
    return found


def _batches(nodes: Sequence[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]) -> Iterator[list[onnx.NodeProto]]:
    """Yield nodes in groups whose moments fit into the budget; nodes that share a weight stay together."""
    by_weight: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        by_weight.setdefault(node.input[1], []).append(node)
    batch: list[onnx.NodeProto] = []
    held = 0
    for name, users in by_weight.items():
        shape = shapes[name]
        groups = int_attribute(users[0], "group", 1)
        size = shape[0] if users[0].op_type == "MatMul" else int(np.prod(shape[1:]))
        if batch and held + 8 * groups * size**2 > BUDGET_BYTES:
            yield batch
            batch, held = [], 0
        batch += users
        held += 8 * groups * size**2
    if batch:
        yield batch
