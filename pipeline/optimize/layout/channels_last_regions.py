"""Regions of a graph with channels last: (N, ..., channels) instead of (N, channels, ...), for the sake of some of its nodes.

What works on each element alone, or on whole axes, does the same in either layout and follows the nodes around it. Where the
layout changes, `transpose_min_cut.py` decides. A Transpose over time that the graph has already is such a change as well: after
it channels are last already, and whether it is needed is decided with the rest.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.layout.conv1d_to_conv2d import BINARY, UNARY, swaps_channels
from pipeline.optimize.layout.qlinear_conv import has_one_scale
from pipeline.optimize.layout.transpose_min_cut import Piece, cheapest

RANKS = (3, 4)  # over time, over images
GATHERED = 16  # a price is less by one of so many parts where the tensor is gathered into blocks anyway
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})


class Part(Protocol):
    """Nodes that have a form of their own with channels last."""

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The nodes that it stands for."""

    @property
    def source(self) -> str:
        """Their input, (N, channels, ...)."""

    @property
    def output(self) -> str:
        """Their output, (N, channels, ...)."""

    @property
    def rank(self) -> int:
        """The number of axes of both."""

    @property
    def must(self) -> bool:
        """Whether it is for these nodes that the layout changes."""

    def write(self, layout: "Layout", source: str, output: str) -> None:
        """Add nodes that compute `output` from `source`, both with channels last."""


class Layout:
    """What of a graph gets channels last.

    Args:
        graph: to change.
        parts: what it is done for, and what else has a form of its own there.
    """

    def __init__(self, graph: Graph, parts: Sequence[Part]) -> None:
        self.graph = graph
        self._parts = list(parts)
        self._inside = {id(node) for part in parts for node in part.nodes}
        self._ranks = {tensor: part.rank for part in parts for tensor in (part.source, part.output)}
        self._roots: dict[str, tuple[str, bool]] = {}  # output of a Transpose -> its source, and whether the axes are swapped
        self._twins: dict[str, str] = {}  # tensor -> the output of a Transpose of it in the graph
        for node in graph.nodes:
            if swaps_channels(node):
                root, swapped = self._root(node.input[0])
                self._roots[node.output[0]] = (root, not swapped)
                if root == node.input[0]:
                    self._twins.setdefault(root, node.output[0])
        self._is_natural_last = self._natural_layouts()
        self._names: dict[tuple[str, bool], str] = {}  # (root, channels last) -> its name
        self._chosen: set[object] = set()

    def write(self) -> None:
        """Change the graph."""
        graph = self.graph
        pieces = list(self._pieces())
        prices = {tensor: self._bytes(tensor) for piece in pieces for tensor in (*piece.reads, *piece.writes)}
        self._chosen = {piece.key for piece in cheapest(pieces, prices)}
        parts = [part for part in self._parts if self.has_last(part.nodes[0])]
        others = [node for node in graph.nodes if self._follows(node) and (id(node) in self._chosen) != self._has_last(node)]
        for tensor in (*(value.name for value in graph.model.graph.input), *(t for node in graph.nodes for t in node.output)):
            if self._root(tensor)[0] == tensor:
                self._names[tensor, self._natural(tensor)] = tensor
        for tensor in [*(part.output for part in parts), *(tensor for node in others for tensor in node.output)]:
            last = self._natural(tensor)
            del self._names[tensor, last]
            self._names[tensor, not last] = graph.fresh_name(f"{tensor}_turned")
        for part in parts:
            graph.remove(*part.nodes)
            part.write(self, self.named(part.source, last=True), self._names[part.output, True])
        for node in others:
            self._write_in_other_layout(node, last=not self._has_last(node))
        self._produce_what_is_read()

    def has_last(self, first: onnx.NodeProto) -> bool:
        """Return whether the part that begins with a node is written with channels last."""
        return id(first) in self._chosen

    def named(self, tensor: str, *, last: bool) -> str:
        """Return the name of a tensor in one of the two layouts; a Transpose is added where there is none yet."""
        root, _ = self._root(tensor)
        if (root, last) not in self._names:
            other, natural = self._names[root, not last], self._natural(root)
            if other == root and root in self._twins:
                self._names[root, last] = self._twins[root]
            else:
                name = root if last == natural else self.graph.fresh_name(f"{root}_turned")
                self._names[root, last] = name
                self.graph.add_node("Transpose", [other], name, like=root, perm=_order(self._rank(root), last=last))
        return self._names[root, last]

    # Which layout tensors have

    def _root(self, tensor: str) -> tuple[str, bool]:
        return self._roots.get(tensor, (tensor, False))

    def _natural(self, tensor: str) -> bool:
        """Return whether a tensor has channels last in the graph as it is."""
        root, swapped = self._root(tensor)
        return self._is_natural_last.get(root, False) != swapped

    def _has_last(self, node: onnx.NodeProto) -> bool:
        return self._natural(node.output[0])

    def _rank(self, tensor: str) -> int:
        return self._ranks.get(tensor) or self.graph.rank(tensor) or 0

    def _bytes(self, tensor: str) -> int:
        """Return how many bytes a tensor has for each position of those axes whose lengths are not known.

        In front of float Convs alone it is a little less: ONNX Runtime can transpose it while it gathers blocks for them.
        """
        consumers = self.graph.consumers(tensor)
        gathered = bool(consumers) and all(consumer.op_type == "Conv" for consumer in consumers)
        known = [length for length in self.graph.shape(tensor) or () if isinstance(length, int)]
        price = (4 if self.graph.is_float(tensor) else 1) * max(prod(known), 1)
        return price - max(price // GATHERED, 1) if gathered else price

    def _natural_layouts(self) -> dict[str, bool]:
        """Return which tensors have channels last in the graph as it is, as seen from the parts, which have channels first."""
        neighbours: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        for node in self.graph.nodes:
            if id(node) not in self._inside and works_on_axes(self.graph, node):
                (first, swapped), *others = [self._root(tensor) for tensor in (*data_of(self.graph, node), *node.output)]
                for other, also_swapped in others:
                    neighbours[other].append((first, swapped != also_swapped))
                    neighbours[first].append((other, swapped != also_swapped))
        found: dict[str, bool] = {}
        waiting = [self._root(tensor) for part in self._parts for tensor in (part.source, part.output)]
        while waiting:
            root, last = waiting.pop()
            if root not in found:
                found[root] = last
                waiting += [(other, last != differs) for other, differs in neighbours[root]]
        return found

    def _follows(self, node: onnx.NodeProto) -> bool:
        """Return whether a node may have either layout: the same for all its inputs and outputs."""
        if id(node) in self._inside or not works_on_axes(self.graph, node):
            return False
        return len({self._natural(tensor) for tensor in (*data_of(self.graph, node), *node.output)}) == 1

    def _pieces(self) -> Iterator[Piece]:
        """Yield all producers and consumers of tensors."""
        graph = self.graph
        for tensor in (*(value.name for value in graph.model.graph.input), *sorted(graph.pinned)):
            yield self._fixed(("end", tensor), tensor, produced=tensor not in graph.pinned)
        for part in self._parts:
            fits = not self._natural(part.source) and not self._natural(part.output)
            fixed = ("last" if part.must else None) if fits else "first"
            yield Piece(id(part.nodes[0]), (self._root(part.source)[0],), (part.output,), fixed)  # type: ignore[arg-type]
        for node in graph.nodes:
            if id(node) in self._inside or node.output[0] in self._roots:
                continue
            reads = tuple(self._root(tensor)[0] for tensor in data_of(graph, node))
            if self._follows(node):
                yield Piece(id(node), reads, tuple(node.output))
                continue
            for tensor in dict.fromkeys(tensor for tensor in node.input if tensor):
                yield self._fixed((id(node), tensor), tensor, produced=False)
            for tensor in node.output:
                yield self._fixed((id(node), tensor), tensor, produced=True)

    def _fixed(self, key: object, tensor: str, *, produced: bool) -> Piece:
        """Return the producer or a consumer of a tensor in the layout that it has in the graph."""
        root = (self._root(tensor)[0],)
        return Piece(key, () if produced else root, root if produced else (), "last" if self._natural(tensor) else "first")

    # Writing

    def _write_in_other_layout(self, node: onnx.NodeProto, *, last: bool) -> None:
        """Write a node in the layout that it does not have in the graph."""
        graph, rank = self.graph, self._rank(node.output[0])
        data = data_of(graph, node)
        inputs = [self.named(t, last=last) if t in data else self._constant(t, rank, last=last) for t in node.input]
        changed: dict[str, Any] = {}
        if node.op_type in ("Concat", "Split"):
            changed["axis"] = _moved(int(attribute(node, "axis", 0)), rank, last=last)
        if node.op_type in ("Slice", "Split", "Clip"):
            inputs[1:] = list(node.input[1:])
        if node.op_type == "Slice":
            axes = graph.constant(node.input[3])
            assert axes is not None
            inputs[3] = graph.add_initializer(
                np.array([_moved(int(axis), rank, last=last) for axis in axes], axes.dtype), "axes"
            )
        graph.replace_node(node, inputs, [self._names[tensor, last] for tensor in node.output], **changed)

    def _constant(self, tensor: str, rank: int, *, last: bool) -> str:
        array = self.graph.constant(tensor) if tensor else None
        if array is None or array.size == 1:
            return tensor
        whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return self.graph.add_initializer(np.transpose(whole, _order(rank, last=last)), f"{tensor}_turned")

    def _produce_what_is_read(self) -> None:
        """Produce under their names the tensors that are still read in their former layout."""
        graph = self.graph
        nodes = [node for node in graph.nodes if not graph.is_removed(node) and node.output[0] not in self._roots]
        waiting = [*graph.pinned, *(tensor for node in nodes for tensor in node.input if tensor)]
        seen: set[str] = set()
        while waiting:
            tensor = waiting.pop()
            root, _ = self._root(tensor)
            if tensor in seen or graph.constant(tensor) is not None:
                continue
            seen.add(tensor)
            if root == tensor:
                self.named(tensor, last=self._natural(tensor))
                continue
            node = graph.producer(tensor)
            assert node is not None
            if self._names.get((root, self._natural(root))) == root and not self._is_new(root):
                waiting.append(node.input[0])
                continue
            graph.remove(node)
            graph.add_node("Identity", [self.named(root, last=self._natural(tensor))], tensor, like=tensor)

    def _is_new(self, root: str) -> bool:
        """Return whether a tensor gets another layout than before."""
        producer = self.graph.producer(root)
        return producer is not None and self.graph.is_removed(producer)


def works_on_axes(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node does the same whichever axis the channels are, once its own settings say so."""
    rank = graph.rank(node.output[0]) if node.output else None
    if rank not in RANKS or node.domain:
        return False
    data = data_of(graph, node)
    if not data or any(graph.rank(tensor) != rank for tensor in data):
        return False
    rest = [graph.constant(tensor) for tensor in node.input if tensor and tensor not in data]
    if any(array is None or (array.ndim > rank and array.size > 1) for array in rest):
        return False
    if node.op_type in CONVERSIONS:
        return has_one_scale(graph, node)
    if node.op_type == "Slice":
        return len(node.input) > 3
    return node.op_type in UNARY or node.op_type in BINARY or node.op_type in ("Concat", "Where", "Split")


def data_of(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Return the inputs of a node that are not always the same."""
    return [tensor for tensor in dict.fromkeys(node.input) if tensor and graph.constant(tensor) is None]


def _moved(axis: int, rank: int, *, last: bool) -> int:
    """Return where an axis is once channels are last, or first again."""
    return _order(rank, last=last).index(axis % rank)


def _order(rank: int, *, last: bool) -> list[int]:
    """Return the order of axes that puts channels last, or first again."""
    return [0, *range(2, rank), 1] if last else [0, rank - 1, *range(1, rank - 1)]
