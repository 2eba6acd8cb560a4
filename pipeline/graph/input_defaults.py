"""Inputs that a graph has a value for: an initializer of the same name.

Old exporters list every weight as an input (files of IR version 3 must), and so does `keep_initializers_as_inputs`. A weight
that a caller may replace is no constant: ONNX Runtime fuses nothing around it, and no quantizer may touch it. These are taken
for constants. What else is an input with a value is an optional input: it stays one, with its value as the default.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pipeline.graph.op_sets import WEIGHTED_OPS
from pipeline.graph.subgraph_scopes import graphs_of

PARAMETRIC = WEIGHTED_OPS | {
    "RNN", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
    "SkipLayerNormalization", "PRelu",
}  # fmt: skip
"""Operators whose inputs behind the first are parameters."""

FREE_INPUTS = 4  # the IR version since which a constant need not be an input


def split_defaults(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """Make weights that are listed as inputs plain constants, and take the values of optional inputs out, in place.

    Returns:
        Optional input -> its default. It is an input like the others then; `put_defaults_back` makes it optional again.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    listed = {tensor.name: tensor for tensor in graph.initializer if tensor.name in inputs}
    if not listed:
        return {}
    weights = _parameters(graph).intersection(listed)
    if model.ir_version < FREE_INPUTS or (weights and len(listed) == len(graph.initializer)):
        weights = set(listed)  # the exporter lists all; none of it is meant for a caller
    model.ir_version = max(model.ir_version, FREE_INPUTS)
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    optional = {name: numpy_helper.to_array(tensor) for name, tensor in listed.items() if name not in weights}
    constants = [tensor for tensor in graph.initializer if tensor.name not in optional]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return optional


def put_defaults_back(graph: onnx.GraphProto, defaults: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Give the optional inputs of a graph their values, in the types that the inputs have now, in place."""
    for value in graph.input:
        if value.name in defaults:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            array = defaults[value.name]
            array = array if array.dtype.kind in "OSU" else array.astype(dtype)
            graph.initializer.append(numpy_helper.from_array(array, value.name))


def _parameters(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that nodes read as their parameters."""
    nodes = (node for scope in graphs_of(graph) for node in scope.node)
    found = {name for node in nodes if node.op_type in PARAMETRIC for name in node.input[1:]}
    return found | {node.input[0] for scope in graphs_of(graph) for node in scope.node if node.op_type == "Gather"}
