"""Numbers that follow from lengths that are known, as constants.

    shape(x)[1] / 2 = 36    for x of (n, 72, t),    shape(x)[2] - 1 = shape(y)[0] - 1    for y of (t, 80)

Exporters compute the number of channels, the size of a head or the half of it at run time, although the shapes of the graph
tell them. As constants they are not only cheaper: a Slice or a Reshape to a number has lengths that shape inference can follow,
so that the next ones become known, and a table of positions can be folded when the model is loaded. A number that is computed
from the same lengths as another one, in each layer again, is that one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

# Of integers, names of lengths, and expressions (operation, first, second) of these; None where nothing is known.
Values = npt.NDArray[np.object_]

Value = Callable[[str], Values | None]

AXES: dict[str, tuple[int, ...]] = {"Unsqueeze": (1,), "Squeeze": ()}  # the shape of one number after them
ARITHMETIC: dict[str, Callable[[int, int], int | None]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b if a >= 0 and b > 0 else None,
}


def rewrite(graph: Graph) -> Outcome:
    """Put constants, or what was computed before, where a node reads what is known; return the number of such nodes."""
    values = known(graph)
    instead: dict[str, str] = {}
    before: dict[tuple[Any, ...], str] = {}
    for tensor, found in values.items():
        if graph.constant(tensor) is not None:
            continue
        if _is_complete(found):
            instead[tensor] = ""
        elif all(number is not None for number in found.flat):
            first = before.setdefault((found.shape, *found.flat), tensor)
            if first != tensor:
                instead[tensor] = first
    sites = 0
    for node in graph.nodes:
        if len(node.output) != 1 or node.output[0] in instead or not instead.keys() & set(node.input):
            continue
        inputs = [
            instead[tensor] or graph.add_initializer(values[tensor].astype(np.int64), "length") if tensor in instead else tensor
            for tensor in node.input
        ]
        graph.replace_node(node, inputs)
        sites += 1
    return outcome(sites, "no number that follows from known lengths alone")


def known(graph: Graph) -> dict[str, Values]:
    """Return what is known of the tensors of 64-bit integers that are computed from lengths, constants included."""
    values: dict[str, Values] = {}

    def value(tensor: str) -> Values | None:
        if tensor not in values:
            array = graph.constant(tensor)
            if array is None or array.dtype != np.int64 or array.ndim > 1:
                return None
            values[tensor] = array.astype(object)
        return values[tensor]

    for node in graph.nodes:
        found = _evaluate(graph, node, value)
        if found is not None and found.ndim <= 1:
            values[node.output[0]] = found
    return values


def _is_complete(found: Values) -> bool:
    return all(isinstance(number, int) for number in found.flat)


def _evaluate(graph: Graph, node: onnx.NodeProto, value: Value) -> Values | None:
    """Return the output of a node for known inputs; None where the operator is not covered."""
    match node.op_type:
        case "Shape":
            return _shape(graph, node)
        case "Concat":
            return _concat(graph, node, value)
        case "Identity" | "Cast" | "Unsqueeze" | "Squeeze":
            return _same(node, value(node.input[0]))
        case "Gather":
            return _gather(value(node.input[0]), value(node.input[1]))
        case operation if operation in ARITHMETIC:
            return _arithmetic(operation, value(node.input[0]), value(node.input[1]))
    return None


def _same(node: onnx.NodeProto, data: Values | None) -> Values | None:
    if node.op_type in AXES:
        return data.reshape(AXES[node.op_type]) if data is not None and data.size == 1 else None
    return data if attribute(node, "to", onnx.TensorProto.INT64) == onnx.TensorProto.INT64 else None


def _shape(graph: Graph, node: onnx.NodeProto) -> Values | None:
    axes = graph.shape(node.input[0])
    if axes is None:
        return None
    return _row(axes[attribute(node, "start", 0) : attribute(node, "end", None)])


def _concat(graph: Graph, node: onnx.NodeProto, value: Value) -> Values | None:
    parts = []
    for tensor in node.input:
        part, size = value(tensor), graph.shape(tensor)
        if part is None and size is not None and len(size) == 1 and isinstance(size[0], int):
            part = _row([None] * size[0])  # a part of unknown content still has a length
        if part is None or part.ndim != 1:
            return None
        parts.append(part)
    return np.concatenate(parts)


def _gather(data: Values | None, indices: Values | None) -> Values | None:
    if data is None or data.ndim != 1 or indices is None or not _is_complete(indices):
        return None
    places = indices.astype(np.int64)
    inside = ((places >= -data.size) & (places < data.size)).all()
    if not inside:
        return None
    return _row([data[place] for place in places.flat]).reshape(places.shape)


def _arithmetic(operation: str, first: Values | None, second: Values | None) -> Values | None:
    def each(a: Any, b: Any) -> Any:  # noqa: ANN401
        if a is None or b is None:
            return None
        return ARITHMETIC[operation](a, b) if isinstance(a, int) and isinstance(b, int) else (operation, a, b)

    if first is None or second is None:
        return None
    results = [each(a, b) for a, b in zip(*(part.flat for part in np.broadcast_arrays(first, second)), strict=True)]
    return _row(results).reshape(np.broadcast_shapes(first.shape, second.shape))


def _row(numbers: Sequence[Any]) -> Values:
    """Return numbers as an array of objects; expressions stay what they are."""
    row = np.empty(len(numbers), object)
    for place, number in enumerate(numbers):
        row[place] = number
    return row
