"""Types and shapes of a graph's tensors, by ONNX's inference."""

import onnx

from pipeline.errors import ModelError
from pipeline.graph.large_models import put_weights_back, without_weights
from pipeline.graph.subgraph_scopes import graphs_of


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the types and shapes of its tensors, as far as they can be inferred."""
    inferred = _inferred(model)
    put_weights_back(inferred, model)
    return inferred


def inferred_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the types and shapes of the tensors of the top-level graph, as far as they can be inferred."""
    graph = _inferred(model).graph
    return {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the types of all tensors, those in bodies included, as far as they can be inferred."""
    scopes = list(graphs_of(_inferred(model).graph))
    found = {tensor.name: tensor.data_type for scope in scopes for tensor in scope.initializer}
    values = (value for scope in scopes for value in (*scope.input, *scope.value_info, *scope.output))
    return found | {value.name: kind for value in values if (kind := value.type.tensor_type.elem_type)}


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with shapes and without weights.

    The inference looks at their shapes only. It serializes what it is given, twice, and a graph above 2 GB cannot be.

    Raises:
        ModelError: the inference refuses the graph, though ONNX Runtime may not: its shapes contradict each other.
    """
    try:
        return onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True)
    except Exception as error:  # InferenceError, and what protobuf raises
        raise ModelError(
            f"model.path: ONNX cannot infer the shapes of the graph {model.graph.name!r}: {' '.join(str(error).split())}. "
            "Export it again, or remove what it declares of its shapes."
        ) from error
