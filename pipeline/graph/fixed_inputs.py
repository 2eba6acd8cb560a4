"""Inputs that are always the same for a user, as constants of the graph.

A sampling rate by which an If chooses between two models is an example: with a constant in its place, folding leaves the one
model that the user runs. The graph still takes such an input, and ignores it, so that callers need not change.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pipeline.errors import ModelError, did_you_mean
from pipeline.graph.subgraph_scopes import Names, graphs_of
from pipeline.graph.value_info import dims_of, dtype_of

KEY = "model.fixed_inputs"


def fix_inputs(graph: onnx.GraphProto, fixed: Mapping[str, float]) -> dict[str, npt.NDArray[np.generic]]:
    """Let every node read constants in place of some inputs, in place; return the values, in the inputs' types and shapes.

    Raises:
        ModelError: the input does not exist, it has more than one element, or its type has no such value.
    """
    if not fixed:
        return {}
    inputs = {value.name: value for value in graph.input}
    names = Names(graph)
    found: dict[str, npt.NDArray[np.generic]] = {}
    constants: dict[str, str] = {}
    for name, value in fixed.items():
        if name not in inputs:
            raise ModelError(f"{KEY}: the graph has no input {name!r}.{did_you_mean(name, inputs)}")
        dtype, dims = dtype_of(inputs[name]), dims_of(inputs[name])
        if dims is None:
            raise ModelError(f"{KEY}.{name}: the graph declares no shape for the input; only one of one element can be fixed.")
        if any(size not in (1, None) for size in dims):
            raise ModelError(f"{KEY}.{name}: the input takes {dims}; only an input of one element can be fixed.")
        array = np.full([1] * len(dims), value).astype(dtype)
        if not np.array_equal(array, np.full([1] * len(dims), value)) and dtype.kind != "f":
            raise ModelError(f"{KEY}.{name}: {value} is not a value of its type, {dtype}.")
        constants[name] = names.fresh(f"{name}_fixed")
        graph.initializer.append(numpy_helper.from_array(array, constants[name]))
        found[name] = array
    for scope in graphs_of(graph):
        for node in scope.node:
            for place, tensor in enumerate(node.input):
                node.input[place] = constants.get(tensor, tensor)
    return found
