"""How sure the metrics of a report are, and which of its samples are the worst: read from the report, else found again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluate import uncertainty
from pipeline.metrics.bootstrap import Interval


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


def metric_interval(report: Mapping[str, Any], name: str) -> Interval | None:
    """Return where a metric of the quantized model lies: the report's `interval`, else bootstrapped over its samples.

    None where the report keeps no values of single samples.
    """
    evaluation = report.get("evaluation", {})
    entry = evaluation.get("metrics", {}).get(name, {})
    given = entry.get("interval")
    if given is not None and entry.get("quantized") is not None:
        return Interval(entry["quantized"], given["low"], given["high"])
    return uncertainty.sample_interval(evaluation.get("per_sample", []), name)


def difference_interval(report: Mapping[str, Any], name: str) -> Interval | None:
    """Return quantized - fp32 of a metric against the truth, paired sample by sample; None for other metrics."""
    evaluation = report.get("evaluation", {})
    entry = evaluation.get("metrics", {}).get(name, {})
    given = entry.get("delta_interval")
    if given is not None and entry.get("delta") is not None:
        return Interval(entry["delta"], given["low"], given["high"])
    return uncertainty.change_interval(evaluation.get("per_sample", []), name)


def worst_samples(report: Mapping[str, Any], count: int = 5) -> tuple[str, list[BadSample]] | None:
    """Return the metric that tells most of single samples, and the samples that are worst in it, worst first."""
    found = uncertainty.worst_samples(report.get("evaluation", {}).get("per_sample", []), count)
    if found is None:
        return None
    name, worst = found
    return name, [
        BadSample(
            sample["id"], {key: value for key, value in sample["fidelity"].items() if value is not None}, sample.get("text")
        )
        for sample in worst
    ]
