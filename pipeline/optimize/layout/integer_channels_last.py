"""Integer Convs in the layout that their kernel works in, channels last, for whole regions of a quantized graph.

    y[n, o, t] = z[n, t, o],    z = conv_last(x'),    x'[n, t, i] = x[n, i, t]

ONNX Runtime's integer Conv reads channels last whatever the graph says: it adds a Transpose before and after each
(nhwc_transformer.cc). Where a residual stream of floats lies between two of them, that costs more than it looks: the stream
is transposed as floats, with one more pair of conversions. Here all that lies between integer Convs and works on each
element alone (activations, sums, conversions) has channels last as well, and only what comes from float
Convs or goes to them is transposed; `transpose_min_cut.py` finds where that costs least.

With channels last, neighbouring frames lie beside each other in memory: a Conv of few channels takes several at once
(`unroll_time.py`), and the phases of a ConvTranspose that became a Conv (`conv_transpose_to_conv.py`) are written where they
belong.

The Conv becomes ONNX Runtime's operator `com.microsoft.QLinearConv`, which can say where the channels are; ONNX's own cannot.
The numbers are the same to the bit.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.layout.channels_last_regions import Layout
from pipeline.optimize.layout.dim_divisibility import Lengths, keeps_length
from pipeline.optimize.layout.qlinear_conv import IntegerConv, integer_conv
from pipeline.optimize.layout.unroll_time import best_frame_count
from pipeline.optimize.outcome import Outcome, Refusal, Sites

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Interleaving:
    """Phases that become neighbours in time: (N, channels * phases, q) to (N, channels, q * phases).

    Attributes:
        nodes: Reshape, Transpose, Reshape.
        channels: of the result.
        phases: of each channel.
        conv: the integer Conv whose output it is, if it is that of one.
        must: no layout changes for it.
        rank: of its input and output.
    """

    nodes: tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]
    channels: int
    phases: int
    conv: IntegerConv | None
    must: bool = False
    rank: int = 3

    @property
    def source(self) -> str:
        """Its input."""
        return str(self.nodes[0].input[0])

    @property
    def output(self) -> str:
        """Its output."""
        return str(self.nodes[-1].output[0])

    def write(self, layout: Layout, source: str, output: str) -> None:
        """Add it with channels last, where the phases of its Conv are neighbours already."""
        graph, name = layout.graph, self.nodes[0].name
        if self.conv is None or not layout.has_last(self.conv.node):
            split = graph.add_initializer(np.array([0, -1, self.channels, self.phases]), "shape")
            source = graph.add_node("Reshape", [source, split], like=name)
            source = graph.add_node("Transpose", [source], like=name, perm=[0, 1, 3, 2])
        graph.add_node("Reshape", [source, graph.add_initializer(np.array([0, -1, self.channels]), "shape")], output, like=name)


@dataclass(frozen=True)
class _Conv:
    """An integer Conv, which has channels last.

    Attributes:
        integers: what it is between integers.
        frames: that it computes at once.
        interleaving: the one consumer of its output, if it is one.
        must: the layout changes for it.
    """

    integers: IntegerConv
    frames: int
    interleaving: _Interleaving | None
    must: bool = True

    @property
    def nodes(self) -> tuple[onnx.NodeProto, onnx.NodeProto]:
        """The Conv, and the conversion of its output."""
        return self.integers.node, self.integers.quantize

    @property
    def source(self) -> str:
        """Its quantized input."""
        return self.integers.source[0]

    @property
    def output(self) -> str:
        """Its quantized output."""
        return self.integers.output

    @property
    def rank(self) -> int:
        """The axes of both."""
        return self.integers.weights.ndim

    def write(self, layout: Layout, source: str, output: str) -> None:
        """Add it with channels last."""
        graph, conv, name = layout.graph, self.integers, self.integers.node.name
        outputs, inputs = conv.weights.shape[:2]
        shape = graph.shape(self.output) or (None,) * self.rank
        graph.add_value_info(output, conv.data_type, (shape[0], *shape[2:], shape[1]))
        if self.interleaving is not None and layout.has_last(self.interleaving.nodes[0]):
            phases = np.arange(outputs).reshape(self.interleaving.channels, self.interleaving.phases)
            conv = conv.in_order(phases.T.reshape(-1))
        if self.frames == 1:
            conv.add_to(graph, source, output)
            return
        wide = graph.add_initializer(np.array([0, -1, self.frames * inputs]), "shape")
        source = graph.add_node("Reshape", [source, wide], like=name)
        folded = conv.with_frames(self.frames).add_to(graph, source, None)
        graph.add_node("Reshape", [folded, graph.add_initializer(np.array([0, -1, outputs]), "shape")], output, like=name)


def rewrite(graph: Graph) -> Outcome:
    """Give integer Convs, and what lies between them, channels last; return the number of Convs."""
    found = [conv for node in graph.nodes if (conv := integer_conv(graph, node))]
    if not found:
        return Refusal("no Conv between integers")
    lengths = Lengths(graph)
    restored = {_restored(graph, conv): conv for conv in found}
    interleavings = [
        f for node in graph.nodes if (f := _interleaving(graph, node, restored.get(node.input[0] if node.input else "")))
    ]
    downstream = {interleaving.source: interleaving for interleaving in interleavings}
    parts = [_Conv(conv, _frames(conv, lengths), downstream.get(_restored(graph, conv) or "")) for conv in found]
    Layout(graph, [*parts, *interleavings]).write()
    if all(entry.domain != DOMAIN for entry in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return Sites(len(found))


def _restored(graph: Graph, conv: IntegerConv) -> str | None:
    """Return the dequantized output of a Conv, where it has one consumer and nothing else reads the integers."""
    consumer = graph.only_consumer(conv.output, "DequantizeLinear")
    return consumer.output[0] if consumer is not None and graph.only_consumer(consumer.output[0]) is not None else None


def _frames(conv: IntegerConv, lengths: Lengths) -> int:
    """Return how many frames a Conv computes at once with the least time."""
    if conv.weights.ndim != 3 or conv.attributes.get("group", 1) != 1 or not keeps_length(conv.node, conv.weights):
        return 1
    _, inputs, taps = conv.weights.shape
    return best_frame_count(inputs, taps, conv.attributes.get("dilations", [1])[0], lengths.of(conv.source[0]).divisor)


def _interleaving(graph: Graph, node: onnx.NodeProto, conv: IntegerConv | None) -> _Interleaving | None:
    """Return what begins with a node, where that is how `conv_transpose_to_conv.py` interleaves phases along time."""
    swapped = graph.only_consumer(node.output[0], "Transpose") if node.op_type == "Reshape" else None
    whole = graph.only_consumer(swapped.output[0], "Reshape") if swapped is not None else None
    if swapped is None or whole is None or graph.rank(node.input[0]) != 3 or attribute(swapped, "perm") != [0, 1, 3, 2]:
        return None
    before, after = graph.constant(node.input[1]), graph.constant(whole.input[1])
    if before is None or after is None or len(before) != 4 or len(after) != 3:
        return None
    channels, phases = int(before[1]), int(before[2])
    plain = min(channels, phases) > 0 and list(before) == [0, channels, phases, -1] and list(after) == [0, channels, -1]
    return _Interleaving((node, swapped, whole), channels, phases, conv) if plain else None
