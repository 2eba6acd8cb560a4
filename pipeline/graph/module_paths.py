"""Where in a model's source its nodes come from: the modules that exporters note in metadata, and calls of local functions.

torch's exporter names a node `node_conv1d_3`, and notes in its metadata the modules that it lies in
(`pkg.torch.onnx.name_scopes`: `['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.conv', 'conv1d_3']`), or both their
paths and their classes (`namespace`).
"""

import ast
from collections.abc import Mapping
from types import MappingProxyType

import onnx

from pipeline.graph.subgraph_scopes import graphs_of

NAME_SCOPES, NAMESPACE = "pkg.torch.onnx.name_scopes", "namespace"
MOST_PARTS = 64  # of a path; metadata is free text

Paths = Mapping[str, tuple[str, ...]]
"""Node name -> paths of what it lies in, the outermost first: a setting may name a node by each of them."""

NOWHERE: Paths = MappingProxyType({})


def module_paths(model: onnx.ModelProto, calls: Paths) -> dict[str, tuple[str, ...]]:
    """Return the paths of all nodes, those of bodies included, that lie in a module or come from a function.

    Args:
        model: a graph whose functions are inlined.
        calls: node name -> the calls of functions that it comes from.
    """
    found: dict[str, tuple[str, ...]] = {}
    for scope in graphs_of(model.graph):
        for node in scope.node:
            if paths := (*calls.get(node.name, ()), *_modules(node)):
                found[node.name] = paths
    return found


def module_of(paths: Paths, node: str) -> str | None:
    """Return the innermost path of a node; None where nothing is known of it."""
    return paths[node][-1] if node in paths else None


def _modules(node: onnx.NodeProto) -> tuple[str, ...]:
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    if NAME_SCOPES in metadata:
        parts = _literal_list(metadata[NAME_SCOPES])
    elif ": " in metadata.get(NAMESPACE, ""):
        parts = [part.partition(": ")[0] for part in metadata[NAMESPACE].split("/")]
    else:
        return ()
    return tuple(dict.fromkeys(part for part in parts[:-1][:MOST_PARTS] if part))  # the last is the node itself


def _literal_list(text: str) -> list[str]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [part for part in value if isinstance(part, str)] if isinstance(value, list | tuple) else []
