"""What a run returns to a sweeper: the values that `optimize_for` names.

Hydra's sweepers for optimisation (Optuna, Nevergrad, Ax) take what `main` returns; their own settings say whether it is to
become smaller or larger.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import ConfigError, StageError, did_you_mean
from pipeline.metrics.metric_registry import METRICS, in_reading_order
from pipeline.report.evaluation_schema import MetricResult
from pipeline.report.schema import Report

Objective = float | tuple[float, ...] | None
OF_ARTIFACTS = ("bytes", "size_ratio")
OF_BENCHMARK = ("speedup",)
QUALITY = "quality"


def objective_names(setting: Any) -> list[str] | None:  # noqa: ANN401  one name or a list: OmegaConf knows no such union
    """Return `optimize_for` as a list; one name stands for itself, None for the first metric of the model."""
    if setting is None or isinstance(setting, str):
        return None if setting is None else [setting]
    return [str(name) for name in setting]


def check_names(names: Sequence[str] | None, stages: Sequence[str]) -> None:
    """Refuse, before anything runs, what no run can give.

    Raises:
        ConfigError: a name that no metric has, or one whose stage is not selected.
    """
    if names is None:
        return
    if not names:
        raise ConfigError("optimize_for: an empty list; name at least one metric, or null for the model's first one.")
    for name in names:
        if name not in (known := (QUALITY, *OF_BENCHMARK, *OF_ARTIFACTS, *METRICS)):
            raise ConfigError(f"optimize_for: no metric {name!r}.{did_you_mean(name, known)}")
        stage = "benchmark" if name in OF_BENCHMARK else "quantize" if name in OF_ARTIFACTS else "evaluate"
        if stage not in stages:
            raise ConfigError(f"optimize_for: {name} comes from the stage {stage}, which is not in stages.")


def more_is_better(name: str) -> bool:
    """Return the direction of a value that `optimize_for` names."""
    return name in OF_BENCHMARK or (name in METRICS and METRICS[name].higher_is_better)


def objective_of(report: Report, names: Sequence[str] | None, *, required: bool = False) -> Objective:
    """Return the values of a finished run.

    Args:
        report: of the run.
        names: metrics (their value for the quantized model), `speedup` (over fp32; of several graphs, of their sum of median
            latencies), `bytes` (of all artifacts), `size_ratio` (to fp32's) or `quality`: the metric that a report of this
            model is read by first, with its sign turned where more is better, so that less always is; None: that metric
            as it is.
        required: whether no value is an error where `names` is None.

    Returns:
        A number for one name, a tuple for several; None where nothing is named and the run has no metric.

    Raises:
        StageError: the run does not have a value of that name, or it is not a finite number.
    """
    metrics = {} if report.evaluation is None else report.evaluation.metrics
    if names is None:
        first = _first(metrics)
        if not required:
            return None if first is None else metrics[first].quantized
        if first is None:
            raise StageError("optimize_for: this run has no metric: it was not evaluated. Name another value: speedup, bytes.")
        names = [first]
    values = tuple(_value(report, metrics, name) for name in names)
    return values[0] if len(values) == 1 else values


def _first(metrics: Mapping[str, MetricResult]) -> str | None:
    return next((name for name in in_reading_order() if name in metrics), None)


def _value(report: Report, metrics: Mapping[str, MetricResult], name: str) -> float:
    if name == QUALITY and (first := _first(metrics)) is not None:
        value = _value(report, metrics, first)
        return -value if more_is_better(first) else value
    artifacts, benchmarks = report.artifacts or [], list((report.benchmark or {}).values())
    found: float | None
    if name == "speedup" and len(benchmarks) == 1:
        found = benchmarks[0].speedup.median
    elif name == "speedup" and benchmarks:
        found = sum(graph.baseline_ms.p50 for graph in benchmarks) / sum(graph.quantized_ms.p50 for graph in benchmarks)
    elif name in OF_ARTIFACTS and artifacts:
        found = sum(artifact.bytes for artifact in artifacts)
        if name == "size_ratio":
            found /= sum(artifact.baseline_bytes for artifact in artifacts)
    elif name in metrics:
        found = metrics[name].quantized
    else:
        has = [*metrics, *(OF_BENCHMARK if benchmarks else ()), *(OF_ARTIFACTS if artifacts else ())]
        raise StageError(f"optimize_for: this run has no {name}.{did_you_mean(name, has)}")
    if found is None or not math.isfinite(found):  # report.json has no infinity: it is null there
        raise StageError(
            f"optimize_for: {name} of this run is {'infinite or undefined' if found is None else found}, "
            "which no sweeper can compare; name another metric."
        )
    return float(found)
