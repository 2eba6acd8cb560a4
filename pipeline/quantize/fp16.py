"""Half precision, by the converter that comes with ONNX Runtime (it knows the random operators that others mistype)."""

import onnx
import onnxruntime
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from pipeline.config.mode_settings import Fp16Config
from pipeline.errors import StageError
from pipeline.graph.large_models import is_large
from pipeline.graph.node_patterns import check_present, match_nodes
from pipeline.graph.noise_inputs import RANDOM_OPS, random_nodes
from pipeline.graph.optimizer_crash import ends_the_process
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.shape_deciding import length_deciding_nodes, shape_deciding_nodes
from pipeline.graph.source_graph import QUANTIZED_OPS
from pipeline.graph.subgraph_scopes import bodies, graphs_of
from pipeline.quantize.fp16_cleanup import (
    declared_types,
    free_names,
    holds_tensors,
    no_types,
    put_in_order,
    put_plain_outputs_back,
    put_types_back,
    separate_constants,
    take_plain_outputs,
    tensors_of_constants,
)
from pipeline.quantize.plan import DECIDES_LENGTH, DECIDES_SHAPES, Plan, Precision
from pipeline.record.results import Kept

# They make, change or read a sequence of tensors, or a value that may be missing.
HOLDING_TENSORS = frozenset({
    "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap",
    "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
})  # fmt: skip
ALWAYS_FP32 = (*DEFAULT_OP_BLOCK_LIST, *sorted(RANDOM_OPS), *sorted(QUANTIZED_OPS))


def plan_fp16(prepared: PreparedGraph, mode: Fp16Config) -> Plan:
    """Return the plan of an fp16 mode: every node but those that are excluded, blocked, or decide shapes.

    Raises:
        ConfigError: a name or an operator type in the settings means nothing in this graph.
    """
    scopes = list(graphs_of(prepared.model.graph))
    nodes = [node for scope in scopes for node in scope.node]
    names = {node.name for node in nodes}
    types = {node.op_type for node in nodes}
    check_present(mode.ops_in_fp32, types, "mode.ops_in_fp32")
    named = match_nodes(mode.nodes_to_quantize, names, "mode.nodes_to_quantize", prepared.paths)
    excluded = match_nodes(mode.nodes_to_exclude, names, "mode.nodes_to_exclude", prepared.paths)
    fixed = {name for scope in scopes for name in shape_deciding_nodes(scope)}
    lengths = length_deciding_nodes(prepared.model.graph) if prepared.keep_lengths else set()
    # The converter changes the type of their output, but not the `dtype` that they are asked for.
    random = {node.name for node in random_nodes(prepared.model.graph)}
    held = set(declared_types(prepared.model.graph, holds_tensors))
    plan = Plan()
    inherited: dict[str, str] = {}
    for node in nodes:
        reason = inherited.get(node.name) or (
            "excluded by mode.nodes_to_exclude" if node.name in excluded
            else "not in mode.nodes_to_quantize" if named and node.name not in named
            else f"{node.op_type} is in mode.ops_in_fp32" if node.op_type in mode.ops_in_fp32
            else f"{node.op_type} stays fp32" if node.op_type in ALWAYS_FP32 or node.name in random
            else DECIDES_SHAPES if node.name in fixed
            else DECIDES_LENGTH if node.name in lengths
            else "reads or writes a sequence of tensors, or a value that may be missing: these stay fp32"
            if node.op_type in HOLDING_TENSORS or (not bodies(node) and not held.isdisjoint([*node.input, *node.output]))
            else None
        )  # fmt: skip
        if reason is None:
            plan.precisions[node.name] = Precision.fp16
        else:
            plan.kept.append(Kept(node.name, reason))
            inherited.update({inner.name: reason for body in bodies(node) for inner in body.node})
    return plan


def quantize_fp16(model: onnx.ModelProto, plan: Plan, mode: Fp16Config) -> onnx.ModelProto:
    """Return the graph in half precision, with casts around what keeps fp32; the one given is changed.

    ONNX Runtime 1.32.0 ends the process (segmentation fault, in its NCHWc layout) at some graphs with a Conv in which a MatMul
    reads a Transpose of half precision: it swaps that Transpose with a Cast of its own. PyTorch's MultiheadAttention with
    `batch_first` is exported so. Where it happens, such Transposes become kept.

    Raises:
        StageError: it ends the process all the same.
    """
    suspects = _transposed_operands(model, plan)
    if not suspects:
        return _converted(model, plan, mode)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted = _converted(copy, plan, mode)
    if not ends_the_process(converted):
        return converted
    plan.keep(dict.fromkeys(suspects, f"ONNX Runtime {onnxruntime.__version__} ends the process at it in fp16"))
    converted = _converted(model, plan, mode)
    if ends_the_process(converted):
        raise StageError(
            f"ONNX Runtime {onnxruntime.__version__} ends the process when it optimizes the graph in fp16. Keep nodes in "
            "fp32 with mode.nodes_to_exclude or mode.ops_in_fp32, or choose another mode."
        )
    return converted


def _transposed_operands(model: onnx.ModelProto, plan: Plan) -> list[str]:
    """Return the planned Transposes that a planned MatMul reads, in a graph with a Conv."""
    if not any(node.op_type == "Conv" for node in model.graph.node):
        return []
    planned = plan.precisions
    read = {name for node in model.graph.node if node.op_type == "MatMul" and node.name in planned for name in node.input}
    nodes = (node for node in model.graph.node if node.op_type == "Transpose" and node.name in planned)
    return [node.name for node in nodes if node.output[0] in read]


def _converted(model: onnx.ModelProto, plan: Plan, mode: Fp16Config) -> onnx.ModelProto:
    plain = take_plain_outputs(model.graph)
    free_names(model.graph)
    tensors_of_constants(model.graph)
    # What the bodies of a control-flow node take from around them is no input of it, which a cast could stand before.
    passing = {node.name for graph in graphs_of(model.graph) for node in graph.node if bodies(node)}
    kept = [kept.node for kept in plan.kept if kept.node not in passing]
    separate_constants(model.graph, set(kept))
    # The converter would give them half precision, also where a caller is promised float, and cannot cast them.
    held = declared_types(model.graph, holds_tensors)
    no_types(model.graph, held)
    converted = convert_float_to_float16(
        model,
        keep_io_types=mode.keep_io_types,
        op_block_list=[*ALWAYS_FP32, *mode.ops_in_fp32],
        node_block_list=kept,
        disable_shape_infer=is_large(model) or bool(held),  # it serializes the graph, whose shapes preparation has inferred
    )
    assert isinstance(converted, onnx.ModelProto)
    put_types_back(converted.graph, held)
    put_plain_outputs_back(converted.graph, plain, half=not mode.keep_io_types)
    put_in_order(converted)
    return converted
