"""What the stages quantize and evaluate have given before, for the same model, data and settings: from the cache."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import ARTIFACTS, EVALUATIONS, TIMINGS
from pipeline.cache.recall import Form, remembered, renewed
from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, StaticConfig
from pipeline.config.readers import times_choices
from pipeline.data.datasets import identities
from pipeline.evaluate.evaluation import Evaluation
from pipeline.graph.model_digest import digest_of
from pipeline.interruption import is_postponed
from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.optimize.engine import Rewritten
from pipeline.paths import settings_with_places
from pipeline.quantize.artifact import Artifact
from pipeline.record.results import Applied
from pipeline.record.run_directory import SAMPLES, RunDirectory
from pipeline.record.run_log import Event
from pipeline.sample import Array, digests_of
from pipeline.stages.context import RunContext
from pipeline.stages.quantized import Quantized
from pipeline.typed_json import from_json

LARGEST = 1 << 30  # bytes of the artifacts of a run that are kept: they are held in memory meanwhile


def quantized_before(context: RunContext, make: Callable[[], Quantized]) -> Quantized:
    """Return what a run gave that quantized the same: its artifacts are written into this run's directory; or make it.

    Not kept is what another run may do better: a search that was interrupted, or for which the time was too short.
    """
    form = Form[Quantized](_entry_of_artifacts, lambda entry: artifacts_of(entry, context.directory))
    return remembered(ARTIFACTS, lambda: _quantized_from(context), form, make)


def _quantized_from(context: RunContext) -> tuple[object, ...]:
    """Return all that artifacts depend on."""
    config, model, selection = context.config, context.loaded, context.evaluation_set.selection
    modes: dict[str, AnyModeConfig] = {name: config.mode_of(name) for name in model.graphs}
    probes = {name: digests_of(selection.probes(name)) for name in model.graphs}
    calibrated = [name for name, mode in modes.items() if isinstance(mode, StaticConfig | AutoConfig)]
    samples = {name: digests_of(context.calibration_set[name]) for name in calibrated}
    # What is declared of axes is dropped where samples contradict it: the graph is looked at once those were read.
    graphs = {name: (str(graph.path), digest_of(graph.model)) for name, graph in model.graphs.items()}
    searched: tuple[object, ...] = ()
    if any(isinstance(mode, AutoConfig) for mode in modes.values()):
        searched = (
            settings_with_places(config.evaluation),
            identities(selection.samples),
            digests_of(context.calibration_set.entry),
        )
    device = context.runtime.device if times_choices(config) else None
    return model.identity, graphs, modes, probes, samples, searched, config.seed, device and dataclasses.astuple(device)


def _entry_of_artifacts(found: Quantized) -> Entry | None:
    ended_early = any(search["stopped_early"] for search in found.searches.values())
    if is_postponed() or ended_early or sum(artifact.size_bytes for artifact in found.artifacts.values()) > LARGEST:
        return None
    files = {path.name: path for one in found.artifacts.values() for path in (one.path, _data_of(one.path)) if path.is_file()}
    facts = {
        "artifacts": {
            name: dataclasses.asdict(artifact) | {"path": artifact.path.name} for name, artifact in found.artifacts.items()
        },
        "rewritten": {
            name: {"applied": [dataclasses.asdict(one) for one in rewritten.applied], "rejected": rewritten.rejected}
            for name, rewritten in found.rewritten.items()
        },
        "searches": found.searches,
        "notes": found.notes,
        "urgent": found.urgent,
        "warnings": found.warnings,
    }
    return Entry(facts, {name: np.fromfile(path, np.uint8) for name, path in files.items()})


def artifacts_of(entry: Entry, directory: RunDirectory) -> Quantized:
    """Write kept artifacts into a run's directory, and return what the stage gave with them.

    Raises:
        ValueError: the entry names a file elsewhere, or is not what the stage keeps.
    """
    facts = entry.facts
    artifacts = {name: from_json(Artifact, told, strict=True) for name, told in facts["artifacts"].items()}
    rewritten = {
        name: Rewritten(
            onnx.ModelProto(),
            tuple(from_json(Applied, one, strict=True) for one in told["applied"]),
            tuple((str(rewrite), str(reason)) for rewrite, reason in told["rejected"]),
        )
        for name, told in facts["rewritten"].items()
    }
    texts = {key: tuple(map(str, facts[key])) for key in ("notes", "urgent", "warnings")}
    searches = dict(facts["searches"])
    written = {}
    for name, artifact in artifacts.items():
        staged = directory.staging(artifact.path.name)
        if artifact.path.name != str(artifact.path) or staged.suffix != ".onnx":
            raise ValueError(f"{artifact.path} does not lie in a run's directory")
        for path in (staged, _data_of(staged)):
            if path.name in entry.arrays:
                path.write_bytes(entry.arrays[path.name].tobytes())
        written[name] = dataclasses.replace(artifact, path=staged)
    published = {name: artifact.published(directory) for name, artifact in written.items()}
    return Quantized(published, texts["notes"], rewritten, searches, urgent=texts["urgent"], warnings=texts["warnings"])


def _data_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


@dataclasses.dataclass(frozen=True)
class _Evaluated:
    """What an evaluation gave, said and wrote: what a user hears lies in samples/."""

    evaluation: Evaluation
    told: list[Event]
    files: dict[str, Array]


def evaluated_before(context: RunContext, make: Callable[[], Evaluation]) -> Evaluation:
    """Return what a run gave that evaluated the same artifacts on the same samples, with what it said and wrote; or make it."""
    folder = context.directory.path / SAMPLES

    def made() -> _Evaluated:
        before = _names_in(folder)
        with context.run_log.recorded() as told:
            evaluation = make()
        files: dict[str, Array] = {name: np.fromfile(folder / name, np.uint8) for name in _names_in(folder) - before}
        return _Evaluated(evaluation, told, files)

    def again(entry: Entry) -> _Evaluated:
        found = _evaluated_of(entry)
        if found.files:
            folder.mkdir(exist_ok=True)
        for name, content in found.files.items():
            (folder / name).unlink(missing_ok=True)  # never through a link
            (folder / name).write_bytes(content.tobytes())
        context.run_log.tell_again(found.told)
        return found

    return remembered(EVALUATIONS, lambda: _evaluated_from(context), Form(_entry_of_evaluated, again), made).evaluation


def _evaluated_from(context: RunContext) -> tuple[object, ...]:
    """Return all that an evaluation depends on."""
    config, model = context.config, context.loaded
    artifacts = {name: (artifact.path.name, artifact.sha256) for name, artifact in context.result.artifacts.items()}
    modes = {name: config.mode_of(name) for name in model}
    items = identities(context.evaluation_set.report.samples)
    return (
        model.identity,
        artifacts,
        modes,
        context.result.searches,
        items,
        settings_with_places(config.evaluation),
        config.seed,
    )


def timed_before(depends_on: tuple[object, ...], trace: Path | None, make: Callable[[], GraphBenchmark]) -> GraphBenchmark:
    """Return what was measured of the same files before, with when that was, and the trace of it; or measure it."""
    return remembered(TIMINGS, lambda: depends_on, _form_of_timing(trace), make)


def timed_anew(depends_on: tuple[object, ...], trace: Path | None, make: Callable[[], GraphBenchmark]) -> GraphBenchmark:
    """Measure, and keep it for runs that ask for what was measured before."""
    return renewed(TIMINGS, lambda: depends_on, _form_of_timing(trace), make)


def _form_of_timing(trace: Path | None) -> Form[GraphBenchmark]:
    def entry_of(found: GraphBenchmark) -> Entry:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        content = {} if trace is None or not trace.is_file() else {"trace": np.fromfile(trace, np.uint8)}
        return Entry(dataclasses.asdict(found) | {"measured": now}, content)

    def value_of(entry: Entry) -> GraphBenchmark:
        found = from_json(GraphBenchmark, entry.facts, strict=True)
        if trace is not None and "trace" in entry.arrays:
            trace.unlink(missing_ok=True)  # never through a link
            trace.write_bytes(entry.arrays["trace"].tobytes())
        return found

    return Form(entry_of, value_of)


def _entry_of_evaluated(found: _Evaluated) -> Entry:
    return Entry({"evaluation": dataclasses.asdict(found.evaluation), "told": found.told}, found.files)


def _evaluated_of(entry: Entry) -> _Evaluated:
    told: list[Any] = entry.facts["told"]
    if others := [name for name in entry.arrays if Path(name).name != name]:
        raise ValueError(f"{others[0]} does not lie in a run's directory")
    evaluation = from_json(Evaluation, entry.facts["evaluation"], strict=True)
    return _Evaluated(evaluation, [tuple(event) for event in told], dict(entry.arrays))


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
