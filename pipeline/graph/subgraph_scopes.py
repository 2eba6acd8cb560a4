"""The names of a graph, those inside the bodies of If, Loop and Scan included."""

from collections.abc import Collection, Iterable, Iterator

import onnx

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})  # the operators of ONNX that hold graphs


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a control-flow node holds; none for any other node."""
    if not node.domain and node.op_type not in CONTROL_FLOW:  # to look at attributes takes long, where all nodes are asked
        return []
    return [body for entry in node.attribute for body in (*([entry.g] if entry.HasField("g") else []), *entry.graphs)]


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the bodies in it, the outer before the inner."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_of(body)


def name_bodies(graph: onnx.GraphProto) -> None:
    """Give every node in a body a name that no other node has, in place; those of the graph itself stay."""
    used = {node.name for node in graph.node}
    for outer in graphs_of(graph):
        for node in outer.node:
            for body in bodies(node):
                for inner in body.node:
                    base = inner.name or f"{node.name}/{inner.op_type}_{inner.output[0]}"
                    name, number = base, 1
                    while name in used:
                        name, number = f"{base}_{number}", number + 1
                    inner.name = name
                    used.add(name)


def rename_in_bodies(graph: onnx.GraphProto) -> None:
    """Give every tensor of a body a name that no other tensor of the model has, in place.

    Two branches of an If may use one name for two tensors. What looks tensors up by name would take one for the other.
    """
    names = {value.name for value in (*graph.input, *graph.initializer)}
    names.update(name for node in graph.node for name in node.output)
    every = Names(graph)
    for node in graph.node:
        for body in bodies(node):
            _rename_body(body, names, every, {})


def _rename_body(body: onnx.GraphProto, taken: set[str], every: "Names", outer: dict[str, str]) -> None:
    """Rename the tensors of a body whose names are taken, and read those of the graphs around it by their new names."""
    own = [value.name for value in (*body.input, *body.initializer)]
    own += [sparse.values.name for sparse in body.sparse_initializer]
    own += [name for node in body.node for name in node.output if name]
    new = {name: every.fresh(name) for name in dict.fromkeys(own) if name in taken}
    taken.update(own)
    taken.update(new.values())
    known = {name: found for name, found in outer.items() if name not in own} | new
    for entry in (*body.input, *body.initializer, *body.output, *body.value_info):
        entry.name = known.get(entry.name, entry.name)
    for sparse in body.sparse_initializer:
        sparse.values.name = known.get(sparse.values.name, sparse.values.name)
    for node in body.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                if name in known:
                    tensors[index] = known[name]
        for inner in bodies(node):
            _rename_body(inner, taken, every, known)


def tensors_in(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors that a model holds: constants and attributes, in its graph, in bodies and in local functions."""
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    for function in model.functions:
        nodes += function.node
        for body in (body for node in function.node for body in bodies(node)):
            for graph in graphs_of(body):
                yield from graph.initializer
                nodes += graph.node
    for entry in (entry for node in nodes for entry in node.attribute):
        if entry.HasField("t"):
            yield entry.t
        yield from entry.tensors
        for sparse in (*([entry.sparse_tensor] if entry.HasField("sparse_tensor") else []), *entry.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def input_tensors(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads: its inputs, and what its bodies take from the graphs around them."""
    yield from filter(None, node.input)
    yield from outer_scope_inputs(node)


def outer_scope_inputs(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that the bodies of a node take from the graphs around them; none for a node without bodies."""
    taken: set[str] = set()
    for body in bodies(node):
        made = {value.name for value in (*body.input, *body.initializer)}
        made.update(name for inner in body.node for name in inner.output)
        read = {name for inner in body.node for name in input_tensors(inner)} | {output.name for output in body.output}
        taken |= read - made
    return taken


def tensors_read(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that a node of the graph or of a body in it reads, and the outputs of both."""
    read: set[str] = set()
    for scope in graphs_of(graph):
        read.update(output.name for output in scope.output)
        for node in scope.node:
            read.update(node.input)
    return read


def drop_unread(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Remove those of the named constants, here and in bodies, that nothing reads any more, in place."""
    read = tensors_read(graph)
    for scope in graphs_of(graph):
        kept = [tensor for tensor in scope.initializer if tensor.name not in names or tensor.name in read]
        if len(kept) < len(scope.initializer):
            del scope.initializer[:]
            scope.initializer.extend(kept)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph other nodes, some of which may be its own, in place."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


class Names:
    """Names that no tensor and no node of a model has yet.

    A name that merely appends a suffix is not enough: text-to-speech graphs have an input `length` and one `length_scale`.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._used: set[str] = set()
        for scope in graphs_of(graph):
            self._used.update(value.name for value in (*scope.input, *scope.output, *scope.value_info))
            self._used.update(tensor.name for tensor in scope.initializer)
            for node in scope.node:
                self._used.add(node.name)
                self._used.update(node.output)

    def fresh(self, wanted: str) -> str:
        """Return the wanted name, or the first numbered one that is free."""
        name, number = wanted, 1
        while name in self._used:
            name, number = f"{wanted}_{number}", number + 1
        self._used.add(name)
        return name
