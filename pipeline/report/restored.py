"""What the stages of a run have given, as its report tells it: a run that ended early goes on from there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pipeline.paths import from_portable, hash_files
from pipeline.report.schema import ArtifactReport, GraphRewrites, Report, StageRun
from pipeline.stages.context import RunContext
from pipeline.typed_json import to_json

if TYPE_CHECKING:
    from pipeline.evaluate.evaluation import Evaluation
    from pipeline.optimize.engine import Rewritten
    from pipeline.quantize.artifact import Artifact
    from pipeline.stages.quantized import Quantized


@dataclass(frozen=True)
class Restored:
    """What is left of a run that ended early.

    Attributes:
        report: as of the last stage that was done.
        stages: those that need not be run again.
    """

    report: Report
    stages: tuple[StageRun, ...]

    def put_into(self, context: RunContext) -> None:
        """Give a run what its stages have given before."""
        report = self.report
        skipped = [{"set": one.set, "sample": one.sample, "reason": one.reason} for one in report.skipped]
        inputs: dict[Path, dict[str, str | int]] = {
            from_portable(one.path): {"path": one.path, "sha256": one.sha256, "bytes": one.bytes} for one in report.inputs
        }
        context.run_log.restore(report.warnings, report.notes, skipped, inputs)
        if report.samples is not None:
            context.split_before = {"selection": report.samples.selection, "report": report.samples.report}
        given: Mapping[str, Callable[[], None]] = {
            "inspect": lambda: setattr(context, "inspection", report.inspect),
            "doctor": lambda: setattr(context, "diagnosis", report.doctor),
            "quantize": lambda: setattr(context, "quantized", _quantized(report, context.directory.path)),
            "benchmark": lambda: setattr(context, "benchmarks", report.benchmark),
            "evaluate": lambda: setattr(context, "evaluation", _evaluation(report)),
            "package": lambda: setattr(context, "package", report.package),
        }
        for stage in self.stages:
            if stage.name in given:
                given[stage.name]()


def restored(report: Report, folder: Path) -> Restored:
    """Return what can be used again of a run: the stages that were done; nothing where one of them has lost its files.

    Args:
        report: as of the last stage that was done.
        folder: of the run.
    """
    done = tuple(stage for stage in report.stages if stage.status == "done")
    if not all(_is_there(stage.name, report, folder) for stage in done):
        return Restored(Report("running"), ())  # which stage has warned of what is not known
    return Restored(report, done)


def changed_artifacts(report: Report, folder: Path) -> list[str]:
    """Return the artifacts of a run that are gone or are others than its report says, each in a few words."""
    found = []
    for artifact in report.artifacts or []:
        path = folder / artifact.file
        if not path.is_file():
            found.append(f"{artifact.file}: is gone")
        elif artifact.sha256 not in _hashes(path):
            found.append(f"{artifact.file}: other contents")
    return found


def _hashes(path: Path) -> set[str]:
    """Return the hash of a graph's file, and that of the file with its external data, where there is some."""
    data = path.with_name(f"{path.name}.data")
    alone = hash_files(path)[1]
    return {alone, hash_files(path, data)[1]} if data.is_file() else {alone}


def _is_there(stage: str, report: Report, folder: Path) -> bool:
    """Say whether what a stage has given can be had from the report and the files of a run."""
    match stage:
        case "quantize":
            return bool(report.artifacts) and not changed_artifacts(report, folder)
        case "benchmark":
            traces = [one.op_times.trace for one in (report.benchmark or {}).values() if one.op_times is not None]
            return report.benchmark is not None and all((folder / trace).is_file() for trace in traces)
        case "package":
            return report.package is not None and not changed_package(report, folder)
        case _:
            given = {"inspect": report.inspect, "doctor": report.doctor, "evaluate": report.evaluation}
            return stage not in given or given[stage] is not None


def changed_package(report: Report, folder: Path) -> list[str]:
    """Return the files of a run's package that are gone or are others, each in a few words."""
    found = []
    for one in report.package.files if report.package is not None else []:
        assert report.package is not None
        path = folder / report.package.directory / one.file
        name = f"{report.package.directory}/{one.file}"
        if not path.is_file():
            found.append(f"{name}: is gone")
        elif hash_files(path)[1] != one.sha256:
            found.append(f"{name}: other contents")
    return found


def _quantized(report: Report, folder: Path) -> "Quantized":
    from pipeline.stages.quantized import Quantized

    artifacts = {one.graph: _artifact(one, folder) for one in report.artifacts or []}
    searches = {
        graph: {key: value for key, value in to_json(found).items() if key != "report_loss"}
        for graph, found in (report.search or {}).items()
    }
    rewritten = {graph: _rewritten(found) for graph, found in (report.rewrites or {}).items()}
    return Quantized(artifacts, (), rewritten, searches, report.calibrated_on, reconstructions=report.reconstruction or {})


def _artifact(told: ArtifactReport, folder: Path) -> "Artifact":
    from pipeline.graph.runtime_versions import Needed
    from pipeline.quantize.artifact import Artifact

    major, _, minor = told.runtime.removeprefix(">= ").partition(".")
    return Artifact(
        told.graph, folder / told.file, told.sha256, told.bytes, told.baseline_bytes, told.quantized_nodes, tuple(told.kept),
        told.kernels, told.modules, told.weights, Needed((int(major), int(minor)), told.runtime_because), told.processors,
    )  # fmt: skip


def _rewritten(told: GraphRewrites) -> "Rewritten":
    import onnx

    from pipeline.optimize.engine import Rewritten

    return Rewritten(onnx.ModelProto(), tuple(told.applied), tuple((one.name, one.reason) for one in told.rejected))


def _evaluation(report: Report) -> "Evaluation":
    from pipeline.evaluate.evaluation import Evaluation

    told = report.evaluation
    assert told is not None
    plain = to_json(told)
    metrics: dict[str, dict[str, Any]] = plain["metrics"]
    for metric in metrics.values():  # JSON has no word for infinity
        metric |= {key: math.inf for key in ("baseline", "quantized") if metric[key] is None}
    values = {  # facts of its own type, or JSON's containers, as the stage gives them
        name: getattr(told, name) if _names_a_class(hint) else plain.get(name)
        for name, hint in get_type_hints(Evaluation).items()
    }
    return Evaluation(**values)


def _names_a_class(hint: Any) -> bool:  # noqa: ANN401
    """Say whether a type is made of dataclasses."""
    return is_dataclass(hint) or any(map(_names_a_class, get_args(hint)))
