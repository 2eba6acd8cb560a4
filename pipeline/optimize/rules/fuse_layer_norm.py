"""Layer norm over channels, by the operator for the last axis.

    g (x - m) / sqrt(v + e) + b,    m = mean_c(x), v = mean_c((x - m)^2), x of (n, c, t)
    = transpose(layer_norm(transpose(x)))

Text encoders of speech models keep time last, and write a norm over channels as nine operators; ONNX Runtime fuses those only
where they run over the last axis. Its LayerNormalization reads a row once, and a transpose is cheap at these sizes
(Ba et al. 2016, "Layer Normalization"). The counterpart in onnxscript is `fusion/_layer_norm.py`, over the last axis too.
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.outcome import Outcome, Refusal, outcome

LEAST_OPSET = 17  # the first with LayerNormalization
SWAPPED = [0, 2, 1]


def rewrite(graph: Graph) -> Outcome:
    """Replace layer norms over the second of three axes; return their number."""
    if graph.opset < LEAST_OPSET:
        return Refusal(f"LayerNormalization needs opset {LEAST_OPSET}, the graph has {graph.opset}")
    sites = sum(_replace(graph, node) for node in graph.nodes if node.op_type in ("Div", "Mul"))
    return outcome(sites, "no layer norm over the second of three axes")


def _replace(graph: Graph, quotient: onnx.NodeProto) -> bool:
    centred, root = graph.producer(quotient.input[0], "Sub"), _root(graph, quotient)
    if centred is None or root is None or graph.rank(quotient.output[0]) != len(SWAPPED):
        return False
    x = centred.input[0]
    mean = _mean_of(graph, centred.input[1])
    epsilon, variance = _with_constant(graph, root.input[0])
    square = graph.producer(_mean_of(graph, variance) or "", "Mul", "Pow")
    channels = (graph.shape(x) or (None, None))[1]
    if mean != x or epsilon is None or square is None or not isinstance(channels, int):
        return False
    if square.input[0] != centred.output[0] or not (
        square.input[1] == centred.output[0] or (square.op_type == "Pow" and graph.scalar(square.input[1]) == 2.0)
    ):
        return False
    gain, last = _row_after(graph, quotient, "Mul", channels)
    shift, last = _row_after(graph, last, "Add", channels) if gain is not None else (None, last)
    parameters = [np.ones(channels, np.float32) if gain is None else gain] + ([] if shift is None else [shift])
    graph.remove(last, quotient)
    inputs = [graph.add_node("Transpose", [x], like=quotient.name, perm=SWAPPED)]
    inputs += [graph.add_initializer(array, f"{quotient.name}_row") for array in parameters]
    normed = graph.add_node("LayerNormalization", inputs, name=quotient.name, axis=-1, epsilon=epsilon)
    graph.add_node("Transpose", [normed], last.output[0], like=quotient.name, perm=SWAPPED)
    return True


def _root(graph: Graph, quotient: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the root that a node divides its first input by, or multiplies it by the inverse of."""
    divisor: str = quotient.input[1]
    if quotient.op_type == "Mul":
        inverse = graph.producer(divisor, "Reciprocal", "Div")
        if inverse is None or (inverse.op_type == "Div" and graph.scalar(inverse.input[0]) != 1.0):
            return None
        divisor = inverse.input[-1]
    return graph.producer(divisor, "Sqrt")


def _mean_of(graph: Graph, tensor: str) -> str | None:
    """Return what a tensor is the mean of, over the second axis."""
    node = graph.producer(tensor, "ReduceMean")
    if node is None or not attribute(node, "keepdims", 1):
        return None
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    return node.input[0] if axes is not None and list(axes) in ([1], [-2]) else None


def _with_constant(graph: Graph, tensor: str) -> tuple[float | None, str]:
    """Return the two terms of a sum of a number and a tensor."""
    node = graph.producer(tensor, "Add")
    for first, second in ((0, 1), (1, 0)) if node is not None else ():
        number = graph.scalar(node.input[first])  # type: ignore[union-attr]
        if number is not None:
            return number, node.input[second]  # type: ignore[union-attr]
    return None, ""


def _row_after(graph: Graph, node: onnx.NodeProto, op_type: str, channels: int) -> tuple[Array | None, onnx.NodeProto]:
    """Return one number a channel that the only consumer multiplies by or adds, and that consumer; else None and the node."""
    consumer = graph.only_consumer(node.output[0], op_type)
    if consumer is not None:
        other = consumer.input[1] if consumer.input[0] == node.output[0] else consumer.input[0]
        row = graph.channel_row(other, len(SWAPPED), channels)
        if row is not None:
            return row, consumer
    return None, node
