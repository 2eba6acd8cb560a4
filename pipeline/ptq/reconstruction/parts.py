"""Parts of a quantized graph that are reconstructed: blocks between single tensors, and the longest end that torch can run.

Where all that was rounded so far is held by one tensor (the stream of a residual network between two of its blocks, the sum of
the branches of a vocoder's stage), a graph can be cut: what lies between two such tensors is a block (Li et al. 2021, "BRECQ",
arXiv:2102.05426). Tensors that no rounding has touched, such as masks of given lengths, may pass by.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx

from pipeline.graph.subgraph_scopes import bodies, input_tensors
from pipeline.ptq.reconstruction.fake_quantization import Learned
from pipeline.ptq.reconstruction.torch_operators import unknown_operators

DRAWING = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"})


@dataclass(frozen=True)
class Part:
    """Nodes that are reconstructed together.

    Attributes:
        name: what they make, for people.
        nodes: of the quantized graph, in order.
        original: of the float graph, which compute the same.
        inputs: tensors that both read: the first is the one that was rounded, or an input of the graph.
        outputs: what both make.
    """

    name: str
    nodes: tuple[onnx.NodeProto, ...]
    original: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """The names of the quantized nodes."""
        return {node.name for node in self.nodes}


@dataclass(frozen=True)
class Parts:
    """How a graph was divided.

    Attributes:
        blocks: in order.
        whole: from some block on to the outputs of the graph; None: not even the last block can run in torch.
        left: nodes whose numbers stay as they were -> why; they are named by what they make.
    """

    blocks: tuple[Part, ...]
    whole: Part | None
    left: dict[str, str]


def parts_of(quantized: onnx.ModelProto, reference: onnx.ModelProto, learned: Learned) -> Parts:
    """Return the parts of a graph.

    Args:
        quantized: with Q/DQ pairs, its nodes in an order in which they can run.
        reference: the float graph, whose tensors have the same names.
        learned: what can be learned of the quantized graph.
    """
    return _Dividing(quantized, reference, learned).divide()


class _Dividing:
    def __init__(self, quantized: onnx.ModelProto, reference: onnx.ModelProto, learned: Learned) -> None:
        self.nodes = list(quantized.graph.node)
        self.learned = learned
        self.constants = {tensor.name for tensor in quantized.graph.initializer}
        self.given = [value.name for value in quantized.graph.input if value.name not in self.constants]
        self.outputs = [output.name for output in quantized.graph.output]
        self.float_makers = {name: node for node in reference.graph.node for name in node.output if name}
        self.float_place = {node.name: place for place, node in enumerate(reference.graph.node)}
        self.float_constants = {tensor.name for tensor in reference.graph.initializer}
        self.last = {name: index for index, node in enumerate(self.nodes) for name in input_tensors(node)}
        self.last |= dict.fromkeys(self.outputs, len(self.nodes))
        self.fixed = self._fixed()

    def _fixed(self) -> dict[str, int]:
        """Return the tensors that are computed from constants alone, each with the index of its node."""
        fixed: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            read = set(input_tensors(node))
            if read <= self.constants | fixed.keys() and node.op_type not in DRAWING and not list(bodies(node)):
                fixed |= dict.fromkeys(node.output, index)
        return fixed

    def divide(self) -> Parts:
        cuts = self._cuts()
        left: dict[str, str] = {}
        blocks: list[Part] = []
        start = 0
        for cut, tensor in [*cuts, (len(self.nodes), "")]:
            nodes = self.nodes[start:cut]
            if not self.learned.tensors({node.name for node in nodes}) and cut < len(self.nodes):
                continue  # nothing to learn yet: a part of the next block
            outputs = [tensor] if tensor else self.outputs
            self._add(blocks, left, nodes, outputs)
            start = cut
        begin = max((index + 1 for index, node in enumerate(self.nodes) if self._stops(node)), default=0)
        places = [0, *(cut for cut, _ in cuts)]
        first = next((place for place in places if place >= begin), None)
        whole = None if first is None else self._part("the whole", self.nodes[first:], self.outputs)
        return Parts(tuple(blocks), whole if isinstance(whole, Part) and self._learns(whole) else None, left)

    def _learns(self, part: Part) -> bool:
        return bool(self.learned.tensors(part.names))

    def _stops(self, node: onnx.NodeProto) -> bool:
        """Return whether torch cannot run a node, and it computes with data."""
        return bool(unknown_operators([node]) or list(bodies(node)))

    def _add(self, blocks: list[Part], left: dict[str, str], nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
        names = {node.name for node in nodes}
        if not self.learned.tensors(names):
            return
        name = outputs[0]
        unknown = unknown_operators([node for node in nodes])
        if unknown or any(list(bodies(node)) for node in nodes):
            left[name] = f"torch is not taught {', '.join(unknown) or 'bodies of If and Loop'}"
            return
        part = self._part(name, nodes, outputs)
        if isinstance(part, str):
            left[name] = part
        else:
            blocks.append(part)

    def _part(self, name: str, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> Part | str:
        """Return a part, or why it cannot be reconstructed."""
        nodes = self._with_constants(nodes)
        made = {tensor for node in nodes for tensor in node.output}
        wanted = [tensor for tensor in outputs if tensor in made]
        read = dict.fromkeys(tensor for node in nodes for tensor in input_tensors(node) if tensor and tensor not in made)
        inputs = [tensor for tensor in read if tensor not in self.constants]
        strange = [t for t in (*inputs, *wanted) if t not in self.float_makers and t not in self.given]
        if strange or not wanted:
            return f"{strange[0] if strange else name!r} is no tensor of the float graph"
        original = self._upstream(wanted, set(inputs))
        if original is None:
            return "the float graph computes it from something else"
        if unknown := unknown_operators(original):
            return f"torch is not taught {', '.join(unknown)}"
        return Part(name, tuple(nodes), tuple(original), tuple(inputs), tuple(wanted))

    def _with_constants(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Return some nodes, behind those that restore or compute the constants that they read."""
        made = {tensor for node in nodes for tensor in node.output}
        before: set[int] = set()
        waiting = [tensor for node in nodes for tensor in input_tensors(node) if tensor not in made]
        while waiting:
            index = self.fixed.get(waiting.pop())
            if index is not None and index not in before:
                before.add(index)
                waiting += input_tensors(self.nodes[index])
        return [*(self.nodes[index] for index in sorted(before)), *nodes]

    def _upstream(self, wanted: Collection[str], inputs: Collection[str]) -> list[onnx.NodeProto] | None:
        """Return the float nodes from some tensors to others, in order; None where they read something else that moves."""
        found: dict[str, onnx.NodeProto] = {}
        waiting, seen = list(wanted), set(inputs)
        while waiting:
            tensor = waiting.pop()
            if tensor in seen or tensor in self.float_constants:
                continue
            seen.add(tensor)
            node = self.float_makers.get(tensor)
            if node is None:
                return None
            found[node.name] = node
            waiting += [name for name in input_tensors(node) if name]
        return sorted(found.values(), key=lambda node: self.float_place[node.name])

    def _cuts(self) -> list[tuple[int, str]]:
        """Return where the graph can be cut: (index of the node behind it, the only rounded tensor that is read there)."""
        rounded: set[str] = set()
        live: set[str] = set()
        cuts = []
        for index, node in enumerate(self.nodes):
            read = set(input_tensors(node))
            touched = not read.isdisjoint(rounded) or any(name in self.learned.weights for name in read)
            if touched or (node.op_type == "QuantizeLinear" and node.input[0] not in self.constants):
                new = {name for name in node.output if name}
                rounded |= new
                live |= new
            live = {name for name in live if self.last.get(name, -1) > index}
            if len(live) == 1 and index + 1 < len(self.nodes):
                [tensor] = live
                if tensor in self.float_makers and self._passes(index + 1, tensor):
                    cuts.append((index + 1, tensor))
        return cuts

    def _passes(self, index: int, tensor: str) -> bool:
        """Return whether a cut lies behind the pair of the tensor, not between its halves, and before what reads it."""
        return self.last.get(tensor, -1) >= index
