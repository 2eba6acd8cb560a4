"""Names of nodes that ONNX Runtime has moved out of an If whose condition is constant.

It gives them new names (`_if_then_branch_Conv`), puts `_if_then_branch_` before the names of the tensors that they make, and
lets what the branch gives out have the name of the If's output.
"""

import re
from collections.abc import Iterator

import onnx

from pipeline.graph.subgraph_scopes import bodies, graphs_of

MOVED = re.compile(r"^(?:_if_(?:then|else)_branch_(?:token_\d+_)?)+")


def restore_names(folded: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Give nodes that lay in a branch the names that they had there, in place.

    Args:
        folded: the graph as ONNX Runtime has written it.
        original: the graph that it was given.
    """
    moved = [node for node in folded.graph.node if MOVED.match(node.name)]
    if not moved:
        return
    makers: dict[str, list[onnx.NodeProto]] = {}
    for scope in graphs_of(original.graph):
        for node in scope.node:
            for output in node.output:
                makers.setdefault(output, []).append(node)
    used = {node.name for scope in graphs_of(folded.graph) for node in scope.node}
    for node in moved:
        tensor = node.output[0]
        tensor = tensor if tensor in makers else MOVED.sub("", tensor)
        found = [origin for maker in makers.get(tensor, ()) for origin in _origins(maker, tensor)]
        names = (origin.name for origin in found if origin.op_type == node.op_type and origin.name)
        name = next((name for name in names if name not in used), None)
        if name is not None:
            node.name = name
            used.add(name)


def _origins(maker: onnx.NodeProto, tensor: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that may have made a tensor: where an If did, those that make what its branches give out."""
    yield maker
    if maker.op_type == "If":
        place = list(maker.output).index(tensor)
        for body in bodies(maker):
            given = body.output[place].name
            for inner in (node for node in body.node if given in node.output):
                yield from _origins(inner, given)
