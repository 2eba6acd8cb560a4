"""Weight-only quantization: smaller files, float computation.

MatMul weights are stored in blocks of 4 or 8 bits (ONNX Runtime's MatMulNBits); no such operator exists for the others,
whose weights are stored as int8 with one scale per output channel.
"""

import onnx

from pipeline.config.mode_settings import WeightOnlyConfig
from pipeline.graph.op_sets import LAYERS
from pipeline.graph.prepare import PreparedGraph, initializers_of
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.weight_storage import store_weights


def plan_weight_only(prepared: PreparedGraph, mode: WeightOnlyConfig) -> Plan:
    """Return the plan of a weight-only mode."""
    plan = plan_nodes(prepared, mode, LAYERS, mode.op_types, Precision.weight_int8)
    weights = initializers_of(prepared.model)
    for node in prepared.model.graph.node:
        if node.op_type == "MatMul" and node.name in plan.precisions and len(weights[node.input[1]].dims) == 2:
            plan.precisions[node.name] = Precision.weight_blocks
    return plan


def quantize_weight_only(model: onnx.ModelProto, plan: Plan, mode: WeightOnlyConfig) -> onnx.ModelProto:
    """Return the graph with the planned weights stored as integers."""
    store_weights(model, plan.nodes(Precision.weight_int8))
    blocks = plan.nodes(Precision.weight_blocks)
    if not blocks:
        return model
    from pipeline.quantize.ort_quantizer import with_weights_in_blocks

    return with_weights_in_blocks(model, blocks, mode)
