"""The quantize stage: one plan and one rewrite per mode, then the same checks for every artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, assert_never

import onnx

from pipeline.calibration.derived_tensors import quantizable_tensors
from pipeline.calibration.infinite_tensors import infinite_tensors
from pipeline.config.mode_settings import (
    Algorithms,
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.errors import ConfigError, StageError, did_you_mean
from pipeline.evaluate.kinds_of_scorer import audio_rate_of
from pipeline.graph.prepare import PreparedGraph, prepare
from pipeline.graph.runtime_versions import opset_for
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.source_graph import SourceGraph
from pipeline.interruption import held, hold, is_postponed, postpone
from pipeline.measure.remote_host import LostDeviceError
from pipeline.measure.timing_place import HERE, Place
from pipeline.mixed_precision.auto import search
from pipeline.mixed_precision.search_inputs import SearchInputs
from pipeline.optimize.around_quantization import in_float, laid_out, notes_on_assumptions, with_merged_views
from pipeline.optimize.engine import Rewritten
from pipeline.ptq.activation_pairs import looks_at_pairs, reaches_of, weight_grids
from pipeline.ptq.algorithms import fit, fold, rewrite
from pipeline.ptq.length_weights import store_length_weights
from pipeline.ptq.reconstructed import notes_on_reconstruction, reconstructed, warnings_on_reconstruction
from pipeline.ptq.remaining_constants import remaining_constants, store_remaining_constants
from pipeline.quantize.artifact import Artifact, save_artifact, stems_of, suffix_of
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.quantize.dynamic import quantize_dynamic
from pipeline.quantize.exclusions import modes_of_graphs
from pipeline.quantize.fp16 import quantize_fp16
from pipeline.quantize.infinite_activations import IN_INTEGERS, keep_infinite, tensors_of
from pipeline.quantize.matrix_form import in_matrix_form
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.plan_check import named_bits, weight_bits
from pipeline.quantize.plan_of_mode import needed_opset, plan_for
from pipeline.quantize.processor_fit import processor_fit, warnings_on_processors
from pipeline.quantize.shared_tables import share_tables, tables_in_integers
from pipeline.quantize.silent_tensors import note_on_silence, silent_nodes
from pipeline.quantize.static import Ranges, keep_in_float, quantize_static, tensors_to_calibrate
from pipeline.quantize.user_notes import (
    HARDLY_SMALLER,
    notes_on,
    nothing_to_do,
    only_stored,
    warnings_on_bits,
    why_hardly_smaller,
    why_larger,
)
from pipeline.quantize.weight_only import quantize_weight_only
from pipeline.record.progress_bars import ProgressBars
from pipeline.record.results import Reconstruction
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample
from pipeline.stages.context import RunContext
from pipeline.stages.float_graphs import quantized_graphs
from pipeline.stages.half_precision import has_half_precision, refuse_half_precision
from pipeline.stages.kept_results import quantized_before
from pipeline.stages.quantized import Quantized

NOTHING: Mapping[str, AnyModeConfig] = MappingProxyType({})

SamplesOf = Mapping[str, Sequence[Sample]]
"""Graph name -> samples; they may be read when they are first asked for."""


def run(context: RunContext) -> Quantized:
    """Quantize every graph of the model by its mode, choosing on calibration data and the selection part alone."""
    config, evaluation = context.config, context.evaluation_set
    for graph in config.graph_modes:
        if graph not in context.loaded.graphs:
            raise ConfigError(f"graph_modes.{graph}: no such graph.{did_you_mean(graph, context.loaded.graphs)}")
    sources = quantized_graphs(context)
    data = (context.loaded, context.calibration_set, evaluation, config.evaluation, config.seed, context.progress)
    probes = {name: evaluation.selection.probes(name) for name in sources}

    def made() -> Quantized:
        with context.timing_place() as place:
            return quantize(
                sources, config.mode, context.calibration_set, probes, context.directory, config.graph_modes,
                search_inputs=SearchInputs(*data, place), threads=config.runtime.threads, seed=config.seed,
                progress=context.progress,
                rate_hz=audio_rate_of(context.loaded.adapter, context.loaded.entry, config.evaluation),
            )  # fmt: skip

    quantized = quantized_before(context, made)
    for name, text in config.model.client_files.items():
        context.directory.write_text(name, text)
        context.run_log.note(f"{name}: written beside the artifact, for sherpa-onnx.")
    for note in quantized.notes:
        context.run_log.note(note)
    for warning in quantized.warnings:
        context.run_log.warn(warning)
    for warning in reversed(quantized.urgent):
        context.run_log.warn_first(warning)
    return replace(quantized, calibrated_on=context.calibration_set.description)


def quantize(
    sources: Mapping[str, SourceGraph],
    mode: AnyModeConfig,
    calibration: SamplesOf,
    probes: SamplesOf,
    directory: RunDirectory,
    graph_modes: Mapping[str, AnyModeConfig] = NOTHING,
    *,
    search_inputs: SearchInputs | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: ProgressBars | None = None,
    rate_hz: int | None = None,
) -> Quantized:
    """Quantize every graph of a model.

    Args:
        sources: the graphs as loaded.
        mode: what to do.
        calibration: what each graph is calibrated on; asked for by modes that need it.
        probes: samples of each graph: the finished artifact must run on the first, rewrites must be equivalent on all.
        directory: where artifacts go.
        graph_modes: graph name -> what to do with this one instead.
        search_inputs: what a mode that searches needs beside.
        threads: intra-op threads that the model will run with: what is faster depends on them.
        seed: of the noise that a graph draws while it is calibrated.
        progress: where to show how far calibration is.
        rate_hz: sample rate of the model's audio, if it makes any.

    Raises:
        ConfigError: a setting means nothing in a graph.
        ModelError: a graph does not fit the mode.
        StageError: nothing would change, or the result does not run.
        KeyboardInterrupt: the run was interrupted before a graph was finished. Later, the graphs that are finished are given,
            and the interruption is postponed (`pipeline.interruption`).
        LostDeviceError: likewise, where speed is measured on a device.
    """
    place = HERE if search_inputs is None else search_inputs.place
    job = _Job(calibration, probes, directory, threads, seed, progress or ProgressBars(), rate_hz, stems_of(sources), place)
    modes = modes_of_graphs(sources, mode, graph_modes, needed_opset(mode))
    try:
        for name, source in sources.items():
            job.run(source, modes[name], search_inputs)
    except (KeyboardInterrupt, LostDeviceError) as error:
        if not job.staged:
            raise
        postpone(error)  # the graphs that are finished are kept
    if not job.staged:
        raise StageError(" ".join(job.unchanged))
    assumed = [note for name, found in job.rewritten.items() for note in notes_on_assumptions(name, found)]
    # of several graphs, one that stays as it is does not spoil the others
    warnings = (*job.warnings, *assumed, *job.unchanged)
    hold()
    artifacts = {name: artifact.published(directory) for name, artifact in job.staged.items()}
    return Quantized(
        artifacts,
        tuple(job.notes),
        job.rewritten,
        job.searches,
        urgent=tuple(job.urgent),
        warnings=warnings,
        reconstructions=job.reconstructions,
    )


@dataclass
class _Job:
    """The graphs of one model on their way: what they are quantized with, and what has come of it.

    Attributes:
        calibration: what each graph is calibrated on.
        probes: what each graph is checked on.
        directory: where artifacts go.
        threads: intra-op threads.
        seed: of noise.
        progress: bars.
        rate_hz: of the model's audio.
        stems: graph name -> what the name of its file begins with.
        place: where speed is measured.
        staged: graph name -> finished artifact, not yet published.
        rewritten: graph name -> the rewrites that were kept and refused.
        searches: graph name -> the report of a search.
        reconstructions: graph name -> what was learned.
        urgent: what a user must know first.
        warnings: what else a user must know.
        notes: what was done as is usual.
        unchanged: of each graph that stays as it is, why.
    """

    calibration: SamplesOf
    probes: SamplesOf
    directory: RunDirectory
    threads: int
    seed: int
    progress: ProgressBars
    rate_hz: int | None
    stems: Mapping[str, str]
    place: Place
    staged: dict[str, Artifact] = field(default_factory=dict)
    rewritten: dict[str, Rewritten] = field(default_factory=dict)
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    reconstructions: dict[str, Reconstruction] = field(default_factory=dict)
    urgent: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    def run(self, source: SourceGraph, mode: AnyModeConfig, search_inputs: SearchInputs | None) -> None:
        """Do with one graph what its mode says; after an interruption that was postponed, nothing."""
        if is_postponed():
            return
        refuse_half_precision(source)
        # Where a graph is of half precision in parts, ONNX Runtime would put casts around them, which fp16 has no use for.
        preprocess = mode.preprocess and not (isinstance(mode, Fp16Config) and has_half_precision(source))
        opset = opset_for(mode.opset, mode.runtime, source.opset)
        shrink = not isinstance(mode, OptimizeConfig)
        prepared = prepare(source, opset=opset, needed_opset=needed_opset(mode), preprocess=preprocess, weights_shrink=shrink)
        if preprocess and not isinstance(mode, OptimizeConfig | Fp16Config):
            prepared = with_merged_views(in_matrix_form(prepared, mode), source.name)
        if isinstance(mode, AutoConfig):
            assert search_inputs is not None, "a search needs data and an evaluation"
            self.search(source, prepared, mode, search_inputs)
        else:
            self.quantize(source, prepared, mode)

    def search(self, source: SourceGraph, prepared: PreparedGraph, mode: AutoConfig, inputs: SearchInputs) -> None:
        """Let a search find the precision of each node."""
        found = search(source, prepared, mode, inputs, threads=self.threads)
        self.searches[source.name] = found.report
        self.rewritten |= {source.name: found.rewritten} if found.rewritten is not None else {}
        self.urgent += found.warnings
        if found.reconstruction is not None:
            self._learned(source.name, found.reconstruction)
        self._save(found.model, source, prepared, found.plan, mode, suffix_of(mode) if found.plan.precisions else "fp32")

    def quantize(self, source: SourceGraph, prepared: PreparedGraph, mode: AnyModeConfig) -> None:
        """Plan and rewrite one graph."""
        name = source.name
        if mode.optimize:
            self.rewritten[name] = in_float(prepared, mode, self.probes[name], self.threads, self.place)
            prepared = replace(prepared, model=with_shapes(self.rewritten[name].model))
        self.notes += [
            f"{name}: folded {node}." for node in fold(prepared.model, mode if isinstance(mode, StaticConfig) else Algorithms())
        ]
        plan = plan_for(prepared, mode)
        infinite = self._without_a_range(name, prepared.model, plan, mode)
        keep_infinite(prepared.model, plan, infinite)
        if not (plan.precisions or (isinstance(mode, OptimizeConfig) and self.rewritten[name].applied)):
            self.unchanged.append(nothing_to_do(source, mode, plan))
            return
        others = remaining_constants(prepared, plan, mode)
        model = self._quantized(source, prepared.model, plan, mode, infinite)
        if mode.optimize and isinstance(mode, StaticConfig):
            before, probes = self.rewritten[name], self.probes[name]
            model, self.rewritten[name] = laid_out(model, before, mode, probes, self.threads, self.place)
        if kind := store_remaining_constants(model, others, source.model, self._seen(name, mode), threads=self.threads):
            self.notes.append(f"{name}: tables, norms and biases ({len(others)}) are stored as {kind.name}.")
        self._save(model, source, prepared, plan, mode, suffix_of(mode))

    def _save(
        self, model: onnx.ModelProto, source: SourceGraph, prepared: PreparedGraph, plan: Plan, mode: AnyModeConfig, suffix: str
    ) -> None:
        share_tables(model)
        for node in tables_in_integers(model):
            plan.precisions.setdefault(node, Precision.weight_int8)
        bits = weight_bits(model)
        counted = self._seen(source.name, mode)
        if counted and not isinstance(mode, OptimizeConfig | Fp16Config):
            why = store_length_weights(model, plan, counted, threads=self.threads)
            self.notes += [] if why is None else [f"{source.name}: {why}."]
        with held():  # what a graph was made of may have taken minutes; a second signal ends this too
            artifact = save_artifact(
                model, prepared.model, source, plan, named_bits(suffix, bits), self.directory, self.probes[source.name][0],
                external_data=mode.external_data, runtime=mode.runtime, threads=self.threads, stem=self.stems.get(source.name),
            )  # fmt: skip
            fit = processor_fit(model, mode, counted, threads=self.threads)
            self.staged[source.name] = replace(artifact, processors=fit)
        if artifact.saved_by_names:
            share = f"{100 * artifact.saved_by_names:.0f} %"
            self.notes.append(f"{source.name}: tensors inside of the graph have short names, which saves {share} of the file.")
        if artifact.size_bytes > artifact.baseline_bytes:
            self.urgent[:0] = why_larger(source.name, artifact, model, mode)
        elif artifact.size_bytes > HARDLY_SMALLER * artifact.baseline_bytes and not isinstance(mode, OptimizeConfig):
            self.warnings.append(why_hardly_smaller(source.name, artifact, model, prepared.model))
        self.notes += [*prepared.notes, *notes_on(source, prepared.model, mode)]
        self.warnings += only_stored(source, mode, plan)
        self.warnings += [*warnings_on_processors(source.name, fit, mode), *warnings_on_bits(source.name, suffix, bits)]

    def _seen(self, name: str, mode: AnyModeConfig) -> Sequence[Sample]:
        """Return the samples that a finished graph is compared on; none for a user who has interrupted the run, and waits."""
        return (
            () if is_postponed() else (self.calibration if isinstance(mode, StaticConfig | AutoConfig) else self.probes)[name]
        )

    def _without_a_range(self, name: str, model: onnx.ModelProto, plan: Plan, mode: AnyModeConfig) -> dict[str, str]:
        """Return the tensors of planned nodes that hold NaN or infinity, each with a sample on which it does."""
        nodes = plan.nodes(*IN_INTEGERS)
        if not nodes:
            return {}
        samples = self.calibration[name] if isinstance(mode, StaticConfig) else self.probes[name]
        tensors = quantizable_tensors(model) if isinstance(mode, StaticConfig) else tensors_of(model, nodes)
        return infinite_tensors(model, tensors, samples, threads=self.threads, seed=self.seed)

    def _quantized(
        self, source: SourceGraph, model: onnx.ModelProto, plan: Plan, mode: AnyModeConfig, infinite: Mapping[str, str]
    ) -> onnx.ModelProto:
        match mode:
            case StaticConfig():
                return self._static(source, model, plan, mode, infinite)
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

    def _static(
        self, source: SourceGraph, model: onnx.ModelProto, plan: Plan, mode: StaticConfig, infinite: Mapping[str, str]
    ) -> onnx.ModelProto:
        samples = self.calibration[source.name] if mode.need_samples else ()
        model = rewrite(model, plan, mode, samples, threads=self.threads)
        ranges = Ranges()
        while tensors := tensors_to_calibrate(model, plan, mode):
            samples = self.calibration[source.name]
            with self.progress.bar(f"calibrate {source.name}", len(samples)) as advance:
                ranges = measured_ranges(
                    model, samples, tensors, mode, without=infinite, threads=self.threads, seed=self.seed,
                    on_sample=lambda _: advance(),
                )  # fmt: skip
            if not (silent := silent_nodes(model, plan, mode, ranges)):
                break
            self.urgent.append(f"{source.name}: {note_on_silence(silent)}")
            why = {node: f"{tensor!r} was zero in all of calibration" for node, tensor in silent.items()}
            keep_in_float(model, plan, mode, why)
        nodes = plan.nodes(Precision.static_int8)
        if nodes and looks_at_pairs(mode):
            samples = self.calibration[source.name]
            reaches = reaches_of(model, nodes, samples, threads=self.threads, seed=self.seed)
            ranges.weights = weight_grids(model, nodes, mode, ranges, reaches)
        fitted = fit(model, plan, mode, ranges, samples, threads=self.threads)
        if not mode.reconstruct:
            return quantize_static(fitted, plan, mode, ranges)
        copy, name = onnx.ModelProto(), source.name
        copy.CopyFrom(fitted)
        quantized = quantize_static(copy, plan, mode, ranges)
        found = reconstructed(
            quantized, fitted, model, self.calibration[name], seconds=mode.reconstruct_seconds,
            bar=lambda part, steps: self.progress.bar(f"reconstruct {name}: {part}", steps, "steps"),
            rate_hz=self.rate_hz, seed=self.seed, threads=self.threads,
        )  # fmt: skip
        self._learned(name, found)
        return quantized

    def _learned(self, name: str, found: Reconstruction) -> None:
        self.reconstructions[name] = found
        self.notes += notes_on_reconstruction(name, found)
        self.warnings += warnings_on_reconstruction(name, found)
