"""How sure the metrics of a report are, and which of its samples are the worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metrics.bootstrap import Interval, mean_interval, ratio_interval
from pipeline.metrics.text import word_errors

WORD_ERROR_RATES = ("wer_percent", "roundtrip_wer_percent")  # errors of all over words of all, so no mean over samples
RESAMPLES = 1000

# The metric that each kind of evaluation is read by first: the ones that users know, then the ones that tell sooner.
LEADING_METRICS = (
    "wer_percent", "roundtrip_wer_percent", "accuracy_percent", "truth_log_mel_l1", "posterior_kl", "log_mel_l1", "sqnr_db",
)  # fmt: skip
# What tells first that one sample suffered: finer than an error rate, which is zero for most of them.
TELLING_METRICS = ("posterior_kl", "log_mel_l1", "mr_stft", "relative_error", "mse")

Entry = Mapping[str, Any]


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
    samples = evaluation.get("per_sample", [])
    if name in WORD_ERROR_RATES:
        return _error_rate(samples)
    values = sample_values(samples, name)
    if any(name in sample.get("fidelity", {}) and sample["fidelity"][name] is None for sample in samples):
        return None  # infinite for some of them, so the mean of the others is not the metric
    return mean_interval(values, resamples=RESAMPLES) if len(values) > 1 else None


def sample_values(samples: Sequence[Entry], name: str) -> list[float]:
    """Return a metric of the quantized model, sample by sample; samples that lack it are left out."""
    found = [_sample_value(sample, name) for sample in samples]
    return [value for value in found if value is not None]


def difference_interval(report: Mapping[str, Any], name: str) -> Interval | None:
    """Return quantized - fp32 of a metric against the truth, paired sample by sample; None for other metrics."""
    samples = report.get("evaluation", {}).get("per_sample", [])
    if name in WORD_ERROR_RATES:
        pairs = [pair for pair in map(_word_errors, samples) if pair is not None]
        if len(pairs) < 2:
            return None
        found = ratio_interval(
            [after - before for before, after, _ in pairs], [words for *_, words in pairs], resamples=RESAMPLES
        )
        return Interval(100 * found.value, 100 * found.low, 100 * found.high)
    truth = [sample.get("truth", {}).get(name) for sample in samples]
    gaps = [pair["quantized"] - pair["baseline"] for pair in truth if pair is not None]
    return mean_interval(gaps, resamples=RESAMPLES) if len(gaps) > 1 else None


def worst_samples(report: Mapping[str, Any], count: int = 5) -> tuple[str, list[BadSample]] | None:
    """Return the metric that tells most of single samples, and the samples that are worst in it, worst first."""
    samples = report.get("evaluation", {}).get("per_sample", [])
    name = next((name for name in TELLING_METRICS if len(sample_values(samples, name)) > 1), None)
    if name is None:
        return None
    rated = [(value, sample) for sample in samples if (value := _sample_value(sample, name)) is not None]
    rated.sort(key=lambda pair: pair[0], reverse=True)
    if rated[0][0] == 0:
        return None
    worst = [
        BadSample(
            sample["id"], {key: value for key, value in sample["fidelity"].items() if value is not None}, sample.get("text")
        )
        for _, sample in rated[:count]
    ]
    return name, worst


def _sample_value(sample: Entry, name: str) -> float | None:
    value: float | None = sample.get("fidelity", {}).get(name)
    if value is None:
        value = sample.get("truth", {}).get(name, {}).get("quantized")
    return value


def _word_errors(sample: Entry) -> tuple[int, int, int] | None:
    """Return the word errors of fp32 and of the quantized model, and the words that were said."""
    text = sample.get("text")
    if not text or not text.split() or "quantized_transcript" not in sample or "baseline_transcript" not in sample:
        return None
    before, words = word_errors(text, sample["baseline_transcript"])
    after, _ = word_errors(text, sample["quantized_transcript"])
    return before, after, words


def _error_rate(samples: Sequence[Entry]) -> Interval | None:
    pairs = [pair for pair in map(_word_errors, samples) if pair is not None]
    if len(pairs) < 2:
        return None
    found = ratio_interval([after for _, after, _ in pairs], [words for *_, words in pairs], resamples=RESAMPLES)
    return Interval(100 * found.value, 100 * found.low, 100 * found.high)
