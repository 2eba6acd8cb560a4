"""The quantize stage: one plan and one rewrite per mode, then the same checks for every artifact."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

import onnx

from pipeline.config import (
    AnyModeConfig,
    DynamicConfig,
    Fp16Config,
    IntegerType,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.errors import ModelError, StageError
from pipeline.graph.prepare import PreparedGraph, prepare
from pipeline.load import SourceGraph
from pipeline.quantize.artifact import Artifact, save_artifact
from pipeline.quantize.dynamic import plan_dynamic, quantize_dynamic
from pipeline.quantize.fp16 import plan_fp16, quantize_fp16
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import Ranges, plan_static, quantize_static, tensors_to_calibrate
from pipeline.quantize.weight_only import plan_weight_only, quantize_weight_only
from pipeline.run_directory import RunDirectory
from pipeline.samples import Sample

Calibrate = Callable[[SourceGraph, onnx.ModelProto, Sequence[str]], Ranges]
"""(source, prepared graph, tensors) -> their ranges."""


@dataclass(frozen=True)
class Quantized:
    """What the stage gives.

    Attributes:
        artifacts: graph name -> artifact.
        notes: what was changed on the way that a user should know.
    """

    artifacts: dict[str, Artifact]
    notes: tuple[str, ...]


def quantize(
    sources: dict[str, SourceGraph],
    mode: AnyModeConfig,
    calibrate: Calibrate,
    probes: dict[str, Sample],
    directory: RunDirectory,
    graph_modes: Mapping[str, AnyModeConfig] = MappingProxyType({}),
) -> Quantized:
    """Quantize every graph of a model.

    Args:
        sources: the graphs as loaded.
        mode: what to do.
        calibrate: measures ranges; called by a static mode only.
        probes: graph name -> a sample that the finished artifact must run on.
        directory: where artifacts go.
        graph_modes: graph name -> what to do with this one instead.

    Raises:
        ConfigError: a setting means nothing in a graph.
        ModelError: a graph does not fit the mode.
        StageError: nothing would change, or the result does not run.
    """
    staged: dict[str, Artifact] = {}
    notes: list[str] = []
    idle: list[str] = []
    common = mode
    for name, source in sources.items():
        mode = graph_modes.get(name, common)
        _refuse_half_precision(source)
        prepared = prepare(source, opset=mode.opset, needed_opset=needed_opset(mode), preprocess=mode.preprocess)
        plan = plan_for(prepared, mode)
        if not plan.precisions:
            idle.append(_nothing_to_do(name, mode, plan))
            continue
        model = _rewrite(source, prepared, plan, mode, calibrate)
        staged[name] = save_artifact(
            model, source, plan, suffix_of(mode), directory, probes[name], external_data=mode.external_data
        )
        notes += [*prepared.notes, *_subgraph_note(source, mode)]
    if not staged:
        raise StageError(" ".join(idle))
    notes += idle  # of several graphs, one that stays as it is does not spoil the others
    return Quantized({name: artifact.published(directory) for name, artifact in staged.items()}, tuple(notes))


def plan_for(prepared: PreparedGraph, mode: AnyModeConfig) -> Plan:
    """Return what a mode will make of each node."""
    match mode:
        case StaticConfig():
            return plan_static(prepared, mode)
        case DynamicConfig():
            return plan_dynamic(prepared, mode)
        case WeightOnlyConfig():
            return plan_weight_only(prepared, mode)
        case Fp16Config():
            return plan_fp16(prepared, mode)
        case _:
            assert_never(mode)


def needed_opset(mode: AnyModeConfig) -> int:
    """Return the oldest opset that a mode's operators exist in.

    DequantizeLinear has an axis (one scale per channel) since opset 13, and 16- and 4-bit types since 21.
    """
    match mode:
        case StaticConfig():
            types = {mode.weight_type, mode.activation_type} - {None, IntegerType.int8, IntegerType.uint8}
            return 21 if types else 13
        case DynamicConfig() | WeightOnlyConfig():
            return 13
        case Fp16Config():
            return 7
        case _:
            assert_never(mode)


def suffix_of(mode: AnyModeConfig) -> str:
    """Return the type in an artifact's name: `<graph>.<suffix>.onnx`."""
    match mode:
        case StaticConfig():
            return (mode.weight_type or IntegerType.int8).name.removeprefix("u")
        case DynamicConfig():
            return "int8"
        case WeightOnlyConfig():
            return f"int{mode.bits}"
        case Fp16Config():
            return "fp16"
        case _:
            assert_never(mode)


def _rewrite(
    source: SourceGraph, prepared: PreparedGraph, plan: Plan, mode: AnyModeConfig, calibrate: Calibrate
) -> onnx.ModelProto:
    model = prepared.model
    match mode:
        case StaticConfig():
            tensors = tensors_to_calibrate(model, plan, mode)
            return quantize_static(model, plan, mode, calibrate(source, model, tensors) if tensors else {})
        case DynamicConfig():
            return quantize_dynamic(model, plan, mode)
        case WeightOnlyConfig():
            return quantize_weight_only(model, plan, mode)
        case Fp16Config():
            return quantize_fp16(model, plan, mode)
        case _:
            assert_never(mode)


def _refuse_half_precision(source: SourceGraph) -> None:
    types = Counter(tensor.data_type for tensor in source.model.graph.initializer)
    if types[onnx.TensorProto.FLOAT16] > types[onnx.TensorProto.FLOAT]:
        raise ModelError(
            f"model.path: {source.path} is an fp16 model; a quantizer needs the fp32 original, which it was made from."
        )


def _nothing_to_do(graph: str, mode: AnyModeConfig, plan: Plan) -> str:
    reasons = Counter(kept.reason for kept in plan.kept)
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
    return (
        f"mode {mode.name} would change nothing in the graph {graph!r}: "
        f"{why or 'it has no node of the operator types of this mode'}. Choose other nodes or operator types, or another mode."
    )


def _subgraph_note(source: SourceGraph, mode: AnyModeConfig) -> list[str]:
    bodies = [node for node in source.model.graph.node if node.op_type in ("If", "Loop", "Scan")]
    if not bodies or (isinstance(mode, DynamicConfig | StaticConfig) and mode.subgraphs):
        return []
    return [f"{source.name}: the bodies of {len(bodies)} If, Loop or Scan nodes stay as they are (mode.subgraphs)."]
