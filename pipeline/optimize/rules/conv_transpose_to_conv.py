"""ConvTranspose as Conv.

With stride 1 it is a Conv with the kernel flipped, and its input padded by k - 1 - p (d (k - 1) - p if dilated):

    y[o, t] = sum_{i, j} w[i, o, j] x[i, t + p - j] = sum_{i, j'} w[i, o, k - 1 - j'] x[i, t + j' - (k - 1 - p)]

With stride s the outputs t = s q + r - p of one phase r see every s-th tap only, so that the s phases are s times as many
channels of one Conv of m = ceil(k / s) taps, whose output is then interleaved (Shi et al. 2016, "Is the deconvolution layer
the same as a convolutional layer?"):

    z[s o + r, q] = sum_{i, m'} w[i, o, r + s m'] x[i, q - m'],    y[o, s q + r - p] = z[s o + r, q]

The same products are summed, without the zeros that a transposed convolution is often computed with. ONNX Runtime's
ConvTranspose has neither a blocked nor an integer kernel; its Conv has both.
"""

from typing import Any

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

LAST = np.iinfo(np.int64).max


def rewrite(graph: Graph) -> Outcome:
    """Replace every ConvTranspose whose stride is 1, but perhaps along the last axis; return their number."""
    sites = sum(_replace(graph, node) for node in graph.nodes if node.op_type == "ConvTranspose")
    return outcome(sites, "no ConvTranspose with constant weights, strided along its last axis at most")


def _replace(graph: Graph, node: onnx.NodeProto) -> bool:
    weights, biases = graph.constant(node.input[1]), [graph.constant(tensor) for tensor in node.input[2:] if tensor]
    if weights is None or weights.dtype != np.float32 or any(bias is None for bias in biases):
        return False
    axes = weights.ndim - 2
    strides, pads = _ints(node, "strides", [1] * axes), _ints(node, "pads", [0] * 2 * axes)
    extra, kernel = _ints(node, "output_padding", [0] * axes)[-1], weights.shape[2:]
    if not _is_simple(node):
        return False
    stride, groups = strides[-1], attribute(node, "group", 1)
    dilations = _ints(node, "dilations", [1] * axes)
    reach = [step * (length - 1) for step, length in zip(dilations, kernel, strict=True)]
    taps = -(-kernel[-1] // stride)
    ends = [reach[axis] - pads[place * axes + axis] for place in range(2) for axis in range(axes)]
    if stride == 1:
        ends[-1] += extra
    else:
        ends[axes - 1] = ends[-1] = taps - 1
    crop = (pads[axes - 1], pads[-1] + taps * stride - kernel[-1] - extra) if stride > 1 else (0, 0)
    rows = _rows(graph, node, reach, ends) if stride > 1 else []
    if rows is None or min(*ends, *crop) < 0:
        return False
    phases = _phases(weights, groups, stride, taps)
    inputs = [node.input[0], graph.add_initializer(phases, f"{node.input[1]}_conv")]
    inputs += [graph.add_initializer(bias.repeat(stride), f"{node.input[2]}_conv") for bias in biases if bias is not None]
    graph.remove(node)
    last = node.output[0] if stride == 1 else None
    settings: dict[str, Any] = {"kernel_shape": list(phases.shape[2:]), "pads": ends, "dilations": dilations}
    output = graph.add_node("Conv", inputs, last, name=node.name, group=groups, **settings)
    if stride > 1:
        _interleave(graph, output, [len(phases) // stride, *rows], stride, crop, node)
    return True


def _is_simple(node: onnx.NodeProto) -> bool:
    """Return whether a ConvTranspose is a Conv with its kernel flipped, but for a stride along the last axis."""
    padded = attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"") or attribute(node, "output_shape")
    *others, stride = _ints(node, "strides", [1])
    dilated = stride > 1 and _ints(node, "dilations", [1])[-1] > 1
    return not padded and not dilated and set(others) <= {1} and not any(_ints(node, "output_padding", [0])[:-1])


def _rows(graph: Graph, node: onnx.NodeProto, reach: list[int], ends: list[int]) -> list[int] | None:
    """Return the lengths between channels and the last axis of the output of a strided ConvTranspose, where they are known."""
    shape, axes = graph.shape(node.input[0]), len(reach)
    if axes == 1:
        return []
    if shape is None or len(shape) != axes + 2:
        return None
    given = [(length, ends[axis] + ends[axes + axis] - reach[axis]) for axis, length in enumerate(shape[2:-1])]
    rows = [length + more for length, more in given if isinstance(length, int)]
    return rows if len(rows) == axes - 1 else None


def _phases(weights: Array, groups: int, stride: int, taps: int) -> Array:
    """Return weights (in, out / groups, ..., kernel) as those of a Conv: (out * stride, in / groups, ..., taps)."""
    inputs, outputs, *kernel = weights.shape
    wide = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, taps * stride - kernel[-1])])
    # (group, in, out, ..., tap, phase) -> (group, out, phase, in, ..., tap), every spatial axis flipped
    split = wide.reshape(groups, inputs // groups, outputs, *kernel[:-1], taps, stride)
    split = np.moveaxis(np.moveaxis(split, 1, 2), -1, 2)
    flipped = np.flip(split, axis=tuple(range(4, split.ndim)))
    return np.ascontiguousarray(flipped.reshape(groups * outputs * stride, inputs // groups, *kernel[:-1], taps))


def _interleave(graph: Graph, tensor: str, axes: list[int], stride: int, crop: tuple[int, int], node: onnx.NodeProto) -> None:
    """Interleave (N, channels * stride, ..., q) into (N, channels, ..., q * stride), without what is cropped at both ends."""

    def shape(*lengths: int) -> str:
        return graph.add_initializer(np.array(lengths, np.int64), "shape")

    rank = len(axes) + 3
    split = graph.add_node("Reshape", [tensor, shape(0, axes[0], stride, *axes[1:], -1)], like=node.name)
    order = [0, 1, *range(3, rank), 2]
    swapped = graph.add_node("Transpose", [split], like=node.name, perm=order)
    if crop == (0, 0):
        graph.add_node("Reshape", [swapped, shape(0, *axes, -1)], node.output[0], like=node.name)
        return
    whole = graph.add_node("Reshape", [swapped, shape(0, *axes, -1)], like=node.name)
    end = shape(-crop[1] if crop[1] else LAST)
    graph.add_node("Slice", [whole, shape(crop[0]), end, shape(len(axes) + 1)], node.output[0], like=node.name)


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    return [int(number) for number in attribute(node, name, default)]
