"""What values a tensor can hold, whatever the inputs of the graph are.

Interval arithmetic along the graph, from constants and bounded operators (Sigmoid, Tanh, Softmax, Clip, ...). A float that the
caller gives may be infinite, but it is a number; an integer is finite. Rounding and overflow of float32 are left out, as in
real arithmetic. A linear layer is bounded by |W x| <= max_row sum |W| * max |x|, a layer norm by sqrt(n) |gamma| + |beta|,
since the squares of n normalised values add up to n at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf, inf, isnan, prod, sqrt

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.graph_editor import Array, Graph, attribute


@dataclass(frozen=True)
class Bounds:
    """Limits of the values of a tensor, none of which is NaN.

    Attributes:
        low: no value is below.
        high: no value is above.
        finite: no value is infinite, even where a limit is.
    """

    low: float = -inf
    high: float = inf
    finite: bool = True

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def negated(self) -> "Bounds":
        """Return the bounds of -x."""
        return Bounds(-self.high, -self.low, self.finite)


class ValueBounds:
    """The bounds of the tensors of a graph; all are computed when the first is asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Bounds | None] = {}

    def of(self, tensor: str) -> Bounds | None:
        """Return the bounds of a tensor; None where a value may be NaN."""
        if not self._known:
            with np.errstate(over="ignore", invalid="ignore"):
                for node in self._graph.nodes:
                    self._known |= dict.fromkeys(node.output, self._after(node))
        return self._bounds(tensor)

    def _bounds(self, tensor: str) -> Bounds | None:
        if tensor not in self._known:
            array = self._graph.constant(tensor)
            given = Bounds(finite=self._graph.is_integer(tensor))
            self._known[tensor] = given if array is None else _of_array(array)
        return self._known[tensor]

    def _after(self, node: onnx.NodeProto) -> Bounds | None:
        """Return the bounds of the outputs of a node."""
        output = node.output[0] if node.output else ""
        if self._graph.constant(output) is not None or self._graph.is_integer(output):
            return self._bounds(output)
        inputs = [self._bounds(tensor) for tensor in node.input if tensor]
        if node.op_type in MOVES or node.op_type == "Where":
            return inputs[0] if node.op_type in MOVES else _union(inputs[1:])
        known = [bounds for bounds in inputs if bounds is not None]
        rule = OF_ANY.get(node.op_type) or (OF_FINITE.get(node.op_type) if all(bounds.finite for bounds in known) else None)
        return None if rule is None or node.domain or len(known) < len(inputs) else rule(self._graph, node, known)


Rule = Callable[[Graph, onnx.NodeProto, list[Bounds]], Bounds | None]
"""(graph, node, bounds of its inputs) -> bounds of its outputs."""

MOVES = frozenset(  # the output holds values of the first input
    {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "GatherElements", "GatherND",
     "Expand", "Tile", "Flatten", "Dropout", "DepthToSpace", "SpaceToDepth", "MaxPool", "ReduceMax", "ReduceMin"}
)  # fmt: skip


def _monotone(function: Callable[[float], float], *, bounded: bool = False) -> Rule:
    """Return the rule of a function that never decreases and is defined at infinities."""

    def rule(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
        [x] = inputs
        return Bounds(float(function(x.low)), float(function(x.high)), bounded or x.finite)

    return rule


def _always(low: float, high: float) -> Rule:
    """Return the rule of an operator whose outputs lie between limits."""
    return lambda graph, node, inputs: Bounds(low, high)


def _cast(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    return Bounds(0.0, 1.0) if graph.is_bool(node.input[0]) else inputs[0]


def _filled(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    value = attribute(node, "value")
    return Bounds(0.0, 0.0) if value is None else _of_array(numpy_helper.to_array(value))


def _clip(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    limits = [attribute(node, "min"), attribute(node, "max")]
    if graph.opset >= 11:
        limits = [graph.scalar(tensor) if tensor else None for tensor in [*node.input[1:], "", ""][:2]]
    if sum(limit is not None for limit in limits) < len(inputs) - 1:
        return None  # a limit that is computed may lie anywhere
    x, least, most = inputs[0], -inf if limits[0] is None else limits[0], inf if limits[1] is None else limits[1]
    low, high = (min(max(end, least), most) for end in (x.low, x.high))
    return Bounds(low, high, x.finite or (low > -inf and high < inf))


def _extreme(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    pick = min if node.op_type == "Min" else max
    low, high = pick(bounds.low for bounds in inputs), pick(bounds.high for bounds in inputs)
    return Bounds(low, high, all(bounds.finite for bounds in inputs))


def _pad(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    if attribute(node, "mode", b"constant") != b"constant":
        return inputs[0]
    value = graph.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else attribute(node, "value", 0.0)
    return None if value is None else _union([inputs[0], Bounds(value, value, bool(np.isfinite(value)))])


def _leaky_relu(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    [x], slope = inputs, float(attribute(node, "alpha", 0.01))
    return Bounds(min(x.low, slope * x.low), max(x.high, slope * x.high), x.finite) if slope > 0 else None


def _add(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    x, y = inputs
    if node.op_type == "Sub":
        y = y.negated()
    if not x.finite and not y.finite:
        return None  # infinities of both signs may meet
    low, high = x.low + y.low, x.high + y.high
    return Bounds(-inf if isnan(low) else low, inf if isnan(high) else high, x.finite and y.finite)


def _mul(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    product = _times(*inputs)
    return Bounds(max(product.low, 0.0), product.high) if node.input[0] == node.input[1] else product


def _pow(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    square = _times(inputs[0], inputs[0])
    return Bounds(max(square.low, 0.0), square.high) if graph.scalar(node.input[1]) == 2.0 else None


def _div(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    divisor = inputs[-1]
    if divisor.low <= 0 <= divisor.high:
        return None
    inverse = Bounds(1.0 / divisor.high, 1.0 / divisor.low)
    return inverse if node.op_type == "Reciprocal" else _times(inputs[0], inverse)


def _sqrt(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds | None:
    [x] = inputs
    return Bounds(sqrt(x.low), sqrt(x.high)) if x.low >= 0 else None


def _layer_norm(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    dims = (graph.shape(node.input[0]) or ())[int(attribute(node, "axis", -1)) :]
    known = [dim for dim in dims if isinstance(dim, int)]
    if not known or len(known) < len(dims):
        return Bounds()
    _, gamma, *beta = inputs
    largest = sqrt(prod(known)) * gamma.magnitude + (beta[0].magnitude if beta else 0.0)
    return Bounds(-largest, largest)


def _linear(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    weights = graph.constant(node.input[1])
    if weights is not None and weights.ndim > 1:
        axes = (-2,) if node.op_type == "MatMul" else tuple(range(1, weights.ndim))
        factor = float(np.abs(weights.astype(np.float64)).sum(axis=axes).max())
    else:
        terms = (graph.shape(node.input[0]) or (None,))[-1]
        if node.op_type == "Conv" or not isinstance(terms, int):
            return Bounds()
        factor = _product(terms, inputs[1].magnitude)
    largest = _product(factor, inputs[0].magnitude) + (inputs[2].magnitude if len(inputs) > 2 else 0.0)
    return Bounds(-largest, largest)


def _same(graph: Graph, node: onnx.NodeProto, inputs: list[Bounds]) -> Bounds:
    return inputs[0]


OF_ANY: dict[str, Rule] = {  # defined for infinite inputs as well
    "Sigmoid": _monotone(lambda x: 1.0 / (1.0 + np.exp(-x)), bounded=True),
    "Tanh": _monotone(np.tanh, bounded=True),
    "Erf": _monotone(erf, bounded=True),
    "Relu": _monotone(lambda x: max(x, 0.0)),
    "Exp": _monotone(np.exp),
    "Softplus": _monotone(lambda x: float(np.logaddexp(x, 0.0))),
    "Neg": lambda graph, node, inputs: inputs[0].negated(),
    "Abs": lambda graph, node, inputs: Bounds(0.0, inputs[0].magnitude, inputs[0].finite),
    "Concat": lambda graph, node, inputs: _union(inputs),
    "ConstantOfShape": _filled, "Cast": _cast, "Clip": _clip, "Min": _extreme, "Max": _extreme, "Pad": _pad,
    "LeakyRelu": _leaky_relu, "Add": _add, "Sub": _add,
}  # fmt: skip
FINITE_ALONE = (  # finite for finite inputs; no more is known of them
    "ReduceSum", "CumSum", "InstanceNormalization", "GroupNormalization", "BatchNormalization", "Sum", "Einsum", "Range",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Floor", "Ceil", "Round", "Gemm", "ConvTranspose",
)  # fmt: skip
OF_FINITE: dict[str, Rule] = {  # defined for finite inputs
    **dict.fromkeys(FINITE_ALONE, _always(-inf, inf)),
    **dict.fromkeys(("ReduceMean", "AveragePool", "GlobalAveragePool"), _same),
    **dict.fromkeys(("Sin", "Cos"), _always(-1.0, 1.0)),
    **dict.fromkeys(("Softmax", "HardSigmoid"), _always(0.0, 1.0)),
    "LogSoftmax": _always(-inf, 0.0), "Sqrt": _sqrt, "Mul": _mul, "Pow": _pow, "Div": _div, "Reciprocal": _div,
    "LayerNormalization": _layer_norm, "MatMul": _linear, "Conv": _linear,
}  # fmt: skip


def _of_array(array: Array) -> Bounds | None:
    if array.size == 0 or array.dtype.kind not in "fiub":
        return Bounds() if array.dtype.kind in "fiub" else None
    low, high = float(array.min()), float(array.max())
    return None if isnan(low) else Bounds(low, high, bool(np.isfinite(low) and np.isfinite(high)))


def _union(parts: Sequence[Bounds | None]) -> Bounds | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    return Bounds(min(p.low for p in known), max(p.high for p in known), all(p.finite for p in known))


def _product(first: float, second: float) -> float:
    return 0.0 if first == 0.0 or second == 0.0 else first * second


def _times(x: Bounds, y: Bounds) -> Bounds:
    ends = [_product(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    return Bounds(min(ends), max(ends))
