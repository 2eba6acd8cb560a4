"""Weight-only quantization: smaller files, float computation.

MatMul weights are stored in blocks of 4 or 8 bits (ONNX Runtime's MatMulNBits); no such operator exists for the others,
whose weights are stored as int8 with one scale per output channel, as are matrices that padding to whole blocks would blow up.
"""

import onnx

from pipeline.config.mode_settings import WeightOnlyConfig
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.prepare import PreparedGraph, initializers_of
from pipeline.quantize.block_weights import bytes_in_blocks, quantize_in_blocks
from pipeline.quantize.matrix_form import HEAD
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.weight_storage import bytes_as_integers, store_weights


def plan_weight_only(prepared: PreparedGraph, mode: WeightOnlyConfig) -> Plan:
    """Return the plan of a weight-only mode."""
    plan = plan_nodes(prepared, mode, STORABLE, mode.op_types, Precision.weight_int8)
    weights = initializers_of(prepared.model)
    for node in prepared.model.graph.node:
        if node.op_type == "MatMul" and node.name in plan.precisions and _fits_blocks(weights[node.input[1]], mode):
            plan.precisions[node.name] = Precision.weight_blocks
    return plan


def _fits_blocks(weight: onnx.TensorProto, mode: WeightOnlyConfig) -> bool:
    """Say whether a weight is a matrix that blocks suit: one with fewer rows than a block is padded, and may grow."""
    if len(weight.dims) != 2 or HEAD in weight.name:  # rows of a table need their own scales, blocks lie across them
        return False
    rows, _ = weight.dims
    return bool(rows >= mode.block_size or bytes_in_blocks(rows, mode) <= bytes_as_integers(rows, 1))


def quantize_weight_only(model: onnx.ModelProto, plan: Plan, mode: WeightOnlyConfig) -> onnx.ModelProto:
    """Return the graph with the planned weights stored as integers."""
    store_weights(model, plan.nodes(Precision.weight_int8))
    if blocks := plan.nodes(Precision.weight_blocks):
        quantize_in_blocks(model, blocks, mode)
    return model
