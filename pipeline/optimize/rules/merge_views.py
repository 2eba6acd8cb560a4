"""Operators that only give a tensor other axes, as one Reshape or none.

    unsqueeze(relu(squeeze(conv(x)))) = relu(conv(x))    reshape(squeeze(x)) = reshape(x)

A Reshape, a Squeeze, an Unsqueeze, a Flatten, and a Transpose that moves nothing but axes of length 1 leave the values in their
order. Exporters of recurrent and one-dimensional layers write them around each layer. None computes anything, but each is
called, and that is a third of the time of a voice activity detector of one step (DTLN: Squeeze and Unsqueeze take as long as
its LSTMs); and between two Convs they keep ONNX Runtime from fusing an activation and from staying in the layout of its Convs.
An operator on single values between them works on the first tensor instead.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.graph.symbolic_dims import Shape
from pipeline.optimize.outcome import Outcome, outcome

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
BY_VALUE = frozenset(
    {"Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus", "Neg", "Abs", "Exp", "Log", "Sqrt",
     "Reciprocal", "Erf", "Cast"}
)  # fmt: skip


@dataclass(frozen=True)
class _Chain:
    """Views, with operators on single values between them, each the only reader of the one before.

    Attributes:
        nodes: from the first view to the last.
        views: how many of them are views.
        shape: of what comes out; one length may be -1.
        is_same: it is the shape of what goes in.
    """

    nodes: tuple[onnx.NodeProto, ...]
    views: int
    shape: tuple[int, ...]
    is_same: bool

    @property
    def source(self) -> str:
        return str(self.nodes[0].input[0])

    @property
    def result(self) -> str:
        return str(self.nodes[-1].output[0])


def rewrite(graph: Graph) -> Outcome:
    """Merge the views of each chain; return how many views there are less."""
    chains = [chain for node in graph.nodes if _ends_here(graph, node) and (chain := _chain(graph, node)) is not None]
    instead: dict[str, str] = {}  # what is read in the place of a tensor that a chain gave out unchanged
    saved = 0
    for chain in chains:
        tensor = instead.get(chain.source, chain.source)
        by_value = [node for node in chain.nodes if not _is_view(graph, node)]
        drop = chain.is_same and (bool(by_value) or chain.result not in graph.pinned)
        for place, node in enumerate(by_value):
            ends = drop and place == len(by_value) - 1
            output = chain.result if ends else graph.fresh_name(f"{node.output[0]}_before")
            tensor = graph.replace_node(node, [tensor], output)
        graph.remove(*(node for node in chain.nodes if _is_view(graph, node)))
        if not drop:
            shape = graph.add_initializer(np.array(chain.shape, np.int64), "shape")
            graph.add_node("Reshape", [tensor, shape], chain.result, name=chain.nodes[-1].name)
        elif not by_value:
            instead[chain.result] = tensor
        saved += chain.views - (not drop)
    for node in graph.nodes:
        if instead.keys() & set(node.input) and not graph.is_removed(node):
            graph.replace_node(node, [instead.get(name, name) for name in node.input], list(node.output))
    return outcome(saved, "no two operators in a row that only change axes")


def _chain(graph: Graph, last: onnx.NodeProto) -> _Chain | None:
    """Return the chain that a view ends, where one Reshape can take its place and something is gained."""
    nodes: list[onnx.NodeProto] = [last]
    pending: list[onnx.NodeProto] = []
    while (before := graph.producer((pending or nodes)[-1].input[0])) is not None:
        if graph.only_consumer(before.output[0]) is None:
            break
        if _is_view(graph, before):
            nodes += [*pending, before]
            pending = []
        elif before.op_type in BY_VALUE and not before.domain:
            pending.append(before)
        else:
            break
    first, shape = graph.shape(nodes[-1].input[0]), graph.shape(last.output[0])
    if first is None or shape is None:
        return None
    views = sum(_is_view(graph, node) for node in nodes)
    is_same = _are_equal(first, shape)
    lengths = tuple(length if isinstance(length, int) else -1 for length in shape)
    if 0 in lengths or not (is_same or lengths.count(-1) <= 1):
        return None
    if not is_same and views == 1 and last.op_type != "Transpose":
        return None
    return _Chain(tuple(reversed(nodes)), views, lengths, is_same)


def _ends_here(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node is a view and no chain goes on behind it."""
    if not _is_view(graph, node):
        return False
    reader = graph.only_consumer(node.output[0])
    while reader is not None and reader.op_type in BY_VALUE and not reader.domain:
        reader = graph.only_consumer(reader.output[0])
    return reader is None or not _is_view(graph, reader)


def _is_view(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.domain or not node.input or graph.constant(node.input[0]) is not None:
        return False
    if node.op_type != "Transpose":
        return node.op_type in VIEWS
    shape = graph.shape(node.input[0])
    if shape is None:
        return False
    order = attribute(node, "perm", list(reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def _are_equal(first: Shape, second: Shape) -> bool:
    return None not in first and first == second
