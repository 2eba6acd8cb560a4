"""The chain: load -> inspect -> quantize -> benchmark -> evaluate, its order and its promises.

A stage is a row of `STAGES`: what it needs, what it gives, and a function that takes the run so far and returns that one
value. The runner refuses a selection that lacks what a stage needs before anything runs, and writes report.json after every
stage, so that a run that is killed has said how far it came.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import onnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.settings import AutoConfig, CalibrationKind, RunConfig, StaticConfig
from pipeline.data.datasets import EvaluationSample, calibration_samples, evaluation_samples
from pipeline.errors import ConfigError, DataError, ModelError, PipelineError, StageError, did_you_mean
from pipeline.evaluate.evaluation import Evaluation, check_evaluation, evaluate
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluate.node_errors import NodeError, errors_along
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import SourceGraph, external_files
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.benchmark_result import GraphBenchmark, Verdict
from pipeline.mixed_precision.auto import SearchInputs
from pipeline.mixed_precision.candidate_builder import Measured
from pipeline.mixed_precision.default_budget import budget_of
from pipeline.models.matcha import Matcha
from pipeline.models.model_sessions import ModelSessions, traced
from pipeline.models.speech_model import SpeechModel
from pipeline.paths import resolve_path
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.quantize.static import Ranges
from pipeline.quantize.user_notes import why_slower
from pipeline.record.environment import environment
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog, log
from pipeline.report.report_file import write_report
from pipeline.report.schema import Report, StageRun
from pipeline.report.writer import report_of, stages_of
from pipeline.sample import Sample
from pipeline.stages.inspect import Inspection, inspect_graph
from pipeline.stages.load import fetch, load, load_companion
from pipeline.stages.quantize import Quantized, quantize

TRACED_SAMPLES = 8  # of the evaluation set that further graphs of a model are run on, for a probe and for timing
SPEECH_SAMPLES = 32  # of the evaluation set that the lengths to be timed are chosen from


@dataclass
class State:
    """One run so far: its settings, and what each stage has given."""

    config: RunConfig
    directory: RunDirectory
    run_log: RunLog
    progress: Progress
    graphs: dict[str, SourceGraph] | None = None
    inspection: dict[str, Inspection] | None = None
    quantized: Quantized | None = None
    benchmarks: dict[str, GraphBenchmark] | None = None
    evaluation: Evaluation | None = None
    calibrated_on: str | None = None
    _items: list[EvaluationSample] | None = field(default=None, repr=False)
    _given: dict[str, list[Sample]] = field(default_factory=dict, repr=False)
    _calibration: dict[str, list[Sample]] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> dict[str, SourceGraph]:
        """The graphs that `load` has given."""
        assert self.graphs is not None
        return self.graphs

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The artifacts that `quantize` has given."""
        assert self.quantized is not None
        return self.quantized.artifacts

    @cached_property
    def entry(self) -> SourceGraph:
        """The graph that an utterance enters, whether it is quantized or not."""
        model = self.config.model
        return self.sources.get(model.entry) or load_companion(model.entry, model.companions[model.entry])

    @cached_property
    def originals(self) -> ModelSessions:
        """All graphs of the model as they were."""
        model = self.config.model
        files = {name: resolve_path(path) for name, path in {**model.companions, **model.graphs}.items()}
        return ModelSessions(files, self.config.benchmark.deciding_threads)

    def items(self) -> list[EvaluationSample]:
        """Return the evaluation set, read once."""
        if self._items is None:
            config = self.config
            self._items = evaluation_samples(config.model, self.entry, config.evaluation, config.seed, self.run_log)
        return self._items

    def given(self, graph: str) -> list[Sample]:
        """Return what a graph is given when the model runs on the evaluation set; further graphs on a few of its samples."""
        samples = [item.sample for item in self.items()]
        if graph == self.config.model.entry:
            return samples
        if graph not in self._given:
            self._given[graph] = traced(
                self.originals, self.config.model.infer, samples[:TRACED_SAMPLES], self.config.seed, graph
            )
        return self._given[graph]

    def calibration(self, graph: str) -> list[Sample]:
        """Return what a graph is calibrated on: the set itself, or what the model makes of it on the way to that graph.

        Noise has the shape of a graph's own inputs.
        """
        config, entry = self.config, self.config.model.entry
        if graph not in self._calibration:
            noise = config.calibration.kind is CalibrationKind.random
            if graph == entry or noise:
                source = self.sources[graph] if noise else self.entry
                self._calibration[graph] = calibration_samples(
                    config.model, source, config.calibration, config.seed, self.run_log
                )
            else:
                self._calibration[graph] = traced(
                    self.originals, config.model.infer, self.calibration(entry), config.seed, graph
                )
        return self._calibration[graph]

    def probe(self, graph: str) -> Sample:
        """Return the sample of median size that a graph is given: what it is profiled and checked on."""
        samples = self.given(graph)
        if not samples:
            raise StageError(f"{graph} is not run on the first samples of the evaluation set, so it cannot be checked.")
        return sorted(samples, key=lambda sample: sample.size)[len(samples) // 2]


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: the word in `stages`, in the report and of the module.
        needs: fields of `State` that must have been given.
        gives: the field that it fills.
        run: computes it.
    """

    name: str
    needs: tuple[str, ...]
    gives: str
    run: Callable[[State], object]


def _load(state: State) -> dict[str, SourceGraph]:
    if state.config.model.url is not None:
        _fetch(state)
    graphs = load(state.config.model)
    state.run_log.read(*_side_files(state.config.model))
    for graph in graphs.values():
        state.run_log.read(graph.path, *external_files(onnx.load(graph.path, load_external_data=False), graph.path.parent))
    return graphs


def _side_files(model: SpeechModel) -> list[Path]:
    """Return the files beside a graph that decide what its inputs and outputs mean."""
    places = [resolve_path(path).parent for path in model.graphs.values()]
    return [folder / name for folder in dict.fromkeys(places) for name in ("tokens.txt", "lexicon.txt")]


def _fetch(state: State) -> None:
    """Download the model; from then on it is where the cache has it."""
    config = state.config
    name = str(config.model.url).rpartition("/")[2]
    task = state.progress.add_task(f"downloading {name}, MB", total=None)

    def on_progress(done: int, total: int | None) -> None:
        state.progress.update(task, completed=done // 1_000_000, total=total and total // 1_000_000)

    model, file = fetch(config.model, on_progress)
    state.progress.remove_task(task)
    state.run_log.read(file)
    if config.model.sha256 is None:
        state.run_log.warn(f"model.sha256: not set, so {name} was not verified; its SHA-256 is in the report's inputs.")
    state.config = replace(config, model=model)


def _inspect(state: State) -> dict[str, Inspection]:
    config = state.config
    return {
        name: inspect_graph(source, state.probe(name), config.calibration.kind, config.benchmark.deciding_threads)
        for name, source in state.sources.items()
    }


def _quantize(state: State) -> Quantized:
    config = state.config

    def calibrate(source: SourceGraph, model: onnx.ModelProto, tensors: Sequence[str]) -> Ranges:
        mode = config.mode_of(source.name)
        assert isinstance(mode, StaticConfig)
        samples = state.calibration(source.name)
        if source.name == config.model.entry or state.calibrated_on is None:
            state.calibrated_on = f"{len(samples)} {config.calibration.kind.name} samples"
        with _Bar(state, f"calibrating {source.name}", len(samples)) as advance:
            return measured_ranges(
                model, samples, tensors, mode,
                threads=config.benchmark.deciding_threads, seed=config.seed, on_sample=lambda _: advance(),
            )  # fmt: skip

    for graph in config.graph_modes:
        if graph not in state.sources:
            raise ConfigError(f"graph_modes.{graph}: no such graph.{did_you_mean(graph, state.sources)}")
    probes = {name: [state.probe(name), *state.given(name)[:2]] for name in state.sources}
    quantized = quantize(
        state.sources, config.mode, calibrate, probes, state.directory, config.graph_modes,
        samples_of=lambda source: state.calibration(source.name), means_of=partial(_means, state),
        threads=config.benchmark.deciding_threads,
    )  # fmt: skip
    for note in quantized.notes:
        state.run_log.warn(note)
    return quantized


def _means(state: State, source: SourceGraph, mode: AutoConfig) -> SearchInputs:
    """Return what a search for the precisions of a graph is given."""
    config = state.config
    files = {name: resolve_path(path) for name, path in {**config.model.companions, **config.model.graphs}.items()}
    threads = config.benchmark.deciding_threads
    calibration = state.calibration(source.name)
    if source.name == config.model.entry or state.calibrated_on is None:
        state.calibrated_on = f"{len(calibration)} {config.calibration.kind.name} samples"

    def judge(metric: str, items: Sequence[EvaluationSample]) -> LossEvaluator:
        return LossEvaluator(
            config.model, state.entry, files, source.name, items, config.evaluation, metric, seed=config.seed, threads=threads
        )

    def measured(samples: Sequence[Sample]) -> Measured:
        return lambda model: cached_statistics(model, samples, threads=threads, seed=config.seed)

    task = state.progress.add_task(f"searching {source.name}", total=None)
    return SearchInputs(
        budget_of(mode, config.evaluation, speaks_later=isinstance(config.model, Matcha) and source.name != config.model.entry),
        state.entry, calibration, state.calibration(config.model.entry), state.items(), judge, measured,
        on_progress=lambda line: state.progress.update(task, description=f"searching {source.name}: {line}"),
    )  # fmt: skip


def _benchmark(state: State) -> dict[str, GraphBenchmark]:
    config = state.config
    results = {}
    for name, artifact in state.artifacts.items():
        source = state.sources[name]
        samples = state.given(name)[:SPEECH_SAMPLES]
        audio_seconds = _audio_seconds(state, source, samples)
        first, *others = [
            benchmark_graph(
                source.path,
                artifact.path,
                samples,
                threads=threads,
                min_pairs=config.benchmark.runs,
                min_seconds=config.benchmark.seconds,
                rounds=config.benchmark.rounds,
                audio_seconds=audio_seconds,
                self_check=config.benchmark.self_check,
                seed=config.seed,
                trace=state.directory.path / f"{name}.trace.json" if threads == config.benchmark.deciding_threads else None,
            )
            for threads in config.benchmark.thread_counts
        ]
        results[name] = replace(first, other_threads=tuple(others))
        for measured in (first, *others):
            where = f"{name} on {measured.threads} threads" if measured is not first else name
            if measured.verdict is Verdict.slower:
                state.run_log.warn(f"{where}: slower than fp32: {why_slower(config.mode_of(name), artifact)}")
            for warning in measured.warnings:
                state.run_log.warn(f"{where}: {warning}")
    return results


def _audio_seconds(state: State, source: SourceGraph, samples: list[Sample]) -> list[float] | None:
    session = open_session(source.path, state.config.benchmark.deciding_threads)
    seconds = [state.config.model.audio_seconds(sample, infer(session, sample)) for sample in samples]
    known = [value for value in seconds if value is not None]
    return known if len(known) == len(samples) else None


def _evaluate(state: State) -> Evaluation:
    config = state.config
    items = state.items()
    with _Bar(state, "evaluating", len(items)) as advance:
        found = evaluate(
            config.model, state.entry, state.artifacts, items, config.evaluation, state.directory, state.run_log,
            seed=config.seed, threads=config.benchmark.deciding_threads, on_sample=advance,
        )  # fmt: skip
    if not config.evaluation.node_samples:
        return found
    return replace(found, node_errors={name: _node_errors(state, artifact) for name, artifact in state.artifacts.items()})


def _node_errors(state: State, artifact: Artifact) -> list[NodeError]:
    config, mode = state.config, state.config.mode_of(artifact.graph)
    try:
        return errors_along(
            state.sources[artifact.graph].model,
            onnx.load(artifact.path),
            state.given(artifact.graph)[: config.evaluation.node_samples],
            seed=config.seed,
            threads=config.benchmark.deciding_threads,
            rescaled=isinstance(mode, AutoConfig) or (isinstance(mode, StaticConfig) and (mode.equalization or mode.smoothing)),
        )
    except (ModelError, DataError) as error:  # it explains the result, and is no part of it
        state.run_log.warn(f"{artifact.graph}: the error along the graph was not measured: {error}")
        return []


STAGES = (
    Stage("load", (), "graphs", _load),
    Stage("inspect", ("graphs",), "inspection", _inspect),
    Stage("quantize", ("graphs",), "quantized", _quantize),
    Stage("benchmark", ("graphs", "quantized"), "benchmarks", _benchmark),
    Stage("evaluate", ("graphs", "quantized"), "evaluation", _evaluate),
)


def run_stages(config: RunConfig, directory: RunDirectory) -> Report:
    """Run the selected stages in their order and return the report as the file holds it; it is written after every stage.

    Raises:
        PipelineError: what a user can act on; the report then says `failed`, and nothing half-written is left.
    """
    state = State(config, directory, RunLog(), _progress())
    done: list[StageRun] = []
    surroundings = environment()

    def write(status: str, error: str | None = None) -> Report:
        report = report_of(
            status, model=config.model.name, mode=config.mode.name, stages=stages_of(config.stages, done, status),
            environment=surroundings, run_log=state.run_log, error=error, inspection=state.inspection,
            quantized=state.quantized, calibrated_on=state.calibrated_on, benchmarks=state.benchmarks,
            evaluation=state.evaluation,
        )  # fmt: skip
        return write_report(directory, report)

    write("running")
    try:
        stages = selected_stages(config.stages)
        check_evaluation(config.model, config.evaluation)
        with state.progress:
            for stage in stages:
                done.append(_run_stage(stage, state))
                write("running")
    except BaseException as error:
        directory.clear_staging()
        write("failed", str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}")
        raise
    directory.clear_staging()
    return write("done")


def selected_stages(names: Sequence[str]) -> list[Stage]:
    """Return the stages of these names, in the table's order.

    Raises:
        StageError: a stage needs what no selected stage before it gives.
    """
    selected = [stage for stage in STAGES if stage.name in names]
    given: set[str] = set()
    for stage in selected:
        if missing := [need for need in stage.needs if need not in given]:
            giver = next(other.name for other in STAGES if other.gives == missing[0])
            raise StageError(f"stages: {stage.name} needs what {giver} gives; add {giver}: stages=[{giver},{stage.name}].")
        given.add(stage.gives)
    return selected


def _run_stage(stage: Stage, state: State) -> StageRun:
    log.info("%s", stage.name)
    task = state.progress.add_task(stage.name, total=None)
    start = time.perf_counter()
    setattr(state, stage.gives, stage.run(state))
    seconds = time.perf_counter() - start
    state.progress.remove_task(task)
    assert getattr(state, stage.gives) is not None, f"{stage.name} promised {stage.gives} and gave nothing"
    log.info("%s took %.1f s", stage.name, seconds)
    return StageRun(stage.name, "done", round(seconds, 3))


def _progress() -> Progress:
    """Return progress bars that are gone when they are done, and are drawn on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, transient=True)


class _Bar:
    """A progress bar inside a stage."""

    def __init__(self, state: State, title: str, total: int) -> None:
        self._progress = state.progress
        self._task = state.progress.add_task(title, total=total)

    def __enter__(self) -> Callable[[], None]:
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._progress.remove_task(self._task)
