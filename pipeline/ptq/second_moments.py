"""Second moments of the inputs of linear nodes, streamed: E[x xᵀ] over patches of a convolution or rows of a matrix product."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.attributes import attributes_of, string_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.ptq.layer_order import stream
from pipeline.sample import FloatArray, Sample

# Of each sample's output, drawn at random: neighbours are much the same, and moments cost positions * inputs². Of all samples
# together, 32 for each input of a row are enough: a fit to so many is 3 % worse on other data than the best one (1 + 1 / 32).
POSITIONS, LEAST_POSITIONS, ENOUGH = 512, 32, 32

Values = npt.NDArray[np.float32]


def reads_patches(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Return whether a node is a Conv with explicit padding, or a MatMul by a matrix."""
    if node.op_type == "Conv":
        return string_attribute(node, "auto_pad", "NOTSET") in ("", "NOTSET")
    return node.op_type == "MatMul" and len(shape) == 2


def second_moments(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], samples: Sequence[Sample], threads: int
) -> dict[str, FloatArray]:
    """Return E[x xᵀ] of the inputs of each weight: name -> float64 (groups, inputs, inputs).

    Nodes that share a weight share its moments. Memory depends on the weights alone, not on the samples.
    """
    shapes = {name: tuple(tensor.dims) for name, tensor in initializers_of(model).items()}
    totals: dict[str, FloatArray] = {}
    counts: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    positions = {node.name: _positions(node, shapes[node.input[1]], len(samples)) for node in nodes}
    for tensors in stream(model, [node.input[0] for node in nodes], samples, threads):
        for node in nodes:
            weight = node.input[1]
            given = np.asarray(tensors[node.input[0]], np.float32)
            seen = patches(node, given, shapes[weight], rng, positions[node.name])
            product = np.matmul(seen.transpose(0, 2, 1), seen).astype(np.float64)
            totals[weight] = totals[weight] + product if weight in totals else product
            counts[weight] += seen.shape[1]
    return {weight: total / max(counts[weight], 1) for weight, total in totals.items()}


def _positions(node: onnx.NodeProto, shape: tuple[int, ...], samples: int) -> int:
    """Return how many positions of each sample are taken: of a layer with fewer inputs, fewer."""
    inputs = shape[0] if node.op_type == "MatMul" else int(np.prod(shape[1:]))
    return min(max(-(-ENOUGH * inputs // max(samples, 1)), LEAST_POSITIONS), POSITIONS)


def patches(
    node: onnx.NodeProto, array: Values, shape: tuple[int, ...], rng: np.random.Generator, most: int = POSITIONS
) -> Values:
    """Return what a node multiplies its weight with, at some positions: (groups, positions, inputs of a group).

    Args:
        node: a Conv over any number of axes, or a MatMul.
        array: its input, (batch, channels, ...) or (..., inputs).
        shape: of its weight.
        rng: draws the positions.
        most: positions.
    """
    if node.op_type == "MatMul":
        rows = array.reshape(-1, array.shape[-1])
        return rows[_draw(len(rows), rng, most)][None]
    settings = attributes_of(node)
    kernel = shape[2:]
    rank = len(kernel)
    pads = settings.get("pads", [0] * 2 * rank)
    strides, dilations = (settings.get(name, [1] * rank) for name in ("strides", "dilations"))
    padded = np.pad(array, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = [(padded.shape[2 + i] - reach[i]) // strides[i] + 1 for i in range(rank)]
    batch, *positions = np.unravel_index(_draw(len(array) * int(np.prod(sizes)), rng, most), (len(array), *sizes))
    # indices of shape (positions, kernel...) into each axis: where a patch begins, plus its taps
    index = [
        (positions[i] * strides[i]).reshape(-1, *[1] * rank)
        + (np.arange(kernel[i]) * dilations[i]).reshape(*[-1 if axis == i else 1 for axis in range(rank)])
        for i in range(rank)
    ]
    taken = np.moveaxis(padded, 1, 0)[(slice(None), batch.reshape(-1, *[1] * rank), *index)]
    groups, channels = settings.get("group", 1), len(taken)
    inputs, taps = channels // groups, int(np.prod(kernel))
    split = taken.reshape(groups, inputs, len(batch), taps)  # (groups, channels, positions, taps); perhaps no position
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(groups, len(batch), inputs * taps)


def _draw(count: int, rng: np.random.Generator, most: int) -> npt.NDArray[np.int64]:
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
