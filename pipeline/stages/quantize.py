"""The quantize stage: one plan and one rewrite per mode, then the same checks for every artifact."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, assert_never

import onnx

from pipeline.config.settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    IntegerType,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.errors import ModelError, StageError
from pipeline.graph.prepare import PreparedGraph, prepare, with_shapes
from pipeline.graph.source_graph import SourceGraph
from pipeline.mixed_precision.auto import SearchInputs, search
from pipeline.optimize.around_quantization import in_float, laid_out, notes_on_assumptions
from pipeline.optimize.engine import Rewritten
from pipeline.ptq.algorithms import Algorithms, fit, fold, rewrite
from pipeline.quantize.artifact import Artifact, save_artifact
from pipeline.quantize.dynamic import plan_dynamic, quantize_dynamic
from pipeline.quantize.exclusions import modes_of_graphs
from pipeline.quantize.fp16 import plan_fp16, quantize_fp16
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import Ranges, plan_static, quantize_static, tensors_to_calibrate
from pipeline.quantize.user_notes import notes_on, nothing_to_do
from pipeline.quantize.weight_only import plan_weight_only, quantize_weight_only
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample

Calibrate = Callable[[SourceGraph, onnx.ModelProto, Sequence[str]], Ranges]
"""(source, prepared graph, tensors) -> their ranges."""

CalibrationSamples = Callable[[SourceGraph], Sequence[Sample]]
"""The graph -> the samples that it is calibrated on."""

MeansOf = Callable[[SourceGraph, AutoConfig], SearchInputs]
"""(graph, settings) -> what a search for its precisions is given by the run."""


@dataclass(frozen=True)
class Quantized:
    """What the stage gives.

    Attributes:
        artifacts: graph name -> artifact.
        notes: what was changed on the way that a user should know.
        rewritten: graph name -> the float rewrites that were kept and refused, where they were asked for.
        searches: graph name -> what a search has tried and found: the report's `search`.
    """

    artifacts: dict[str, Artifact]
    notes: tuple[str, ...]
    rewritten: dict[str, Rewritten]
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)


def quantize(
    sources: dict[str, SourceGraph],
    mode: AnyModeConfig,
    calibrate: Calibrate,
    probes: Mapping[str, Sequence[Sample]],
    directory: RunDirectory,
    graph_modes: Mapping[str, AnyModeConfig] = MappingProxyType({}),
    *,
    samples_of: CalibrationSamples | None = None,
    means_of: MeansOf | None = None,
    threads: int = 1,
) -> Quantized:
    """Quantize every graph of a model.

    Args:
        sources: the graphs as loaded.
        mode: what to do.
        calibrate: measures ranges; called by a static mode only.
        probes: graph name -> samples: the finished artifact must run on the first, rewrites must compute the same on all.
        directory: where artifacts go.
        graph_modes: graph name -> what to do with this one instead.
        samples_of: what a graph is calibrated on, for the algorithms of a static mode that learn from samples; None: they
            learn from the probes.
        means_of: what a search is given, for a mode that searches.
        threads: intra-op threads that the model will run with: what is faster depends on them.

    Raises:
        ConfigError: a setting means nothing in a graph.
        ModelError: a graph does not fit the mode.
        StageError: nothing would change, or the result does not run.
    """
    staged: dict[str, Artifact] = {}
    notes: list[str] = []
    idle: list[str] = []
    rewritten: dict[str, Rewritten] = {}
    searches: dict[str, dict[str, Any]] = {}
    urgent: list[str] = []
    modes = modes_of_graphs(sources, mode, graph_modes, needed_opset(mode))
    for name, source in sources.items():
        mode = modes[name]
        _refuse_half_precision(source)
        prepared = prepare(source, opset=mode.opset, needed_opset=needed_opset(mode), preprocess=mode.preprocess)
        if isinstance(mode, AutoConfig):
            assert means_of is not None, "a search needs data, scores and statistics"
            found = search(source, prepared, mode, means_of(source, mode), threads=threads)
            suffix = suffix_of(mode) if found.plan.precisions else "fp32"
            staged[name] = save_artifact(
                found.model, source, found.plan, suffix, directory, probes[name][0], external_data=mode.external_data
            )
            searches[name] = found.report
            rewritten |= {name: found.rewritten} if found.rewritten is not None else {}
            urgent += found.warnings
            notes += [*prepared.notes, *notes_on(source, prepared.model, mode)]
            continue
        if mode.optimize:
            rewritten[name] = in_float(prepared, mode, probes[name], threads)
            prepared = replace(prepared, model=with_shapes(rewritten[name].model))
        notes += [f"{name}: folded {node}." for node in fold(prepared.model, algorithms_of(mode))]
        plan = plan_for(prepared, mode)
        if not (plan.precisions or (isinstance(mode, OptimizeConfig) and rewritten[name].applied)):
            idle.append(nothing_to_do(source, mode, plan))
            continue
        model = _rewrite(
            source, prepared.model, plan, mode, calibrate, samples_of or (lambda source: probes[source.name]), threads
        )
        if mode.optimize and isinstance(mode, StaticConfig):
            model, rewritten[name] = laid_out(model, rewritten[name], mode, probes[name], threads)
        staged[name] = save_artifact(
            model, source, plan, suffix_of(mode), directory, probes[name][0], external_data=mode.external_data
        )
        notes += [*prepared.notes, *notes_on(source, prepared.model, mode)]
    if not staged:
        raise StageError(" ".join(idle))
    notes += [note for name, found in rewritten.items() for note in notes_on_assumptions(name, found)]
    notes += idle  # of several graphs, one that stays as it is does not spoil the others
    return Quantized(
        {name: artifact.published(directory) for name, artifact in staged.items()}, (*urgent, *notes), rewritten, searches
    )


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
        case OptimizeConfig():
            return Plan()
        case AutoConfig():
            raise AssertionError("what a search chooses is not planned before")
        case _:
            assert_never(mode)


def algorithms_of(mode: AnyModeConfig) -> Algorithms:
    """Return the algorithms that a mode's settings switch on; only a static one has any."""
    if not isinstance(mode, StaticConfig):
        return Algorithms()
    return Algorithms(
        mode.fold_batch_norm, mode.cross_layer_equalization, mode.smooth_quant, mode.rounding, mode.bias_correction
    )


def needed_opset(mode: AnyModeConfig) -> int:
    """Return the oldest opset that a mode's operators exist in.

    DequantizeLinear has an axis (one scale per channel) since opset 13, and 16- and 4-bit types since 21.
    """
    match mode:
        case StaticConfig():
            types = {mode.weight_type, mode.activation_type} - {None, IntegerType.int8, IntegerType.uint8}
            return 21 if types else 13
        case DynamicConfig() | WeightOnlyConfig() | AutoConfig():
            return 13
        case Fp16Config() | OptimizeConfig():
            return 7
        case _:
            assert_never(mode)


def suffix_of(mode: AnyModeConfig) -> str:
    """Return the type in an artifact's name: `<graph>.<suffix>.onnx`."""
    match mode:
        case StaticConfig():
            return (mode.weight_type or IntegerType.int8).name.removeprefix("u")
        case DynamicConfig() | AutoConfig():
            return "int8"
        case WeightOnlyConfig():
            return f"int{mode.bits}"
        case Fp16Config():
            return "fp16"
        case OptimizeConfig():
            return "fp32"
        case _:
            assert_never(mode)


def _rewrite(
    source: SourceGraph,
    model: onnx.ModelProto,
    plan: Plan,
    mode: AnyModeConfig,
    calibrate: Calibrate,
    samples_of: CalibrationSamples,
    threads: int,
) -> onnx.ModelProto:
    match mode:
        case StaticConfig():
            algorithms = algorithms_of(mode)
            samples = samples_of(source) if algorithms.need_samples else ()
            model = rewrite(model, plan, algorithms, samples, threads=threads)
            tensors = tensors_to_calibrate(model, plan, mode)
            ranges = calibrate(source, model, tensors) if tensors else {}
            model = fit(model, plan, mode, ranges, algorithms, samples, threads=threads)
            return quantize_static(model, plan, mode, ranges)
        case DynamicConfig():
            return quantize_dynamic(model, plan, mode)
        case WeightOnlyConfig():
            return quantize_weight_only(model, plan, mode)
        case Fp16Config():
            return quantize_fp16(model, plan, mode)
        case OptimizeConfig():
            return model
        case AutoConfig():
            raise AssertionError("a search makes its own graph")
        case _:
            assert_never(mode)


def _refuse_half_precision(source: SourceGraph) -> None:
    types = Counter(tensor.data_type for tensor in source.model.graph.initializer)
    if types[onnx.TensorProto.FLOAT16] > types[onnx.TensorProto.FLOAT]:
        raise ModelError(
            f"model.path: {source.path} is an fp16 model; a quantizer needs the fp32 original, which it was made from."
        )
