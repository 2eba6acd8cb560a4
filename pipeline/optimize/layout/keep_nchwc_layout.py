"""What lies between the Convs of an image, kept in the blocks of channels that the Convs work on.

    leaky_relu(x) = leaky_relu(1 * x),    a + b = a + (1 * b)

where `1 *` is a Conv of one group a channel, of size 1 and weight 1: the same numbers, to the bit. ONNX Runtime keeps the
layout NCHWc from one Conv to the next only through operators that it knows in that layout: Conv with a fused activation, an
Add of two blocked tensors (which it fuses into the Conv before), Concat, Mul, and few more (nchwc_transformer.cc). A
LeakyRelu that follows no Conv of its own, or an Add of a tensor from elsewhere, splits a residual block: unblock, Add,
LeakyRelu, block again. As part of a Conv of weight 1 they stay in blocks.
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph
from pipeline.optimize.outcome import Outcome, Refusal, Sites

BLOCK = 16  # channels of a block with AVX-512; with fewer, a Conv reads the plain layout (8 with AVX2)
ACTIVATIONS = frozenset({"LeakyRelu", "HardSigmoid"})  # fused into a Conv, but alone not known in blocks


def rewrite(graph: Graph) -> Outcome:
    """Insert Convs of weight 1 where a residual block would leave its layout; return their number."""
    if not any(_is_image_conv(graph, node) for node in graph.nodes):
        return Refusal("no Conv over images (with constant weights of rank 4)")
    blocked: set[str] = set()
    plain: list[str] = []
    activations: list[onnx.NodeProto] = []
    for node in graph.nodes:
        output = node.output[0]
        if _channels(graph, output) < BLOCK:
            continue
        if _is_image_conv(graph, node):
            blocked.add(output)
        elif node.op_type == "Add" and any(tensor in blocked for tensor in node.input):
            others = [tensor for tensor in node.input if tensor not in blocked]
            if all(graph.shape(tensor) == graph.shape(output) or _same(graph, tensor, output) for tensor in others):
                plain += others
                blocked |= {output, *others}
        elif node.op_type in ACTIVATIONS and _feeds_conv(graph, output):
            activations.append(node)
            blocked.add(output)
    # A LeakyRelu right after a Conv that nothing else reads is fused as it is.
    alone = [n for n in activations if graph.only_consumer(n.input[0]) is None or graph.producer(n.input[0], "Conv") is None]
    alone = [n for n in alone if n.input[0] in blocked]
    if not plain and not alone:
        return Refusal("every Add and LeakyRelu between the Convs stays in blocks already")
    anchors = {tensor: _times_one(graph, tensor, tensor) for tensor in dict.fromkeys(plain)}
    _reconnect(graph, anchors, {id(node): node for node in alone})
    return Sites(len(anchors) + len(alone))


def _reconnect(graph: Graph, anchors: dict[str, str], alone: dict[int, onnx.NodeProto]) -> None:
    for node in graph.nodes:
        if id(node) not in alone and not (node.op_type == "Add" and anchors.keys() & set(node.input)):
            continue
        inputs = [anchors.get(tensor, tensor) for tensor in node.input]
        if id(node) in alone:
            inputs[0] = _times_one(graph, inputs[0], node.input[0])
        graph.replace_node(node, inputs)


def _times_one(graph: Graph, tensor: str, like: str) -> str:
    channels = _channels(graph, like)
    ones = graph.add_initializer(np.ones((channels, 1, 1, 1), np.float32), f"ones_{channels}")
    return graph.add_node("Conv", [tensor, ones], like=like, group=channels, kernel_shape=[1, 1])


def _is_image_conv(graph: Graph, node: onnx.NodeProto) -> bool:
    weights = graph.constant(node.input[1]) if node.op_type == "Conv" else None
    return weights is not None and weights.ndim == 4


def _channels(graph: Graph, tensor: str) -> int:
    """Return the channels of an image, where their number is known and fits; else 0."""
    shape = graph.shape(tensor)
    known = shape is not None and len(shape) == 4 and isinstance(shape[1], int) and shape[1] % 4 == 0
    return int(shape[1]) if known and graph.constant(tensor) is None else 0  # type: ignore[index,arg-type]


def _same(graph: Graph, one: str, other: str) -> bool:
    """Return whether nothing says that one tensor is broadcast to the other."""
    first, second = graph.shape(one), graph.shape(other)
    if first is None or second is None or len(first) != len(second) or graph.constant(one) is not None:
        return False
    return all(a == b or (a != 1 and b != 1) for a, b in zip(first, second, strict=True)) and first[1] == second[1]


def _feeds_conv(graph: Graph, tensor: str) -> bool:
    return any(_is_image_conv(graph, consumer) for consumer in graph.consumers(tensor))
