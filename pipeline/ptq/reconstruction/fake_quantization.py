"""What a graph of Q/DQ pairs rounds with, as numbers that can be learned: scales, zero points, weights and biases.

In the forward pass values are rounded as the finished graph rounds them. In the backward pass rounding counts as the identity
within the limits of the integers and has no gradient beyond them (a straight-through estimator); scales and zero points get
the gradients of Esser et al. 2020, "Learned Step Size Quantization" (arXiv:1902.08153), and Bhalgat et al. 2020, "LSQ+"
(arXiv:2004.09576). Their shares of 1/√(values · levels) keep a scale that thousands of values share from moving too far.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from pipeline.graph.attributes import int_attribute
from pipeline.quantize.paired_sums import PairLimits, made_to_fit, pairing_of

Tensor = Any  # torch.Tensor: types are checked where PyTorch need not be installed
KINDS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
NARROW = (-127, 127)  # of int8 weights: symmetric, as the quantizer leaves them


@dataclass
class ActivationGrid:
    """The integers of one or more tensors.

    Attributes:
        scale: name of its constant.
        zero_point: name of its constant.
        limits: the lowest and the highest integer.
        log_scale: (1,), learned.
        zero: (1,), learned unless it is at the lowest integer, where it cuts as a Relu does, or the range is symmetric.
        shifts: whether the zero point is learned.
    """

    scale: str
    zero_point: str
    limits: tuple[int, int]
    log_scale: Tensor
    zero: Tensor
    shifts: bool

    def rounded(self, x: Tensor) -> Tensor:
        """Return the values that the integers of a tensor stand for."""
        low, high = self.limits
        factor = 1.0 / (x.numel() * (high - low) / 2) ** 0.5
        learned: Tensor = torch._fake_quantize_learnable_per_tensor_affine(
            x, self.log_scale.exp(), self.zero, low, high, factor
        )
        return learned


@dataclass
class WeightGrid:
    """A constant weight, stored as integers.

    Attributes:
        integers: name of the constant.
        scale: name of the constant.
        zero_point: its values, in the shape of the scale.
        axis: of the channels; None: one scale.
        limits: of the integers that it uses.
        pairs: which of two must not be too large.
        log_scale: (channels,) or (1,), learned.
        latent: the weight before it is rounded, learned.
    """

    integers: str
    scale: str
    zero_point: Tensor
    axis: int | None
    limits: tuple[int, int]
    pairs: PairLimits | None
    log_scale: Tensor
    latent: Tensor

    def rounded(self) -> Tensor:
        """Return the values that the integers stand for."""
        steps = self.log_scale.exp()
        low, high = self.limits
        factor = 1.0 / (self.latent.numel() / steps.numel() * high) ** 0.5
        if self.axis is None:
            one: Tensor = torch._fake_quantize_learnable_per_tensor_affine(
                self.latent, steps, self.zero_point, low, high, factor
            )
            return one
        each: Tensor = torch._fake_quantize_learnable_per_channel_affine(
            self.latent, steps, self.zero_point, self.axis, low, high, factor
        )
        return each

    def stored(self) -> np.ndarray:
        """Return the integers that the graph will hold, as int64."""
        shape = [1] * self.latent.dim()
        shape[self.axis or 0] = -1
        steps, zero = self.log_scale.exp().reshape(shape), self.zero_point.reshape(shape)
        integers = torch.clamp(torch.round(self.latent / steps) + zero, *self.limits).detach().numpy().astype(np.int64)
        return integers if self.pairs is None else made_to_fit(integers, self.pairs)


@dataclass
class Learned:
    """All that is learned of a graph of Q/DQ pairs.

    Attributes:
        activations: name of a scale -> its grid.
        weights: name of the output of a DequantizeLinear -> the weight.
        biases: name of the output of a DequantizeLinear, or of a float constant -> the bias, (channels,).
        bias_scales: of the first kind -> (scale of the activation, output of the weight's DequantizeLinear).
        users: what is learned -> names of the nodes that read it.
        first: `tensors` as they were: what is still the same is not written.
        written: what was written before, which has to be written again where it is as it was first.
    """

    activations: dict[str, ActivationGrid] = field(default_factory=dict)
    weights: dict[str, WeightGrid] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    bias_scales: dict[str, tuple[str, str]] = field(default_factory=dict)
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    first: dict[str, Tensor] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def tensors(self, nodes: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return what is learned, by name: all, or what is read by some nodes and by no other."""
        found: dict[str, Tensor] = {}

        def mine(name: str) -> bool:
            return nodes is None or (bool(self.users[name]) and self.users[name] <= set(nodes))

        for name, grid in self.activations.items():
            if mine(name):
                found[f"{name}/step"] = grid.log_scale
                found |= {f"{name}/zero": grid.zero} if grid.shifts else {}
        for name, weight in self.weights.items():
            if mine(name):
                found |= {f"{name}/weight_step": weight.log_scale, f"{name}/weight": weight.latent}
        found |= {f"{name}/bias": bias for name, bias in self.biases.items() if mine(name)}
        return found

    def snapshot(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return copies of some of `tensors`."""
        known = self.tensors()
        return {name: known[name].detach().clone() for name in names}

    def changed(self) -> set[str]:
        """Return what is no longer as it was first: scales, and outputs of nodes that restore constants."""
        now = self.tensors()
        return {name.rpartition("/")[0] for name, tensor in self.first.items() if not torch.equal(tensor, now[name].detach())}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take back what was learned since a snapshot."""
        known = self.tensors()
        with torch.no_grad():
            for name, tensor in snapshot.items():
                known[name].copy_(tensor)


def learned_of(quantized: onnx.ModelProto, reference: onnx.ModelProto) -> Learned:
    """Return what can be learned of a graph, as it is now.

    Args:
        quantized: the graph with Q/DQ pairs.
        reference: the float graph that it was made of, whose nodes have the same names: where its weights lie on the other side
            of the middle of two integers is the first hint of where they should be rounded to.
    """
    return _Finder(quantized, reference).find()


class _Finder:
    def __init__(self, quantized: onnx.ModelProto, reference: onnx.ModelProto) -> None:
        self.nodes = list(quantized.graph.node)
        self.constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for tensor in node.input:
                self.readers[tensor].append(node)
        self.outputs = {output.name for output in quantized.graph.output}
        self.float_nodes = {node.name: node for node in reference.graph.node}
        self.float_constants = {tensor.name: tensor for tensor in reference.graph.initializer}
        self.found = Learned()

    def find(self) -> Learned:
        frozen: set[str] = set()
        for node in self.nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] in self.constants and not self._constant(node):
                frozen.add(node.input[1])
        for node in self.nodes:
            if node.op_type == "QuantizeLinear" and node.input[1] in self.constants and node.input[1] not in frozen:
                self._activation(node)
        self._biases()
        self._float_biases()
        self.found.first = self.found.snapshot(self.found.tensors())
        return self.found

    def _values(self, name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _activation(self, node: onnx.NodeProto) -> None:
        scale, zero_point = node.input[1], node.input[2] if len(node.input) > 2 else ""
        restored = [reader for reader in self.readers[node.output[0]] if reader.op_type == "DequantizeLinear"]
        if scale not in self.found.activations:
            values = self._values(scale)
            if values.size != 1 or zero_point not in self.constants:
                return
            zero = self._values(zero_point)
            limits = KINDS.get(zero.dtype.name)
            if limits is None:
                return
            middle = zero.dtype.name.startswith("i") and not zero.any()
            shifts = not middle and int(zero.reshape(-1)[0]) > limits[0]
            self.found.activations[scale] = ActivationGrid(
                scale, zero_point, limits, parameter(np.log(values.reshape(1))), parameter(zero.reshape(1)), shifts
            )
        users = self.found.users[scale]
        users.add(node.name)
        users.update(reader.name for reader in restored)

    def _constant(self, node: onnx.NodeProto) -> bool:
        """Learn the constant that a node restores; say whether that, or its scale, is not shared with activations."""
        integers, scale = self._values(node.input[0]), self._values(node.input[1])
        if integers.dtype == np.int32:
            return True  # a bias
        readers = self.readers[node.output[0]]
        weighted = all(len(reader.input) > 1 and reader.input[1] == node.output[0] for reader in readers)
        alone = all(
            reader.op_type == "DequantizeLinear" and reader.input[0] in self.constants for reader in self.readers[node.input[1]]
        )
        if not weighted or not alone or len(self.readers[node.input[0]]) > 1 or integers.dtype.name not in KINDS:
            return False
        if not readers or len(self.readers[node.input[1]]) > 1 or not np.all(scale > 0):
            return True
        zero = self._values(node.input[2]) if len(node.input) > 2 else np.zeros(scale.shape, integers.dtype)
        axis = int_attribute(node, "axis", 1) if scale.ndim else None
        limits = NARROW if integers.dtype == np.int8 and not zero.any() else KINDS[integers.dtype.name]
        shape = [1] * integers.ndim
        shape[axis or 0] = -1
        steps = scale.reshape(shape)
        restored = (integers.astype(np.float64) - zero.reshape(shape)) * steps
        first = readers[0]
        latent = restored
        original = self.float_nodes.get(first.name)
        constant = None if original is None else self.float_constants.get(original.input[1])
        if constant is not None:
            values = numpy_helper.to_array(constant).astype(np.float64)
            if values.shape == restored.shape:  # what was clipped, or rounded to keep an output, stays on its integer
                near = np.abs(values - restored) <= 0.5001 * steps
                latent = np.where(near, values, restored)
        pairing = pairing_of(first, integers.shape)
        pairs = None if pairing is None else PairLimits(pairing)
        within = pairs is not None and np.array_equal(made_to_fit(integers.astype(np.int64), pairs), integers)
        self.found.weights[node.output[0]] = WeightGrid(
            node.input[0], node.input[1], torch.from_numpy(zero.astype(np.float32).reshape(-1)), axis, limits,
            pairs if within else None, parameter(np.log(scale.reshape(-1))), parameter(latent),
        )  # fmt: skip
        self.found.users[node.output[0]] = {node.name, *(reader.name for reader in readers)}
        return True

    def _biases(self) -> None:
        """Learn the biases of 32 bits, whose scale is the product of those of an activation and of a weight."""
        for node in self.nodes:
            if node.op_type != "DequantizeLinear" or node.input[0] not in self.constants:
                continue
            if self._values(node.input[0]).dtype != np.int32:
                continue
            readers = self.readers[node.output[0]]
            sources = {self._scales_of(reader) for reader in readers if len(reader.input) > 2}
            known = len(sources) == 1 and all(reader.input[2] == node.output[0] for reader in readers if len(reader.input) > 2)
            activation, weight = next(iter(sources)) if known and len(sources) == 1 else ("", "")
            if activation in self.found.activations and weight in self.found.weights:
                value = self._values(node.input[0]).astype(np.float64) * self._values(node.input[1])
                self.found.biases[node.output[0]] = parameter(value.reshape(-1))
                self.found.bias_scales[node.output[0]] = (activation, weight)
                self.found.users[node.output[0]] = {node.name, *(reader.name for reader in readers)}
            else:  # the scales that it rests on stay as they are
                for one, other in sources:
                    self.found.activations.pop(one, None)
                    self.found.weights.pop(other, None)

    def _scales_of(self, node: onnx.NodeProto) -> tuple[str, str]:
        maker = self.makers.get(node.input[0])
        return (maker.input[1] if maker is not None and maker.op_type == "DequantizeLinear" else "", node.input[1])

    def _float_biases(self) -> None:
        """Learn the float biases of layers whose weights are integers but that compute in float."""
        for node in self.nodes:
            if len(node.input) < 3 or node.input[1] not in self.found.weights or node.input[2] not in self.constants:
                continue
            name = node.input[2]
            if self.constants[name].data_type == onnx.TensorProto.FLOAT and len(self.readers[name]) == 1:
                self.found.biases[name] = parameter(self._values(name))
                self.found.users[name] = {node.name}


def parameter(values: np.ndarray) -> Tensor:
    """Return numbers to be learned, float32."""
    return torch.tensor(np.asarray(values, np.float32), requires_grad=True)


def write_back(quantized: onnx.ModelProto, learned: Learned) -> None:
    """Put what was learned into the constants of the graph, in place; the types and shapes of all stay as they were."""
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {output: node for node in quantized.graph.node for output in node.output}

    def put(name: str, values: np.ndarray) -> None:
        old = numpy_helper.to_array(constants[name])
        new = np.asarray(values).reshape(old.shape).astype(old.dtype)
        constants[name].CopyFrom(numpy_helper.from_array(new, name))

    changed = learned.written | learned.changed()
    learned.written = changed
    for grid in (learned.activations[name] for name in learned.activations.keys() & changed):
        low, high = grid.limits
        put(grid.scale, grid.log_scale.exp().detach().numpy())
        put(grid.zero_point, np.clip(np.rint(grid.zero.detach().numpy()), low, high))
    for weight in (learned.weights[name] for name in learned.weights.keys() & changed):
        put(weight.integers, weight.stored())
        put(weight.scale, weight.log_scale.exp().detach().numpy())
    for name, bias in learned.biases.items():
        if changed.isdisjoint({name, *learned.bias_scales.get(name, ())}):
            continue
        values = bias.detach().numpy().astype(np.float64)
        if name not in learned.bias_scales:
            put(name, values)
            continue
        activation, weight_name = learned.bias_scales[name]
        scales = [learned.activations[activation].log_scale, learned.weights[weight_name].log_scale]
        product = np.prod([scale.exp().detach().numpy() for scale in scales[:1]]) * scales[1].exp().detach().numpy()
        scale = np.maximum(product, np.finfo(np.float32).tiny).astype(np.float32)
        integers, steps, _ = makers[name].input
        info = np.iinfo(np.int32)
        put(integers, np.clip(np.rint(values / scale.astype(np.float64)), info.min, info.max))
        put(steps, scale)
