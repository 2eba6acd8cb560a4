"""The shape of a Reshape as a constant, instead of arithmetic on the shapes of other tensors.

    reshape(x, (shape(y)[0], shape(y)[1], 2, shape(y)[2] / 2)) = reshape(x, (0, 0, 2, -1))    for y of the lengths of x

ONNX lets a Reshape keep a length of its input (0) and infer one (-1), which is all that exported attention and group norms
need; but exporters write it as Shape, Gather, Unsqueeze, Mul and Concat for each, a few hundred small nodes whose cost is that
of being called. A length is known where ONNX's shape inference (with its propagation of shape data) gives the result a number,
or the same symbol as the input has at that place; one length may stay unknown.
"""

import numpy as np

from pipeline.rewrite.graph import Graph, attribute


def rewrite(graph: Graph) -> int | str:
    """Give every Reshape a constant shape that can have one; return their number."""
    sites = 0
    for node in graph.nodes:
        if node.op_type != "Reshape" or graph.constant(node.input[1]) is not None or attribute(node, "allowzero", 0):
            continue
        shape = _constant_shape(graph.shape(node.input[0]), _lengths(graph, node.input[1], graph.shape(node.output[0])))
        if shape is None:
            continue
        graph.drop(node)
        graph.add("Reshape", [node.input[0], graph.put(np.array(shape, np.int64), "shape")], node.output[0], name=node.name)
        sites += 1
    return sites or "no Reshape to a computed shape of which all lengths but one are known"


def _lengths(graph: Graph, shape: str, inferred: tuple[int | str | None, ...] | None) -> tuple[int | str | None, ...] | None:
    """Return what is known of a computed shape: as inferred, and what a quotient of known lengths is."""
    concat = graph.maker(shape, "Concat")
    if inferred is None or concat is None or len(concat.input) != len(inferred):
        return inferred
    values = [_number(graph, tensor) for tensor in concat.input]
    return tuple(length if value is None else value for value, length in zip(values, inferred, strict=True))


def _number(graph: Graph, tensor: str) -> int | None:
    """Return the value of an integer that follows from constants and from lengths that are known."""
    array = graph.constant(tensor)
    if array is not None:
        return int(array.reshape(())) if array.size == 1 and array.dtype.kind == "i" else None
    node = graph.maker(tensor, "Unsqueeze", "Squeeze", "Cast", "Identity", "Gather", "Div", "Mul")
    if node is None:
        return None
    if node.op_type == "Gather":
        shape, index = graph.maker(node.input[0], "Shape"), graph.scalar(node.input[1])
        axes = graph.shape(shape.input[0]) if shape is not None and not shape.attribute else None
        length = axes[int(index)] if axes is not None and index is not None and -len(axes) <= index < len(axes) else None
        return length if isinstance(length, int) else None
    first = _number(graph, node.input[0])
    if node.op_type not in ("Div", "Mul"):
        return first
    second = _number(graph, node.input[1])
    if first is None or second is None or first < 0 or second <= 0:
        return None
    return first // second if node.op_type == "Div" else first * second


def _constant_shape(
    before: tuple[int | str | None, ...] | None, after: tuple[int | str | None, ...] | None
) -> list[int] | None:
    if before is None or after is None or not after:
        return None
    shape = []
    for axis, length in enumerate(after):
        same = axis < len(before) and length is not None and length == before[axis]
        if isinstance(length, int) and length > 0:
            shape.append(length)
        else:
            shape.append(0 if same else -1)
    return shape if shape.count(-1) <= 1 else None
