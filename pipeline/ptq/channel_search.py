"""Find the groups of channels that can be rescaled: how each operator treats a factor per channel.

An operator that is not named here, or that decides shapes, forbids factors on all that it reads and writes.
"""

from collections import defaultdict

import onnx

from pipeline.graph.attributes import attribute, int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.graph.shape_deciding import shape_deciding_nodes
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.ptq.channel_groups import Axis, ChannelGroup, Side
from pipeline.quantize.matrix_form import HEAD


def channel_groups(model: onnx.ModelProto) -> list[ChannelGroup]:
    """Return the groups that can be rescaled, in the order of the graph; shapes must have been inferred."""
    return _Search(model).groups()


class _Search:
    """Union-find over axes of tensors and of constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {name: tensor for name, tensor in initializers_of(model).items()}
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        # A tensor may be declared twice, the second time without a shape.
        shapes = {v.name: v.type.tensor_type.shape.dim for v in values if v.type.tensor_type.HasField("shape")}
        self.ranks = {name: len(shape) for name, shape in shapes.items()}
        self.lengths = {name: [dim.dim_value or dim.dim_param or None for dim in shape] for name, shape in shapes.items()}
        self.parent: dict[Axis | Side, Axis | Side] = {}
        self.blocked: set[Axis | Side] = set()
        self.closed: set[str] = set()  # tensors all of whose axes are blocked
        self.uses: dict[str, set[frozenset[Side]]] = defaultdict(set)  # constant -> how each of its readers takes factors
        self.writers: dict[Side, str] = {}

    def groups(self) -> list[ChannelGroup]:
        for value in (*self.graph.input, *self.graph.output):
            self.block(value.name)
        fixed = shape_deciding_nodes(self.graph)
        for node in self.graph.node:
            if node.name in fixed or not self.understands(node):
                for name in (*input_tensors(node), *node.output):
                    self.block(name)
        for name, uses in self.uses.items():
            # The copy of a table that a head reads is shared with the table again: it has to stay equal to it.
            if len(uses) > 1 or HEAD in name or self.constants[name].data_type != onnx.TensorProto.FLOAT:
                self.blocked.update(side for sides in uses for side in sides)
        self.blocked.update(element for element in self.parent if isinstance(element, Axis) and element.tensor in self.closed)
        blocked = {self.root(element) for element in self.blocked}
        members: dict[Axis | Side, list[Axis | Side]] = defaultdict(list)
        for element in self.parent:
            members[self.root(element)].append(element)
        found = []
        for root, elements in members.items():
            axes = tuple(element for element in elements if isinstance(element, Axis))
            sides = tuple(element for element in elements if isinstance(element, Side))
            if root not in blocked and {side.power for side in sides} == {1, -1}:
                found.append(ChannelGroup(axes, sides, frozenset(self.writers[side] for side in sides if side in self.writers)))
        return found

    def root(self, element: Axis | Side) -> Axis | Side:
        self.parent.setdefault(element, element)
        while self.parent[element] != element:
            self.parent[element] = self.parent[self.parent[element]]
            element = self.parent[element]
        return element

    def join(self, first: Axis | Side, second: Axis | Side) -> None:
        self.parent[self.root(second)] = self.root(first)

    def block(self, name: str, *, but: int | None = None) -> None:
        """Forbid factors on every axis of a tensor, or on all but one."""
        if name in self.constants:
            self.uses[name].add(frozenset())
        if but is None:
            self.closed.add(name)
            return
        for index in range(self.ranks.get(name, 0)):
            if index != but:
                self.blocked.add(Axis(name, index))

    def understands(self, node: onnx.NodeProto) -> bool:  # noqa: PLR0911 (one return per kind of node)
        """Join and block what a node asks for; False where nothing is known about it, or a rank is missing."""
        inputs = [name for name in node.input if name]
        activations = [name for name in (*inputs, *node.output) if name not in self.constants]
        if node.op_type == "Shape":
            return True
        if any(name not in self.ranks for name in activations):
            return False
        constants = [name for name in inputs if name in self.constants]
        match node.op_type, len(constants):
            case "Relu" | "LeakyRelu" | "Identity", 0:
                self.pass_on(node.input[0], node.output[0])
            case "Transpose", 0:
                order = attribute(node, "perm")
                for index, source in enumerate(order or reversed(range(self.ranks[node.input[0]]))):
                    self.join(Axis(node.input[0], source), Axis(node.output[0], index))
            case "Add" | "Sub", 0:
                return self.adds(node)
            case "Add" | "Sub" | "Mul" | "Div", 1:
                return self.combines(node, constants[0])
            case "Conv" | "ConvTranspose", 1 | 2:
                return self.convolves(node)
            case "MatMul", 1:
                return self.multiplies(node)
            case "LayerNormalization" | "InstanceNormalization", 1 | 2:
                return self.normalizes(node)
            case _:
                return False
        return True

    def take(self, node: onnx.NodeProto, constant: str, *sides: tuple[Axis, Side]) -> None:
        """Let axes of a constant take up the factors of axes of tensors."""
        self.uses[constant].add(frozenset(side for _, side in sides))
        for axis, side in sides:
            self.join(axis, side)
            if side.power < 0:
                self.writers[side] = node.op_type

    def pass_on(self, source: str, target: str) -> None:
        for index in range(self.ranks[target]):
            self.join(Axis(source, index), Axis(target, index))

    def broadcasts(self, source: str, target: str, index: int) -> bool:
        """Say whether an axis of one position is repeated along that of a sum: one factor cannot be many."""
        here, there = self.lengths[source][index], self.lengths[target][index]
        return here != there and 1 in (here, there)

    def adds(self, node: onnx.NodeProto) -> bool:
        if len({self.ranks[name] for name in (*node.input, *node.output)}) > 1:
            return False
        for name in node.input:
            self.pass_on(name, node.output[0])
            for index in range(self.ranks[name]):
                if self.broadcasts(name, node.output[0], index):
                    self.blocked.add(Axis(name, index))
        return True

    def combines(self, node: onnx.NodeProto, constant: str) -> bool:
        """An operator of an activation and a constant, whose shape is aligned with the activation's last axes."""
        [source] = [name for name in node.input if name != constant]
        target, shape = node.output[0], list(self.constants[constant].dims)
        if node.op_type == "Div" and node.input[0] == constant:
            return False
        missing = self.ranks[target] - len(shape)
        if missing < 0 or self.ranks[source] != self.ranks[target]:
            return False
        sides: list[tuple[Axis, Side]] = []
        for index in range(self.ranks[target]):
            here, there, own = Axis(source, index), Axis(target, index), index - missing
            varies = own >= 0 and shape[own] > 1
            if varies and self.lengths[source][index] == 1:
                self.blocked.update((here, there))
            if node.op_type in ("Add", "Sub"):
                self.join(here, there)
                if varies:
                    sides.append((there, Side(constant, own, -1)))
                else:
                    self.blocked.add(there)  # one number for all channels cannot follow
            elif not varies:
                self.join(here, there)
            else:
                power = 1 if node.op_type == "Mul" else -1
                sides += [(here, Side(constant, own, power)), (there, Side(constant, own, -power))]
        self.take(node, constant, *sides)
        return True

    def convolves(self, node: onnx.NodeProto) -> bool:
        source, weight, target = node.input[0], node.input[1], node.output[0]
        if (
            source in self.constants
            or weight not in self.constants
            or any(n not in self.constants for n in node.input[2:] if n)
        ):
            return False
        groups = int_attribute(node, "group", 1)
        read, written = (1, 0) if node.op_type == "Conv" else (0, 1)
        in_groups = {read: groups, written: 1} if read else {read: 1, written: groups}
        self.take(
            node,
            weight,
            (Axis(source, 1), Side(weight, read, 1, in_groups[read])),
            (Axis(target, 1), Side(weight, written, -1, in_groups[written])),
        )
        for bias in filter(None, node.input[2:]):
            self.take(node, bias, (Axis(target, 1), Side(bias, 0, -1)))
        self.block(source, but=1)
        self.block(target, but=1)
        return True

    def multiplies(self, node: onnx.NodeProto) -> bool:
        source, weight, target = node.input[0], node.input[1], node.output[0]
        if weight not in self.constants or len(self.constants[weight].dims) != 2 or self.ranks[source] < 2:
            return False
        last = self.ranks[source] - 1
        self.take(node, weight, (Axis(source, last), Side(weight, 0, 1)), (Axis(target, last), Side(weight, 1, -1)))
        self.block(source, but=last)
        self.block(target, but=last)
        return True

    def normalizes(self, node: onnx.NodeProto) -> bool:
        """A normalization forgets the factors of its input, up to its epsilon; its scale and bias take those of its output."""
        target = node.output[0]
        index = 1 if node.op_type == "InstanceNormalization" else self.ranks[target] - 1
        first = int_attribute(node, "axis", -1)
        own = [name for name in node.input[1:] if name]
        if any(name not in self.constants for name in own):
            return False
        if node.op_type == "LayerNormalization" and first not in (-1, index):
            return False
        for name in own:
            self.take(node, name, (Axis(target, index), Side(name, 0, -1)))
        self.block(node.input[0])
        self.block(target, but=index)
        return len(node.output) == 1
