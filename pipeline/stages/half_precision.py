"""Graphs that compute in half precision, which no quantizer begins with."""

from collections import Counter

import onnx

from pipeline.errors import ModelError
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of, tensors_in


def has_half_precision(source: SourceGraph) -> bool:
    """Say whether a graph holds constants of half precision."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in tensors_in(source.model))


def refuse_half_precision(source: SourceGraph) -> None:
    """Refuse a graph that computes in half precision; one that only stores weights so, and casts them, computes in float."""
    nodes = [node for scope in graphs_of(source.model.graph) for node in scope.node]
    computed_with = {name for node in nodes if node.op_type != "Cast" for name in node.input}
    types = Counter(tensor.data_type for tensor in source.model.graph.initializer if tensor.name in computed_with)
    if types[onnx.TensorProto.FLOAT16] > types[onnx.TensorProto.FLOAT]:
        raise ModelError(
            f"model.path: {source.path} is an fp16 model; a quantizer needs the fp32 original, which it was made from."
        )
