"""The type and the shape that a graph declares for a tensor."""

import numpy as np
import onnx
from onnx import TensorProto

FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def dtype_of(value: onnx.ValueInfoProto) -> np.dtype[np.generic]:
    """Return the numpy type of a graph's input."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def dims_of(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the shape of a graph's input, None for an axis whose size is left open; None where no shape is declared."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
