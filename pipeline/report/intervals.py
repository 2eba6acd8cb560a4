"""How sure the metrics of a report are, and which of its samples are the worst: read from the report, else found again."""

from dataclasses import dataclass
from typing import Any

from pipeline.evaluate import uncertainty
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS
from pipeline.report.schema import Report
from pipeline.typed_json import to_json


@dataclass(frozen=True)
class BadSample:
    """One of the samples that quantization changed most.

    Attributes:
        id: its name.
        values: metric -> its value.
        text: what was said, where that is known.
    """

    id: str
    values: dict[str, float]
    text: str | None


def metric_interval(report: Report, name: str) -> Interval | None:
    """Return where a metric of the quantized model lies: the report's `interval`, else bootstrapped over its samples.

    None where the report keeps no values of single samples.
    """
    metric = None if report.evaluation is None else report.evaluation.metrics.get(name)
    if metric is not None and metric.interval is not None and metric.quantized is not None:
        return Interval(metric.quantized, metric.interval.low, metric.interval.high)
    return uncertainty.sample_interval(_samples(report), name) if name in METRICS else None  # another version may know others


def difference_interval(report: Report, name: str) -> Interval | None:
    """Return quantized - fp32 of a metric against the truth, paired sample by sample; None for other metrics."""
    metric = None if report.evaluation is None else report.evaluation.metrics.get(name)
    if metric is not None and metric.delta_interval is not None and metric.delta is not None:
        return Interval(metric.delta, metric.delta_interval.low, metric.delta_interval.high)
    return uncertainty.change_interval(_samples(report), name) if name in METRICS else None


def effect_of(gap: Interval, *, higher_is_better: bool) -> str:
    """Return what quantization did to a metric against the truth, as far as its paired interval tells."""
    if gap.low <= 0 <= gap.high:
        return "no difference beyond noise"
    return "better" if (gap.value > 0) == higher_is_better else "worse"


def worst_samples(report: Report, count: int = 5) -> tuple[str, list[BadSample]] | None:
    """Return the metric that tells most of single samples, and the samples that are worst in it, worst first."""
    found = uncertainty.worst_samples(_samples(report), count)
    if found is None:
        return None
    name, worst = found
    return name, [
        BadSample(
            sample["id"], {key: value for key, value in sample["fidelity"].items() if value is not None}, sample.get("text")
        )
        for sample in worst
    ]


def _samples(report: Report) -> list[dict[str, Any]]:
    """Return the samples as the evaluate stage knows them."""
    return [] if report.evaluation is None else [to_json(sample) for sample in report.evaluation.per_sample]
