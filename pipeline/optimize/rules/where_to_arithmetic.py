"""Selection by a mask as a product and a sum.

    where(m, c, x) = x * k + f,    k = where(m, 0, 1),    f = where(m, c, 0)

for a constant c and finite x: a product with 0 or 1 and a sum with 0 are exact. k and f are made once for all that is masked
alike: in the layers of an encoder, that is all of them. A constant factor in front of the mask goes into k. ONNX Runtime's
Where goes over its data three times (where_op.cc), and where a mask is broadcast it takes several times as long as Mul.

    softmax(where(m, c, x)) = softmax(min(x, l)),    l = where(m, c, inf)

for a c that no score falls below, such as -10000: one pass less. (Where a score did, both would be nothing beside the others.)
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

LEAST = 2  # selections by one mask, from which on making k and f pays
NOTHING = -1000.0  # what attention does not look at: exp(-1000) is zero in float32
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Where", "Neg", "Identity")


ASSUMPTION = "no value below the fill value and no infinite value lies under the mask"


def rewrite(graph: Graph, *, assume: bool = False) -> Outcome:
    """Replace selections that share a mask; return their number."""
    by_mask: dict[object, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.nodes:
        if (place := _filled(graph, node)) is not None:
            by_mask.setdefault(_origin(graph, node.input[0]), []).append((node, place))
    shared = [found for found in by_mask.values() if len(found) >= LEAST]
    for found in shared:
        mask = found[0][0].input[0]
        made: dict[tuple[int, float, float], str] = {}
        for node, place in found:
            _replace(graph, node, place, mask, made)
    return outcome(sum(map(len, shared)), "no two Where nodes that fill with a constant by the same mask")


def _origin(graph: Graph, tensor: str) -> object:
    """Return what is the same for two tensors that are unsqueezed alike from one."""
    node = graph.producer(tensor, "Unsqueeze")
    if node is None:
        return tensor
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    return tensor if axes is None else (_origin(graph, node.input[0]), tuple(int(axis) for axis in axes))


def _filled(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return which input of a Where is the constant that the other is filled with; None where it does something else."""
    if node.op_type != "Where" or graph.constant(node.input[0]) is not None or not graph.is_float(node.output[0]):
        return None
    for place in (1, 2):
        value, other = graph.scalar(node.input[place]), node.input[3 - place]
        if value is not None and not np.isnan(value) and graph.constant(other) is None and _is_finite(graph, other):
            return place
    return None


def _is_finite(graph: Graph, tensor: str) -> bool:
    """Return whether no infinity that the graph or its caller puts in for masking reaches a tensor element by element."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        node = graph.producer(waiting.pop(), *ELEMENTWISE)
        for source in node.input[1 if node.op_type == "Where" else 0 :] if node is not None else ():
            array = graph.constant(source)
            if array is not None and not np.isfinite(array).all():
                return False
            if array is None and graph.producer(source) is None:
                return False  # given by the caller
            if array is None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return graph.producer(tensor) is not None


def _replace(graph: Graph, node: onnx.NodeProto, place: int, mask: str, made: dict[tuple[int, float, float], str]) -> None:
    filled = node.input[3 - place]
    value, factor = graph.scalar(node.input[place]) or 0.0, 1.0
    product = graph.producer(filled, "Mul")
    if product is not None and graph.only_consumer(filled) is node:
        scales = [graph.scalar(tensor) for tensor in product.input]
        for index, scale in enumerate(scales):
            rank = graph.rank(product.input[1 - index])
            if scale is not None and rank is not None and rank >= (graph.rank(product.input[index]) or 0):
                factor, filled = scale, product.input[1 - index]

    def selected(masked: float, kept: float) -> str:
        key = (place, masked, kept)
        if key not in made:
            numbers = [
                graph.add_initializer(np.array(number, np.float32), "number")
                for number in ((masked, kept) if place == 1 else (kept, masked))
            ]
            made[key] = graph.add_node("Where", [mask, *numbers], like=f"{mask}_selected")
        return made[key]

    graph.remove(node)
    if factor == 1.0 and value <= NOTHING and graph.only_consumer(node.output[0], "Softmax") is not None:
        graph.add_node("Min", [filled, selected(value, np.inf)], node.output[0], name=node.name)
        return
    kept = graph.add_node("Mul", [filled, selected(0.0, factor)], node.output[0] if value == 0.0 else None, like=node.name)
    if value != 0.0:
        graph.add_node("Add", [kept, selected(value, 0.0)], node.output[0], like=node.name)
