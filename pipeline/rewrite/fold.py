"""Several moments at once, for a Conv with fewer output channels than a block has.

    y[o, f q + s] = sum_{i, j} w[o, i, j] x[i, f q + s + j - p] = z[f-fold](s, o)[q],
    z = conv(x, w', stride f),    w'[(s, o), i, j] = w[o, i, j - s], k + f - 1 taps

ONNX Runtime's Conv over images makes 16 output channels at a time (with AVX-512); of 8 channels it computes 16 and throws half
away. f = 16 / channels neighbouring moments fill the block: (k + f - 1) / f taps for each output where k 16 / channels were
computed. In the layout that has channels last, z is y as it lies in memory. The same products are summed; those that are
added are with zeros. It pays without dilation only, where f neighbours share their inputs.
"""

from math import gcd

import numpy as np
import onnx

from pipeline.rewrite.conv2d import BINARY, UNARY
from pipeline.rewrite.graph import Array, Graph, attribute

BLOCK = 16  # output channels that the Conv kernel makes at a time, with AVX-512
RANK = 4
LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels after time, and before it


def rewrite(graph: Graph) -> int | str:
    """Let every such Conv make several moments at once; return their number."""
    known: dict[str, int] = {}
    sites = sum(_replace(graph, node, known) for node in graph.nodes if node.op_type == "Conv")
    return sites or f"no undilated Conv over an image of height 1 with fewer than {BLOCK} output channels, of even length"


def _replace(graph: Graph, node: onnx.NodeProto, known: dict[str, int]) -> bool:
    weights, shape = graph.constant(node.input[1]), graph.shape(node.input[0])
    if weights is None or weights.dtype != np.float32 or weights.ndim != RANK or not _is_plain(node, weights):
        return False
    outputs = len(weights)
    if shape is None or shape[2] != 1 or outputs >= BLOCK or BLOCK % outputs or not _keeps_length(node, weights):
        return False
    moments = gcd(BLOCK // outputs, _divisor(graph, node.input[0], known))
    biases = [graph.constant(tensor) for tensor in node.input[2:] if tensor]
    if moments < 2 or any(bias is None for bias in biases):
        return False
    inputs = [node.input[0], graph.put(_shifted(weights, moments), f"{node.input[1]}_folded")]
    inputs += [graph.put(np.tile(bias, moments), f"{node.input[2]}_folded") for bias in biases if bias is not None]
    activation = graph.only_reader(node.output[0], *UNARY)
    end = node.output[0] if activation is None else activation.output[0]
    kernel = {"kernel_shape": [1, weights.shape[3] + moments - 1], "strides": [1, moments]}
    folded = graph.replace(node, inputs, graph.free(f"{node.output[0]}_folded"), **kernel)
    if activation is not None:  # before the layout changes, so that it stays part of the Conv
        folded = graph.replace(activation, [folded, *activation.input[1:]], graph.free(f"{end}_folded"))
    turned = graph.add("Transpose", [folded], like=node.name, perm=LAST)
    if outputs == 1:
        graph.add("Reshape", [turned, graph.put(np.array([0, 1, 1, -1]), "shape")], end, like=node.name)
    else:
        flat = graph.add("Reshape", [turned, graph.put(np.array([0, 1, -1, outputs]), "shape")], like=node.name)
        graph.add("Transpose", [flat], end, like=node.name, perm=FIRST)
    return True


def _is_plain(node: onnx.NodeProto, weights: Array) -> bool:
    steps = {*_ints(node, "strides", [1, 1]), *_ints(node, "dilations", [1, 1]), attribute(node, "group", 1)}
    return steps == {1} and weights.shape[2] == 1 and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"")


def _keeps_length(node: onnx.NodeProto, weights: Array) -> bool:
    """Return whether a Conv of stride 1 makes as many moments as it reads."""
    pads = _ints(node, "pads", [0] * 2 * (weights.ndim - 2))
    half = len(pads) // 2
    reach = _ints(node, "dilations", [1])[-1] * (weights.shape[-1] - 1)
    others = [*pads[: half - 1], *pads[half:-1]]
    return not any(others) and pads[half - 1] + pads[-1] == reach and set(_ints(node, "strides", [1])) == {1}


def _shifted(weights: Array, moments: int) -> Array:
    """Return weights (out, in, 1, k) as (moments * out, in, 1, k + moments - 1): one copy a moment, each a tap further on."""
    outputs, inputs, height, taps = weights.shape
    wide = np.zeros((moments, outputs, inputs, height, taps + moments - 1), np.float32)
    for moment in range(moments):
        wide[moment, ..., moment : moment + taps] = weights
    return wide.reshape(moments * outputs, inputs, height, -1)


def _divisor(graph: Graph, tensor: str, known: dict[str, int]) -> int:
    """Return a number that the length of the last axis is a multiple of, whatever comes in: 1 where nothing is known."""
    waiting = [tensor]
    while waiting:
        current = waiting[-1]
        node, shape = graph.maker(current), graph.shape(current)
        length = shape[-1] if shape else None
        sources = [] if node is None or isinstance(length, int) else _sources(graph, node)
        if missing := [source for source in sources if source not in known]:
            waiting += missing
            continue
        if isinstance(length, int) and length > 0:
            known[current] = length
        elif node is not None and (interleaved := _interleaved(graph, node)):
            known[current] = interleaved
        elif node is not None and (cropped := _cropped(graph, node)):
            known[current] = gcd(known[node.input[0]], cropped)
        else:
            known[current] = max((known[source] for source in sources), default=1) * (_growth(node) if node is not None else 1)
        waiting.pop()
    return known[tensor]


def _sources(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Return the inputs whose length, or a multiple of it, the output of a node has."""
    if (
        node.op_type in (*UNARY, "QuantizeLinear", "DequantizeLinear")
        or _cropped(graph, node)
        or (node.op_type == "ConvTranspose" and _growth(node) > 1)
    ):
        return [node.input[0]]
    if node.op_type in BINARY:
        return [tensor for tensor in node.input if graph.constant(tensor) is None]
    if node.op_type in ("Unsqueeze", "Squeeze"):
        axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
        rank = max(graph.rank(node.input[0]) or 0, graph.rank(node.output[0]) or 0)
        return [node.input[0]] if axes is not None and all(0 <= axis < rank - 1 for axis in axes) else []
    weights = graph.constant(node.input[1]) if node.op_type == "Conv" else None
    return [node.input[0]] if weights is not None and _keeps_length(node, weights) else []


def _interleaved(graph: Graph, node: onnx.NodeProto) -> int:
    """Return how many phases a Reshape interleaves along the last axis (`transposed.py`): its length is a multiple; else 0."""
    turned = graph.maker(node.input[0], "Transpose") if node.op_type == "Reshape" else None
    split = graph.maker(turned.input[0], "Reshape") if turned is not None else None
    if turned is None or split is None:
        return 0
    before, after = graph.constant(split.input[1]), graph.constant(node.input[1])
    perm = _ints(turned, "perm", [])
    phases = before is not None and after is not None and len(before) == len(after) + 1 and perm[-1:] == [2] and after[-1] == -1
    return int(before[2]) if phases and before is not None and before[-1] == -1 and before[2] > 0 else 0


def _cropped(graph: Graph, node: onnx.NodeProto) -> int:
    """Return how much a Slice takes off both ends of the last axis; 0 for any other node."""
    limits = [graph.constant(tensor) for tensor in node.input[1:]] if node.op_type == "Slice" else []
    if len(limits) != 3 or any(limit is None or limit.size != 1 for limit in limits):
        return 0
    start, end, axis = (int(limit.reshape(())) for limit in limits if limit is not None)
    end = 0 if end == np.iinfo(np.int64).max else end
    return start - end if axis == (graph.rank(node.input[0]) or 0) - 1 and start >= 0 >= end else 0


def _growth(node: onnx.NodeProto) -> int:
    """Return how many times as long as its input the output of a node is, where that is exact whatever comes in."""
    kernel = _ints(node, "kernel_shape", [])
    if (
        node.op_type != "ConvTranspose"
        or not kernel
        or attribute(node, "output_shape")
        or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    ):
        return 1
    pads, stride = _ints(node, "pads", [0] * 2 * len(kernel)), _ints(node, "strides", [1])[-1]
    reach = _ints(node, "dilations", [1])[-1] * (kernel[-1] - 1) + 1 + _ints(node, "output_padding", [0])[-1]
    return stride if reach - pads[len(kernel) - 1] - pads[-1] == stride else 1


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    return [int(number) for number in attribute(node, name, default)]
