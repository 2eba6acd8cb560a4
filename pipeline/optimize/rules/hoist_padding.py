"""Zeros that several layers pad with, added once to the source of what they pad.

    pad(a b) = a pad(b),    pad(p w) = pad(p) w    for zeros along columns of b, along rows of p

Attention by relative distances pads its scores by a column in every layer, to shift its rows against each other (Dai et al.
2019, "Transformer-XL", appendix B). The column may as well be one more distance, whose sinusoid is zero: one row for all
layers.
"""

from math import prod

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.graph.symbolic_dims import Shape
from pipeline.optimize.outcome import Outcome, outcome
from pipeline.optimize.rules.fuse_pad_into_conv import zero_widths

LEAST = 2  # pads that meet at one tensor


def rewrite(graph: Graph) -> Outcome:
    """Pad once what several padded tensors are computed from; return the number of pads that it takes the place of."""
    meeting: dict[tuple[str, int, int, int], list[tuple[onnx.NodeProto, list[tuple[onnx.NodeProto, int]]]]] = {}
    for node in graph.nodes:
        if (found := _zeros(graph, node)) is not None:
            axis, before, after = found
            source, axis, path = _back(graph, node.input[0], axis)
            if path and graph.rank(source) is not None:
                meeting.setdefault((source, axis, before, after), []).append((node, path))
    shared = {key: pads for key, pads in meeting.items() if len(pads) >= LEAST}
    for (source, axis, before, after), pads in shared.items():
        widths = np.zeros((2, graph.rank(source) or 0), np.int64)
        widths[:, axis] = before, after
        padded = graph.add_node(
            "Pad", [source, graph.add_initializer(widths.reshape(-1), "pads")], like=source, mode="constant"
        )
        for pad, path in pads:
            current = padded
            for node, place in reversed(path):
                inputs = [*node.input[:place], current, *node.input[place + 1 :]]
                last = node is path[0][0]
                current = graph.replace_node(
                    node, inputs, pad.output[0] if last else graph.fresh_name(f"{node.output[0]}_padded")
                )
            graph.remove(pad)
    return outcome(sum(map(len, shared.values())), "no tensors with the same padding that are computed from one")


def _zeros(graph: Graph, node: onnx.NodeProto) -> tuple[int, int, int] | None:
    """Return the one axis that a node pads with zeros, and by how many before and after; None for anything else."""
    widths = zero_widths(graph, node)
    if widths is None or len(axes := np.flatnonzero(widths.reshape(2, -1).any(axis=0))) != 1:
        return None
    axis = int(axes[0])
    return axis, int(widths[axis]), int(widths[len(widths) // 2 + axis])


def _back(graph: Graph, tensor: str, axis: int) -> tuple[str, int, list[tuple[onnx.NodeProto, int]]]:
    """Return what to pad instead of a tensor, along which axis, and the nodes between them with the inputs that they read.

    The nodes are those that nothing else depends on, from the last to the first.
    """
    path: list[tuple[onnx.NodeProto, int]] = []
    while (node := graph.producer(tensor)) is not None and graph.only_consumer(tensor) is not None:
        step = _step(graph, node, axis)
        if step is None:
            break
        place, axis = step
        tensor = node.input[place]
        path.append((node, place))
    return tensor, axis, path


def _step(graph: Graph, node: onnx.NodeProto, axis: int) -> tuple[int, int] | None:
    """Return which input of a node to pad instead of its output, and along which axis."""
    if node.op_type == "Transpose":
        order = attribute(node, "perm")
        return (0, order[axis]) if order is not None else None
    ranks = [rank for tensor in (*node.input, node.output[0]) if (rank := graph.rank(tensor)) is not None]
    if node.op_type == "MatMul" and len(ranks) == 3 and min(ranks) >= 2:
        place = {ranks[2] - 1: 1, ranks[2] - 2: 0}.get(axis)
        return None if place is None else (place, ranks[place] - 2 + place)
    if node.op_type == "Reshape":
        before, after, target = graph.shape(node.input[0]), graph.shape(node.output[0]), graph.constant(node.input[1])
        if before is None or after is None or target is None or attribute(node, "allowzero", 0) or target[axis] > 0:
            return None
        return _same_axis(before, after, axis, np.flatnonzero(target == 0).tolist())
    return None


def _same_axis(before: Shape, after: Shape, axis: int, copied: list[int]) -> tuple[int, int] | None:
    """Return the axis that a Reshape leaves as it is, for one of its output: all other lengths must be known.

    `copied` are the axes whose length it takes from its input, which must not take that of this one elsewhere.
    """
    left, right = after[:axis], after[axis + 1 :]
    for place in range(len(before)):
        parts = (left, before[:place]), (right, before[place + 1 :])
        same = all(_product(ours) is not None and _product(ours) == _product(theirs) for ours, theirs in parts)
        if same and all((index == place) == (index == axis) for index in copied):
            return 0, place
    return None


def _product(lengths: Shape) -> int | None:
    known = [length for length in lengths if isinstance(length, int)]
    return prod(known) if len(known) == len(lengths) else None
