"""A number added to the input of Convs, inside their biases.

    conv(c x + a, w) + b = conv(x, c w) + (b + a sum(w))    for a Conv that puts no zeros around its input

The features of a recogniser are normalised so, in front of its first layers. The counterpart in onnxscript is
`_fuse_conv_affine.py`: one Mul and one Add of a scalar right at the Conv; here also through transposes, and several of them.
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome
from pipeline.optimize.rules.fold_mul_into_weights import factor_of

KEEPING = ("Unsqueeze", "Squeeze", "Transpose", "Identity")


def rewrite(graph: Graph) -> Outcome:
    """Fold such numbers into Convs; return how many."""
    sites = 0
    for node in graph.nodes:
        if node.op_type == "Conv" and not _pads(node):
            sites += _take_in(graph, node)
    return outcome(sites, "no number added to the input of a Conv without padding")


def _pads(node: onnx.NodeProto) -> bool:
    return any(attribute(node, "pads", [0])) or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b"")


def _take_in(graph: Graph, conv: onnx.NodeProto) -> int:
    weights = graph.constant(conv.input[1])
    biases = graph.constant(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(1, np.float32)
    if weights is None or weights.dtype != np.float32 or biases is None:
        return 0
    tensor, between, passed = conv.input[0], [], []
    factor, shift, shifts = 1.0, 0.0, 0  # of what the Conv reads: factor * tensor + shift
    while (
        (node := graph.producer(tensor)) is not None and graph.only_consumer(tensor) is not None and not graph.is_removed(node)
    ):
        if node.op_type in KEEPING:
            between.append(node)
            tensor = node.input[0]
            continue
        found = _number(graph, node)
        if found is None:
            break
        c, a, tensor = found
        factor, shift, shifts = factor * c, shift + factor * a, shifts + (a != 0.0)
        passed.append(node)
    if not shifts or not graph.is_float(tensor):
        return 0
    sums = weights.astype(np.float64).reshape(len(weights), -1).sum(axis=1)
    bias = (biases + shift * sums).astype(np.float32)
    graph.remove(*passed)
    for node in reversed(between):
        tensor = graph.replace_node(node, [tensor, *node.input[1:]])
    scaled = (
        graph.add_initializer((weights * factor).astype(np.float32), f"{conv.input[1]}_scaled")
        if factor != 1.0
        else conv.input[1]
    )
    graph.replace_node(conv, [tensor, scaled, graph.add_initializer(bias, f"{conv.name}_bias")])
    return shifts


def _number(graph: Graph, node: onnx.NodeProto) -> tuple[float, float, str] | None:
    """Return c, a and x of a node that computes c x + a with numbers."""
    if node.op_type in ("Mul", "Div"):
        factor, data = factor_of(graph, node)
        return (float(factor.reshape(())), 0.0, data) if factor is not None and factor.size == 1 else None
    if node.op_type not in ("Add", "Sub"):
        return None
    for place in (1, 0):
        number, data = graph.scalar(node.input[place]), node.input[1 - place]
        array = graph.constant(node.input[place])
        if number is None or array is None or array.ndim > (graph.rank(data) or 0):
            continue
        if node.op_type == "Sub":
            return (1.0, -number, data) if place == 1 else (-1.0, number, data)
        return 1.0, number, data
    return None
