"""Conv of one tap over time as a product of matrices, with channels last.

    y[n, o, t] = sum_i w[o, i] x[n, i, t] + b[o],    y[n, o, t] = z[n, t, o],    z = x' w^T + b,    x'[n, t, i] = x[n, i, t]

A conformer transposes its stream before and after such a Conv, since its neighbours are products over the last axis anyway
(Gulati et al. 2020, "Conformer", section 2.2). As a product it needs no Transpose, and has the faster integer kernel, with
dynamic ranges. What lies between two of them (a gate, a mask, an activation) has channels last as well, where that saves a
Transpose (`channels_last_regions.py`).
"""

from dataclasses import dataclass

import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.layout.channels_last_regions import Layout
from pipeline.optimize.outcome import Outcome, Refusal, Sites


@dataclass(frozen=True)
class _Pointwise:
    """A Conv of one tap.

    Attributes:
        node: the Conv.
        weights: (out, in).
        bias: (out,); None: none.
        must: the layout changes for it.
        rank: of its input and output.
    """

    node: onnx.NodeProto
    weights: Array
    bias: Array | None
    must: bool = True
    rank: int = 3

    @property
    def nodes(self) -> tuple[onnx.NodeProto]:
        """The Conv."""
        return (self.node,)

    @property
    def source(self) -> str:
        """Its input."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """Its output."""
        return str(self.node.output[0])

    def write(self, layout: Layout, source: str, output: str) -> None:
        """Add it as a product, which keeps its name."""
        graph, name = layout.graph, self.node.name
        inputs = [source, graph.add_initializer(self.weights.T, f"{self.node.input[1]}_turned")]
        product = graph.add_node("MatMul", inputs, output if self.bias is None else None, name=name)
        if self.bias is not None:
            graph.add_node("Add", [product, graph.add_initializer(self.bias, self.node.input[2])], output, like=name)


def rewrite(graph: Graph) -> Outcome:
    """Write every such Conv as a product; return their number."""
    parts = [part for node in graph.nodes if (part := _pointwise(graph, node))]
    if not parts:
        return Refusal("no Conv of one tap over time (with constant weights of rank 3)")
    Layout(graph, parts).write()
    return Sites(len(parts))


def _pointwise(graph: Graph, node: onnx.NodeProto) -> _Pointwise | None:
    if node.op_type != "Conv" or not graph.is_float(node.input[1]):
        return None
    weights, *bias = (graph.constant(tensor) for tensor in node.input[1:] if tensor)
    if weights is None or weights.ndim != 3 or weights.shape[2] != 1 or any(array is None for array in bias):
        return None
    steps = {*attribute(node, "strides", [1]), attribute(node, "group", 1)}
    if steps != {1} or any(attribute(node, "pads", [0])):
        return None
    return _Pointwise(node, weights[:, :, 0], bias[0] if bias else None)
