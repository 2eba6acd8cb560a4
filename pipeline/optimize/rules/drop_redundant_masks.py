"""Masks that are applied again downstream.

    m f(m x) = m f(x)    for m of zeros and ones, and f that works on each element alone

Exported models multiply by the mask of padding before and after each block; the earlier of two products is dropped where all
that reads it, up to the later one, works on each element alone. A mask is known to hold zeros and ones where it is a Cast of
booleans.
"""

import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

MOVES = ("Unsqueeze", "Squeeze", "Slice", "Identity")
UNARY = frozenset({"Relu", "LeakyRelu", "Neg", "Sigmoid", "Tanh", "Identity"})
BINARY = frozenset({"Add", "Sub", "Mul"})
DEPTH = 4  # nodes between the two products


def rewrite(graph: Graph) -> Outcome:
    """Drop every product with a mask that a later product with the same mask repeats; return their number."""
    passed: dict[str, str] = {}  # output of a removed product -> its data input
    for node in graph.nodes:
        masked = _masked(graph, node)
        if masked is not None and _again(graph, node.output[0], masked[1], DEPTH):
            passed[node.output[0]] = masked[0]
            graph.remove(node)
    for node in graph.nodes:
        if not graph.is_removed(node) and passed.keys() & set(node.input):
            graph.replace_node(node, [_source(passed, tensor) for tensor in node.input])
    return outcome(len(passed), "no mask that is applied again downstream")


def _masked(graph: Graph, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Return what a node multiplies by a mask, and the mask."""
    if node.op_type != "Mul" or not graph.is_float(node.output[0]):
        return None
    for data, mask in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
        if _is_mask(graph, mask) and graph.rank(data) is not None and graph.rank(data) == graph.rank(node.output[0]):
            shape, after = graph.shape(data), graph.shape(node.output[0])
            # The product must not be what gives the tensor its shape.
            known = shape is not None and after is not None and all(a != 1 or b == 1 for a, b in zip(shape, after, strict=True))
            return (data, mask) if known else None
    return None


def _is_mask(graph: Graph, tensor: str) -> bool:
    node = graph.producer(tensor, "Cast", *MOVES)
    if node is None or node.op_type != "Cast":
        return node is not None and _is_mask(graph, node.input[0])
    return attribute(node, "to") == onnx.TensorProto.FLOAT and graph.is_bool(node.input[0])


def _again(graph: Graph, tensor: str, mask: str, depth: int) -> bool:
    """Return whether every consumer of a tensor multiplies by the mask, or does so later and works on each element alone."""
    consumers = graph.consumers(tensor)
    if tensor in graph.pinned or not consumers or depth == 0:
        return False
    for node in consumers:
        if node.op_type == "Mul" and mask in node.input:
            continue
        pointwise = node.op_type in UNARY or (
            node.op_type in BINARY and len({graph.rank(t) for t in node.input if graph.constant(t) is None}) == 1
        )
        if not pointwise or not _again(graph, node.output[0], mask, depth - 1):
            return False
    return True


def _source(passed: dict[str, str], tensor: str) -> str:
    while tensor in passed:
        tensor = passed[tensor]
    return tensor
