"""The shape of tensors of equal lengths, computed once.

Exported attention asks in every layer how long its input is, and computes from it what it slices and pads. Where the lengths
are the same, so is all that follows, and ONNX Runtime computes equal things once (common_subexpression_elimination.cc).

Two lengths are equal for certain where shape inference, or the graph itself, gives them the same symbolic name or the same
number (`symbolic_dims.py`). Inference loses the name in the first layer, at what was padded and sliced by a computed length. So
a place may also rest on an assumption: two lengths that meet in a broadcast, and that no constant gives, are equal. They need
not be: one of them may be 1 for some inputs (a condition of one frame or of all frames), and is repeated then.
"""

from collections.abc import Sequence
from itertools import zip_longest

from pipeline.graph.graph_editor import Graph
from pipeline.graph.symbolic_dims import BROADCAST, Dim
from pipeline.optimize.outcome import Outcome, outcome

ASSUMPTION = "two lengths that meet in a broadcast are equal: none of them is 1 while the other is longer"


def rewrite(graph: Graph, *, assume: bool = False) -> Outcome:
    """Let every Shape of a tensor as large as an earlier one read the earlier one; return the number of these nodes."""
    joined = _meeting(graph)
    earliest: dict[tuple[Dim, ...], str] = {}  # shape -> the first tensor that has it
    earliest_joined: dict[tuple[Dim, ...], str] = {}  # the same, with lengths that meet taken for one
    count = assumed = withheld = 0
    for node in graph.nodes:
        shape = graph.shape(node.input[0]) if node.op_type == "Shape" else None
        if shape is None or None in shape:
            continue
        tensor = node.input[0]
        same = earliest.setdefault(shape, tensor)
        alike = earliest_joined.setdefault(tuple(_root(joined, dim) for dim in shape), tensor)
        target = alike if assume else same
        if target != tensor:
            graph.replace_node(node, [target])
            count += 1
            assumed += graph.shape(target) != shape
        else:
            withheld += alike != tensor
    return outcome(count, "no two Shape nodes of tensors of equal lengths", assumed=assumed, withheld=withheld)


def _meeting(graph: Graph) -> dict[Dim, Dim]:
    """Return symbolic dimensions -> the one that they are taken to equal, since they meet in a broadcast."""
    joined: dict[Dim, Dim] = {}
    for node in graph.nodes:
        if node.op_type not in BROADCAST:
            continue
        shapes = [graph.shape(tensor) for tensor in (*node.input, *node.output) if tensor]
        for dims in zip_longest(*(tuple(reversed(shape)) for shape in shapes if shape is not None)):
            _join(joined, dims)
    return joined


def _join(joined: dict[Dim, Dim], dims: Sequence[Dim]) -> None:
    names = [_root(joined, dim) for dim in dims if isinstance(dim, str)]
    if any(isinstance(dim, int) and dim != 1 for dim in dims):
        return
    for name in names[1:]:
        if _root(joined, name) != names[0]:
            joined[_root(joined, name)] = names[0]


def _root(joined: dict[Dim, Dim], dim: Dim) -> Dim:
    while dim in joined:
        dim = joined[dim]
    return dim
