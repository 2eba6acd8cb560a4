"""Where Q/DQ pairs go: which tensors become integers, whose scale they have, and who reads them.

ONNX Runtime turns a float operator into its integer kernel when all its data comes out of DequantizeLinear nodes and all
that it makes goes into QuantizeLinear nodes (qdq_selectors.cc). What follows from that:

- a tensor that a quantized node makes is seen by others as integers only: one float reader beside the Q, and the kernel
  stays float. A tensor that a float node makes keeps its float readers, which lose nothing by it, unless all else that
  such a reader touches is integers too;
- a node that moves values (Reshape, Transpose, ...) is quantized where its input is, with the scale of its input: then it
  moves integers. By itself it would gain nothing;
- after a Relu or Clip that alone reads its input, the limits of the pair clip the values: the pair replaces the node.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import onnx

from pipeline.config.choices import IntegerType
from pipeline.graph.subgraph_scopes import bodies, tensors_read
from pipeline.quantize.operators import (
    CARRIED,
    COMPUTING,
    MOVING,
    NORMALIZING,
    STARTING,
    SUPPORTED,
    computed_from_constants,
    cuts_as_a_range_does,
    data_inputs,
    keeps_values,
    looks_up,
    multiplies,
    number_of,
    unfit_constants,
)
from pipeline.quantize.paired_sums import Pairing, pairing_of
from pipeline.quantize.weight_storage import output_axis


@dataclass(frozen=True)
class PairSettings:
    """How tensors become integers.

    Attributes:
        activations: their type.
        weights: their type.
        per_channel: weights get a scale per output channel.
        symmetric: activations get ranges symmetric about zero.
        reduce_range: weights use one bit less than their type has.
        in_16_bits: the processor adds two products in 16 bits: no two paired weights of a node may sum up to too much.
        float_outputs: operator types whose outputs stay float.
    """

    activations: IntegerType = IntegerType.uint8
    weights: IntegerType = IntegerType.int8
    per_channel: bool = True
    symmetric: bool = False
    reduce_range: bool = False
    in_16_bits: bool = False
    float_outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weight:
    """A constant as a node multiplies with it.

    Attributes:
        tensor: its name.
        axis: of its channels; None: one scale for all.
        factor: what its values are multiplied with first (alpha of a Gemm).
        pairing: which of them are multiplied and added in 16 bits; None: none, or the sums have more bits.
    """

    tensor: str
    axis: int | None
    factor: float = 1.0
    pairing: Pairing | None = None


@dataclass
class Placement:
    """Where pairs go.

    Attributes:
        grids: tensor -> the tensor or constant whose scale its pair has, itself or one that it only moves values of.
        produced_int: those of them that a quantized node makes: all their readers get integers.
        readers: of the others -> who gets integers, as (index of the node, index of its input).
        constants: (constant, node, input) that are quantized as activations are.
        weights: index of the node -> its weight.
        biases: index of the node -> the factor of its bias (beta of a Gemm).
        folded: removed tensor -> output of the Relu or Clip that read it.
        absorbed: the indices of those Relu and Clip nodes, which are removed.
        skipped: name of a node that was asked for and stays float -> why.
    """

    grids: dict[str, str] = field(default_factory=dict)
    produced_int: set[str] = field(default_factory=set)
    readers: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    constants: list[tuple[str, int, int]] = field(default_factory=list)
    weights: dict[int, Weight] = field(default_factory=dict)
    biases: dict[int, float] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)

    def measured(self, constants: Collection[str]) -> list[str]:
        """Return the tensors whose ranges must be known, in the order of the graph."""
        roots = dict.fromkeys(self.grids.values())
        return [tensor for tensor in roots if tensor not in constants]


def place_pairs(model: onnx.ModelProto, nodes: Collection[str], settings: PairSettings) -> Placement:
    """Decide where pairs go, in time linear in the size of the graph; the model stays as it is.

    Args:
        model: a graph with the types of its tensors, its nodes in an order in which they can run.
        nodes: the names of those to quantize.
        settings: types and scales.
    """
    return _Placing(model, frozenset(nodes), settings).place()


class _Placing:
    def __init__(self, model: onnx.ModelProto, wanted: frozenset[str], settings: PairSettings) -> None:
        graph = model.graph
        self._wanted = wanted
        self._settings = settings
        self._placement = Placement()
        self._nodes = list(graph.node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self._unfolded = {node.output[0] for node in graph.node if node.op_type == "Constant"}
        self._computed = computed_from_constants(graph)
        self._consumers: dict[str, list[int]] = defaultdict(list)
        self._read_elsewhere = {output.name for output in graph.output}
        for index, node in enumerate(self._nodes):
            for tensor in node.input:
                self._consumers[tensor].append(index)
            for body in bodies(node):
                self._read_elsewhere |= tensors_read(body)

    def place(self) -> Placement:
        followers: list[tuple[int, onnx.NodeProto]] = []
        for index, node in enumerate(self._nodes):
            if node.name not in self._wanted:
                continue
            reason = self._refusal(node)
            if reason is not None:
                self._placement.skipped[node.name] = reason
            elif multiplies(node) or node.op_type in COMPUTING | STARTING or looks_up(node, self._constants):
                self._start(index, node)
            else:
                followers.append((index, node))
        for index, node in followers:
            if index not in self._placement.absorbed:
                self._follow(index, node)
        self._carry()
        self._settle()
        return self._placement

    def _refusal(self, node: onnx.NodeProto) -> str | None:
        """Return why a node cannot be quantized, or None."""
        if node.op_type not in SUPPORTED:
            return f"{node.op_type} has no integer form"
        data = data_inputs(node)
        if other := [tensor for tensor in data if not self._is_float(tensor)]:
            return f"its input {other[0]!r} is not known to be float32"
        if unfolded := [tensor for tensor in data if tensor in self._unfolded]:
            return f"its input {unfolded[0]!r} is a Constant node, not yet an initializer (mode.preprocess)"
        if computed := [tensor for tensor in data if tensor in self._computed]:
            return f"its input {computed[0]!r} is computed from constants alone"
        return unfit_constants(node, self._constants)

    def _is_float(self, tensor: str) -> bool:
        constant = self._constants.get(tensor)
        return (self._types.get(tensor) if constant is None else constant.data_type) == onnx.TensorProto.FLOAT

    def _start(self, index: int, node: onnx.NodeProto) -> None:
        """Quantize what a node reads and makes, whatever is around it."""
        data = data_inputs(node)
        for position, tensor in enumerate(node.input):
            if multiplies(node) and position == 1 and tensor in self._constants:
                self._weigh(index, node)
            elif multiplies(node) and position == 2 and tensor:
                self._placement.biases[index] = number_of(node, "beta")
            elif tensor in data or (node.op_type == "Pad" and position == 2 and tensor):
                self._read(index, position, tensor)
        if node.op_type in self._settings.float_outputs:
            return
        source = node.input[0] if keeps_values(node, self._constants) else None
        for tensor in node.output if node.op_type == "Split" else node.output[:1]:
            if self._is_float(tensor):
                self._make(tensor, source)

    def _weigh(self, index: int, node: onnx.NodeProto) -> None:
        name = node.input[1]
        rank = len(self._constants[name].dims)
        grouped = node.op_type == "ConvTranspose" and number_of(node, "group") != 1
        single = node.op_type in NORMALIZING or grouped or (node.op_type == "MatMul" and rank != 2)
        axis = output_axis(node, rank) if self._settings.per_channel and not single else None
        pairing = pairing_of(node, tuple(self._constants[name].dims)) if self._settings.in_16_bits else None
        self._placement.weights[index] = Weight(name, axis, number_of(node, "alpha"), pairing)

    def _read(self, index: int, position: int, tensor: str) -> None:
        if tensor in self._constants:
            self._placement.constants.append((tensor, index, position))
        else:
            self._placement.grids.setdefault(tensor, tensor)
            self._placement.readers[tensor].append((index, position))

    def _make(self, tensor: str, source: str | None) -> None:
        """Let a node make integers: on the grid of the tensor whose values it moves, or on one of their own."""
        follower = self._cut_by(tensor) if source is None else None
        if follower is not None:
            cut = self._nodes[follower].output[0]
            if self._settings.symmetric:  # integers reach below zero: the node stays, but what it will cut needs no range
                source = cut
            else:
                self._placement.absorbed.add(follower)
                self._placement.folded[tensor] = cut
                tensor = cut
        self._placement.grids[tensor] = source or tensor
        self._placement.produced_int.add(tensor)

    def _cut_by(self, tensor: str) -> int | None:
        """Return the Relu or Clip whose work the limits of the integers do, where it alone reads the tensor."""
        if tensor in self._read_elsewhere or len(self._consumers[tensor]) != 1:
            return None
        [index] = self._consumers[tensor]
        node = self._nodes[index]
        stays = node.op_type in self._settings.float_outputs or not cuts_as_a_range_does(node, self._constants)
        return None if stays else index

    def _follow(self, index: int, node: onnx.NodeProto) -> None:
        """Quantize a node where what it reads is quantized."""
        data = data_inputs(node)
        if not all(tensor in self._placement.grids for tensor in data):
            self._placement.skipped[node.name] = "its input is float: quantized alone it would be no faster"
            return
        if node.op_type in self._settings.float_outputs:
            self._placement.skipped[node.name] = f"{node.op_type} is in mode.float_outputs"
            return
        for position, tensor in enumerate(node.input):
            if tensor in data:
                self._read(index, position, tensor)
        self._make(node.output[0], data[0] if node.op_type in MOVING else None)

    def _carry(self) -> None:
        """Give integers to nodes that were not planned, where all around them is integers: then their kernel is integer too.

        An Add between quantized Convs is an example. Its float form would need two more conversions.
        """
        self._carry_moves()
        grids, readers = self._placement.grids, self._placement.readers
        for index, node in enumerate(self._nodes):
            if node.op_type not in CARRIED or node.name in self._wanted:
                continue
            if all(tensor in grids for tensor in (*node.input, *node.output)):
                for position, tensor in enumerate(node.input):
                    readers[tensor].append((index, position))

    def _carry_moves(self) -> None:
        """Move integers where floats would be moved only to become integers next, between nodes that may have them.

        A Flatten between the pooling of integer Convs and an integer Gemm is an example.
        """
        grids, readers = self._placement.grids, self._placement.readers
        makers = {tensor: node for node in self._nodes for tensor in node.output}
        for index, node in reversed(list(enumerate(self._nodes))):
            if node.op_type not in MOVING or node.name in self._wanted or not keeps_values(node, self._constants):
                continue
            source, moved = node.input[0], node.output[0]
            maker = makers.get(source)
            if maker is None or maker.op_type not in CARRIED or source in grids or moved not in grids:
                continue
            if moved not in self._placement.produced_int and all(tensor in grids for tensor in maker.input):
                grids[source] = grids[moved] = source
                readers[source].append((index, 0))

    def _settle(self) -> None:
        """Follow each tensor whose values were moved to the one that they come from."""
        grids = self._placement.grids
        for tensor in grids:
            root, path = tensor, []
            while grids.get(root, root) != root:
                path.append(root)
                root = grids[root]
            for moved in path:
                grids[moved] = root
