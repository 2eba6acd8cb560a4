"""Dynamic quantization: integer weights, ranges of activations computed while the model runs, by ONNX Runtime's quantizer.

MatMul gets int8 weights (fused as DynamicQuantizeMatMul) and Conv uint8 ones: ConvInteger with int8 weights runs a scalar
kernel, five times slower than fp32.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.registry import IntegerOpsRegistry

from pipeline.config import DynamicConfig, IntegerType
from pipeline.graph.prepare import PreparedGraph
from pipeline.quantize.plan import Plan, Precision, plan_nodes
from pipeline.quantize.storage import store_weights
from pipeline.quantize.target import needs_reduced_range

SUPPORTED = frozenset(IntegerOpsRegistry) | {"Gemm", "ConvTranspose"}
QUANT_TYPES = {kind: getattr(QuantType, f"Q{kind.name.replace('int', 'Int').replace('u', 'U', 1)}") for kind in IntegerType}


def plan_dynamic(prepared: PreparedGraph, mode: DynamicConfig) -> Plan:
    """Return the plan of a dynamic mode."""
    return plan_nodes(prepared, mode, SUPPORTED, mode.op_types, Precision.dynamic)


def quantize_dynamic(model: onnx.ModelProto, plan: Plan, mode: DynamicConfig) -> onnx.ModelProto:
    """Return the graph with the planned nodes quantized."""
    store_weights(model, plan.nodes(Precision.storage))
    reduce_range = needs_reduced_range(mode.reduce_range, mode.target)
    conv = {node.name for node in model.graph.node if node.op_type == "Conv"}
    nodes = plan.nodes(Precision.dynamic)
    for group, default in (
        ([name for name in nodes if name not in conv], IntegerType.int8),
        ([name for name in nodes if name in conv], IntegerType.uint8),
    ):
        model = quantize_at_run_time(
            model,
            group,
            weight_type=mode.weight_type or default,
            per_channel=mode.per_channel and default is IntegerType.int8,  # ConvInteger has one scale per tensor
            reduce_range=reduce_range,
            subgraphs=mode.subgraphs,
        )
    return model


def quantize_at_run_time(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    *,
    weight_type: IntegerType,
    per_channel: bool,
    reduce_range: bool,
    subgraphs: bool = False,
) -> onnx.ModelProto:
    """Return the graph with the named nodes quantized by ONNX Runtime's dynamic quantizer."""
    if not nodes:
        return model
    quantizer = ONNXQuantizer(
        model,
        per_channel,
        reduce_range,
        QuantizationMode.IntegerOps,
        False,  # static
        QUANT_TYPES[weight_type],
        QuantType.QUInt8,
        None,  # ranges
        list(nodes),
        [],
        sorted({node.op_type for node in model.graph.node if node.name in set(nodes)}),
        {"MatMulConstBOnly": True, "EnableSubgraph": subgraphs},
    )
    with quiet():
        quantizer.quantize_model()
    quantized = quantizer.model.model
    assert isinstance(quantized, onnx.ModelProto)
    return quantized


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what ONNX Runtime's quantizer tells the root logger from users.

    It asks whether the model is already quantized as soon as another of our own passes has been there.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
