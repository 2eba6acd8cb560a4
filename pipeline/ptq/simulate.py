"""A quantized graph, simulated in float: what the algorithms use to choose weights and biases.

Activations pass through a QuantizeLinear and a DequantizeLinear where the finished graph rounds them, weights are the floats
that their integers stand for, and the operators compute in float: the same numbers up to float rounding. Every tensor keeps
the name that it has in the float graph; biases stay float, since their 32 bits lose nothing.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import StaticConfig
from pipeline.graph.op_sets import LAYERS
from pipeline.graph.prepare import initializers_of
from pipeline.ptq.own_weights import separate_weights
from pipeline.quantize.paired_sums import PairLimits, pairing_of
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.qdq_placement import Placement, place_pairs
from pipeline.quantize.qdq_writer import activation_qparams
from pipeline.quantize.qparams import QuantParams, numpy_type, qparams_of_weights, tensor_of
from pipeline.quantize.static import Ranges, pair_settings
from pipeline.quantize.weight_storage import output_axis
from pipeline.sample import Float32Array

SUFFIX = "/simulated"


def weighted_nodes(model: onnx.ModelProto, plan: Plan) -> list[onnx.NodeProto]:
    """Return the nodes that the plan quantizes and whose weight, input 1, is a constant, in the order of the graph."""
    planned = set(plan.nodes(Precision.static_int8, Precision.dynamic_int8, Precision.weight_int8))
    constants = initializers_of(model)
    return [node for node in model.graph.node if node.name in planned and node.op_type in LAYERS and node.input[1] in constants]


def weight_grid(weight: Float32Array, node: onnx.NodeProto, plan: Plan, mode: StaticConfig, ranges: Ranges) -> QuantParams:
    """Return the integers that a quantizer will choose for the weight of a node."""
    settings = pair_settings(mode)
    axis: int | None = output_axis(node, weight.ndim)
    if plan.precisions[node.name] is Precision.weight_int8:
        return qparams_of_weights(weight, IntegerType.int8, axis=axis, reduced=False)
    if plan.precisions[node.name] is Precision.static_int8 and node.name in ranges.weights:
        return ranges.weights[node.name]
    pairing = pairing_of(node, weight.shape) if settings.in_16_bits else None
    pairs = None if pairing is None else PairLimits(pairing)
    axis = axis if mode.per_channel else None
    return qparams_of_weights(weight, settings.weights, axis=axis, reduced=settings.reduce_range, pairs=pairs)


def steps_of(grid: QuantParams, rank: int) -> Float32Array:
    """Return the scale of a grid in a shape that broadcasts against a tensor of the given rank."""
    return grid.scale.reshape([-1 if axis == grid.axis else 1 for axis in range(rank)])


def simulate(model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges) -> onnx.ModelProto:
    """Return a float graph that computes what the quantized graph will.

    Args:
        model: the prepared float graph; it is not changed.
        plan: which node becomes what.
        mode: types of weights and activations.
        ranges: of every tensor that `tensors_to_calibrate` names.
    """
    simulated = onnx.ModelProto()
    simulated.CopyFrom(model)
    separate_weights(simulated, {node.name for node in weighted_nodes(simulated, plan)}, "simulated")
    constants = initializers_of(simulated)
    for name, node in {node.input[1]: node for node in weighted_nodes(simulated, plan)}.items():
        weight = numpy_helper.to_array(constants[name])
        grid = weight_grid(weight, node, plan, mode, ranges)
        zero = grid.zero_point.reshape(steps_of(grid, weight.ndim).shape)
        integers = grid.quantize(weight).astype(np.float32) - zero
        constants[name].CopyFrom(numpy_helper.from_array((integers * steps_of(grid, weight.ndim)).astype(np.float32), name))
    placement = place_pairs(simulated, plan.nodes(Precision.static_int8), pair_settings(mode))
    pairs = _Pairs(simulated, placement, mode, ranges)
    nodes = list(pairs.inserted(set(plan.nodes(Precision.dynamic_int8))))
    del simulated.graph.node[:]
    simulated.graph.node.extend(nodes)
    return simulated


class _Pairs:
    """Q/DQ pairs where the finished graph has them."""

    def __init__(self, model: onnx.ModelProto, placement: Placement, mode: StaticConfig, ranges: Ranges) -> None:
        self.graph = model.graph
        self.placement = placement
        self.settings = pair_settings(mode)
        self.ranges = ranges
        self.constants = initializers_of(model)

    def inserted(self, dynamic: set[str]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of the graph, with pairs between them; the named ones get dynamic ranges."""
        readers = {use for uses in self.placement.readers.values() for use in uses}
        at_run_time = {node.input[0] for node in self.graph.node if node.name in dynamic}
        for value in self.graph.input:
            yield from self.pair(value.name, value.name in at_run_time)
        for index, original in enumerate(self.graph.node):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            for position, tensor in enumerate(node.input):
                if node.name in dynamic and position == 0:
                    node.input[position] = f"{tensor}/dynamic{SUFFIX}"
                elif tensor in self.placement.produced_int or (index, position) in readers:
                    node.input[position] = tensor + SUFFIX
            yield node
            for tensor in original.output:
                yield from self.pair(tensor, tensor in at_run_time)

    def pair(self, tensor: str, at_run_time: bool) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that round a tensor, if it is rounded."""
        root = self.placement.grids.get(tensor)
        if root is not None:
            grid = activation_qparams(root, self.constants, self.settings, self.ranges)
            names = [f"{tensor}/scale", f"{tensor}/zero_point"]
            zero_point = grid.zero_point.astype(numpy_type(grid.kind))
            self.graph.initializer.extend([tensor_of(grid.scale, names[0]), tensor_of(zero_point, names[1])])
            integers = f"{tensor}/integers"
            yield helper.make_node("QuantizeLinear", [tensor, *names], [integers], name=f"{tensor}/quantize")
            yield helper.make_node("DequantizeLinear", [integers, *names], [tensor + SUFFIX], name=f"{tensor}/dequantize")
        if at_run_time:
            source = tensor + SUFFIX if tensor in self.placement.produced_int else tensor
            made = [f"{tensor}/dynamic/{part}" for part in ("integers", "scale", "zero_point")]
            yield helper.make_node("DynamicQuantizeLinear", [source], made, name=f"{tensor}/dynamic/quantize")
            output = f"{tensor}/dynamic{SUFFIX}"
            yield helper.make_node("DequantizeLinear", made, [output], name=f"{tensor}/dynamic/dequantize")
