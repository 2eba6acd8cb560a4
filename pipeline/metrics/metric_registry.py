"""All metrics, and what each one means.

Importing this module loads no numerical library, so that a config can be checked against the names at no cost.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a number in the report means.

    Attributes:
        name: its key in the report and in `evaluation.metrics`.
        unit: of the value; empty where it has none.
        higher_is_better: the direction of a gain.
        version: raised whenever the same outputs would give another value than before.
        baseline: the value that a model gives against itself (0, 1 or infinite); None for a metric against the truth,
            which is measured for fp32 and for the quantized model alike.
        description: one line for people.
    """

    name: str
    unit: str
    higher_is_better: bool
    version: int
    baseline: float | None
    description: str


# name, unit, higher is better, version, baseline, description
_TABLE = (
    # against the fp32 output: any model
    Metric("mse", "", False, 1, 0.0, "mean squared difference from the fp32 output"),
    Metric("relative_error", "", False, 1, 0.0, "mean |difference| over mean |fp32 output|"),
    Metric("sqnr_db", "dB", True, 2, math.inf, "power of the fp32 output over power of the difference, where there is one"),
    Metric("cosine", "", True, 1, 1.0, "cosine similarity to the fp32 output"),
    Metric("max_abs_error", "", False, 1, 0.0, "largest absolute difference from the fp32 output"),
    # against the fp32 output: audio, mels, posteriors, durations
    Metric("log_mel_l1", "nat", False, 1, 0.0, "mean absolute difference of natural-log mels from fp32's"),
    Metric("mcd_db", "dB", False, 1, 0.0, "mel cepstral distortion from fp32's, coefficients 1 to 13"),
    Metric("mr_stft", "", False, 1, 0.0, "multi-resolution STFT distance from fp32's audio"),
    Metric("posterior_kl", "nat", False, 1, 0.0, "KL divergence of the posteriors from fp32's, mean over frames"),
    Metric("duration_mae_frames", "frames", False, 1, 0.0, "mean absolute difference of lengths from fp32's"),
    # against the truth: one value for fp32, one for the quantized model
    Metric("wer_percent", "%", False, 1, None, "word error rate of the recognised text"),
    Metric("cer_percent", "%", False, 1, None, "character error rate of the recognised text"),
    Metric("roundtrip_wer_percent", "%", False, 1, None, "word error rate of an ASR that hears the synthesised speech"),
    Metric("accuracy_percent", "%", True, 1, None, "share of the classes that are right"),
    Metric("truth_log_mel_l1", "nat", False, 1, None, "mean absolute difference of natural-log mels from the recording's"),
    Metric("truth_mr_stft", "", False, 1, None, "multi-resolution STFT distance from the recording"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
