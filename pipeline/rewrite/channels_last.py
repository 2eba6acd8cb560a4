"""Integer Convs in the layout that their kernel works in, channels last, for whole regions of a quantized graph.

    y[n, o, t] = z[n, t, o],    z = conv_last(x'),    x'[n, t, i] = x[n, i, t]

ONNX Runtime's integer Conv reads channels last whatever the graph says: it puts a Transpose in front of each and one behind
(nhwc_transformer.cc). Where a residual stream of floats lies between two of them, that costs more than it looks: the stream
is turned as floats, and made integers and floats once more for it. Here all that lies between integer Convs and works on each
element alone (activations, sums, conversions) has channels last as well, and nothing is turned but what comes from float
Convs or goes to them; `turning.py` finds where that costs least.

With channels last, neighbouring moments are one vector for nothing: a Conv of few channels takes several at once
(`moments.py`), and the phases of a ConvTranspose that became a Conv (`transposed.py`) are made where they belong.

The Conv becomes ONNX Runtime's operator `com.microsoft.QLinearConv`, which can say where the channels are; ONNX's own cannot.
The numbers are the same to the bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from pipeline.rewrite.conv2d import BINARY, UNARY
from pipeline.rewrite.graph import Graph, attribute
from pipeline.rewrite.integer_conv import RANKS, IntegerConv, has_one_scale, integer_conv
from pipeline.rewrite.moments import best_moments
from pipeline.rewrite.multiples import Lengths, keeps_length
from pipeline.rewrite.turning import Piece, cheapest

DOMAIN = "com.microsoft"
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class _Interleaving:
    """Phases that become neighbours in time: (N, channels * phases, q) to (N, channels, q * phases).

    Attributes:
        nodes: Reshape, Transpose, Reshape.
        channels: of the result.
        phases: of each channel.
    """

    nodes: tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]
    channels: int
    phases: int


def rewrite(graph: Graph) -> int | str:
    """Give integer Convs, and what lies between them, channels last; return the number of Convs."""
    layout = _Layout(graph)
    if not layout.convs:
        return "no Conv between integers"
    layout.write()
    return len(layout.convs)


class _Layout:
    """What of a graph gets channels last.

    Attributes:
        convs: id of a Conv -> what it is between integers.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.convs = {id(node): conv for node in graph.nodes if (conv := integer_conv(graph, node))}
        self._interleavings = {id(node): found for node in graph.nodes if (found := _interleaving(graph, node))}
        self._lengths = Lengths(graph)
        self._last: dict[str, str] = {}  # tensor -> its name with channels last

    def write(self) -> None:
        """Change the graph."""
        graph = self._graph
        pieces = list(self._pieces())
        prices = {tensor: 4 if graph.is_float(tensor) else 1 for piece in pieces for tensor in (*piece.reads, *piece.writes)}
        chosen = cheapest(pieces, prices, graph.needed)
        keys = {piece.key for piece in chosen}
        self._last = {tensor: graph.free(f"{tensor}_last") for piece in chosen for tensor in piece.writes}
        for node in graph.nodes:
            if id(node) in keys:
                self._write(node)
        read = graph.needed | {tensor for piece in pieces if piece.key not in keys for tensor in piece.reads}
        ranks = {conv.output: conv.weights.ndim for conv in self.convs.values()}
        for tensor in [tensor for piece in chosen for tensor in piece.writes if tensor in read]:
            rank = ranks.get(tensor) or graph.rank(tensor) or 0
            graph.add("Transpose", [self._last[tensor]], tensor, like=tensor, perm=_back(rank))
        if all(entry.domain != DOMAIN for entry in graph.model.opset_import):
            graph.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))

    def _pieces(self) -> Iterator[Piece]:
        """Yield all that reads and writes tensors."""
        graph = self._graph
        inside = {id(node) for conv in self.convs.values() for node in (conv.node, conv.quantize)}
        inside |= {id(node) for found in self._interleavings.values() for node in found.nodes}
        for node in graph.nodes:
            if conv := self.convs.get(id(node)):
                yield Piece(id(node), (conv.source[0],), (conv.output,), fixed="last")
            elif found := self._interleavings.get(id(node)):
                yield Piece(id(node), (node.input[0],), (found.nodes[-1].output[0],))
            elif id(node) not in inside:
                reads = tuple(tensor for tensor in node.input if tensor and graph.constant(tensor) is None)
                yield Piece(id(node), reads, tuple(node.output), fixed=None if _works_on_elements(graph, node) else "first")

    def _write(self, node: onnx.NodeProto) -> None:
        graph = self._graph
        if conv := self.convs.get(id(node)):
            self._write_conv(conv)
        elif found := self._interleavings.get(id(node)):
            self._write_interleaving(found)
        else:
            rank = graph.rank(node.output[0]) or 0
            inputs, axis = [self._turned(tensor, rank) for tensor in node.input], {}
            if node.op_type == "Concat":
                axis["axis"] = _axis_last(int(attribute(node, "axis")), rank)
            if node.op_type == "Slice":
                axes = graph.constant(node.input[3])
                assert axes is not None
                turned = graph.put(np.array([_axis_last(int(axis), rank) for axis in axes], axes.dtype), "axes")
                inputs[1:] = [*node.input[1:3], turned, *node.input[4:]]
            graph.replace(node, inputs, self._last[node.output[0]], **axis)

    def _turned(self, tensor: str, rank: int) -> str:
        """Return a tensor with channels last."""
        graph = self._graph
        array = graph.constant(tensor) if tensor else None
        if not tensor or (array is not None and array.size == 1):
            return tensor
        if array is not None:
            whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
            return graph.put(np.moveaxis(whole, 1, -1), f"{tensor}_last")
        if tensor not in self._last:
            self._last[tensor] = graph.add("Transpose", [tensor], like=tensor, perm=_forth(rank))
        return self._last[tensor]

    def _write_conv(self, conv: IntegerConv) -> None:
        graph, node, outputs = self._graph, conv.node, len(conv.weights)
        graph.drop(node, conv.quantize)
        shape = graph.shape(conv.output) or (None,) * conv.weights.ndim
        graph.describe(self._last[conv.output], conv.data_type, tuple(shape[axis] for axis in _forth(len(shape))))
        source = self._turned(conv.source[0], conv.weights.ndim)
        if found := self._interleaved(conv):
            conv = conv.in_order(np.arange(outputs).reshape(found.channels, found.phases).T.reshape(-1))
        moments = self._moments(conv)
        if moments == 1:
            conv.put(graph, source, self._last[conv.output])
            return
        wide = graph.put(np.array([0, -1, moments * conv.weights.shape[1]]), "shape")
        source = graph.add("Reshape", [source, wide], like=node.name)
        made = conv.with_moments(moments).put(graph, source, None)
        graph.add("Reshape", [made, graph.put(np.array([0, -1, outputs]), "shape")], self._last[conv.output], like=node.name)

    def _moments(self, conv: IntegerConv) -> int:
        """Return how many moments a Conv had best take at once."""
        if conv.weights.ndim != 3 or conv.attributes.get("group", 1) != 1 or not keeps_length(conv.node, conv.weights):
            return 1
        _, inputs, taps = conv.weights.shape
        divisor = self._lengths.of(conv.source[0]).divisor
        return best_moments(inputs, taps, conv.attributes.get("dilations", [1])[0], divisor)

    def _interleaved(self, conv: IntegerConv) -> _Interleaving | None:
        """Return what interleaves the output of a Conv, where that has channels last and nothing else reads it."""
        restored = self._graph.only_reader(conv.output, "DequantizeLinear")
        reader = self._graph.only_reader(restored.output[0], "Reshape") if restored is not None else None
        found = self._interleavings.get(id(reader)) if reader is not None else None
        return found if found is not None and found.nodes[-1].output[0] in self._last else None

    def _write_interleaving(self, found: _Interleaving) -> None:
        graph, first, last = self._graph, found.nodes[0], found.nodes[-1]
        graph.drop(*found.nodes)
        source = self._turned(first.input[0], 3)
        if not any(self._interleaved(conv) is found for conv in self.convs.values()):
            split = graph.put(np.array([0, -1, found.channels, found.phases]), "shape")
            source = graph.add("Reshape", [source, split], like=first.name)
            source = graph.add("Transpose", [source], like=first.name, perm=[0, 1, 3, 2])
        whole = graph.put(np.array([0, -1, found.channels]), "shape")
        graph.add("Reshape", [source, whole], self._last[last.output[0]], like=last.name)


def _interleaving(graph: Graph, node: onnx.NodeProto) -> _Interleaving | None:
    """Return what begins with a node, where that is how `transposed.py` interleaves phases along time."""
    turned = graph.only_reader(node.output[0], "Transpose") if node.op_type == "Reshape" else None
    whole = graph.only_reader(turned.output[0], "Reshape") if turned is not None else None
    if turned is None or whole is None or graph.rank(node.input[0]) != 3 or attribute(turned, "perm") != [0, 1, 3, 2]:
        return None
    before, after = graph.constant(node.input[1]), graph.constant(whole.input[1])
    if before is None or after is None or len(before) != 4 or len(after) != 3:
        return None
    channels, phases = int(before[1]), int(before[2])
    plain = min(channels, phases) > 0 and list(before) == [0, channels, phases, -1] and list(after) == [0, channels, -1]
    return _Interleaving((node, turned, whole), channels, phases) if plain else None


def _works_on_elements(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node does the same whichever axis the channels are."""
    rank = graph.rank(node.output[0]) if node.output else None
    if rank not in RANKS or node.domain:
        return False
    if node.op_type in BINARY or node.op_type == "Concat":
        return all(graph.rank(tensor) == rank or graph.constant(tensor) is not None for tensor in node.input)
    if graph.rank(node.input[0]) != rank or graph.constant(node.input[0]) is not None:
        return False
    if node.op_type in CONVERSIONS:
        return has_one_scale(graph, node)
    limits = [graph.constant(tensor) for tensor in node.input[1:]] if node.op_type == "Slice" else []
    return node.op_type in UNARY or (len(limits) in (3, 4) and all(limit is not None for limit in limits))


def _axis_last(axis: int, rank: int) -> int:
    """Return where an axis is once the second is the last."""
    return _forth(rank).index(axis % rank)


def _forth(rank: int) -> list[int]:
    return [0, *range(2, rank), 1]


def _back(rank: int) -> list[int]:
    return [0, rank - 1, *range(1, rank - 1)]
