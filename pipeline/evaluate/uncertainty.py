"""The uncertainty of an evaluation's metrics: bootstrap intervals over its samples; and which samples are the worst.

All of it follows from the report's `evaluation.per_sample`, so that it can be computed from any report.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.metrics.bootstrap import Interval, mean_interval, ratio_interval
from pipeline.metrics.metric_registry import METRICS, Aggregate, Source, sample_metrics
from pipeline.metrics.text_metrics import character_errors, word_deletions, word_errors

ERROR_COUNTS = {
    Aggregate.word_rate: word_errors, Aggregate.character_rate: character_errors, Aggregate.deletion_rate: word_deletions,
}  # fmt: skip
RESAMPLES = 1000

Entry = Mapping[str, Any]


def sample_interval(samples: Sequence[Entry], name: str) -> Interval | None:
    """Return a metric of the quantized model with its interval; None where it cannot be computed.

    Args:
        samples: the report's `evaluation.per_sample`.
        name: of the metric.
    """
    if METRICS[name].aggregate in ERROR_COUNTS:
        return rate_interval([(after, length) for _, after, length in error_counts(samples, name)])
    given = [sample["fidelity"][name] for sample in samples if name in sample.get("fidelity", {})]
    if METRICS[name].baseline == math.inf:  # the mean is over samples whose outputs differ; in JSON the others are null
        values = [value for value in given if value is not None and value != math.inf]
        return mean_interval(values, resamples=RESAMPLES) if len(values) > 1 and np.isfinite(values).all() else None
    if any(value is None or not math.isfinite(value) for value in given):
        return None  # the mean of the others is not the metric
    values = sample_values(samples, name)
    return mean_interval(values, resamples=RESAMPLES) if len(values) > 1 else None


def change_interval(samples: Sequence[Entry], name: str) -> Interval | None:
    """Return quantized - fp32 of a metric against the truth, paired sample by sample; None for other metrics."""
    if METRICS[name].aggregate in ERROR_COUNTS:
        return rate_interval([(after - before, length) for before, after, length in error_counts(samples, name)])
    pairs = [pair for sample in samples if (pair := _truth(sample, name)) is not None]
    return mean_interval([after - before for before, after in pairs], resamples=RESAMPLES) if len(pairs) > 1 else None


def loss_interval(samples: Sequence[Entry], name: str) -> Interval | None:
    """Return how much worse than fp32 a metric is, with its interval; None where it cannot be computed."""
    metric = METRICS[name]
    if metric.baseline is None:
        change = change_interval(samples, name)
    else:
        found = sample_interval(samples, name)
        shift = metric.baseline
        change = None if found is None else Interval(found.value - shift, found.low - shift, found.high - shift)
    if change is None or not metric.higher_is_better:
        return change
    return Interval(-change.value, -change.high, -change.low)


def sample_values(samples: Sequence[Entry], name: str) -> list[float]:
    """Return a metric of the quantized model, sample by sample; samples that lack it are left out."""
    return [value for sample in samples if (value := sample_value(sample, name)) is not None]


def sample_value(sample: Entry, name: str) -> float | None:
    """Return a metric of the quantized model on one sample."""
    value: float | None = sample.get("fidelity", {}).get(name)
    if value is None and (pair := _truth(sample, name)) is not None:
        value = pair[1]
    return value


def worst_samples(samples: Sequence[Entry], count: int = 5) -> tuple[str, list[Entry]] | None:
    """Return the most sensitive metric of single samples, and the samples that are worst in it, worst first.

    None where quantization changed nothing, or single samples are not known.
    """
    name = next((name for name in sample_metrics() if len(sample_values(samples, name)) > 1), None)
    if name is None:
        return None
    rated = [(value, sample) for sample in samples if (value := sample_value(sample, name)) is not None]
    rated.sort(key=lambda pair: pair[0], reverse=True)
    return (name, [sample for _, sample in rated[:count]]) if rated[0][0] > 0 else None


def _truth(sample: Entry, name: str) -> tuple[float, float] | None:
    if METRICS[name].source is Source.classes and "label" in sample:
        right = [100.0 * (sample[f"{side}_class"] == sample["label"]) for side in ("baseline", "quantized")]
        return right[0], right[1]
    pair = sample.get("truth", {}).get(name)
    return None if pair is None else (pair["baseline"], pair["quantized"])


def error_counts(samples: Sequence[Entry], name: str) -> list[tuple[int, int, int]]:
    """Return the errors of fp32 and of the quantized model, and the length of the reference, of each sample with a text."""
    count = ERROR_COUNTS[METRICS[name].aggregate]
    found = []
    for sample in samples:
        text = sample.get("text")
        if text and text.split() and "quantized_transcript" in sample and "baseline_transcript" in sample:
            before, length = count(text, sample["baseline_transcript"])
            after, _ = count(text, sample["quantized_transcript"])
            found.append((before, after, length))
    return found


def rate_interval(pairs: Sequence[tuple[int, int]], level: float = 0.95) -> Interval | None:
    """Return a rate in percent with its interval; None of fewer than two samples.

    Args:
        pairs: the errors, or how many more there are, and the length of the reference, of each sample.
        level: share of the resampled sets that the interval covers.
    """
    if len(pairs) < 2:
        return None
    errors, lengths = zip(*pairs, strict=True)
    found = ratio_interval(errors, lengths, resamples=RESAMPLES, level=level)
    return Interval(100 * found.value, 100 * found.low, 100 * found.high)
