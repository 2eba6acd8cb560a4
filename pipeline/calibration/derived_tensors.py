"""Which tensors of a graph can need a range, and which of them follow exactly from another one.

A tensor that is moved, not computed (Reshape, Transpose, ...), has the statistics of its source; one after a Relu, Clip
or LeakyRelu has their image under that function. Neither is measured: fewer outputs to fetch, fewer fusions in the way.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.attributes import attribute, attributes_of
from pipeline.graph.large_models import SMALL_BYTES, bytes_of, without_weights
from pipeline.graph.noise_inputs import RANDOM_OPS
from pipeline.graph.op_sets import LAYERS
from pipeline.graph.shape_deciding import decided_tensors
from pipeline.graph.shape_inference import inferred_types
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.graph.value_info import FLOAT_TYPES

STEPS = frozenset({"Clip", "LeakyRelu", "Relu"})
MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
QUANTIZABLE_OPS = MOVES | {
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Gather", "Gemm",
    "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad",
    "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Where",
}  # fmt: skip
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

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class MonotoneOp:
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
class DerivedTensor:
    """A tensor whose values are those of `source`, moved, and mapped by `steps` one after the other."""

    source: str
    steps: tuple[MonotoneOp, ...] = ()


@dataclass(frozen=True)
class Inferred:
    """What is known of a tensor without running the graph.

    Attributes:
        elem_type: of onnx.TensorProto.
        shape: None where nothing is known of it.
    """

    elem_type: int
    shape: onnx.TensorShapeProto | None = None

    @property
    def bytes(self) -> int | None:
        """Its size; None where that depends on what is computed."""
        if self.shape is None or not self.elem_type or not all(dim.HasField("dim_value") for dim in self.shape.dim):
            return None
        itemsize = helper.tensor_dtype_to_np_dtype(self.elem_type).itemsize
        size: int = math.prod((dim.dim_value for dim in self.shape.dim), start=itemsize)
        return size


def is_small(constant: TensorProto) -> bool:
    """Whether a constant may decide shapes: those that do hold only a few numbers."""
    return bytes_of(constant) < SMALL_BYTES


def infer(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Inferred]:
    """Return what can be inferred of the tensors of the top-level graph, if its inputs have the given shapes."""
    part = without_weights(model)
    del part.graph.value_info[:]
    if shapes is not None:
        del part.graph.output[:]
        for value in part.graph.input:
            if value.name in shapes:
                value.type.CopyFrom(helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shapes[value.name]))
    found = {
        name: Inferred(tensor.elem_type, tensor.shape if tensor.HasField("shape") else None)
        for name, tensor in inferred_types(part).items()
    }
    return found | {constant.name: Inferred(constant.data_type) for constant in model.graph.initializer}


def quantizable_tensors(model: onnx.ModelProto, op_types: Collection[str] = QUANTIZABLE_OPS) -> tuple[str, ...]:
    """Return the floating-point inputs and outputs of every node of the given types, in order, without constants.

    With the default, this is every tensor that any mode may give a range to: statistics of all of them, collected once,
    serve every method, type and selection of nodes; those `around_layers` serve every selection of layers, for less. What is
    computed from lengths and positions alone is left out: no mode quantizes it, and a logarithm of distances may be infinite
    there, and be discarded by a selection.
    """
    types = _element_types(model.graph)
    if not all(types.get(name) for node in model.graph.node for name in node.output if name):
        types = {name: tensor.elem_type for name, tensor in infer(model).items()}
    constants = {initializer.name for initializer in model.graph.initializer}
    aside = decided_tensors(model.graph)
    found: dict[str, None] = {}
    for node in model.graph.node:
        inputs = list(input_tensors(node))
        if node.op_type not in RANDOM_OPS and constants.issuperset(inputs) and (inputs or node.op_type == "Constant"):
            constants.update(node.output)
        elif node.op_type in op_types:
            names = (*inputs, *filter(None, node.output))
            measurable = (name for name in names if name not in constants and name not in aside)
            found.update(dict.fromkeys(name for name in measurable if types.get(name) in FLOAT_TYPES))
    return tuple(found)


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the types of the tensors that a graph declares."""
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def around_layers(model: onnx.ModelProto, tensors: Collection[str]) -> tuple[str, ...]:
    """Return those of the tensors that layers read or make, and what follows exactly from one of them or leads to one."""
    follows = images(model)
    sources = {tensor: follows[tensor].source if tensor in follows else tensor for tensor in tensors}
    touched = {
        sources.get(name, name) for node in model.graph.node if node.op_type in LAYERS for name in (*node.input, *node.output)
    }
    return tuple(tensor for tensor, source in sources.items() if source in touched)


def images(model: onnx.ModelProto) -> dict[str, DerivedTensor]:
    """Return the tensors of the top-level graph that follow exactly from another one, which itself follows from none."""
    constants = dict(constants_of(model))
    found: dict[str, DerivedTensor] = {}
    for node in model.graph.node:
        step = _step(node, constants) if node.op_type in STEPS else None
        if step is None and node.op_type not in MOVES:
            continue
        source = found.get(node.input[0], DerivedTensor(node.input[0]))
        found[node.output[0]] = DerivedTensor(source.source, source.steps + (() if step is None else (step,)))
    return found


def masked_tensors(model: onnx.ModelProto, masks: Collection[str] = ()) -> frozenset[str]:
    """Return the tensors that may have infinities which the graph itself puts there, to mask with them.

    These are its infinite constants and what passes them on: moved, selected, or added to something.

    Args:
        model: the graph.
        masks: inputs that hold infinities too, which a caller masks with.
    """
    infinite = {name for name, tensor in constants_of(model) if _has_infinity(tensor)}.union(masks)
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            if (value := attribute(node, "value")) is not None and _has_infinity(value):
                infinite.update(node.output)
        elif node.op_type in MASKING_OPS and not infinite.isdisjoint(node.input):
            infinite.update(node.output)
    return frozenset(infinite)


def _has_infinity(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOAT_TYPES and bool(np.isinf(numpy_helper.to_array(tensor)).any())


def _step(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> MonotoneOp | None:
    """Return the function that a node applies to each value, if it is one that never decreases and is exact."""
    attributes = attributes_of(node)
    match node.op_type:
        case "Relu":
            return MonotoneOp(low=0.0)
        case "LeakyRelu":
            slope = attributes.get("alpha", 0.01)
            return MonotoneOp(negative_slope=slope) if slope >= 0 else None
        case "Clip":
            bounds = {"min": attributes.get("min", -np.inf), "max": attributes.get("max", np.inf)}  # before opset 11
            for bound, name in zip(("min", "max"), node.input[1:], strict=False):
                if name and name not in constants:
                    return None
                if name:
                    bounds[bound] = float(numpy_helper.to_array(constants[name]))
            return MonotoneOp(low=bounds["min"], high=bounds["max"]) if bounds["min"] <= bounds["max"] else None
    return None


def constants_of(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield the constants of the top-level graph: its initializers, and what its Constant nodes make."""
    for initializer in model.graph.initializer:
        yield initializer.name, initializer
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t
