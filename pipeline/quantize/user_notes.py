"""Messages to the user about a quantized graph: notes, why it is not faster, why nothing has changed."""

from collections import Counter
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
from pipeline.graph.op_sets import WEIGHTED_OPS
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.plan import Plan
from pipeline.quantize.target import saturates_here


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
                "weights are expanded to float at every inference, and computed with in float; weight_only shrinks the file. "
                "For speed: mode=static or mode=dynamic."
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
    return (
        f"{nothing}: {why or 'it has no node of the operator types of this mode'}. Choose other nodes or operator types, or "
        "another mode."
    )


def notes_on(source: SourceGraph, prepared: onnx.ModelProto, mode: AnyModeConfig) -> list[str]:
    """Return what a user must know of a finished graph."""
    notes = [
        f"{source.name}: it takes {name} and ignores it: model.fixed_inputs fixes it at {value.item():g}."
        for name, value in source.fixed.items()
    ]
    bodies = [node for node in prepared.graph.node if node.op_type in ("If", "Loop", "Scan")]
    if bodies and not (isinstance(mode, DynamicConfig | StaticConfig) and mode.subgraphs):
        notes.append(f"{source.name}: the bodies of {len(bodies)} If, Loop or Scan nodes stay as they are (mode.subgraphs).")
    if isinstance(mode, DynamicConfig | StaticConfig | AutoConfig):
        reduce_range = None if isinstance(mode, AutoConfig) else mode.reduce_range
        if saturates_here(reduce_range, mode.target):
            notes.append(
                f"{source.name}: sums of products with int8 weights of 8 bits saturate on this processor, which has no VNNI "
                "instructions: what is measured here is worse than elsewhere. For this processor leave out mode.target and "
                "mode.reduce_range."
            )
    return notes
