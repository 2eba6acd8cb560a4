"""The float graph as consecutive parts, so that a change to one group costs a session of one part, not of all behind it.

To open a session takes longer than to run it on a short sample: ONNX Runtime optimises the graph. Here each part of the float
graph is opened once, and what a group is quantized in runs between them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import onnx
import onnxruntime
from onnx import helper

from pipeline.graph.session import open_session
from pipeline.graph.subgraph import extract
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.quantize.operators import CUTTING
from pipeline.sample import Array

MOST_PARTS, LEAST_NODES = 12, 40
MOST_CROSSING = 24  # tensors that a later part reads: all of them are held, of every sample


@dataclass(frozen=True)
class Part:
    """Consecutive nodes of a graph, as a model.

    Attributes:
        model: the nodes, with the constants that they use.
        inputs: tensors of the graph's inputs, or of earlier parts.
        outputs: tensors that later parts read, or the graph gives out.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def nodes(self) -> frozenset[str]:
        """Names of its nodes."""
        return frozenset(node.name for node in self.model.graph.node)


class ConsecutiveParts:
    """A float graph in parts.

    Attributes:
        parts: in the order in which they run; a single one where the graph has no place to be cut.

    Args:
        model: the graph with the types of its tensors, its nodes in an order in which they can run. It is not changed.
        threads: intra-op threads.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        self._threads = threads
        self.parts = _parts_of(model)
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    @property
    def crossing(self) -> list[str]:
        """Tensors that parts but the first read."""
        return list(dict.fromkeys(name for part in self.parts[1:] for name in part.inputs))

    def first_of(self, nodes: Collection[str]) -> int:
        """Return the number of the first part with some of these nodes."""
        return next(number for number, part in enumerate(self.parts) if not part.nodes.isdisjoint(nodes))

    def session(self, number: int, given: Mapping[str, Array]) -> onnxruntime.InferenceSession:
        """Return the session of a part, opened once.

        Args:
            number: of the part.
            given: its inputs, of which the types are taken.
        """
        if number not in self._sessions:
            model = typed_by(self.parts[number].model, given)
            self._sessions[number] = open_session(model, self._threads, known=True)  # ONNX Runtime has opened all of the graph
        return self._sessions[number]


def typed_by(part: onnx.ModelProto, given: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a part whose inputs have the types of some arrays, and any shape; it is changed."""
    for value in part.graph.input:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(given[value.name].dtype)
        value.type.tensor_type.ClearField("shape")
    return part


def _parts_of(model: onnx.ModelProto) -> list[Part]:
    graph = model.graph
    sources = [node for node in graph.node if not any(input_tensors(node))]  # a Constant: cheaper to compute than to hand over
    nodes = [node for node in graph.node if any(input_tensors(node))]
    types = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name for tensor in graph.initializer} | {name for node in sources for name in node.output}
    made = [[name for name in node.output if name] for node in nodes]
    last_read = {name: index for index, node in enumerate(nodes) for name in input_tensors(node)}
    starts = [0, *_cuts(nodes, made, last_read, types), len(nodes)]
    given_out = {value.name for value in graph.output}
    found = []
    for start, end in pairwise(starts):
        inside = nodes[start:end]
        own = dict.fromkeys(name for names in made[start:end] for name in names)
        read = dict.fromkeys(name for node in inside for name in input_tensors(node))
        inputs = tuple(name for name in read if name not in own and name not in constants)
        outputs = tuple(name for name in own if last_read.get(name, -1) >= end or name in given_out)
        part = extract(
            model, [*_makers(sources, read), *inside], [types.get(name, onnx.ValueInfoProto(name=name)) for name in inputs],
            [types.get(name, name) for name in outputs], value_info=[types[name] for name in own if name in types],
        )  # fmt: skip
        found.append(Part(part, inputs, outputs))
    return found


def _makers(sources: Iterable[onnx.NodeProto], read: Collection[str]) -> list[onnx.NodeProto]:
    return [node for node in sources if not set(read).isdisjoint(node.output)]


def _cuts(
    nodes: list[onnx.NodeProto], made: list[list[str]], last_read: Mapping[str, int], types: Mapping[str, onnx.ValueInfoProto]
) -> list[int]:
    """Return where parts of about equal numbers of nodes begin, at places that few tensors cross.

    What a Relu or Clip reads does not cross: one pair of Q/DQ does its work and that of the layer in front. Nor does a sequence
    of tensors.
    """
    cut_off = {name for node in nodes if node.op_type in CUTTING for name in node.input}
    crossing: list[int | None] = [None]  # tensors that cross in front of each node; None: no place to cut
    alive: set[str] = set()
    bad: set[str] = set()
    for index, node in enumerate(nodes):
        alive -= {name for name in input_tensors(node) if last_read[name] == index}
        alive |= {name for name in made[index] if last_read.get(name, -1) > index}
        bad |= {name for name in made[index] if name in cut_off or not _is_tensor(types.get(name))}
        crossing.append(len(alive) if alive and not alive & bad and len(alive) <= MOST_CROSSING else None)
    count = min(MOST_PARTS, len(nodes) // LEAST_NODES)
    found = []
    for number in range(1, count):
        low, high = (round(len(nodes) * (number + shift) / count) for shift in (-0.5, 0.5))
        possible = [
            (size, abs(2 * place - low - high), place) for place in range(low, high) if (size := crossing[place]) is not None
        ]
        found += [min(possible)[2]] if possible else []
    return found


def _is_tensor(value: onnx.ValueInfoProto | None) -> bool:
    return value is not None and value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type != 0
