"""Static quantization: integer weights and activations, with ranges from calibration.

Ranges come from the range engine (`pipeline.calibration`). MatMul gets dynamic ranges by default (`mode.dynamic_op_types`),
since its result then stays float: between float neighbours that is faster than a Q/DQ pair on either side, and loses
nothing. Integer operators (`mode.format=qoperator`) are written by ONNX Runtime's quantizer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from pipeline.config.choices import Format, IntegerType
from pipeline.config.mode_settings import StaticConfig
from pipeline.errors import StageError
from pipeline.graph.op_sets import RECURRENT_LAYERS
from pipeline.graph.prepare import PreparedGraph
from pipeline.quantize.dynamic import FASTEST, keep_what_has_no_operator
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, quantize_with_dynamic_ops
from pipeline.quantize.operators import SUPPORTED
from pipeline.quantize.ort_fusion_guard import keep_float
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.qdq_placement import PairSettings, place_pairs
from pipeline.quantize.qdq_writer import Ranges, insert_pairs
from pipeline.quantize.qoperator_limits import without_integer_operator
from pipeline.quantize.shared_tables import share_tables
from pipeline.quantize.target import activation_type_of, limits_pairs, needs_reduced_range
from pipeline.quantize.weight_storage import store_weights

__all__ = ["Ranges", "keep_in_float", "plan_static", "quantize_static", "tensors_to_calibrate"]


def plan_static(prepared: PreparedGraph, mode: StaticConfig) -> Plan:
    """Return the plan of a static mode."""
    plan = plan_nodes(prepared, mode, static_types(mode.format), mode.op_types, Precision.static_int8)
    keep_what_has_no_operator(prepared.model, plan)
    keep_in_float(prepared.model, plan, mode, {})
    return plan


def static_types(form: Format) -> frozenset[str]:
    """Return the operator types that can be quantized in a form."""
    if form is not Format.qoperator:
        return SUPPORTED | RECURRENT_LAYERS
    from pipeline.quantize.ort_quantizer import INTEGER_OPERATORS

    return frozenset(INTEGER_OPERATORS | {"ConvTranspose", "Gemm"} | RECURRENT_LAYERS)


def keep_in_float(model: onnx.ModelProto, plan: Plan, mode: StaticConfig, reasons: Mapping[str, str]) -> None:
    """Let nodes of a plan stay in fp32 after all, and with them those that gain nothing without them.

    Args:
        model: the prepared graph.
        plan: is changed.
        mode: its settings.
        reasons: node name -> why.
    """
    plan.keep(reasons)
    if mode.format is Format.qdq:
        plan.keep(place_pairs(model, plan.nodes(Precision.static_int8), pair_settings(mode)).skipped)
        return
    planned = set(plan.nodes(Precision.static_int8))
    plan.keep(without_integer_operator(model, planned, per_channel=mode.per_channel))


def pair_settings(mode: StaticConfig) -> PairSettings:
    """Return what the settings of a mode mean for Q/DQ pairs."""
    return PairSettings(
        activations=activation_type_of(mode.activation_type, mode.target),
        weights=mode.weight_type or IntegerType.int8,
        per_channel=mode.per_channel,
        symmetric=mode.symmetric,
        reduce_range=bool(mode.reduce_range),
        in_16_bits=limits_pairs(mode.reduce_range, mode.target),
        float_outputs=tuple(mode.float_outputs),
    )


def tensors_to_calibrate(model: onnx.ModelProto, plan: Plan, mode: StaticConfig) -> list[str]:
    """Return the tensors whose ranges `quantize_static` needs, constants left out."""
    nodes = set(plan.nodes(Precision.static_int8))
    constants = {tensor.name for tensor in model.graph.initializer}
    if mode.format is Format.qdq:
        return place_pairs(model, nodes, pair_settings(mode)).measured(constants)
    types = {value.name: value.type.tensor_type.elem_type for value in _values(model.graph)}
    touched = (tensor for node in model.graph.node if node.name in nodes for tensor in (*node.input, *node.output))
    return list(dict.fromkeys(t for t in touched if t not in constants and types.get(t) == onnx.TensorProto.FLOAT))


def store_planned(model: onnx.ModelProto, plan: Plan) -> None:
    """Store the weights of the nodes that a plan only stores, as integers of 8 or 16 bits, in place."""
    store_weights(model, plan.nodes(Precision.weight_int8))
    store_weights(model, plan.nodes(Precision.weight_int16), IntegerType.int16)


def quantize_static(model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges) -> onnx.ModelProto:
    """Return the graph with the planned nodes quantized; the one given is changed.

    Args:
        model: the prepared graph.
        plan: which node becomes what. With `mode.format=qoperator`, nodes that ONNX Runtime leaves as they are become kept.
        mode: types and format.
        ranges: of every tensor that `tensors_to_calibrate` names.

    Raises:
        StageError: a node of the plan cannot be quantized, or a range is missing; names it.
    """
    settings = pair_settings(mode)
    store_planned(model, plan)
    at_run_time = DynamicOpsSettings(FASTEST, mode.per_channel, settings.reduce_range, settings.in_16_bits)
    quantize_with_dynamic_ops(model, plan.nodes(Precision.dynamic_int8), at_run_time)
    nodes = plan.nodes(Precision.static_int8)
    if nodes and mode.format is Format.qoperator:
        model = _with_integer_operators(model, plan, mode, settings, ranges)
    elif nodes:
        insert_pairs(model, nodes, settings, ranges)
        keep_float(model)
    share_tables(model)
    return model


def _with_integer_operators(
    model: onnx.ModelProto, plan: Plan, mode: StaticConfig, settings: PairSettings, ranges: Ranges
) -> onnx.ModelProto:
    from pipeline.quantize.ort_quantizer import IntegerOperators, with_integer_operators

    options = {
        "ActivationSymmetric": settings.symmetric,
        "OpTypesToExcludeOutputQuantization": mode.float_outputs,
        "MatMulConstBOnly": not mode.products_of_activations,
    }
    reduced = needs_reduced_range(mode.reduce_range, mode.target)
    operators = IntegerOperators(settings.weights, settings.activations, ranges, settings.per_channel, reduced, options)
    quantized, left = with_integer_operators(model, plan.nodes(Precision.static_int8), operators)
    plan.keep(left)
    if not plan.precisions:
        reason, count = Counter(left.values()).most_common(1)[0]
        raise StageError(
            f"mode.format=qoperator: no node can become an integer operator; {count} x {reason}. mode.format=qdq "
            "quantizes more."
        )
    return quantized


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.value_info, *graph.output)
