"""Weights of their own for nodes whose weights are about to change, where something else reads them too."""

from collections.abc import Collection

import onnx

from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import Names, outer_scope_inputs


def separate_weights(model: onnx.ModelProto, nodes: Collection[str], suffix: str) -> dict[str, str]:
    """Give the named nodes copies of the weights that other nodes, bodies or outputs of the graph read too, in place.

    Returns:
        Weight -> its copy, which all the named nodes read; none for a weight that is theirs alone.
    """
    graph = model.graph
    constants = initializers_of(model)
    readers = [node for node in graph.node if node.name in nodes and len(node.input) > 1 and node.input[1] in constants]
    own = {node.input[1] for node in readers}
    elsewhere = {output.name for output in graph.output}.union(*map(outer_scope_inputs, graph.node))
    for node in graph.node:
        elsewhere.update(name for place, name in enumerate(node.input) if place != 1 or node.name not in nodes)
    names = Names(graph)
    copies = {name: names.fresh(f"{name}_{suffix}") for name in sorted(own & elsewhere)}
    for name, copy in copies.items():
        graph.initializer.add().CopyFrom(constants[name])
        graph.initializer[-1].name = copy
    for node in readers:
        node.input[1] = copies.get(node.input[1], node.input[1])
    return copies
