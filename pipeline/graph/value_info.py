"""The type and the shape that a graph declares for a tensor."""

import numpy as np
import onnx
from onnx import TensorProto

from pipeline.errors import ModelError

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def dtype_of(value: onnx.ValueInfoProto) -> np.dtype[np.generic]:
    """Return the numpy type of a graph's input.

    Raises:
        ModelError: it is not a tensor, or of no type.
    """
    if not value.type.tensor_type.elem_type:
        raise ModelError(
            f"the input {value.name!r} is of type {type_name(value.type)}; only tensors of a known type can be given to a "
            "graph."
        )
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def dims_of(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the shape of a graph's input, None for an axis whose size is left open; None where no shape is declared."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]


def type_name(declared: onnx.TypeProto) -> str:
    """Return a type as people write it, such as `float32` or `seq(float32)`; `unknown` where it is left out."""
    match declared.WhichOneof("value"):
        case "tensor_type" | "sparse_tensor_type" as kind:
            element = getattr(declared, kind).elem_type
            if not element:
                return "unknown"
            name = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)))
            return name if kind == "tensor_type" else f"sparse({name})"
        case "sequence_type":
            return f"seq({type_name(declared.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({type_name(declared.optional_type.elem_type)})"
        case "map_type":
            key = onnx.helper.tensor_dtype_to_np_dtype(declared.map_type.key_type)
            return f"map({np.dtype(key)}, {type_name(declared.map_type.value_type)})"
    return "unknown"
