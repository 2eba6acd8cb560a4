"""Where tensors change their layout, at the least cost of transposes: a minimum cut.

On one side are the nodes that must have channels last, on the other those that know channels first alone; the others may be on
either. A tensor between the sides is transposed once, for all its consumers there. Ford and Fulkerson 1956, "Maximal Flow
through a Network": the least sum of transposed bytes is the greatest flow from one side to the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

UNLIMITED = 1 << 28


@dataclass(frozen=True)
class Piece:
    """A node, or several that go together.

    Attributes:
        key: any name.
        reads: tensors.
        writes: tensors.
        fixed: the layout that it must have.
    """

    key: object
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    fixed: Literal["first", "last"] | None = None


def cheapest(pieces: Sequence[Piece], prices: Mapping[str, int]) -> list[Piece]:
    """Return the pieces that get channels last.

    Args:
        pieces: all of the graph.
        prices: tensor -> what a transpose of it costs.
    """
    from scipy.sparse import csr_array  # most runs transpose nothing
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    edges: dict[tuple[int, int], int] = {}
    last, first = 0, 1
    vertices = {piece.key: number for number, piece in enumerate(pieces, 2)}
    count = len(pieces) + 2
    producers = {tensor: vertices[piece.key] for piece in pieces for tensor in piece.writes}
    consumers: dict[str, set[int]] = {}
    for piece in pieces:
        for tensor in piece.reads:
            consumers.setdefault(tensor, set()).add(vertices[piece.key])
        if piece.fixed is not None:
            pair = (last, vertices[piece.key]) if piece.fixed == "last" else (vertices[piece.key], first)
            edges[pair] = UNLIMITED
    for tensor, there in consumers.items():
        producer = producers.get(tensor, first)
        forth, back = count, count + 1  # paid once, however many read it on the other side
        count += 2
        edges[producer, forth] = edges[back, producer] = prices.get(tensor, 1)
        edges |= {(forth, consumer): UNLIMITED for consumer in there} | {(consumer, back): UNLIMITED for consumer in there}
    rows, columns = np.array(list(edges)).T
    capacity = csr_array((np.array(list(edges.values()), np.int32), (rows, columns)), shape=(count, count))
    left = capacity - maximum_flow(capacity, last, first).flow
    left.eliminate_zeros()
    reached = set(breadth_first_order(left, last, return_predecessors=False).tolist())
    return [piece for piece in pieces if vertices[piece.key] in reached]
