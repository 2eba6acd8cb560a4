"""The chain: load -> inspect -> quantize -> benchmark -> evaluate, its order and its promises.

A stage is a row of `STAGES`: what it needs, what it gives, and a function that takes the run so far and returns that one
value. The runner refuses a selection that lacks what a stage needs before anything runs, and writes report.json after every
stage, so that a run that is killed has said how far it came.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.benchmark import GraphBenchmark, benchmark_graph
from pipeline.config import RunConfig, StaticConfig
from pipeline.errors import PipelineError, StageError
from pipeline.evaluate import Evaluation, check_evaluation, evaluate
from pipeline.inspect_graph import Inspection, inspect_graph
from pipeline.journal import Journal, log
from pipeline.load import SourceGraph, external_files, load
from pipeline.quantize import Quantized, quantize
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.ranges import measured_ranges
from pipeline.quantize.static import Ranges
from pipeline.report.schema import environment, report_of
from pipeline.run_directory import RunDirectory
from pipeline.sample_sets import EvaluationSample, calibration_samples, evaluation_samples
from pipeline.samples import Sample
from pipeline.session import infer, open_session

SPEECH_SAMPLES = 32  # of the evaluation set that the lengths to be timed are chosen from


@dataclass
class State:
    """One run so far: its settings, and what each stage has given."""

    config: RunConfig
    directory: RunDirectory
    journal: Journal
    progress: Progress
    graphs: dict[str, SourceGraph] | None = None
    inspection: dict[str, Inspection] | None = None
    quantized: Quantized | None = None
    benchmarks: dict[str, GraphBenchmark] | None = None
    evaluation: Evaluation | None = None
    calibrated_on: str | None = None
    _items: list[EvaluationSample] | None = field(default=None, repr=False)

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

    def items(self, source: SourceGraph) -> list[EvaluationSample]:
        """Return the evaluation set, read once."""
        if self._items is None:
            config = self.config
            self._items = evaluation_samples(config.model, source, config.evaluation, config.seed, self.journal)
        return self._items

    def probe(self, source: SourceGraph) -> Sample:
        """Return the evaluation sample of median size: what a graph is profiled and checked on."""
        samples = [item.sample for item in self.items(source)]
        return sorted(samples, key=lambda sample: sum(array.size for array in sample.inputs.values()))[len(samples) // 2]


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
    graphs = load(state.config.model)
    for graph in graphs.values():
        state.journal.read(graph.path, *external_files(onnx.load(graph.path, load_external_data=False), graph.path.parent))
    return graphs


def _inspect(state: State) -> dict[str, Inspection]:
    config = state.config
    return {
        name: inspect_graph(source, state.probe(source), config.calibration.kind, config.benchmark.threads)
        for name, source in state.sources.items()
    }


def _quantize(state: State) -> Quantized:
    config = state.config

    def calibrate(source: SourceGraph, model: onnx.ModelProto, tensors: Sequence[str]) -> Ranges:
        assert isinstance(config.mode, StaticConfig)
        samples = calibration_samples(config.model, source, config.calibration, config.seed, state.journal)
        state.calibrated_on = f"{len(samples)} {config.calibration.kind.name} samples"
        with _Bar(state, f"calibrating {source.name}", len(samples)) as advance:
            return measured_ranges(
                model, samples, tensors, config.mode,
                threads=config.benchmark.threads, seed=config.seed, on_sample=lambda _: advance(),
            )  # fmt: skip

    probes = {name: state.probe(source) for name, source in state.sources.items()}
    quantized = quantize(state.sources, config.mode, calibrate, probes, state.directory)
    for note in quantized.notes:
        state.journal.warn(note)
    return quantized


def _benchmark(state: State) -> dict[str, GraphBenchmark]:
    config = state.config
    results = {}
    for name, artifact in state.artifacts.items():
        source = state.sources[name]
        samples = [item.sample for item in state.items(source)][:SPEECH_SAMPLES]
        results[name] = benchmark_graph(
            source.path,
            artifact.path,
            samples,
            threads=config.benchmark.threads,
            min_pairs=config.benchmark.runs,
            min_seconds=config.benchmark.seconds,
            audio_seconds=_audio_seconds(state, source, samples),
            seed=config.seed,
        )
        for warning in results[name].warnings:
            state.journal.warn(f"{name}: {warning}")
    return results


def _audio_seconds(state: State, source: SourceGraph, samples: list[Sample]) -> list[float] | None:
    session = open_session(source.path, state.config.benchmark.threads)
    seconds = [state.config.model.audio_seconds(sample, infer(session, sample)) for sample in samples]
    known = [value for value in seconds if value is not None]
    return known if len(known) == len(samples) else None


def _evaluate(state: State) -> Evaluation:
    config = state.config
    [(name, artifact)] = state.artifacts.items()
    source = state.sources[name]
    items = state.items(source)
    with _Bar(state, "evaluating", len(items)) as advance:
        return evaluate(
            config.model, source, artifact, items, config.evaluation, state.directory, state.journal,
            seed=config.seed, threads=config.benchmark.threads, on_sample=advance,
        )  # fmt: skip


STAGES = (
    Stage("load", (), "graphs", _load),
    Stage("inspect", ("graphs",), "inspection", _inspect),
    Stage("quantize", ("graphs",), "quantized", _quantize),
    Stage("benchmark", ("graphs", "quantized"), "benchmarks", _benchmark),
    Stage("evaluate", ("graphs", "quantized"), "evaluation", _evaluate),
)


def run_stages(config: RunConfig, directory: RunDirectory) -> dict[str, Any]:
    """Run the selected stages in their order and return the report; it is written after every stage.

    Raises:
        PipelineError: what a user can act on; the report then says `failed`, and nothing half-written is left.
    """
    state = State(config, directory, Journal(), _progress())
    done: list[dict[str, Any]] = []
    surroundings = environment()

    def write(status: str, error: str | None = None) -> dict[str, Any]:
        report = report_of(state, status, done, surroundings, error)
        directory.write_report(report)
        return report

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


def _run_stage(stage: Stage, state: State) -> dict[str, Any]:
    log.info("%s", stage.name)
    task = state.progress.add_task(stage.name, total=None)
    start = time.perf_counter()
    setattr(state, stage.gives, stage.run(state))
    seconds = time.perf_counter() - start
    state.progress.remove_task(task)
    assert getattr(state, stage.gives) is not None, f"{stage.name} promised {stage.gives} and gave nothing"
    log.info("%s took %.1f s", stage.name, seconds)
    return {"name": stage.name, "status": "done", "seconds": round(seconds, 3)}


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
