"""Messages to the user about a quantized graph: notes, why it is not faster, why nothing has changed."""

from collections import Counter
from collections.abc import Mapping
from typing import assert_never

import onnx

from pipeline.config.mode_settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.graph.large_models import SMALL_BYTES, bytes_of
from pipeline.graph.op_sets import WEIGHTED_OPS
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.plan import Plan, Precision, reaches_bodies

HARDLY_SMALLER = 0.9  # of the original's bytes
NAMED_OPERATORS = 4
STORED = (
    "_int8",
    "_quantized",
    "_Q4",
    "_Q8",
    "_as_constant",
    "_as_float",
)  # ends the name of what a quantizer makes of a constant


def why_slower(mode: AnyModeConfig, artifact: Artifact) -> str:
    """Return why a quantized graph can be slower than its original, and what to do."""
    match mode:
        case Fp16Config():
            return (
                "this processor has no fp16 kernels for most operators, so ONNX Runtime converts to fp32 and back around them; "
                "fp16 halves the file. For speed: mode=static or mode=dynamic."
            )
        case WeightOnlyConfig():
            return (
                "the weights of MatMul lie in blocks, which are expanded to float at every inference; weight_only shrinks the "
                "file. For speed: mode=static or mode=dynamic."
            )
        case StaticConfig() | DynamicConfig():
            left = sum(count for op, count in artifact.kernels.items() if op in ("QuantizeLinear", "DequantizeLinear"))
            integer = sum(artifact.kernels.values()) - left
            return (
                f"{integer} operators run as integers, and {left} conversions between float and integer are left over between "
                "them. Quantize fewer operator types (mode.op_types), or exclude the small nodes (mode.nodes_to_exclude)."
            )
        case AutoConfig():
            return (
                "it was faster when the search timed it; the machine may have been busy then or now. Run again, or ask for "
                "more with mode.min_speedup."
            )
        case OptimizeConfig():
            return "each rewrite measured faster alone; the machine may have been busy. Run again."
        case _:
            assert_never(mode)


def nothing_to_do(source: SourceGraph, mode: AnyModeConfig, plan: Plan) -> str:
    """Return why a mode would change nothing in a graph, and what would."""
    nothing = f"mode {mode.name} would change nothing in the graph {source.name!r}"
    if isinstance(mode, OptimizeConfig):
        return f"{nothing}: no rewrite makes it faster on this machine."
    inner = [node for body in list(graphs_of(source.model.graph))[1:] for node in body.node if node.op_type in WEIGHTED_OPS]
    if inner and not plan.kept:
        return (
            f"{nothing}: all {len(inner)} of its layers lie inside the bodies of If, Loop or Scan. Quantize them with "
            "dynamic ranges: mode=dynamic mode.subgraphs=true. Where a constant input decides which body runs (a sampling "
            "rate), fix it, and calibration can give static ranges too: model.fixed_inputs={sr: 16000}."
        )
    reasons = Counter(kept.reason for kept in plan.kept)
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    folding = "" if mode.preprocess else "Let constants be folded first (mode.preprocess=true), choose"
    return (
        f"{nothing}: {why or 'it has no node of the operator types of this mode'}. {folding or 'Choose'} other nodes or "
        "operator types, or another mode."
    )


def only_stored(source: SourceGraph, mode: AnyModeConfig, plan: Plan) -> list[str]:
    """Return that a static graph computes in float after all, since its layers lie in bodies; nothing where it does not."""
    stored = plan.nodes(Precision.weight_int8)
    inner = {
        node.name for body in list(graphs_of(source.model.graph))[1:] for node in body.node if node.op_type in WEIGHTED_OPS
    }
    if not isinstance(mode, StaticConfig) or not inner or len(stored) < len(plan.precisions) or not inner & set(stored):
        return []
    return [
        f"{source.name}: its layers lie inside the bodies of If, Loop or Scan. Their weights are stored as int8 and they "
        "compute in float: the file is smaller, and not faster. For integers there: mode=dynamic. Where a constant input "
        "decides which body runs (a sampling rate), fix it, and calibration can give static ranges too: "
        "model.fixed_inputs={sr: 16000}."
    ]


def why_larger(name: str, artifact: Artifact, model: onnx.ModelProto, mode: AnyModeConfig) -> list[str]:
    """Return that a file is larger than its original, and why; nothing of a search that left all in float, which says so."""
    if not artifact.quantized_nodes and isinstance(mode, AutoConfig):
        return []
    twice = _stored_twice(model)
    floats = sum(bytes_of(tensor) for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    why = (
        f"{len(twice)} of its weights, {twice[0]!r} among them, are there twice, since other nodes or outputs need them in "
        "float: exclude the nodes that read the smaller form (mode.nodes_to_exclude)"
        if twice
        else "rewrites make it faster with more nodes and constants; leave some out with mode.rewrites"
        if isinstance(mode, OptimizeConfig)
        else f"{floats} bytes of constants stay float, and scales, zero points and nodes take more than integers save; "
        "quantize other nodes or types (mode.op_types), or fewer"
    )
    return [
        f"{name}: {artifact.path.name} is {artifact.size_bytes / artifact.baseline_bytes:.2f} times as large as the original "
        f"({artifact.size_bytes} of {artifact.baseline_bytes} bytes): {why}."
    ]


def why_hardly_smaller(name: str, artifact: Artifact, model: onnx.ModelProto, original: onnx.ModelProto) -> str:
    """Return that a file is hardly smaller than its original, and which operators hold the bytes that stay float.

    Args:
        name: of the graph.
        artifact: the file.
        model: its graph.
        original: the prepared float graph, in which the kept nodes have their types.
    """
    held: Counter[str] = Counter()
    seen: set[str] = set()
    constants = {tensor.name: tensor for scope in graphs_of(model.graph) for tensor in scope.initializer}
    floats = {key: bytes_of(tensor) for key, tensor in constants.items() if tensor.data_type == onnx.TensorProto.FLOAT}
    for node in (node for scope in graphs_of(model.graph) for node in scope.node):
        for tensor in set(node.input) & floats.keys() - seen:
            held[node.op_type] += floats[tensor]
            seen.add(tensor)
    types = {node.name: node.op_type for scope in graphs_of(original.graph) for node in scope.node}
    reasons: dict[str, Counter[str]] = {}
    for kept in artifact.kept:
        reasons.setdefault(types.get(kept.node, ""), Counter())[kept.reason] += 1
    told = []
    for op_type, count in held.most_common(NAMED_OPERATORS):
        why = reasons.get(op_type, Counter()).most_common(1)
        told.append(f"{op_type} {count / max(artifact.size_bytes, 1):.0%}{f' ({why[0][0]})' if why else ''}")
    share = sum(floats.values()) / max(artifact.size_bytes, 1)
    return (
        f"{name}: {artifact.path.name} has {artifact.size_bytes / artifact.baseline_bytes:.2f} of the original's bytes. "
        f"{share:.0%} of them are constants that stayed float, read by {', '.join(told) or 'no node'}."
    )


def _stored_twice(model: onnx.ModelProto) -> list[str]:
    """Return the float constants that are in the graph in a smaller type too."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and bytes_of(tensor) >= SMALL_BYTES
        and any(other != tensor.name and other.startswith(f"{tensor.name}_") and other.endswith(STORED) for other in held)
    ]


def warnings_on_bits(name: str, suffix: str, bits: Mapping[int, int]) -> list[str]:
    """Return what a file holds beside the bits that were asked for."""
    wanted = int(suffix.removeprefix("int")) if suffix.startswith("int") else None
    others = {width: count for width, count in bits.items() if width != wanted and count >= SMALL_BYTES}
    if wanted in (None, 8) or not others:
        return []
    total = sum(bits.values())
    shares = ", ".join(f"{100 * count / total:.0f} % have {width} bits" for width, count in sorted(others.items()))
    return [
        f"{name}: of its integer weights {shares}, not {wanted}: that many bits there are for the weights of MatMul only "
        "(mode.bits), or of nodes with static ranges (mode.weight_type)."
    ]


def notes_on(source: SourceGraph, prepared: onnx.ModelProto, mode: AnyModeConfig) -> list[str]:
    """Return what was done with a graph, as is usual, and may explain the result."""
    notes = [
        f"{source.name}: it takes {name} and ignores it: model.fixed_inputs fixes it at {value.item():g}."
        for name, value in source.fixed.items()
    ]
    bodies = [node for node in prepared.graph.node if node.op_type in ("If", "Loop", "Scan")]
    if bodies and not isinstance(mode, Fp16Config) and not reaches_bodies(mode):
        notes.append(f"{source.name}: the bodies of {len(bodies)} If, Loop or Scan nodes stay as they are (mode.subgraphs).")
    return notes
