"""The part of a graph behind some nodes: what has to run again when they change, and what it reads from the rest."""

from collections.abc import Collection

import onnx

from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import drop_unread, input_tensors


def downstream_of(model: onnx.ModelProto, changed: Collection[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Return the part of a graph that changed nodes, and all that depends on them, make up; and the tensors that it reads.

    Args:
        model: the graph, its nodes in an order in which they can run. It is not changed.
        changed: names of nodes whose outputs are new.

    Returns:
        The part, whose outputs are those of the graph that it computes, with the types of its tensors as far as the graph has
        them; and the names of its inputs.
    """
    constants = initializers_of(model)
    makers = {output: node for node in model.graph.node for output in node.output if output}
    moved: set[str] = set()
    inside: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name in changed or not moved.isdisjoint(input_tensors(node)):
            inside.append(node)
            moved.update(output for output in node.output if output)
    needed = dict.fromkeys(t for node in inside for t in input_tensors(node) if t not in moved and t not in constants)
    given = {value.name for value in model.graph.input}
    # What is computed from nothing (a Constant) is cheaper to compute than to hand over.
    sources = {t: makers[t] for t in needed if t in makers and not any(input_tensors(makers[t]))}
    inputs = [tensor for tensor in needed if tensor not in sources and (tensor in makers or tensor in given)]
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.graph.name = model.graph.name
    part.graph.node.extend([*{node.name: node for node in sources.values()}.values(), *inside])
    part.graph.initializer.extend(model.graph.initializer)
    types = {value.name: value for value in (*model.graph.input, *model.graph.value_info)}
    part.graph.input.extend(types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs)
    part.graph.value_info.extend(types[tensor] for tensor in moved if tensor in types)
    part.graph.output.extend(output for output in model.graph.output if output.name in moved)
    drop_unread(part.graph, constants)
    return part, inputs


def upstream_of(model: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    """Return the part of a graph that computes some tensors, which are its outputs."""
    needed, nodes = set(tensors), []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(input_tensors(node))
    part = onnx.ModelProto()
    part.CopyFrom(model)
    inputs = [value for value in model.graph.input if value.name in needed]
    del part.graph.node[:], part.graph.input[:], part.graph.output[:], part.graph.value_info[:]
    part.graph.node.extend(reversed(nodes))
    part.graph.input.extend(inputs)
    part.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    drop_unread(part.graph, initializers_of(part))
    return part
