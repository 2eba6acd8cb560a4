"""Local functions of a model, inlined: each node under the path of the calls that it comes from.

torch's exporter and onnxscript write functions, and ONNX Runtime inlines them when it loads a model, under names of its own.
Here a node `mm` of the function that the node `layer_1` calls becomes `layer_1/mm`. As ONNX Runtime does, operators are taken
from the opset that the model imports, whatever the function imports.
"""

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper

from pipeline.graph.node_patterns import ensure_names
from pipeline.graph.subgraph_scopes import Names, bodies, graphs_of, name_bodies, replace_nodes

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


def inline_functions(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Inline all calls of local functions, in place; the nodes get names where they have none.

    Returns:
        Name of each node that comes from a function -> the names of the calls around it, the outermost first.
    """
    ensure_names(model)
    name_bodies(model.graph)
    if not model.functions:
        return {}
    inliner = _Inliner(model)
    inliner.inline(model.graph)
    imported = {entry.domain for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain not in imported:
                model.opset_import.append(entry)
                imported.add(entry.domain)
    used = {node.domain for scope in graphs_of(model.graph) for node in scope.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.functions[:], model.opset_import[:]
    model.opset_import.extend(kept)
    return inliner.calls


class _Inliner:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions: dict[Key, onnx.FunctionProto] = {
            (function.domain, function.name, function.overload): function for function in model.functions
        }
        self._names = Names(model.graph)
        self.calls: dict[str, tuple[str, ...]] = {}

    def inline(self, graph: onnx.GraphProto) -> None:
        """Inline the calls in a graph and in its bodies."""
        if any(_key(node) in self._functions for scope in graphs_of(graph) for node in scope.node):
            replace_nodes(graph, self._expanded(graph.node, ()))

    def _expanded(self, nodes: Iterable[onnx.NodeProto], calls: tuple[str, ...]) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] = []
        for node in nodes:
            if calls:
                self.calls[node.name] = calls
            for body in bodies(node):
                replace_nodes(body, self._expanded(body.node, calls))
            function = self._functions.get(_key(node))
            if function is None:
                found.append(node)
            else:
                self.calls.pop(node.name, None)
                found += self._expanded(self._instance(function, node), (*calls, node.name))
        return found

    def _instance(self, function: onnx.FunctionProto, call: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes of a function as one call of it means them."""
        tensors = dict.fromkeys(function.input, "") | dict(zip(function.input, call.input, strict=False))
        given = dict(zip(function.output, call.output, strict=False))
        copies: dict[str, str] = {}  # output of the call -> what it is a copy of
        for inner, outer in given.items():
            if inner in tensors:
                copies |= {outer: tensors[inner]} if outer else {}
            else:
                tensors[inner] = outer or self._names.fresh(f"{call.name}/{inner}")
        attributes = {entry.name: entry for entry in (*function.attribute_proto, *call.attribute)}
        nodes = [self._copy(node, call.name, tensors, attributes) for node in function.node]
        copied = [helper.make_node("Identity", [source], [output]) for output, source in copies.items()]
        for node in copied:
            node.name = self._names.fresh(f"{call.name}/{node.op_type}")
        return nodes + copied

    def _copy(
        self, node: onnx.NodeProto, prefix: str, tensors: dict[str, str], attributes: Mapping[str, onnx.AttributeProto]
    ) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = self._names.fresh(f"{prefix}/{node.name or node.op_type}")
        self._define(node.output, prefix, tensors)
        copy.input[:] = [tensors.get(tensor, tensor) for tensor in node.input]
        copy.output[:] = [tensors.get(tensor, tensor) for tensor in node.output]
        kept = [_resolved(entry, attributes) for entry in node.attribute]
        del copy.attribute[:]
        copy.attribute.extend(entry for entry in kept if entry is not None)
        for body in bodies(copy):
            self._rename_body(body, prefix, dict(tensors), attributes)
        return copy

    def _define(self, outputs: Iterable[str], prefix: str, tensors: dict[str, str]) -> None:
        """Give tensors that a function makes names that the model does not have."""
        for tensor in outputs:
            if tensor and tensor not in tensors:
                tensors[tensor] = self._names.fresh(f"{prefix}/{tensor}")

    def _rename_body(
        self, body: onnx.GraphProto, prefix: str, tensors: dict[str, str], attributes: Mapping[str, onnx.AttributeProto]
    ) -> None:
        own = [value.name for value in (*body.input, *body.initializer)]
        own += [name for node in body.node for name in node.output]
        for name in own:  # hides what the function calls so
            tensors.pop(name, None)
        self._define(own, prefix, tensors)
        for value in (*body.input, *body.initializer, *body.output, *body.value_info):
            value.name = tensors.get(value.name, value.name)
        replace_nodes(body, [self._copy(node, prefix, tensors, attributes) for node in body.node])


def _key(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _resolved(entry: onnx.AttributeProto, attributes: Mapping[str, onnx.AttributeProto]) -> onnx.AttributeProto | None:
    """Return an attribute with the value that the call gives it; None where it gives none."""
    if not entry.ref_attr_name:
        return entry
    if entry.ref_attr_name not in attributes:
        return None
    value = onnx.AttributeProto()
    value.CopyFrom(attributes[entry.ref_attr_name])
    value.name = entry.name
    return value


def operators_when_inlined(model: onnx.ModelProto, enough: int) -> int:
    """Return how many operators a model has once each call of a local function is replaced by what the function holds.

    ONNX Runtime replaces them when it loads a model; thirty functions that call each other twice are a thousand million
    operators. Functions that call themselves, which it refuses, count as nothing.

    Args:
        model: as it was read.
        enough: more is not told apart.
    """
    held = {(function.domain, function.name, function.overload): _called(function) for function in model.functions}
    sizes: dict[Key, int] = {}
    for first in held:
        opened = {first: None}  # one within the other; in the order in which they are put there
        while opened:
            key = next(reversed(opened))
            if key in sizes:
                del opened[key]
                continue
            inner = next((call for call in held[key] if call in held and call not in sizes and call not in opened), None)
            if inner is not None:
                opened[inner] = None
                continue
            sizes[key] = min(sum(sizes.get(call, 0) if call in held else 1 for call in held[key]), enough)
    scopes = (node for scope in graphs_of(model.graph) for node in scope.node)
    return min(sum(sizes.get(_key(node), 1) for node in scopes), enough)


def _called(function: onnx.FunctionProto) -> list[Key]:
    graph = onnx.GraphProto(node=function.node)
    return [_key(node) for scope in graphs_of(graph) for node in scope.node]
