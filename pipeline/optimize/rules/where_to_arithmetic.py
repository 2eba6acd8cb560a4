"""Selection by a mask as a product and a sum.

    where(m, c, x) = x * k + f,    k = where(m, 0, 1),    f = where(m, c, 0)

for a constant c and finite x: a product with 0 or 1 and a sum with 0 are exact. k and f are computed once for all tensors with
the same mask: in the layers of an encoder, that is all of them. A constant factor in front of the mask goes into k. ONNX
Runtime's Where goes over its data three times (where_op.cc), and with a broadcast mask it takes several times as long as Mul.

    softmax(where(m, c, x)) = softmax(min(x, l)),    l = where(m, c, inf)

for a c that no score falls below, such as -10000: one pass less.

At some places it follows from the graph that x is finite, and that no score is below c: after a Tanh, a Sigmoid or a Clip, or
from integer inputs (`value_bounds.py`). At the others it is an assumption: values under the mask, which the graph discards,
would become NaN in a product if they were infinite. A place that infinities of the graph itself reach is never changed, nor is
one after a softmax over scores that are masked with infinities: a row that is masked throughout is NaN there.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome
from pipeline.optimize.value_bounds import ValueBounds

ASSUMPTION = "no value under a mask is infinite or NaN, and no attention score is below the value that masked scores get"

MIN_SHARED = 2  # selections by one mask, from which on computing k and f pays
MASKED_SCORE = -1000.0  # or less: exp(-1000) is zero in float32
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Where", "Neg", "Identity")
NORMALISING = ("Softmax", "LogSoftmax")  # NaN for a row of nothing but -inf


@dataclass(frozen=True)
class _Selection:
    """A Where with a constant.

    Attributes:
        node: the Where.
        place: which of its inputs is the constant.
        value: the constant.
        source: the other input, without a constant factor.
        factor: that factor.
        is_minimum: it becomes a minimum.
    """

    node: onnx.NodeProto
    place: int
    value: float
    source: str
    factor: float
    is_minimum: bool

    def is_proven(self, bounds: ValueBounds) -> bool:
        """Return whether the graph says that the result is the same for all inputs."""
        found = bounds.of(self.source)
        if found is None:
            return False
        return found.low >= self.value if self.is_minimum else found.finite


def rewrite(graph: Graph, *, assume: bool = False) -> Outcome:
    """Replace selections that share a mask; return their number."""
    found = [selection for node in graph.nodes if (selection := _selection(graph, node))]
    bounds = ValueBounds(graph)
    proven = {id(selection.node) for selection in found if selection.is_proven(bounds)}
    every = _that_share_masks(graph, found)
    groups = every if assume else _that_share_masks(graph, [s for s in found if id(s.node) in proven])
    for group in groups:
        mask = group[0].node.input[0]
        selected: dict[tuple[int, float, float], str] = {}
        for selection in group:
            _replace(graph, selection, mask, selected)
    count = sum(map(len, groups))
    assumed = sum(id(selection.node) not in proven for group in groups for selection in group)
    reason = "no two Where nodes that fill with a constant by the same mask"
    return outcome(count, reason, assumed=assumed, withheld=sum(map(len, every)) - count)


def _that_share_masks(graph: Graph, selections: list[_Selection]) -> list[list[_Selection]]:
    by_mask: dict[object, list[_Selection]] = {}
    for selection in selections:
        by_mask.setdefault(_origin(graph, selection.node.input[0]), []).append(selection)
    return [group for group in by_mask.values() if len(group) >= MIN_SHARED]


def _origin(graph: Graph, tensor: str) -> object:
    """Return a key that is the same for two tensors that are the same Unsqueeze of one tensor."""
    node = graph.producer(tensor, "Unsqueeze")
    if node is None:
        return tensor
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    return tensor if axes is None else (_origin(graph, node.input[0]), tuple(int(axis) for axis in axes))


def _selection(graph: Graph, node: onnx.NodeProto) -> _Selection | None:
    """Return what a Where does, if it fills a tensor with a constant that nothing forbids to compute with."""
    if node.op_type != "Where" or graph.constant(node.input[0]) is not None or not graph.is_float(node.output[0]):
        return None
    for place in (1, 2):
        value, other = graph.scalar(node.input[place]), node.input[3 - place]
        if value is None or np.isnan(value) or graph.constant(other) is not None or not _no_infinity_reaches(graph, other):
            continue
        source, factor = _without_factor(graph, other, node)
        scores = graph.only_consumer(node.output[0], "Softmax") is not None
        return _Selection(node, place, value, source, factor, factor == 1.0 and value <= MASKED_SCORE and scores)
    return None


def _without_factor(graph: Graph, tensor: str, consumer: onnx.NodeProto) -> tuple[str, float]:
    """Return a tensor without the constant factor that it is multiplied by, and the factor."""
    source, factor = tensor, 1.0
    product = graph.producer(tensor, "Mul")
    if product is not None and graph.only_consumer(tensor) is consumer:
        for index, scale in enumerate(map(graph.scalar, product.input)):
            rank = graph.rank(product.input[1 - index])
            if scale is not None and rank is not None and rank >= (graph.rank(product.input[index]) or 0):
                factor, source = scale, product.input[1 - index]
    return source, factor


def _no_infinity_reaches(graph: Graph, tensor: str) -> bool:
    """Return whether no infinity of a mask, of the graph or its caller, reaches a tensor element by element or by a softmax."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        node = graph.producer(waiting.pop(), *ELEMENTWISE, *NORMALISING)
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


def _replace(graph: Graph, selection: _Selection, mask: str, selected: dict[tuple[int, float, float], str]) -> None:
    """Write a selection as arithmetic; `selected` holds what is computed of the mask already."""
    node, value, source = selection.node, selection.value or 0.0, selection.source

    def select(masked: float, kept: float) -> str:
        key = (selection.place, masked, kept)
        if key not in selected:
            numbers = [
                graph.add_initializer(np.array(number, np.float32), "number")
                for number in ((masked, kept) if selection.place == 1 else (kept, masked))
            ]
            selected[key] = graph.add_node("Where", [mask, *numbers], like=f"{mask}_selected")
        return selected[key]

    graph.remove(node)
    if selection.is_minimum:
        graph.add_node("Min", [source, select(value, np.inf)], node.output[0], name=node.name)
        return
    output = node.output[0] if value == 0.0 else None
    kept = graph.add_node("Mul", [source, select(0.0, selection.factor)], output, like=node.name)
    if value != 0.0:
        graph.add_node("Add", [kept, select(value, 0.0)], node.output[0], like=node.name)
