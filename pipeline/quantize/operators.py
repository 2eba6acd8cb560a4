"""What a quantizer needs to know of each operator type: which inputs hold values, and what it does to them."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.attributes import float_attribute, string_attribute
from pipeline.graph.noise_inputs import RANDOM_OPS
from pipeline.graph.op_sets import LAYERS
from pipeline.graph.subgraph_scopes import bodies

NORMALIZING = frozenset({"BatchNormalization", "InstanceNormalization", "LayerNormalization"})
COMPUTING = frozenset({"Add", "Mul", "LeakyRelu", "Sigmoid", "Softmax", "GlobalAveragePool", "Concat", "ArgMax"})
MOVING = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "MaxPool", "AveragePool", "Slice", "TopK", "Gather",
     "GatherElements", "Split", "Pad"}
)  # fmt: skip
STARTING = frozenset({"Split", "Pad"})  # quantized even where their input is not yet: integers are cheaper to move
CARRIED = COMPUTING - {"Softmax", "ArgMax"}  # have an integer kernel for any scale of their output
CUTTING = frozenset({"Relu", "Clip"})
SUPPORTED = LAYERS | NORMALIZING | COMPUTING | MOVING | CUTTING | {"Where"}

NO_VECTOR = "its bias is not a vector"

Constants = Mapping[str, onnx.TensorProto]
"""Name -> constant."""


def number_of(node: onnx.NodeProto, name: str) -> float:
    """Return an attribute that is 1 where it is not given: alpha, beta, group."""
    return float_attribute(node, name, 1.0)


def multiplies(node: onnx.NodeProto) -> bool:
    """Return whether a node multiplies its first input with its second and adds its third."""
    return node.op_type in LAYERS or node.op_type in NORMALIZING


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs that hold values: no shapes, indices, biases or parameters."""
    if node.op_type == "Where":
        return list(node.input[1:3])
    if node.op_type in COMPUTING:
        return [tensor for tensor in node.input if tensor]
    return list(node.input[: 2 if multiplies(node) else 1])


def unfit_constants(node: onnx.NodeProto, constants: Constants) -> str | None:
    """Return why a node cannot be quantized for what its inputs are computed from, or None."""
    data = data_inputs(node)
    if all(tensor in constants for tensor in data) and not looks_up(node, constants):
        return "all its inputs are constants"
    if not multiplies(node):
        return None
    if node.op_type != "MatMul" and node.input[1] not in constants:
        return "its weight is not a constant"
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and bias not in constants:
        return "its bias is not a constant"
    return None if has_vector_bias(node, constants) else NO_VECTOR


def has_vector_bias(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether a layer has no bias, or a constant one with a value per output channel, or one value for all."""
    bias = constants.get(node.input[2]) if len(node.input) > 2 else None
    return bias is None or all(size == 1 for size in bias.dims[:-1])


def computed_from_constants(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that nodes compute from constants alone: folding leaves them where it would store a weight twice.

    No sample says anything of them, so that calibration does not measure them.
    """
    known = {tensor.name for tensor in graph.initializer}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in RANDOM_OPS or bodies(node) or not node.input:
            continue
        if all(tensor in known or tensor in found for tensor in node.input if tensor):
            found.update(tensor for tensor in node.output if tensor)
    return found


def looks_up(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether a node reads a constant table."""
    return node.op_type in ("Gather", "GatherElements") and node.input[0] in constants


def keeps_values(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether all that a node writes is in its first input, or zero."""
    if node.op_type != "Pad":
        return node.op_type in MOVING
    padding = node.input[2] if len(node.input) > 2 else ""
    if string_attribute(node, "mode", "constant") != "constant" or not padding:
        return True
    return padding in constants and not numpy_helper.to_array(constants[padding]).any()


def cuts_as_a_range_does(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether the limits of a range do the work of a node: a Relu, or a Clip with zero between constant limits."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    limits = []
    for position, default in ((1, -np.inf), (2, np.inf)):
        name = node.input[position] if len(node.input) > position else ""
        if name and name not in constants:
            return False
        limits.append(float(numpy_helper.to_array(constants[name]).item()) if name else default)
    return limits[0] <= 0 <= limits[1]
