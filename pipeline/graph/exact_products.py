"""Graphs for sessions with `session.x64quantprecision=1`, which keeps sums of products from saturating on x86 without VNNI.

ONNX Runtime then makes uint8 of int8 weights, under a name that follows from theirs: a weight that two nodes read is an error
at loading ("Attempt to replace the existing tensor", 1.32.0). So each node gets weights of its own, in memory only.
"""

from collections import Counter

import onnx
from onnx import TensorProto

from pipeline.graph.subgraph_scopes import Names


def with_own_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with int8 constants, and the DequantizeLinear nodes of such, that no two nodes share.

    Args:
        model: is not changed; it is returned where nothing is shared. Bodies stay as they are.
    """
    int8 = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    reads = Counter(name for node in model.graph.node for name in node.input)
    if not any(reads[name] > 1 for name in int8) and not any(
        reads[node.output[0]] > 1 for node in model.graph.node if _restores(node, int8)
    ):
        return model
    own = onnx.ModelProto()
    own.CopyFrom(model)
    graph, names = own.graph, Names(model.graph)
    restoring = {node.output[0]: node for node in graph.node if _restores(node, int8)}
    used: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in restoring and name in used:
                copy = onnx.NodeProto()
                copy.CopyFrom(restoring[name])
                copy.name, copy.output[0] = names.fresh(f"{copy.name}_own"), names.fresh(f"{name}_own")
                _take_constants(copy, graph, int8, used, names)
                nodes.append(copy)
                node.input[position] = copy.output[0]
            used.update([name] if name in restoring else [])
        _take_constants(node, graph, int8, used, names)
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return own


def _restores(node: onnx.NodeProto, int8: dict[str, TensorProto]) -> bool:
    return node.op_type == "DequantizeLinear" and node.input[0] in int8


def _take_constants(
    node: onnx.NodeProto, graph: onnx.GraphProto, int8: dict[str, TensorProto], used: set[str], names: Names
) -> None:
    """Give a node copies of the int8 constants that another node has."""
    for position, name in enumerate(node.input):
        if name not in int8:
            continue
        if name in used:
            copy = graph.initializer.add()
            copy.CopyFrom(int8[name])
            copy.name = node.input[position] = names.fresh(f"{name}_own")
        used.add(name)
