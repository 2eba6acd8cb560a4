"""Names of a graph that ONNX Runtime's quantizer would give to tensors and nodes of its own, put aside while it works.

It appends suffixes to the names that are there and does not look whether the result is taken: beside an input `length`, a
graph has its `length_scale`.
"""

from dataclasses import dataclass, field

import onnx

from pipeline.graph.subgraph_scopes import Names, graphs_of

TENSOR_SUFFIXES = ("_quantized", "_scale", "_zero_point", "_QuantizeLinear", "_DequantizeLinear", "_quantized_scale",
                   "_quantized_zero_point", "_output_quantized")  # fmt: skip
NODE_SUFFIXES = ("_quant", "_QuantizeLinear", "_DequantizeLinear", "_quantized", "_reshape", "_cast")


@dataclass
class PutAside:
    """Names that were changed.

    Attributes:
        tensors: name -> the name that the tensor has meanwhile.
        nodes: the same of nodes.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    def restore(self, model: onnx.ModelProto) -> None:
        """Give names back, in place; what has been called so meanwhile gets another one."""
        if not (self.tensors or self.nodes):
            return
        names = Names(model.graph)
        tensors, nodes = _all_names(model.graph)
        made = {name: names.fresh(f"{name}_1") for name in self.tensors if name in tensors}
        made_nodes = {name: names.fresh(f"{name}_1") for name in self.nodes if name in nodes}
        _rename(
            model.graph,
            made | {meanwhile: name for name, meanwhile in self.tensors.items()},
            made_nodes | {meanwhile: name for name, meanwhile in self.nodes.items()},
        )


def put_aside(model: onnx.ModelProto) -> PutAside:
    """Rename, in place, the tensors and nodes whose name is that of another one with a suffix of the quantizer."""
    names = Names(model.graph)
    tensors, nodes = _all_names(model.graph)
    found = PutAside(
        {name: names.fresh(f"{name}/own") for name in sorted(tensors) if _is_made_of(name, tensors | nodes, TENSOR_SUFFIXES)},
        {name: names.fresh(f"{name}/own") for name in sorted(nodes) if _is_made_of(name, tensors | nodes, NODE_SUFFIXES)},
    )
    _rename(model.graph, found.tensors, found.nodes)
    return found


def _is_made_of(name: str, names: set[str], suffixes: tuple[str, ...]) -> bool:
    return any(name.endswith(suffix) and name.removesuffix(suffix) in names for suffix in suffixes)


def _all_names(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    tensors: set[str] = set()
    nodes: set[str] = set()
    for scope in graphs_of(graph):
        tensors.update(value.name for value in (*scope.input, *scope.output, *scope.initializer))
        for node in scope.node:
            tensors.update(node.output)
            nodes.add(node.name)
    return tensors - {""}, nodes - {""}


def _rename(graph: onnx.GraphProto, tensors: dict[str, str], nodes: dict[str, str]) -> None:
    if not (tensors or nodes):
        return
    for scope in graphs_of(graph):
        for entry in (*scope.input, *scope.output, *scope.initializer, *scope.value_info):
            entry.name = tensors.get(entry.name, entry.name)
        for node in scope.node:
            node.name = nodes.get(node.name, node.name)
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name in tensors:
                        names[index] = tensors[name]
