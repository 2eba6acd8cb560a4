"""Which outputs of a linear layer a tensor holds, if its values were only moved on the way.

Attention splits the output of one layer into queries, keys and values, and these into heads: by Reshape, Transpose, Split and
Gather. Numbers for some of the layer's outputs are found by moving the outputs' numbers the same way, with all other axes of
length 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Gather")
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """Some outputs of a layer.

    Attributes:
        layer: a MatMul with a constant matrix.
        sum: the Add of its bias.
        bias: the name of the bias, (outputs,).
        path: the nodes that move values, from the layer on, and which of their outputs goes on.
        numbers: of the outputs, in the shape of the tensor with axes of length 1 for all that are no channels.
    """

    layer: onnx.NodeProto
    sum: onnx.NodeProto
    bias: str
    path: tuple[tuple[onnx.NodeProto, int], ...]
    numbers: Numbers

    def replace_layer(self, graph: Graph, output: str, weights: Callable[[str], str], bias: Callable[[str], str]) -> None:
        """Replace the layer by one with other weights for these outputs.

        Args:
            graph: to change.
            output: what the tensor is called from now on: its values change.
            weights: constant matrix -> name of the new one.
            bias: constant row -> name of the new one.
        """
        product = graph.replace_node(
            self.layer, [self.layer.input[0], weights(self.layer.input[1])], graph.fresh_name(f"{self.layer.output[0]}_changed")
        )
        current = graph.fresh_name(f"{self.sum.output[0]}_changed") if self.path else output
        graph.replace_node(self.sum, [product, bias(self.bias)], current)
        before = self.sum.output[0]
        for step, (node, place) in enumerate(self.path):
            for other in graph.consumers(before):  # they take other outputs of it
                if other is not node:
                    graph.replace_node(other, [current, *other.input[1:]])
            outputs = list(node.output)
            before = outputs[place]
            outputs[place] = output if step == len(self.path) - 1 else graph.fresh_name(f"{before}_changed")
            graph.replace_node(node, [current, *node.input[1:]], outputs)
            current = outputs[place]


def channels_of(graph: Graph, tensor: str) -> Channels | None:
    """Return which outputs of a layer a tensor holds, where nothing else reads these."""
    path: list[tuple[onnx.NodeProto, int]] = []
    source = tensor
    while (node := graph.producer(source, *MOVES)) is not None:
        path.insert(0, (node, list(node.output).index(source)))
        source = node.input[0]
        if source in graph.pinned or not _others_read_others(graph, source, node):
            return None
    total = graph.producer(source, "Add")
    if total is None or tensor in graph.pinned or source in graph.pinned:
        return None
    layers = [layer for operand in total.input if (layer := graph.producer(operand, "MatMul")) is not None]
    biases = [operand for operand in total.input if (row := graph.constant(operand)) is not None and row.ndim == 1]
    weights = graph.constant(layers[0].input[1]) if len(layers) == 1 and len(biases) == 1 else None
    rank = graph.rank(source)
    if weights is None or weights.ndim != 2 or rank is None or graph.only_consumer(layers[0].output[0]) is not total:
        return None
    if graph.shape(biases[0]) != weights.shape[1:]:
        return None
    numbers: Numbers | None = np.arange(weights.shape[1]).reshape((1,) * (rank - 1) + (-1,))
    for node, place in path:
        numbers = None if numbers is None else _moved(graph, node, place, numbers)
    return None if numbers is None else Channels(layers[0], total, biases[0], tuple(path), numbers)


def _others_read_others(graph: Graph, source: str, node: onnx.NodeProto) -> bool:
    """Return whether all other consumers of what a node reads take other values of it."""
    others = [other for other in graph.consumers(source) if other is not node]
    if not others:
        return True
    if node.op_type != "Gather" or any(other.op_type != "Gather" or other.input[0] != source for other in others):
        return False
    taken = [graph.constant(gather.input[1]) for gather in (node, *others)]
    indices = [set(array.ravel().tolist()) for array in taken if array is not None and (array >= 0).all()]
    same_axis = len({attribute(gather, "axis", 0) for gather in (node, *others)}) == 1
    return same_axis and len(indices) == len(taken) and all(indices[0].isdisjoint(other) for other in indices[1:])


def _moved(graph: Graph, node: onnx.NodeProto, place: int, numbers: Numbers) -> Numbers | None:
    """Return the numbers of the outputs after a node has moved them; None where they mix with other axes."""
    moved = _move(graph, node, place, numbers)
    shape = graph.shape(node.output[place])
    if moved is None or shape is None or len(shape) != moved.ndim:
        return None
    return moved if all(a in (1, b) for a, b in zip(moved.shape, shape, strict=True)) else None


def _move(graph: Graph, node: onnx.NodeProto, place: int, numbers: Numbers) -> Numbers | None:
    values = graph.constant(node.input[1]) if len(node.input) > 1 else None
    axis = int(attribute(node, "axis", 0))
    if node.op_type == "Transpose":
        return np.transpose(numbers, attribute(node, "perm"))
    if node.op_type == "Split":
        return _part(numbers, axis, values, len(node.output), place) if graph.opset >= 13 else None
    if values is None:
        return None
    places = tuple(int(value) for value in values.ravel())
    if node.op_type == "Gather":
        return np.take(numbers, values, axis) if numbers.shape[axis] > 1 else None
    if node.op_type == "Reshape":
        return _reshaped(numbers, places)
    return np.expand_dims(numbers, places) if node.op_type == "Unsqueeze" else _squeezed(numbers, places)


def _part(numbers: Numbers, axis: int, lengths: Array | None, count: int, place: int) -> Numbers | None:
    total = numbers.shape[axis]
    if total == 1 or (lengths is None and total % count):
        return None
    return np.split(numbers, np.cumsum(lengths)[:-1] if lengths is not None else count, axis)[place]


def _squeezed(numbers: Numbers, axes: tuple[int, ...]) -> Numbers | None:
    return np.squeeze(numbers, axes) if all(numbers.shape[axis] == 1 for axis in axes) else None


def _reshaped(numbers: Numbers, target: tuple[int, ...]) -> Numbers | None:
    lengths = [numbers.shape[i] if length == 0 and i < numbers.ndim else length for i, length in enumerate(target)]
    try:
        return numbers.reshape(lengths)
    except ValueError:  # a length that is none of a channel's
        return None
