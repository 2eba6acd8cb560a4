"""Conv over time as Conv over an image of height 1, for whole regions of a graph.

    conv1d(x, w)[n, o, t] = sum_{i, j} w[o, i, j] x[n, i, s t + d j - p] = conv2d(x', w')[n, o, 0, t],
    x'[n, i, 0, t] = x[n, i, t],    w'[o, i, 0, j] = w[o, i, j]

The same products are summed. What changes is the kernel: ONNX Runtime gathers a Conv of rank 4 (and only of rank 4) into
blocks of channels, NCHWc, which vector instructions read without im2col (Georganas et al. 2018, "Anatomy of
High-Performance Deep Learning Convolutions on SIMD Architectures"; nchwc_transformer.cc). A layout change around each Conv
would cost what that gains, so that a region is rewritten as a whole: Convs, and what lies between them and works on each
element alone, all become rank 4, with Unsqueeze and Squeeze (which move no data) at the borders only. Where a border lies at
a Transpose from or to channels last, the image is transposed instead, which ONNX Runtime does while it gathers blocks.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, Refusal, Sites

UNARY = frozenset(
    {"LeakyRelu", "Relu", "Tanh", "Sigmoid", "Clip", "Elu", "HardSigmoid", "Neg", "Abs", "Exp", "Sin", "Cos", "Erf"}
)
BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
HEIGHT = 2  # the axis that is new
SWAPPED = [0, 2, 1]  # between channels first and channels last over time; the same back and forth


def rewrite(graph: Graph) -> Outcome:
    """Give every region that holds a Conv over time rank 4; return the number of Convs."""
    return _rewrite(graph, [node for node in graph.nodes if _fits(graph, node)])


def rewrite_wide(graph: Graph) -> Outcome:
    """Do so for Convs of several taps that mix at least a block of channels, and for nothing else.

    Where normalisations, masks and attention lie between the Convs, regions are short, and a pointwise or depthwise Conv
    gains less than its layout costs.
    """
    return _rewrite(graph, [node for node in graph.nodes if node.op_type == "Conv" and _is_wide(graph, node)])


def _rewrite(graph: Graph, fitting: list[onnx.NodeProto]) -> Outcome:
    members = {id(node): node for node in fitting}
    convs = 0
    region: list[onnx.NodeProto] = []
    for group in _connected(graph, members):
        here = sum(node.op_type == "Conv" for node in group)
        convs += here
        region += group if here else []
    if not convs:
        return Refusal("no Conv over time (with constant weights of rank 3)")
    _widen(graph, region)
    return Sites(convs)


def _is_wide(graph: Graph, node: onnx.NodeProto) -> bool:
    weights = graph.constant(node.input[1])
    return _fits(graph, node) and weights is not None and weights.shape[1] >= 16 and weights.shape[2] > 1


def _fits(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node computes the same with one more axis before the last."""
    if node.op_type in ("Conv", "ConvTranspose"):
        weights = graph.constant(node.input[1])
        return weights is not None and weights.ndim == 3 and graph.is_float(node.input[1])
    if not graph.is_float(node.output[0]) or graph.rank(node.output[0]) != 3:
        return False
    if node.op_type in UNARY:
        return graph.constant(node.input[0]) is None
    return node.op_type in BINARY and all(
        graph.rank(tensor) == 3 or graph.constant(tensor) is not None for tensor in node.input
    )


def _connected(graph: Graph, members: dict[int, onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
    """Return the members in groups that tensors connect."""
    seen: set[int] = set()
    groups = []
    for start in members.values():
        group, waiting = [], [start]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            group.append(node)
            near = [graph.producer(tensor) for tensor in _data(node)] + graph.consumers(node.output[0])
            waiting += [other for other in near if other is not None and id(other) in members]
        if group:
            groups.append(group)
    return groups


def _data(node: onnx.NodeProto) -> Sequence[str]:
    """Return the inputs that are data: not weights, nor the limits of a Clip."""
    return list(node.input[:2] if node.op_type in BINARY else node.input[:1])


def _widen(graph: Graph, region: list[onnx.NodeProto]) -> None:
    inside = {node.output[0] for node in region}
    ids = {id(node) for node in region}
    wide: dict[str, str] = {output: graph.fresh_name(f"{output}_2d") for output in inside}
    for node in region:
        inputs = list(node.input)
        for index, tensor in enumerate(_data(node)):
            array = graph.constant(tensor)
            if array is not None:
                inputs[index] = tensor if array.ndim < 2 else graph.add_initializer(np.expand_dims(array, -2), f"{tensor}_2d")
            elif tensor not in wide:
                wide[tensor] = _raised(graph, tensor)
            inputs[index] = wide.get(tensor, inputs[index])
        changed: dict[str, list[int]] = {}
        if node.op_type in ("Conv", "ConvTranspose"):
            weights = graph.constant(node.input[1])
            assert weights is not None
            inputs[1] = graph.add_initializer(weights[:, :, None, :], f"{node.input[1]}_2d")
            changed = _image(node)
        graph.replace_node(node, inputs, wide[node.output[0]], **changed)
        outside = [consumer for consumer in graph.consumers(node.output[0]) if id(consumer) not in ids]
        transposes = [consumer for consumer in outside if swaps_channels(consumer)]
        for transpose in transposes:
            graph.remove(transpose)
            last = graph.add_node("Transpose", [wide[node.output[0]]], like=node.output[0], perm=[0, 2, 3, 1])
            graph.squeeze(last, 1, transpose.output[0], transpose.output[0])
        if len(transposes) < len(outside) or node.output[0] in graph.pinned:
            graph.squeeze(wide[node.output[0]], HEIGHT, node.output[0], node.output[0])


def _raised(graph: Graph, tensor: str) -> str:
    """Return a tensor as an image of height 1."""
    transpose = graph.producer(tensor, "Transpose")
    if transpose is None or not swaps_channels(transpose) or graph.is_removed(transpose):
        return graph.unsqueeze(tensor, HEIGHT, tensor)
    return graph.add_node("Transpose", [graph.unsqueeze(transpose.input[0], 1, tensor)], like=tensor, perm=[0, 3, 1, 2])


def swaps_channels(node: onnx.NodeProto) -> bool:
    """Return whether a node puts channels last over time, or first again."""
    return node.op_type == "Transpose" and list(attribute(node, "perm", [])) == SWAPPED


def _image(node: onnx.NodeProto) -> dict[str, list[int]]:
    """Return those attributes of a Conv over time that one over an image of height 1 has otherwise."""
    firsts = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "output_shape": 1}
    given = {name: attribute(node, name) for name in (*firsts, "pads")}
    wide = {name: [first, *given[name]] for name, first in firsts.items() if given[name] is not None}
    if given["pads"] is not None:
        before, after = given["pads"]
        wide["pads"] = [0, before, 0, after]
    return wide
