"""Integer operators with dynamic ranges of activations.

A node becomes the operators below, with the names and in the form that ONNX Runtime fuses to DynamicQuantizeMatMul or
MatMulIntegerToFloat (matmul_integer_to_float.cc, dynamic_quantize_matmul_fusion.cc); all nodes that read an activation share
its DynamicQuantizeLinear:

    x, scale, zero point = DynamicQuantizeLinear(activation)
    output = Cast(MatMulInteger(x, weight, zero point, zero point of the weight)) * (scale * scale of the weight)

An LSTM becomes ONNX Runtime's DynamicQuantizeLSTM, which computes the ranges of its input and of its state at each step.

Nodes inside the bodies of If, Loop and Scan are quantized like others; their weights go to the outermost graph, where all
bodies can read them.
"""

from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.errors import StageError
from pipeline.graph.attributes import int_attribute
from pipeline.graph.opset import MICROSOFT, import_microsoft
from pipeline.graph.subgraph_scopes import Names, bodies, drop_unread, graphs_of, replace_nodes
from pipeline.quantize.operators import number_of
from pipeline.quantize.paired_sums import Pairing, PairLimits
from pipeline.quantize.qparams import numpy_type, qparams_of_weights, tensor_of
from pipeline.sample import Float32Array

SUPPORTED = frozenset({"MatMul", "Gemm", "Conv", "LSTM"})
LSTM_WEIGHTS = (1, 2)  # inputs: of x and of the state
PRODUCT = "quant"  # ends the name of the operator that takes the place of a node
Constants = MutableMapping[str, onnx.TensorProto]


@dataclass(frozen=True)
class DynamicOpsSettings:
    """How weights become integers.

    Attributes:
        weights: operator type -> type of its weights, int8 or uint8.
        per_channel: a scale per column of a matrix; ConvInteger has one for all.
        reduce_range: weights use one bit less than their type has.
        in_16_bits: the processor adds two products with int8 weights in 16 bits: no two paired ones may sum up to too much.
    """

    weights: Mapping[str, IntegerType] = field(
        default_factory=lambda: {"MatMul": IntegerType.int8, "Gemm": IntegerType.int8, "Conv": IntegerType.uint8}
    )
    per_channel: bool = True
    reduce_range: bool = False
    in_16_bits: bool = False


@dataclass(frozen=True)
class _Weight:
    """A weight as constants: its integers, their scale and their zero point."""

    integers: str
    scale: str
    zero_point: str


def cannot_compute(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> str | None:
    """Return why a node has no integer operator here, or None."""
    if node.op_type not in SUPPORTED:
        return f"{node.op_type} has no integer operator with dynamic ranges"
    lstm, gemm = node.op_type == "LSTM", node.op_type == "Gemm"
    places = LSTM_WEIGHTS if lstm else (1,)
    weights = [constants[name] for place in places if (name := node.input[place]) in constants]
    bias = node.input[2] if gemm and len(node.input) > 2 else ""
    return (
        "its weight is not a constant" if len(weights) < len(places)
        else "its weight is not float32" if any(weight.data_type != onnx.TensorProto.FLOAT for weight in weights)
        else "its integer operator has no layout=1" if lstm and int_attribute(node, "layout", 0)
        else "it transposes its input" if gemm and int_attribute(node, "transA", 0)
        else "it scales a bias that is not a constant" if bias and number_of(node, "beta") != 1 and bias not in constants
        else None
    )  # fmt: skip


def quantize_with_dynamic_ops(model: onnx.ModelProto, nodes: Collection[str], settings: DynamicOpsSettings) -> None:
    """Quantize the named MatMul, Gemm, Conv and LSTM nodes, in time linear in the size of the graph, in place.

    Args:
        model: the graph; its nodes have names, also those in bodies that are meant.
        nodes: the names.
        settings: types and scales of weights.

    Raises:
        StageError: a node cannot be quantized; names it. The model is then unchanged.
    """
    wanted = frozenset(nodes)
    found: set[str] = set()
    problems: list[str] = []
    constants: Constants = {}
    for graph in graphs_of(model.graph):  # a body reads constants of the graphs around it
        constants.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            if node.name in wanted:
                found.add(node.name)
                reason = cannot_compute(node, constants)
                problems += [f"{node.name}: {reason}"] if reason else []
    problems += [f"{name}: the graph has no such node" for name in sorted(wanted - found)]
    if problems:
        raise StageError(f"{len(problems)} nodes of the plan cannot be quantized: {problems[0]}.")
    if wanted:
        _Rewriting(model, wanted, settings).run()
        import_microsoft(model)


class _Rewriting:
    def __init__(self, model: onnx.ModelProto, wanted: frozenset[str], settings: DynamicOpsSettings) -> None:
        self._graph = model.graph
        self._wanted = wanted
        self._settings = settings
        self._names = Names(model.graph)
        self._weights: dict[tuple[int, str, float, bool], _Weight] = {}
        self._sources: list[onnx.TensorProto] = []  # of the weights, kept alive so that no other gets the id of one
        self._new: list[onnx.TensorProto] = []
        self._replaced: set[str] = set()

    def run(self) -> None:
        self._rewrite(self._graph, ChainMap(), ChainMap())
        self._graph.initializer.extend(self._new)
        drop_unread(self._graph, self._replaced)

    def _rewrite(
        self, graph: onnx.GraphProto, constants: ChainMap[str, onnx.TensorProto], activations: ChainMap[str, list[str]]
    ) -> None:
        """Rewrite a graph and the bodies in it; what the graphs around have quantized already is used again."""
        constants = constants.new_child({tensor.name: tensor for tensor in graph.initializer})
        activations = activations.new_child()
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for body in bodies(node):
                self._rewrite(body, constants, activations)
            if node.name not in self._wanted:
                nodes.append(node)
                continue
            if node.op_type == "LSTM":
                nodes.append(self._lstm(node, constants))
                continue
            if node.input[0] not in activations:
                activations[node.input[0]] = self._quantize(node.input[0], nodes)
            self._compute(node, constants, activations[node.input[0]], nodes)
        replace_nodes(graph, nodes)

    def _quantize(self, tensor: str, nodes: list[onnx.NodeProto]) -> list[str]:
        outputs = [self._names.fresh(f"{tensor}_{part}") for part in ("quantized", "scale", "zero_point")]
        name = self._names.fresh(f"{tensor}_QuantizeLinear")
        nodes.append(helper.make_node("DynamicQuantizeLinear", [tensor], outputs, name=name))
        return outputs

    def _compute(self, node: onnx.NodeProto, constants: Constants, activation: list[str], nodes: list[onnx.NodeProto]) -> None:
        weight = self._weight(node, constants[node.input[1]])
        integers, scale, zero_point = activation
        bias = node.input[2] if len(node.input) > 2 else ""

        def step(op_type: str, inputs: list[str], suffix: str, output: str | None = None) -> onnx.NodeProto:
            name = self._names.fresh(f"{node.name}_{suffix}")
            nodes.append(helper.make_node(op_type, inputs, [output or self._names.fresh(f"{name}_output")], name=name))
            return nodes[-1]

        op_type = "ConvInteger" if node.op_type == "Conv" else "MatMulInteger"
        product = step(op_type, [integers, weight.integers, zero_point, weight.zero_point], PRODUCT)
        if node.op_type == "Conv":
            product.attribute.extend(node.attribute)
        real = step("Cast", [product.output[0]], "quant_cast")
        real.attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
        scales = step("Mul", [scale, weight.scale], "quant_scales_mul")
        scaled = [real.output[0], scales.output[0]]
        if not bias:
            step("Mul", scaled, "quant_output_scale_mul", node.output[0])
            return
        rank = len(constants[node.input[1]].dims) if node.op_type == "Conv" else None
        result = step("Mul", scaled, "quant_output_scale_mul").output[0]
        step("Add", [result, self._bias(node, bias, constants.get(bias), rank, nodes)], "bias_add", node.output[0])

    def _lstm(self, node: onnx.NodeProto, constants: Constants) -> onnx.NodeProto:
        """Return the integer form of an LSTM; its weights are (directions, values, 4 * hidden), with a scale per column."""
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        parameters: list[str] = []
        for place in LSTM_WEIGHTS:
            tensor = constants[node.input[place]]
            key = (id(tensor), node.op_type, 1.0, True)
            self._replaced.add(tensor.name)
            if key not in self._weights:
                self._sources.append(tensor)
                values: Float32Array = numpy_helper.to_array(tensor)  # (directions, 4 * hidden, values)
                rows = values.reshape(-1, values.shape[-1])
                axis, shape = (0, values.shape[:2]) if self._settings.per_channel else (None, values.shape[:1])
                reduced, pairs = self._settings.reduce_range, PairLimits(Pairing.rows) if self._settings.in_16_bits else None
                grid = qparams_of_weights(rows, IntegerType.int8, axis=axis, reduced=reduced, pairs=pairs)
                integers = grid.quantize(rows).reshape(values.shape).transpose(0, 2, 1)
                self._weights[key] = _Weight(
                    self._put(np.ascontiguousarray(integers), f"{tensor.name}_quantized"),
                    self._put(np.broadcast_to(grid.scale, grid.scale.shape or shape).reshape(shape), f"{tensor.name}_scale"),
                    self._put(np.zeros(shape, np.int8), f"{tensor.name}_zero_point"),
                )
            weight = self._weights[key]
            inputs[place] = weight.integers
            parameters += [weight.scale, weight.zero_point]
        name = self._names.fresh(f"{node.name}_{PRODUCT}")
        quantized = helper.make_node("DynamicQuantizeLSTM", inputs + parameters, node.output, name=name, domain=MICROSOFT)
        quantized.attribute.extend(entry for entry in node.attribute if entry.name != "layout")
        return quantized

    def _weight(self, node: onnx.NodeProto, tensor: onnx.TensorProto) -> _Weight:
        transposed = bool(int_attribute(node, "transB", 0))
        key = (id(tensor), node.op_type, number_of(node, "alpha"), transposed)
        self._replaced.add(tensor.name)
        if key not in self._weights:
            self._sources.append(tensor)
            values: Float32Array = numpy_helper.to_array(tensor)
            values = values.T if transposed else values
            if node.op_type == "Gemm":
                values = values * np.float32(number_of(node, "alpha"))
            # Zero points of a stack of matrices would need the shape of the stack.
            columns = self._settings.per_channel and node.op_type != "Conv" and values.ndim == 2
            kind = self._settings.weights[node.op_type]
            axis = values.ndim - 1 if columns else None
            paired = self._settings.in_16_bits and node.op_type != "Conv"  # the scalar kernel of ConvInteger is exact
            grid = qparams_of_weights(
                values, kind, axis=axis, reduced=self._settings.reduce_range, one_zero_point=False,
                pairs=PairLimits(Pairing.columns) if paired else None,
            )  # fmt: skip
            self._weights[key] = _Weight(
                self._put(np.ascontiguousarray(grid.quantize(values)), f"{tensor.name}_quantized"),
                self._put(grid.scale, f"{tensor.name}_scale"),
                self._put(grid.zero_point.astype(numpy_type(kind)), f"{tensor.name}_zero_point"),
            )
        return self._weights[key]

    def _bias(
        self, node: onnx.NodeProto, name: str, tensor: onnx.TensorProto | None, rank: int | None, nodes: list[onnx.NodeProto]
    ) -> str:
        """Return a bias in a shape that it can be added in: (channels, 1, ...) after a Conv of the given rank."""
        if tensor is not None:
            values: Float32Array = numpy_helper.to_array(tensor)
            values = values * np.float32(number_of(node, "beta")) if rank is None else values.reshape(-1, *[1] * (rank - 2))
            self._replaced.add(name)
            return self._put(values, f"{name}_reshaped")
        if rank is None:
            return name
        shape = self._put(np.array([-1, *[1] * (rank - 2)], np.int64), f"{name}_shape")
        reshaped = self._names.fresh(f"{name}_reshaped")
        nodes.append(
            helper.make_node("Reshape", [name, shape], [reshaped], name=self._names.fresh(f"{node.name}_bias_reshape"))
        )
        return reshaped

    def _put(self, values: np.ndarray, name: str) -> str:
        name = self._names.fresh(name)
        self._new.append(tensor_of(values, name))
        return name
