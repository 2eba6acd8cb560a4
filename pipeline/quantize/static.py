"""Static quantization: integer weights and activations, with ranges from calibration.

Ranges come from the range engine (`pipeline.calibration`); ONNX Runtime's quantizer writes the graph. MatMul runs on ranges
computed at run time where the mode says so, since the result then stays float: between float neighbours that is faster than
a Q/DQ pair on either side, and loses nothing.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from pipeline.config import Format, IntegerType, StaticConfig
from pipeline.graph.prepare import PreparedGraph
from pipeline.quantize.dynamic import QUANT_TYPES, quantize_at_run_time, quiet
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.storage import store_weights
from pipeline.quantize.target import activation_type_of, needs_reduced_range

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name -> (lowest, highest) value that its integers stand for."""


def plan_static(prepared: PreparedGraph, mode: StaticConfig) -> Plan:
    """Return the plan of a static mode."""
    registry = QDQRegistry if mode.format is Format.qdq else QLinearOpsRegistry
    return plan_nodes(prepared, mode, {*registry, "ConvTranspose", "Gemm"}, mode.op_types, Precision.static)


def tensors_to_calibrate(model: onnx.ModelProto, plan: Plan) -> list[str]:
    """Return the float tensors that statically quantized nodes read or write, constants left out."""
    nodes = set(plan.nodes(Precision.static))
    constants = {tensor.name for tensor in model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in _values(model.graph)}
    touched = (tensor for node in model.graph.node if node.name in nodes for tensor in (*node.input, *node.output))
    return list(dict.fromkeys(t for t in touched if t not in constants and types.get(t) == onnx.TensorProto.FLOAT))


def quantize_static(model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges) -> onnx.ModelProto:
    """Return the graph with the planned nodes quantized.

    Args:
        model: the prepared graph; it is changed.
        plan: which node becomes what.
        mode: types and format.
        ranges: of every tensor that `tensors_to_calibrate` names.
    """
    store_weights(model, plan.nodes(Precision.storage))
    reduce_range = needs_reduced_range(mode.reduce_range, mode.target)
    model = quantize_at_run_time(
        model,
        plan.nodes(Precision.dynamic),
        weight_type=IntegerType.int8,
        per_channel=mode.per_channel,
        reduce_range=reduce_range,
    )
    nodes = plan.nodes(Precision.static)
    if not nodes:
        return model
    op_types = sorted({node.op_type for node in model.graph.node if node.name in set(nodes)})
    activations = QUANT_TYPES[activation_type_of(mode.activation_type, mode.target)]
    weights = QUANT_TYPES[mode.weight_type or IntegerType.int8]
    options = {
        "ActivationSymmetric": mode.symmetric,
        "OpTypesToExcludeOutputQuantization": mode.float_outputs,
        "MatMulConstBOnly": not mode.products_of_activations,
    }
    data = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, dtype=np.float32), highest=np.array(high, dtype=np.float32))
            for name, (low, high) in ranges.items()
        },
    )
    quantizer = _quantizer(model, mode, nodes, op_types, activations, weights, data, reduce_range, options)
    with quiet():
        quantizer.quantize_model()
    quantized = quantizer.model.model
    assert isinstance(quantized, onnx.ModelProto)
    return quantized


def _quantizer(
    model: onnx.ModelProto,
    mode: StaticConfig,
    nodes: list[str],
    op_types: list[str],
    activations: QuantType,
    weights: QuantType,
    data: TensorsData,
    reduce_range: bool,
    options: dict[str, object],
) -> QDQQuantizer | ONNXQuantizer:
    if mode.format is Format.qdq:
        return QDQQuantizer(model, mode.per_channel, reduce_range, weights, activations, data, nodes, [], op_types, options)
    return ONNXQuantizer(
        model,
        mode.per_channel,
        reduce_range,
        QuantizationMode.QLinearOps,
        True,  # static
        weights,
        activations,
        data,
        nodes,
        [],
        op_types,
        options,
    )


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.value_info, *graph.output)
