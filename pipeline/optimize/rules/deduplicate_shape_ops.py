"""The shape of tensors of equal lengths, asked for once.

Exported attention asks every layer anew how long its input is, and computes from it what it cuts and pads. Where the lengths
are the same, so is all that follows, and ONNX Runtime computes equal things once (common_subexpression_elimination.cc).
Inference of shapes loses the lengths in the first layer, behind what was padded and cut by them. Here two lengths that meet in
a sum or product, and that no constant gives, count as equal: the alternative, that one of them is 1 and the tensor is repeated
along it, is written with the constant 1 wherever people mean it. That the outputs stay the same is checked on real inputs.
"""

from collections.abc import Sequence
from itertools import zip_longest

from pipeline.graph.graph_editor import Graph
from pipeline.graph.symbolic_dims import BROADCAST, Length


def rewrite(graph: Graph) -> int | str:
    """Let every Shape of a tensor as large as an earlier one read the earlier one; return their number."""
    same = _meeting(graph)
    first: dict[tuple[Length, ...], str] = {}
    sites = 0
    for node in graph.nodes:
        shape = graph.shape(node.input[0]) if node.op_type == "Shape" else None
        if shape is None or None in shape:
            continue
        tensor = first.setdefault(tuple(_found(same, length) for length in shape), node.input[0])
        if tensor != node.input[0]:
            graph.replace(node, [tensor])
            sites += 1
    return sites or "no two Shape nodes of tensors of equal lengths"


def _meeting(graph: Graph) -> dict[Length, Length]:
    """Return names of lengths -> the one that they are equal to, since they meet."""
    same: dict[Length, Length] = {}
    for node in graph.nodes:
        if node.op_type not in BROADCAST:
            continue
        shapes = [graph.shape(tensor) for tensor in (*node.input, *node.output) if tensor]
        for lengths in zip_longest(*(tuple(reversed(shape)) for shape in shapes if shape is not None)):
            _join(same, lengths)
    return same


def _join(same: dict[Length, Length], lengths: Sequence[Length]) -> None:
    names = [_found(same, length) for length in lengths if isinstance(length, str)]
    if any(isinstance(length, int) and length != 1 for length in lengths):
        return
    for name in names[1:]:
        if _found(same, name) != names[0]:
            same[_found(same, name)] = names[0]


def _found(same: dict[Length, Length], length: Length) -> Length:
    while length in same:
        length = same[length]
    return length
