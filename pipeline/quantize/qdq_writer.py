"""Static quantization as Q/DQ pairs, in time linear in the size of the graph.

ONNX Runtime's quantizer searches all nodes for each tensor; here each node is looked at once: `qdq_placement` decides where
pairs go, `qparams` computes the numbers, and this file writes the graph. Weights and biases become integers before a
DequantizeLinear, each once for all that share it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.errors import StageError
from pipeline.graph.subgraph_scopes import Names, drop_unread, replace_nodes
from pipeline.quantize.paired_sums import PairLimits
from pipeline.quantize.qdq_placement import PairSettings, Placement, Weight, place_pairs
from pipeline.quantize.qparams import (
    QuantParams,
    coarser,
    numpy_type,
    qparams_of_range,
    qparams_of_weights,
    quantize_bias,
    tensor_of,
    widened_for_bias,
)
from pipeline.sample import Float32Array


class Ranges(dict[str, tuple[float, float]]):
    """Tensor name -> (lowest, highest) value that its integers stand for.

    Attributes:
        weights: node name -> the grid of its weight, where calibration allows a finer one than the weight alone
            (`pipeline.ptq.activation_pairs`).
    """

    def __init__(
        self,
        ranges: Mapping[str, tuple[float, float]] | Iterable[tuple[str, tuple[float, float]]] = (),
        weights: Mapping[str, QuantParams] | None = None,
    ) -> None:
        """Take ranges, and the grids of some weights."""
        super().__init__(ranges)
        self.weights = dict(weights or {})


def insert_pairs(model: onnx.ModelProto, nodes: Collection[str], settings: PairSettings, ranges: Ranges) -> None:
    """Quantize the named nodes, in place.

    Args:
        model: a graph with the types of its tensors. Needs an opset of 13, of 21 for types of 16 and 4 bits.
        nodes: their names.
        settings: types and scales.
        ranges: of every tensor that `Placement.measured` names.

    Raises:
        StageError: a node cannot be quantized, or a range is missing; names it. The model is then unchanged.
    """
    placement = place_pairs(model, nodes, settings)
    unknown = sorted(set(nodes) - {node.name for node in model.graph.node})
    problems = [f"{name}: the graph has no such node" for name in unknown]
    problems += [f"{name}: {reason}" for name, reason in placement.skipped.items()]
    problems += [f"no range of the tensor {t!r}" for t in placement.measured(_constants(model)) if t not in ranges]
    if problems:
        raise StageError(f"{len(problems)} nodes or tensors of the plan cannot be quantized: {problems[0]}.")
    _Writer(model, placement, settings, ranges).write()


def activation_qparams(
    tensor: str, constants: Mapping[str, onnx.TensorProto], settings: PairSettings, ranges: Ranges
) -> QuantParams:
    """Return the integers of a tensor that a pair rounds: over that of a constant, or what was measured."""
    if tensor in constants:
        values = numpy_helper.to_array(constants[tensor])
        low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    else:
        low, high = ranges[tensor]
    return qparams_of_range(low, high, settings.activations, symmetric=settings.symmetric)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


@dataclass(frozen=True)
class _Stored:
    """A grid as constants of the graph."""

    grid: QuantParams
    scale: str
    zero_point: str


class _Writer:
    def __init__(self, model: onnx.ModelProto, placement: Placement, settings: PairSettings, ranges: Ranges) -> None:
        self._graph = model.graph
        self._placement = placement
        self._settings = settings
        self._ranges = ranges
        self._constants = _constants(model)
        self._names = Names(model.graph)
        self._replaced: set[str] = set()
        self._new: list[onnx.TensorProto] = []
        self._before: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        self._grids: dict[str, _Stored] = {}
        self._restored: dict[tuple[object, ...], str] = {}

    def write(self) -> None:
        nodes = list(self._graph.node)
        weights = self._weight_grids(nodes)
        for name, index, position in self._placement.constants:
            nodes[index].input[position] = self._restore_constant(index, name)
        for index, weight in self._placement.weights.items():
            self._restore_weight(nodes[index], index, weight, weights[weight])
        replace_nodes(self._graph, self._in_order(nodes))
        self._graph.initializer.extend(self._new)
        drop_unread(self._graph, self._replaced)

    def _in_order(self, nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes, each followed by the pairs of what it makes."""
        for value in self._graph.input:
            yield from self._pair(nodes, value.name)
        for index, node in enumerate(nodes):
            if index in self._placement.absorbed:
                continue
            yield from self._before[index]
            outputs = []
            for position, tensor in enumerate(node.output):
                output = self._placement.folded.get(tensor, tensor)
                outputs.append(output)
                made = output in self._placement.produced_int
                node.output[position] = self._names.fresh(f"{output}_QuantizeLinear_Input") if made else output
            yield node
            for position, output in enumerate(outputs):
                yield from self._pair(nodes, output, node.output[position])

    # Activations

    def _pair(self, nodes: list[onnx.NodeProto], tensor: str, source: str | None = None) -> list[onnx.NodeProto]:
        """Return the pair of a tensor, if it has one; readers that stay float keep reading the tensor itself."""
        root = self._placement.grids.get(tensor)
        if root is None:
            return []
        stored = self._activation(root)
        integers = self._names.fresh(f"{tensor}_QuantizeLinear_Output")
        if tensor in self._placement.produced_int:
            restored = tensor
        else:
            restored = self._names.fresh(f"{tensor}_DequantizeLinear_Output")
            for index, position in self._placement.readers[tensor]:
                nodes[index].input[position] = restored
        parameters = [stored.scale, stored.zero_point]
        name = self._names.fresh(f"{tensor}_QuantizeLinear")
        quantize = helper.make_node("QuantizeLinear", [source or tensor, *parameters], [integers], name=name)
        return [quantize, self._dequantize(tensor, [integers, *parameters], restored, None)]

    def _activation(self, root: str) -> _Stored:
        """Return the grid that a tensor, and those that only move its values, have."""
        if root not in self._grids:
            grid = activation_qparams(root, self._constants, self._settings, self._ranges)
            self._grids[root] = self._store(root, grid)
        return self._grids[root]

    def _scale_of_input(self, node: onnx.NodeProto) -> Float32Array:
        """Return the scale of what a node multiplies its weight with, ()."""
        tensor = node.input[0]
        return self._activation(self._placement.grids.get(tensor, tensor)).grid.scale

    # Constants

    def _weight_grids(self, nodes: list[onnx.NodeProto]) -> dict[Weight, QuantParams]:
        """Return one grid for each weight, with scales that suit the bias of each node that it has."""
        grids: dict[Weight, QuantParams] = {}
        for index, weight in self._placement.weights.items():
            own = self._ranges.weights.get(nodes[index].name)
            if weight not in grids:
                grids[weight] = self._weight_grid(weight) if own is None else own
            elif grids[weight] is not own:  # nodes that share it may differ in what they multiply it with
                grids[weight] = coarser(grids[weight], self._weight_grid(weight) if own is None else own)
            if index in self._placement.biases:
                bias = self._bias(nodes[index], index)
                grids[weight] = widened_for_bias(grids[weight], self._scale_of_input(nodes[index]), bias)
        return grids

    def _weight_grid(self, weight: Weight) -> QuantParams:
        kind, reduced = self._settings.weights, self._settings.reduce_range
        pairs = None if weight.pairing is None else PairLimits(weight.pairing)
        return qparams_of_weights(self._values(weight), kind, axis=weight.axis, reduced=reduced, pairs=pairs)

    def _values(self, weight: Weight) -> Float32Array:
        values: Float32Array = numpy_helper.to_array(self._constants[weight.tensor])
        return values if weight.factor == 1 else values * np.float32(weight.factor)

    def _bias(self, node: onnx.NodeProto, index: int) -> Float32Array:
        """Return a node's bias, (channels,) or (1,)."""
        values: Float32Array = numpy_helper.to_array(self._constants[node.input[2]]).reshape(-1)
        return values * np.float32(self._placement.biases[index])

    def _restore_weight(self, node: onnx.NodeProto, index: int, weight: Weight, grid: QuantParams) -> None:
        """Let a node read its weight, and its bias, out of integers."""
        scale = self._scale_of_input(node)
        key: tuple[object, ...] = ("weight", weight)
        if key not in self._restored:
            stored = self._store(weight.tensor, grid)
            self._restored[key] = self._constant(index, weight.tensor, grid.quantize(self._values(weight)), stored)
        self._replaced.add(node.input[1])
        node.input[1] = self._restored[key]
        if index in self._placement.biases:
            factor = self._placement.biases[index]
            key = ("bias", node.input[2], factor, weight, scale.item())
            if key not in self._restored:
                self._restored[key] = self._restore_bias(node, index, scale, grid)
            self._replaced.add(node.input[2])
            node.input[2] = self._restored[key]
        for entry in node.attribute:
            if node.op_type == "Gemm" and entry.name in ("alpha", "beta"):
                entry.f = 1.0  # both are in the constants now

    def _restore_bias(self, node: onnx.NodeProto, index: int, input_scale: Float32Array, grid: QuantParams) -> str:
        name, bias = node.input[2], self._bias(node, index)
        if grid.axis is not None and bias.size != grid.scale.size:
            bias = np.broadcast_to(bias, grid.scale.shape)  # one value for all channels of a Gemm
        integers, scale = quantize_bias(bias, input_scale, grid)
        axis = None if grid.axis is None else 0
        zero_point = np.zeros(scale.shape, np.int32)
        stored = _Stored(
            grid, self._put(scale, f"{name}_quantized_scale"), self._put(zero_point, f"{name}_quantized_zero_point")
        )
        return self._constant(index, name, integers, stored, axis)

    def _restore_constant(self, index: int, name: str) -> str:
        """Return a constant, quantized as activations are, as float again."""
        if (name,) not in self._restored:
            stored = self._activation(name)
            integers = stored.grid.quantize(numpy_helper.to_array(self._constants[name]))
            self._restored[(name,)] = self._constant(index, name, integers, stored)
        self._replaced.add(name)
        return self._restored[(name,)]

    # Pieces of the graph

    def _constant(self, index: int, name: str, integers: np.ndarray, stored: _Stored, axis: int | None = None) -> str:
        """Return the name of an integer constant as float again, for the first time before a node."""
        restored = self._names.fresh(f"{name}_DequantizeLinear_Output")
        inputs = [self._put(integers, f"{name}_quantized"), stored.scale, stored.zero_point]
        self._before[index].append(self._dequantize(name, inputs, restored, stored.grid.axis if axis is None else axis))
        return restored

    def _dequantize(self, tensor: str, inputs: list[str], output: str, axis: int | None) -> onnx.NodeProto:
        name = self._names.fresh(f"{tensor}_DequantizeLinear")
        node = helper.make_node("DequantizeLinear", inputs, [output], name=name)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        return node

    def _store(self, tensor: str, grid: QuantParams) -> _Stored:
        zero_point = grid.zero_point.astype(numpy_type(grid.kind))
        return _Stored(grid, self._put(grid.scale, f"{tensor}_scale"), self._put(zero_point, f"{tensor}_zero_point"))

    def _put(self, values: np.ndarray, name: str) -> str:
        name = self._names.fresh(name)
        self._new.append(tensor_of(values, name))
        return name
