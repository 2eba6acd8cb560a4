"""Which tensors of a graph can need a range, and which of them follow exactly from another one.

A tensor that is moved, not computed (Reshape, Transpose, ...), has the statistics of its source; one behind a Relu, Clip
or LeakyRelu has their image under that function. Neither is measured: fewer outputs to fetch, fewer fusions in the way.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

STEPS = frozenset({"Clip", "LeakyRelu", "Relu"})
MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
QUANTIZABLE_OPS = MOVES | {
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Gather", "Gemm",
    "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad",
    "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Where",
}  # fmt: skip
RANDOM_OPS = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"})
MASKING_OPS = MOVES | {
    "Add",
    "Cast",
    "Concat",
    "Expand",
    "Gather",
    "Max",
    "Min",
    "Pad",
    "Slice",
    "Split",
    "Sub",
    "Tile",
    "Where",
}
FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class Step:
    """x -> clip(x if x >= 0 else negative_slope * x, low, high): Relu, LeakyRelu and Clip are all of this form.

    It never decreases, so that it maps the minimum to the minimum, and the edges of a histogram to edges.
    """

    negative_slope: float = 1.0
    low: float = -np.inf
    high: float = np.inf

    def __call__(self, values: npt.NDArray[Float]) -> npt.NDArray[Float]:
        """Map values of any shape, in their own precision, as ONNX Runtime's kernels do."""
        slope, low, high = (values.dtype.type(number) for number in (self.negative_slope, self.low, self.high))
        sloped = values if slope == 1 else np.where(values < 0, values * slope, values)
        return np.clip(sloped, low, high)


@dataclass(frozen=True)
class Image:
    """A tensor whose values are those of `source`, moved, and mapped by `steps` one after the other."""

    source: str
    steps: tuple[Step, ...] = ()


def elem_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of the top-level graph that can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types.update({initializer.name: initializer.data_type for initializer in graph.initializer})
    return types


def quantizable_tensors(model: onnx.ModelProto, op_types: Collection[str] = QUANTIZABLE_OPS) -> tuple[str, ...]:
    """Return the floating-point inputs and outputs of every node of the given types, in order, without constants.

    With the default, this is every tensor that any mode may give a range to: statistics of all of them, collected once,
    serve every method, type and selection of nodes.
    """
    types = elem_types(model)
    constants = {initializer.name for initializer in model.graph.initializer}
    found: dict[str, None] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type not in RANDOM_OPS and constants.issuperset(inputs) and (inputs or node.op_type == "Constant"):
            constants.update(node.output)
        elif node.op_type in op_types:
            names = (*inputs, *filter(None, node.output))
            found.update(dict.fromkeys(name for name in names if name not in constants and types.get(name) in FLOAT_TYPES))
    return tuple(found)


def images(model: onnx.ModelProto) -> dict[str, Image]:
    """Return the tensors of the top-level graph that follow exactly from another one, which itself follows from none."""
    constants = dict(_constants(model))
    found: dict[str, Image] = {}
    for node in model.graph.node:
        step = _step(node, constants) if node.op_type in STEPS else None
        if step is None and node.op_type not in MOVES:
            continue
        source = found.get(node.input[0], Image(node.input[0]))
        found[node.output[0]] = Image(source.source, source.steps + (() if step is None else (step,)))
    return found


def masked_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors that may have infinities which the graph itself puts there, to mask with them.

    These are its infinite constants and what passes them on: moved, selected, or added to something.
    """
    infinite = {name for name, tensor in _constants(model) if _has_infinity(tensor)}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            if any(_has_infinity(attribute.t) for attribute in node.attribute):
                infinite.update(node.output)
        elif node.op_type in MASKING_OPS and not infinite.isdisjoint(node.input):
            infinite.update(node.output)
    return frozenset(infinite)


def _has_infinity(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOAT_TYPES and bool(np.isinf(numpy_helper.to_array(tensor)).any())


def _step(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> Step | None:
    """Return the function that a node applies to each value, if it is one that never decreases and is exact."""
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    match node.op_type:
        case "Relu":
            return Step(low=0.0)
        case "LeakyRelu":
            slope = attributes.get("alpha", 0.01)
            return Step(negative_slope=slope) if slope >= 0 else None
        case "Clip":
            bounds = {"min": attributes.get("min", -np.inf), "max": attributes.get("max", np.inf)}  # before opset 11
            for bound, name in zip(("min", "max"), node.input[1:], strict=False):
                if name and name not in constants:
                    return None
                if name:
                    bounds[bound] = float(numpy_helper.to_array(constants[name]))
            return Step(low=bounds["min"], high=bounds["max"]) if bounds["min"] <= bounds["max"] else None
    return None


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for initializer in model.graph.initializer:
        yield initializer.name, initializer
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t
