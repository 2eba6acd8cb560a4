"""The package stage: the directory that goes to a device, made of what the run has given, and tried in the client."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.choices import PackageKind
from pipeline.config.settings import PackageConfig
from pipeline.errors import ConfigError
from pipeline.graph.runtime_versions import same_series
from pipeline.measure.benchmark_result import GraphBenchmark, Verdict
from pipeline.measure.other_runtime import find_runtime
from pipeline.models.client_layout import ClientLayout, RunsInSherpaOnnx
from pipeline.package.client_trial import INSTALL, LIBRARY, client_python, try_in_client
from pipeline.package.collect_files import ORIGINAL_README, PackagedGraph, copy_files, graphs_to_pack, with_checksums
from pipeline.package.model_card import CardFacts, model_card
from pipeline.package.ort_format import FOLDER as ORT_FOLDER
from pipeline.package.ort_format import add_ort_format
from pipeline.paths import portable, resolve_path
from pipeline.processor import cpu_name
from pipeline.record.packaged import ClientTrial, Package
from pipeline.record.run_directory import PACKAGE, PACKAGE_STAGING
from pipeline.stages.context import RunContext

log = logging.getLogger(__name__)

ODD_PERCENT, ODD_DB = 99.0, 20.0  # of decisions and of audio: kernels of another version round otherwise, and no more
WORSE_POINTS = 0.5  # of word error rate in the client: more than that is no rounding


def run(context: RunContext) -> Package:
    """Write the package, try it, and give it its name; nothing is left of one that the client does not run."""
    settings = context.config.package
    layout = _layout(context, settings)
    python = client_python(settings.python) if layout is not None else None
    graphs = graphs_to_pack(context.loaded, context.result.artifacts, layout)
    staged = context.directory.path / PACKAGE_STAGING
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        copy_files(staged, graphs, layout, context.loaded.adapter.side_files)
        if settings.ort:
            _add_ort_format(context, staged, graphs)
        trial, untried = _trial(context, settings, layout, python, staged, graphs)
        card = model_card(_facts(context, settings, trial), graphs, layout, original=(staged / ORIGINAL_README).exists())
        (staged / "README.md").write_text(card, encoding="utf-8")
        files = with_checksums(staged)
        staged.rename(context.directory.path / PACKAGE)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    kind = PackageKind.onnx if layout is None else PackageKind.sherpa_onnx
    return Package(PACKAGE, kind.name, files, trial, untried)


def _add_ort_format(context: RunContext, staged: Path, graphs: Sequence[PackagedGraph]) -> None:
    """Write the graphs in ONNX Runtime's own format as well, and warn of those that cannot be used so."""
    part = context.evaluation_set.report
    probes = {graph.role: part[graph.role][0] for graph in graphs if graph.quantized}
    left = add_ort_format(
        staged, graphs, probes, find_runtime(context.config.benchmark.runtime), context.config.runtime.threads
    )
    for name, reason in left.items():
        context.run_log.warn(f"package.ort: {name} was left out of {ORT_FOLDER}/: {reason}. Its .onnx runs.")


def _layout(context: RunContext, settings: PackageConfig) -> ClientLayout | None:
    """Return how the client is given the model; None where there is none, or none is wanted.

    Raises:
        ConfigError: sherpa-onnx is asked for, and does not run such a model.
    """
    adapter = context.loaded.adapter
    if settings.kind is PackageKind.onnx or (settings.kind is None and not isinstance(adapter, RunsInSherpaOnnx)):
        return None
    if not isinstance(adapter, RunsInSherpaOnnx):
        raise ConfigError(
            f"package=sherpa_onnx: what {adapter.name} is to sherpa-onnx is not known; name its kind (model=asr, model=matcha, "
            "...), or take package=onnx."
        )
    return adapter.client_layout()


def _trial(
    context: RunContext,
    settings: PackageConfig,
    layout: ClientLayout | None,
    python: str | None,
    staged: Path,
    graphs: tuple[PackagedGraph, ...],
) -> tuple[ClientTrial | None, str | None]:
    if layout is None:
        return None, None
    if python is None:
        untried = f"{LIBRARY} is not installed here: {INSTALL}."
        context.run_log.warn(f"package: it was not tried: {untried}")
        return None, untried
    items = [item for item in context.evaluation_set.report.samples if item.utterance is not None][: settings.samples]
    if not items:
        untried = "the evaluation set holds no utterances"
        context.run_log.warn(f"package: it was not tried: {untried}. Give recordings or sentences as evaluation.path.")
        return None, untried
    trial = try_in_client(python, staged, layout, graphs, context.loaded, items, seed=context.config.seed)
    if trial.wer_percent is not None and trial.own_wer_percent is not None:
        more = trial.wer_percent - trial.own_wer_percent
        if more > WORSE_POINTS:
            context.run_log.warn(
                f"package: in {trial.client} the word error rate is {trial.wer_percent:.2f} %, {more:.2f} points more than "
                "here with the same graphs: it computes something else, such as other features."
            )
    if (elsewhere := _faster_elsewhere(context.benchmarks or {}, trial)) is not None:
        context.run_log.warn(f"package: {elsewhere}")
    odd = trial.same_percent is not None and trial.same_percent < ODD_PERCENT
    if odd or (trial.apart_db is not None and trial.apart_db < ODD_DB):
        context.run_log.warn(f"package: {trial.words} It computes something else, such as other features.")
    return trial, None


def _faster_elsewhere(benchmarks: Mapping[str, GraphBenchmark], trial: ClientTrial) -> str | None:
    """Return that graphs are called faster than fp32 where they were timed, which the client's ONNX Runtime may not be."""
    faster = {graph: found.runtime for graph, found in benchmarks.items() if found.verdict == Verdict.faster}
    if trial.onnxruntime is None or not (
        others := {g: of for g, of in faster.items() if not same_series(of, trial.onnxruntime)}
    ):
        return None
    return (
        f"{', '.join(others)}: faster than fp32 in ONNX Runtime {', '.join(sorted(set(others.values())))}; {trial.client} has "
        f"{trial.onnxruntime}, where it may be slower. To measure there: benchmark.runtime={trial.onnxruntime}."
    )


def _facts(context: RunContext, settings: PackageConfig, trial: ClientTrial | None) -> CardFacts:
    config, evaluation = context.config, context.evaluation
    path = config.evaluation.path or config.model.evaluation_path
    metadata = {entry.key: entry.value for source in context.loaded.graphs.values() for entry in source.model.metadata_props}
    return CardFacts(
        name=config.model.name,
        mode=config.mode.name,
        license=settings.license or metadata.get("license"),
        language=settings.language or metadata.get("language"),
        data=portable(resolve_path(path)) if path else "random inputs",
        processor=cpu_name(),
        artifacts=context.result.artifacts,
        benchmarks=context.benchmarks or {},
        metrics={} if evaluation is None else evaluation.metrics,
        samples=0 if evaluation is None else evaluation.samples,
        trial=trial,
    )
