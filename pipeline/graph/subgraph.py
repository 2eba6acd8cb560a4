"""Parts of a graph as models of their own: what computes some tensors, and what depends on some nodes."""

from collections.abc import Collection, Iterable

import onnx

from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import input_tensors, tensors_read


def extract(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[str | onnx.ValueInfoProto],
    *,
    value_info: Iterable[onnx.ValueInfoProto] = (),
    initializers: Iterable[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """Return a model of some nodes, with the operator sets, local functions and sparse constants of the graph that they are of.

    Args:
        model: the graph. It is not changed.
        nodes: in an order in which they can run.
        inputs: what the part is given.
        outputs: what it gives out: tensors by name, or with their types.
        value_info: types of tensors in between.
        initializers: its constants; None: those of the graph that it reads or gives out.
    """
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = part.graph
    graph.name = model.graph.name or "part"
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(onnx.ValueInfoProto(name=value) if isinstance(value, str) else value for value in outputs)
    graph.value_info.extend(value_info)
    if initializers is None:
        read = tensors_read(graph)
        initializers = (tensor for tensor in model.graph.initializer if tensor.name in read)
    graph.initializer.extend(initializers)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return part


def upstream_of(model: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    """Return the part of a graph that computes some tensors, which are its outputs; its nodes may be in any order."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    needed, waiting = set(tensors), list(tensors)
    while waiting:
        node = makers.get(waiting.pop())
        new = set() if node is None else set(input_tensors(node)) - needed
        needed |= new
        waiting += new
    nodes = [node for node in model.graph.node if not needed.isdisjoint(node.output)]
    return extract(model, nodes, [value for value in model.graph.input if value.name in needed], tensors)


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
    types = {value.name: value for value in (*model.graph.input, *model.graph.value_info)}
    part = extract(
        model,
        [*{node.name: node for node in sources.values()}.values(), *inside],
        [types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs],
        [output for output in model.graph.output if output.name in moved],
        value_info=[types[tensor] for tensor in moved if tensor in types],
    )
    return part, inputs
