"""The shape of a Reshape as a constant, instead of arithmetic on the shapes of other tensors.

    reshape(x, (shape(y)[0], shape(y)[1], 2, shape(y)[2] / 2)) = reshape(x, (0, 0, 2, -1))    for y of the lengths of x

ONNX lets a Reshape keep a length of its input (0) and infer one (-1), which is all that exported attention and group norms
need; but exporters write it as Shape, Gather, Unsqueeze, Mul and Concat for each, a few hundred small nodes whose cost is that
of being called. A length is known where ONNX's shape inference (with its propagation of shape data) gives the result a number,
or the same symbol as the input has at that place; one length may stay unknown. The counterpart in onnxscript is
`_materialize_reshape_shape.py`, which needs inference to give the whole shape.
"""

import numpy as np

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome
from pipeline.optimize.rules.fold_static_dims import Values, known


def rewrite(graph: Graph) -> Outcome:
    """Give every Reshape a constant shape that can have one; return their number."""
    values = known(graph)
    sites = 0
    for node in graph.nodes:
        if node.op_type != "Reshape" or graph.constant(node.input[1]) is not None or attribute(node, "allowzero", 0):
            continue
        shape = _constant_shape(graph.shape(node.input[0]), _lengths(values.get(node.input[1]), graph.shape(node.output[0])))
        if shape is None:
            continue
        graph.remove(node)
        graph.add_node(
            "Reshape",
            [node.input[0], graph.add_initializer(np.array(shape, np.int64), "shape")],
            node.output[0],
            name=node.name,
        )
        sites += 1
    return outcome(sites, "no Reshape to a computed shape of which all lengths but one are known")


def _lengths(shape: Values | None, inferred: tuple[int | str | None, ...] | None) -> tuple[int | str | None, ...] | None:
    """Return what is known of a computed shape: as inferred, and the numbers in it that follow from known lengths."""
    if shape is None or inferred is None or len(shape) != len(inferred):
        return inferred
    return tuple(value if isinstance(value, int | str) else length for value, length in zip(shape, inferred, strict=True))


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
