"""A past run, again: from its own config.yaml, in a new directory, and what came out differently."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.paths import from_portable, hash_files
from pipeline.report.schema import ArtifactReport, Environment, InputFile, Report, RerunDifferences
from pipeline.urls import AbsentError

NOISE_FREE_TOLERANCE = 1e-9  # relative; a metric that moved by less is the same number computed in another order


def with_differences(report: Report, past: Report, directory: Path) -> Report:
    """Return the report of a run that repeated another one, with what came out differently.

    Args:
        report: of the run that repeated it.
        past: the report of the past run.
        directory: of the past run.
    """
    differences = RerunDifferences(
        of=str(directory),
        inputs_changed=_inputs_changed(past.inputs, report.inputs),
        environment_changed=environment_changed(past.environment, report.environment),
        artifacts_identical=_artifacts_identical(past.artifacts or [], report.artifacts or []),
        metrics_moved=_metrics_moved(_metrics(past), _metrics(report)),
    )
    return replace(report, rerun=differences)


def files_changed(inputs: Sequence[InputFile]) -> list[str]:
    """Return the files that a run has read and that are gone or are others now, each in a few words."""
    found = []
    for entry in inputs:
        try:
            path = from_portable(entry.path)
        except AbsentError:
            path = Path(entry.path)
        if not path.is_file():
            found.append(f"{entry.path}: is gone")
        elif hash_files(path)[1] != entry.sha256:
            found.append(f"{entry.path}: other contents")
    return found


def environment_changed(was: Environment, now: Environment) -> list[str]:
    """Return which versions and what of the machine are others, each in a few words; of lists, what is gone and what is new."""
    changed = []
    for key in sorted({*was, *now}):
        before, after = was.get(key), now.get(key)
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            gone, new = ([name for name in some if name not in others] for some, others in ((before, after), (after, before)))
            words = [*(f"no {name}" for name in gone), *(f"now {name}" for name in new)]
            changed += [f"{key}: {', '.join(words)}"] if words else []
        else:
            changed.append(f"{key}: {before} -> {after}")
    return changed


def _inputs_changed(past: Sequence[InputFile], now: Sequence[InputFile]) -> list[str]:
    before, after = ({entry.path: entry.sha256 for entry in entries} for entries in (past, now))
    changed = [f"{path}: other contents" for path in before if path in after and before[path] != after[path]]
    changed += [f"{path}: no longer read" for path in before if path not in after]
    return changed + [f"{path}: not read before" for path in after if path not in before]


def _artifacts_identical(past: Sequence[ArtifactReport], now: Sequence[ArtifactReport]) -> dict[str, bool]:
    before = {artifact.file: artifact.sha256 for artifact in past}
    after = {artifact.file: artifact.sha256 for artifact in now}
    return {file: before.get(file) == after.get(file) for file in {**before, **after}}


def _metrics(report: Report) -> dict[str, float | None]:
    return {} if report.evaluation is None else {name: metric.quantized for name, metric in report.evaluation.metrics.items()}


def _metrics_moved(past: dict[str, float | None], now: dict[str, float | None]) -> dict[str, tuple[float | None, float | None]]:
    moved = {}
    for name in {**past, **now}:
        was, became = past.get(name), now.get(name)
        if was is None or became is None:
            same = was == became
        else:
            same = abs(was - became) <= NOISE_FREE_TOLERANCE * max(abs(was), abs(became))
        if not same:
            moved[name] = (was, became)
    return moved
