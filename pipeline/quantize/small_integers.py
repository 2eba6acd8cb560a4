"""Large constants of whole numbers in the smallest type that holds them, cast to their own.

Exporters write indices as int64: half of the file of a small denoiser is the positions that its ScatterND nodes write to, none
above 400. ONNX Runtime folds the Cast when it loads the model, so that what runs is what ran before.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.subgraph_scopes import Names, graphs_of

LEAST_VALUES = 256  # shapes, axes and the like stay: shape inference reads them
TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32)


def store_integers(model: onnx.ModelProto) -> None:
    """Store int64 constants of many values in fewer bytes, in place; exact.

    Those of int32 stay: they may be biases, which integer kernels take as constants only.
    """
    names = Names(model.graph)
    for graph in graphs_of(model.graph):
        fixed = {value.name for value in (*graph.input, *graph.output)}
        casts = []
        for tensor in graph.initializer:
            if tensor.data_type != TensorProto.INT64 or tensor.name in fixed or math.prod(tensor.dims) < LEAST_VALUES:
                continue
            values = numpy_helper.to_array(tensor)
            small = _smallest(values)
            if small is None:
                continue
            name, stored = tensor.name, names.fresh(f"{tensor.name}_small")
            cast = helper.make_node("Cast", [stored], [name], name=names.fresh(f"cast_{name}"), to=tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(small), stored))
            casts.append(cast)
        if casts:
            nodes = [*casts, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
            del graph.node[:]
            graph.node.extend(nodes)


def _smallest(values: np.ndarray) -> type[np.generic] | None:
    """Return the smallest type that holds all values; None: they need their own."""
    low, high = int(values.min()), int(values.max())
    fitting = (kind for kind in TYPES if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return next(fitting, None)
