"""Dynamic quantization: integer weights, ranges of activations computed while the model runs.

MatMul gets int8 weights (fused as DynamicQuantizeMatMul), or uint8 ones where the target computes only those exactly, and Conv
uint8 ones: ConvInteger with int8 weights runs a scalar kernel, five times slower than fp32. Attention and Gather are left to
ONNX Runtime's quantizer.
"""

import onnx

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import DynamicConfig
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, cannot_compute, quantize_with_dynamic_ops
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.target import PROCESSORS, limits_pairs, needs_reduced_range, target_of
from pipeline.quantize.weight_storage import store_weights

BY_ONNXRUNTIME = frozenset({"Attention", "Gather"})
SUPPORTED = BY_ONNXRUNTIME | STORABLE
FASTEST = {"MatMul": IntegerType.int8, "Gemm": IntegerType.int8, "Conv": IntegerType.uint8}


def plan_dynamic(prepared: PreparedGraph, mode: DynamicConfig) -> Plan:
    """Return the plan of a dynamic mode."""
    plan = plan_nodes(prepared, mode, SUPPORTED, mode.op_types, Precision.dynamic_int8)
    keep_what_has_no_operator(prepared.model, plan)
    return plan


def keep_what_has_no_operator(model: onnx.ModelProto, plan: Plan) -> None:
    """Let the nodes of a plan stay in fp32 that no integer operator with dynamic ranges can replace."""
    planned = set(plan.nodes(Precision.dynamic_int8))
    outermost = {node.name for node in model.graph.node}  # names are unique: pipeline.graph.local_functions
    scopes = list(graphs_of(model.graph))
    constants = {tensor.name: tensor for scope in scopes for tensor in scope.initializer}
    reasons = {}
    for node in (node for scope in scopes for node in scope.node if node.name in planned):
        if node.op_type not in BY_ONNXRUNTIME:
            reason = cannot_compute(node, constants)
        elif node.name not in outermost:
            reason = f"inside a body of If, Loop or Scan, where {node.op_type} stays float"
        elif node.op_type == "Gather" and not _is_float(constants.get(node.input[0])):
            reason = "its table is not a float32 constant"
        else:
            reason = None
        if reason is not None:
            reasons[node.name] = reason
    plan.keep(reasons)


def quantize_dynamic(model: onnx.ModelProto, plan: Plan, mode: DynamicConfig) -> onnx.ModelProto:
    """Return the graph with the planned nodes quantized; the one given is changed.

    What ONNX Runtime's quantizer cannot quantize becomes kept.

    Raises:
        StageError: a node cannot be quantized; names it.
    """
    store_weights(model, plan.nodes(Precision.weight_int8))
    nodes = plan.nodes(Precision.dynamic_int8)
    others = [node.name for node in model.graph.node if node.name in set(nodes) and node.op_type in BY_ONNXRUNTIME]
    if others:
        from pipeline.quantize.ort_quantizer import IntegerOperators, with_integer_operators

        weight_type, options = mode.weight_type or IntegerType.int8, {"MatMulConstBOnly": True}
        reduced = needs_reduced_range(mode.reduce_range, mode.target)
        operators = IntegerOperators(weight_type, IntegerType.uint8, None, mode.per_channel, reduced, options)
        model, left = with_integer_operators(model, others, operators)
        plan.keep(left)
        nodes = [name for name in nodes if name not in left]
    product = PROCESSORS[target_of(mode.target)].dynamic_matmul
    fastest = FASTEST | ({"MatMul": product, "Gemm": product} if mode.reduce_range is None else {})
    weights = {op_type: mode.weight_type or kind for op_type, kind in fastest.items()}
    in_16_bits = limits_pairs(mode.reduce_range, mode.target)
    settings = DynamicOpsSettings(weights, mode.per_channel, bool(mode.reduce_range), in_16_bits)
    quantize_with_dynamic_ops(model, [name for name in nodes if name not in set(others)], settings)
    return model


def _is_float(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT
