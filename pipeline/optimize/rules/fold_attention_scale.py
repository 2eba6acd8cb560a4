"""Constant operations of attention on queries and scores, folded into the layer that produces the queries.

    (x W + b) + u = x W + (b + u),    c ((q + u) k' + shifted((q + v) p')) = (c q + c u) k' + shifted((c q + c v) p')

Attention by relative distances adds two rows to its queries, for content and for distance (Dai et al. 2019, "Transformer-XL",
section 3.3), and scales all scores (Vaswani et al. 2017, section 3.2.1). The first row and the scale go into the weights; what
is left to add for the distances is v - u.
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph
from pipeline.optimize.outcome import Outcome, Sites, outcome
from pipeline.optimize.rules.attention_channels import Channels, channels_of
from pipeline.optimize.rules.fold_mul_into_weights import factor_of
from pipeline.optimize.rules.fuse_pad_into_conv import fills_with_zero

MAX_NODES = 32  # nodes between a factor and the layers that take it
STRETCHING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad")  # do the same to what was scaled before


def rewrite(graph: Graph) -> Outcome:
    """Move scales, and else rows, into layers; return how many nodes that saves."""
    used: set[int] = set()
    sites = 0
    for node in graph.nodes:
        if node.op_type in ("Mul", "Div") and graph.is_float(node.output[0]):
            sites += _scale(graph, node, used)
    if sites:
        return Sites(sites)  # rows are folded in the next pass, scaled
    for node in graph.nodes:
        if node.op_type == "Add" and graph.is_float(node.output[0]):
            sites += _add(graph, node, used)
    return outcome(sites, "no constant row added to queries of a linear layer, and no scale of scores")


def _add(graph: Graph, node: onnx.NodeProto, used: set[int]) -> int:
    """Move the constant of the first of the Adds that read the same part of a layer into its bias."""
    source = next((tensor for tensor in node.input if graph.constant(tensor) is None), "")
    consumers = graph.consumers(source)
    rows = [_other(graph, consumer, source) for consumer in consumers]
    if not consumers or consumers[0] is not node or graph.producer(source, "Add", "MatMul") is not None:
        return 0
    channels = channels_of(graph, source)
    if channels is None or id(channels.layer) in used or any(row is None for row in rows):
        return 0
    spread = [_spread(row, channels) for row in rows if row is not None]
    if any(row is None for row in spread):
        return 0
    used.add(id(channels.layer))
    first, *others = spread
    assert first is not None
    graph.remove(node)
    channels.replace_layer(
        graph, node.output[0], lambda weights: weights, lambda bias: _changed(graph, bias, channels, first, 1.0)
    )
    for consumer, row in zip(consumers[1:], others, strict=True):
        assert row is not None
        graph.replace_node(consumer, [node.output[0], graph.add_initializer(row - first, "row")])
    return 1


def _scale(graph: Graph, node: onnx.NodeProto, used: set[int]) -> int:
    """Move a constant factor through products of two activations into the layer that produces the first factor."""
    constant, source = factor_of(graph, node)
    if constant is None or constant.size != 1 or constant.ndim > (graph.rank(source) or 0):
        return 0
    factor = constant.item()
    tree = _Tree(graph)
    if not tree.reaches(source) or not tree.alone(node) or not tree.layers.isdisjoint(used):
        return 0
    used |= tree.layers
    graph.remove(node)
    tree.write(source, node.output[0], factor)
    return 1


class _Tree:
    """What a factor goes through on its way back to layers.

    Attributes:
        ends: tensor -> the outputs of a layer that it holds.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._inside: dict[str, tuple[onnx.NodeProto, tuple[int, ...]]] = {}
        self._written: dict[str, str] = {}
        self.ends: dict[str, Channels] = {}

    @property
    def layers(self) -> set[int]:
        """Which layers these are."""
        return {id(channels.layer) for channels in self.ends.values()}

    def reaches(self, tensor: str) -> bool:
        """Return whether all that a tensor is the sum of comes from layers that can take a factor."""
        graph = self._graph
        if tensor in self._inside or tensor in self.ends:
            return True
        node = graph.producer(tensor)
        channels = channels_of(graph, tensor)
        if channels is not None:
            self.ends[tensor] = channels
            return True
        if node is None or tensor in graph.pinned or len(self._inside) == MAX_NODES:
            return False
        if node.op_type == "MatMul" and all(graph.constant(operand) is None for operand in node.input):
            places: tuple[int, ...] = (0,)
        elif node.op_type in STRETCHING and (node.op_type != "Pad" or fills_with_zero(graph, node)):
            places = (0,)
        elif node.op_type == "Add":
            places = (0, 1)
        else:
            return False
        self._inside[tensor] = (node, places)
        return all(graph.constant(node.input[place]) is not None or self.reaches(node.input[place]) for place in places)

    def alone(self, end: onnx.NodeProto) -> bool:
        """Return whether all that reads what is scaled is scaled itself, and no layer twice."""
        if len(self.layers) != len(self.ends) or not any(channels.path for channels in self.ends.values()):
            return False  # a factor right after a layer is for `fold_mul_into_weights.py` is for
        nodes = {id(end), *(id(node) for node, _ in self._inside.values())}
        return all(
            id(consumer) in nodes for tensor in (*self._inside, *self.ends) for consumer in self._graph.consumers(tensor)
        )

    def write(self, tensor: str, output: str | None, factor: float) -> str:
        """Write a tensor times a factor; return its name."""
        graph = self._graph
        if tensor not in self._written:
            name = output or graph.fresh_name(f"{tensor}_scaled")
            self._written[tensor] = name
            if tensor in self.ends:
                channels = self.ends[tensor]
                row = np.zeros((), np.float32)
                channels.replace_layer(
                    graph, name, lambda weights: _changed(graph, weights, channels, row, factor),
                    lambda bias: _changed(graph, bias, channels, row, factor),
                )  # fmt: skip
                return name
            node, places = self._inside[tensor]
            inputs = list(node.input)
            for place in places:
                array = graph.constant(inputs[place])
                inputs[place] = (
                    self.write(inputs[place], None, factor) if array is None
                    else graph.add_initializer((array * factor).astype(np.float32), f"{inputs[place]}_scaled")
                )  # fmt: skip
            graph.replace_node(node, inputs, name)
        return self._written[tensor]


def _other(graph: Graph, node: onnx.NodeProto, tensor: str) -> Array | None:
    """Return the constant that a node adds to a tensor."""
    if node.op_type != "Add" or node.output[0] in graph.pinned:
        return None
    return next((array for operand in node.input if operand != tensor and (array := graph.constant(operand)) is not None), None)


def _spread(row: Array, channels: Channels) -> Array | None:
    """Return a constant in the shape of the channels' numbers; None where it varies along other axes."""
    shape = channels.numbers.shape
    whole = row.reshape((1,) * (len(shape) - row.ndim) + row.shape)
    fits = whole.ndim == len(shape) and all(a in (1, b) for a, b in zip(whole.shape, shape, strict=True))
    return np.broadcast_to(whole, shape) if fits else None


def _changed(graph: Graph, tensor: str, channels: Channels, row: Array, factor: float) -> str:
    """Return a constant whose last axis are a layer's outputs, with those of the channels scaled, and the row added."""
    array = np.array(graph.constant(tensor), np.float64)
    array[..., channels.numbers] = array[..., channels.numbers] * factor + row
    return graph.add_initializer(array.astype(np.float32), f"{tensor}_changed")
