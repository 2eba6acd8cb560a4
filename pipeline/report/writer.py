"""What the stages have given -> the report."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.cache.current_cache import Use
from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.record.results import Inspection, Kept
from pipeline.record.run_log import RunLog
from pipeline.report.evaluation_schema import EvaluationReport
from pipeline.report.schema import (
    ArtifactReport,
    Environment,
    GraphRewrites,
    InputFile,
    Report,
    RunsOn,
    SampleSplit,
    SkippedSample,
    StageRun,
)
from pipeline.report.search_schema import SearchReport
from pipeline.report.verdict import verdict_of
from pipeline.typed_json import from_json

if TYPE_CHECKING:  # a run imports what its stages compute with, and no more
    from pipeline.evaluate.evaluation import Evaluation
    from pipeline.optimize.engine import Rewritten
    from pipeline.quantize.artifact import Artifact
    from pipeline.record.diagnosis import Diagnosis
    from pipeline.record.packaged import Package
    from pipeline.stages.quantized import Quantized

T = TypeVar("T")
NAMED_SHARE = 0.95  # of the multiplications, below which too many are in nodes that a rewrite has renamed


def report_of(
    status: str,
    *,
    model: str,
    mode: str,
    stages: Sequence[StageRun],
    environment: Environment,
    run_log: RunLog,
    error: str | None = None,
    inspection: Mapping[str, Inspection] | None = None,
    quantized: "Quantized | None" = None,
    samples: Mapping[str, list[str]] | None = None,
    benchmarks: Mapping[str, GraphBenchmark] | None = None,
    evaluation: "Evaluation | None" = None,
    diagnosis: "Diagnosis | None" = None,
    package: "Package | None" = None,
    cache: Mapping[str, Use] | None = None,
) -> Report:
    """Return the report of a run as far as it has come.

    Args:
        status: running, done, failed or interrupted.
        model: its name.
        mode: its name.
        stages: all that were selected, in their order: see `stages_of`.
        environment: versions, processor, commit.
        run_log: what was read, skipped, noted and warned of.
        error: the message, where the run failed.
        inspection: graph -> what the inspect stage gave; None: it has not given anything yet; so for the others.
        quantized: what the quantize stage gave.
        samples: which ids of the evaluation set are in which part.
        benchmarks: graph -> what the benchmark stage gave.
        evaluation: what the evaluate stage gave.
        diagnosis: what the doctor stage gave.
        package: what the package stage gave.
        cache: what came from the cache; None: it is off.
    """
    report = Report(
        status,
        error=error,
        model=model,
        mode=mode,
        stages=list(stages),
        inputs=[from_json(InputFile, entry, strict=True) for entry in run_log.inputs],
        environment=environment,
        warnings=list(run_log.warnings),
        notes=list(run_log.notes),
        skipped=[from_json(SkippedSample, entry, strict=True) for entry in run_log.skipped],
        inspect=None if inspection is None else _each(Inspection, inspection),
        doctor=diagnosis,
        artifacts=None if quantized is None else [_artifact(one, inspection or {}) for one in quantized.artifacts.values()],
        runs_on=None if quantized is None else _runs_on(list(quantized.artifacts.values())),
        calibrated_on=None if quantized is None else quantized.calibrated_on,
        samples=None if samples is None else _as(SampleSplit, samples),
        rewrites=None if quantized is None else {name: _rewrites(found) for name, found in quantized.rewritten.items()},
        reconstruction=None if quantized is None else dict(quantized.reconstructions) or None,
        search=None if quantized is None or not quantized.searches else _searches(quantized, evaluation),
        benchmark=None if benchmarks is None else _each(GraphBenchmark, benchmarks),
        evaluation=None if evaluation is None else _as(EvaluationReport, evaluation),
        package=package,
        cache=None if cache is None else {kind: dataclasses.replace(use) for kind, use in cache.items()},
    )
    return dataclasses.replace(report, verdict=verdict_of(report))


def stages_of(selected: Iterable[str], done: Sequence[StageRun], status: str) -> list[StageRun]:
    """Return the finished stages, and the selected ones that are not: the first of them is where the run is, or ended."""
    finished = {stage.name for stage in done}
    rest = [name for name in selected if name not in finished]
    return [*done, *(StageRun(name, "pending" if number else status, None) for number, name in enumerate(rest))]


def _as(kind: type[T], value: Any) -> T:  # noqa: ANN401
    """Return what a stage gave, a dataclass or a mapping, as the part of the report that has the same attributes.

    An attribute that the report lacks is an error, so that nothing is lost on its way into the file.
    """
    return from_json(kind, dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value, strict=True)  # type: ignore[arg-type]


def _each(kind: type[T], values: Mapping[str, Any]) -> dict[str, T]:
    return {name: _as(kind, value) for name, value in values.items()}


def _searches(quantized: "Quantized", evaluation: "Evaluation | None") -> dict[str, SearchReport]:
    """Return what searches have found, with the loss of each choice on samples that it was not made on, once it is known."""
    unseen = {} if evaluation is None else {name: dataclasses.asdict(loss) for name, loss in evaluation.losses.items()}
    return _each(
        SearchReport,
        {graph: found | {"report_loss": unseen.get(found["metric"])} for graph, found in quantized.searches.items()},
    )


def _rewrites(found: "Rewritten") -> GraphRewrites:
    applied = [dataclasses.asdict(rewrite) for rewrite in found.applied]
    return _as(GraphRewrites, {"applied": applied, "rejected": [{"name": n, "reason": why} for n, why in found.rejected]})


def _runs_on(artifacts: "Sequence[Artifact]") -> RunsOn | None:
    """Return what all artifacts of a run need together."""
    if not artifacts:
        return None
    needs = max((artifact.needs for artifact in artifacts), key=lambda needed: needed.version)
    right = [set(artifact.processors.right_on) for artifact in artifacts if artifact.processors is not None]
    return RunsOn(str(needs), sorted(set.intersection(*right)) if right else [])


def _artifact(artifact: "Artifact", inspection: Mapping[str, Inspection]) -> ArtifactReport:
    return ArtifactReport(
        artifact.graph,
        artifact.path.name,
        artifact.sha256,
        artifact.size_bytes,
        artifact.baseline_bytes,
        dict(artifact.quantized_nodes),
        [Kept(kept.node, kept.reason) for kept in artifact.kept],
        dict(artifact.kernels),
        dict(artifact.modules),
        dict(artifact.weights),
        _multiplications(artifact, inspection.get(artifact.graph)),
        str(artifact.needs),
        artifact.needs.because,
        artifact.processors,
    )


def _multiplications(artifact: "Artifact", inspected: Inspection | None) -> dict[str, float] | None:
    """Return which share of the multiplications each precision has; None where they cannot be told by the names of nodes."""
    if inspected is None or not (total := sum(inspected.node_macs.values())):
        return None
    named = {*artifact.quantized_nodes, *(kept.node for kept in artifact.kept)}
    if sum(count for node, count in inspected.node_macs.items() if node in named) < NAMED_SHARE * total:
        return None
    shares: dict[str, float] = {}
    for node, count in inspected.node_macs.items():
        precision = artifact.quantized_nodes.get(node, "fp32")
        shares[precision] = shares.get(precision, 0.0) + count / total
    return {precision: round(share, 4) for precision, share in sorted(shares.items(), key=lambda pair: -pair[1])}
