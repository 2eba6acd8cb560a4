"""An update of a whole range of one axis, as Slice and Concat.

    scatter(x, [s, e) of axis a, u) = concat(x[..s], u, x[e..]) along a

where the constant indices of a ScatterND are all places of a box that is complete in every axis but one, in order: how
exporters write `cache[:, :, s:e] = u`. ScatterND copies all of x, and then writes u place by place through an index of
several integers for each value. A chain of updates, one for each range of a streaming model's cache, becomes one Concat; a
Slice that reads such a range reads the source of that range. The counterpart
in onnxscript is `_redundant_scatter_nd.py`, which covers an update of the whole tensor; here a part of it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.graph.graph_editor import Array, Graph
from pipeline.optimize.outcome import Outcome, outcome


@dataclass(frozen=True)
class Piece:
    """Places [start, end) of an axis of a tensor; in the tensor that they come from they begin at `offset`."""

    start: int
    end: int
    source: str
    offset: int
    whole: bool

    def cut(self, start: int, end: int) -> "Piece":
        """Return the part of it that lies in [start, end)."""
        low, high = max(start, self.start), min(end, self.end)
        whole = self.whole and (low, high) == (self.start, self.end)
        return Piece(low, high, self.source, self.offset + low - self.start, whole)


def rewrite(graph: Graph) -> Outcome:
    """Replace every ScatterND over a range; return their number."""
    written: dict[str, tuple[int, list[Piece]]] = {}
    sites = 0
    for node in graph.nodes:
        if node.op_type == "ScatterND" and (found := _range(graph, node.input[0], node.input[1])) and not node.attribute:
            axis, start, end, length = found
            known = written.get(node.input[0])
            pieces = known[1] if known and known[0] == axis else [Piece(0, length, node.input[0], 0, True)]
            left = [piece.cut(0, start) for piece in pieces if piece.start < start]
            right = [piece.cut(end, length) for piece in pieces if piece.end > end]
            written[node.output[0]] = axis, [*left, Piece(start, end, node.input[2], 0, True), *right]
            graph.remove(node)
            _join(graph, axis, written[node.output[0]][1], node.output[0], node.name)
            sites += 1
        elif node.op_type == "Slice" and node.input[0] in written:
            axis, pieces = written[node.input[0]]
            piece = _read(graph, list(node.input), axis, pieces)
            if piece is not None:
                graph.remove(node)
                _join(graph, axis, [piece], node.output[0], node.name)
    return outcome(sites, "no ScatterND over a constant range of one axis")


def _range(graph: Graph, data: str, indices: str) -> tuple[int, int, int, int] | None:
    """Return axis, start, end and the axis' length, where indices are a box that is complete in all axes but one."""
    places, shape = graph.constant(indices), graph.shape(data)
    if places is None or shape is None or places.ndim < 2 or places.shape[-1] != places.ndim - 1:
        return None
    axes = places.shape[-1]
    lengths = [shape[axis] for axis in range(axes)]
    if not all(isinstance(length, int) for length in lengths):
        return None
    first = places.reshape(-1, axes)[0]
    box = np.stack(np.meshgrid(*(np.arange(n) for n in places.shape[:-1]), indexing="ij"), axis=-1) + first
    partial = [axis for axis in range(axes) if places.shape[axis] != lengths[axis]]
    if len(partial) != 1 or not np.array_equal(box, places) or first[partial[0]] < 0:
        return None
    axis = partial[0]
    start = int(first[axis])
    return axis, start, start + places.shape[axis], int(lengths[axis])  # type: ignore[arg-type]


def _read(graph: Graph, inputs: list[str], axis: int, pieces: list[Piece]) -> Piece | None:
    """Return the piece that a Slice with constant limits reads, where it reads from one alone."""
    limits: list[Array | None] = [graph.constant(tensor) for tensor in inputs[1:]]
    if len(limits) < 3 or any(limit is None or limit.size != 1 for limit in limits):
        return None
    start, end, along, *step = (int(limit.reshape(())) for limit in limits if limit is not None)
    if along != axis or step not in ([], [1]) or start < 0 or end < 0:
        return None
    end = min(end, pieces[-1].end)
    return next((piece.cut(start, end) for piece in pieces if piece.start <= start < end <= piece.end), None)


def _join(graph: Graph, axis: int, pieces: list[Piece], output: str, name: str) -> None:
    """Add the nodes that join pieces; neighbours from one source become one piece."""
    joined = pieces[:1]
    for before, piece in pairwise(pieces):
        if piece.source == before.source and piece.offset == before.offset + before.end - before.start:
            last = joined.pop()
            piece = Piece(last.start, piece.end, last.source, last.offset, False)  # noqa: PLW2901
        joined.append(piece)
    alone = len(joined) == 1
    parts = [_part(graph, axis, piece, name, output if alone else None) for piece in joined]
    if not alone:
        graph.add_node("Concat", parts, output, name=name, axis=axis)


def _part(graph: Graph, axis: int, piece: Piece, name: str, output: str | None) -> str:
    if piece.whole:
        return piece.source if output is None else graph.add_node("Identity", [piece.source], output, like=name)
    limits = (piece.offset, piece.offset + piece.end - piece.start)
    if graph.opset < 10:
        return graph.add_node("Slice", [piece.source], output, like=name, axes=[axis], starts=[limits[0]], ends=[limits[1]])
    tensors = [graph.add_initializer(np.array([value], np.int64), f"place_{value}") for value in (*limits, axis)]
    return graph.add_node("Slice", [piece.source, *tensors], output, like=name)
