"""Several frames at once, for a Conv with fewer output channels than a block has.

    y[o, f q + s] = sum_{i, j} w[o, i, j] x[i, f q + s + j - p] = z[f-fold](s, o)[q],
    z = conv(x, w', stride f),    w'[(s, o), i, j] = w[o, i, j - s], k + f - 1 taps

ONNX Runtime's Conv over images computes 16 output channels at a time (with AVX-512); for 8 channels it computes 16 and discards
half. f = 16 / channels neighbouring frames fill the block: (k + f - 1) / f taps for each output where k 16 / channels were
computed. In the layout that has channels last, z is y as it lies in memory. The same products are summed; those that are
added are with zeros. It pays without dilation only, where f neighbours share their inputs.
"""

from math import gcd

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.layout.conv1d_to_conv2d import UNARY
from pipeline.optimize.layout.dim_divisibility import Lengths, keeps_length
from pipeline.optimize.outcome import Outcome, outcome

BLOCK = 16  # output channels that the Conv kernel computes at a time, with AVX-512
RANK = 4
LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels after time, and before it


def rewrite(graph: Graph) -> Outcome:
    """Let every such Conv compute several frames at once; return their number."""
    lengths = Lengths(graph)
    sites = sum(_replace(graph, node, lengths) for node in graph.nodes if node.op_type == "Conv")
    return outcome(
        sites, f"no undilated Conv over an image of height 1 with fewer than {BLOCK} output channels, of even length"
    )


def _replace(graph: Graph, node: onnx.NodeProto, lengths: Lengths) -> bool:
    weights, shape = graph.constant(node.input[1]), graph.shape(node.input[0])
    if weights is None or weights.dtype != np.float32 or weights.ndim != RANK or not _is_plain(node, weights):
        return False
    outputs = len(weights)
    if shape is None or shape[2] != 1 or outputs >= BLOCK or BLOCK % outputs or not keeps_length(node, weights):
        return False
    frames = gcd(BLOCK // outputs, lengths.of(node.input[0]).divisor)
    biases = [graph.constant(tensor) for tensor in node.input[2:] if tensor]
    if frames < 2 or any(bias is None for bias in biases):
        return False
    inputs = [node.input[0], graph.add_initializer(_shifted(weights, frames), f"{node.input[1]}_folded")]
    inputs += [graph.add_initializer(np.tile(bias, frames), f"{node.input[2]}_folded") for bias in biases if bias is not None]
    activation = graph.only_consumer(node.output[0], *UNARY)
    end = node.output[0] if activation is None else activation.output[0]
    kernel = {"kernel_shape": [1, weights.shape[3] + frames - 1], "strides": [1, frames]}
    folded = graph.replace_node(node, inputs, graph.fresh_name(f"{node.output[0]}_folded"), **kernel)
    if activation is not None:  # before the layout changes, so that it stays part of the Conv
        folded = graph.replace_node(activation, [folded, *activation.input[1:]], graph.fresh_name(f"{end}_folded"))
    last = graph.add_node("Transpose", [folded], like=node.name, perm=LAST)
    if outputs == 1:
        graph.add_node("Reshape", [last, graph.add_initializer(np.array([0, 1, 1, -1]), "shape")], end, like=node.name)
    else:
        flat = graph.add_node("Reshape", [last, graph.add_initializer(np.array([0, 1, -1, outputs]), "shape")], like=node.name)
        graph.add_node("Transpose", [flat], end, like=node.name, perm=FIRST)
    return True


def _is_plain(node: onnx.NodeProto, weights: Array) -> bool:
    steps = {*_ints(node, "strides", [1, 1]), *_ints(node, "dilations", [1, 1]), attribute(node, "group", 1)}
    return steps == {1} and weights.shape[2] == 1 and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"")


def _shifted(weights: Array, frames: int) -> Array:
    """Return weights (out, in, 1, k) as (frames * out, in, 1, k + frames - 1): one copy a frame, each a tap further on."""
    outputs, inputs, height, taps = weights.shape
    wide = np.zeros((frames, outputs, inputs, height, taps + frames - 1), np.float32)
    for frame in range(frames):
        wide[frame, ..., frame : frame + taps] = weights
    return wide.reshape(frames * outputs, inputs, height, -1)


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    return [int(number) for number in attribute(node, name, default)]
