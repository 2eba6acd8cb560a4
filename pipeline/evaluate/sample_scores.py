"""What one evaluation measures, sample by sample, and how that becomes the report's `evaluation`."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from pipeline.data.datasets import EvaluationSample
from pipeline.errors import StageError
from pipeline.metrics.audio_metrics import align_by_dtw
from pipeline.metrics.metric_registry import METRICS
from pipeline.metrics.tensor_metrics import DIRECTIONS, EXACT_METRICS, TENSOR_METRICS, values_to_compare
from pipeline.sample import Array, Outputs

T = TypeVar("T")

LOWEST = -200.0  # dB, in the place of minus infinity, which a report would show as the infinity of equal outputs


class LengthsDifferError(StageError):
    """An output is of another length than fp32's, and has no time axis to align."""


@dataclass
class SampleScores:
    """The scores of one sample.

    Attributes:
        fidelity: metric -> distance of the quantized model's output from fp32's.
        truth: metric -> (fp32's, the quantized model's) distance from the truth.
        notes: further values of the report, such as transcripts.
    """

    fidelity: dict[str, float] = field(default_factory=dict)
    truth: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class OfFp32:
    """What follows from fp32's outputs alone: mels, transcripts, distances from a recording.

    Args:
        keep: compute it once, for who scores the same samples again and again; where each is scored once, keeping it would only
            take memory.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._known: dict[
            int, tuple[Outputs, dict[str, Any]]
        ] = {}  # with the outputs, so that none gets the identity of others

    def get(self, outputs: Outputs, what: str, compute: Callable[[], T]) -> T:
        """Return what was computed for these outputs under this name before, or compute it."""
        if not self._keep:
            return compute()
        _, known = self._known.setdefault(id(outputs), (outputs, {}))
        if what not in known:
            known[what] = compute()
        found: T = known[what]
        return found


class Scorer(Protocol):
    """Scores the samples of one evaluation, one after the other."""

    def restart(self) -> None:
        """Begin another evaluation of the same samples: forget what was scored, not what is known of fp32."""

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Score one sample."""

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the metrics that are not a mean over samples: name -> (fp32's, the quantized model's)."""


def tensor_scores(baseline: Outputs, quantized: Outputs) -> dict[str, dict[str, float]]:
    """Return the metrics of each output that can be compared: of signals the tensor metrics, of all else the agreement.

    Where a spectrogram, (1, bands, frames) or (1, frames, bands), has become longer or shorter, its frames are aligned first.
    Left out are outputs without a value, and those that fp32 itself gives no finite value for.

    Raises:
        LengthsDifferError: an output has another shape, and no time axis to align; or a sequence has another length.
    """
    if other := sorted(baseline.keys() ^ quantized.keys()):
        raise LengthsDifferError(
            f"the output {other[0]!r} is given by only one of the two graphs: the quantized model decides other lengths. "
            "Exclude what decides them with mode.nodes_to_exclude."
        )
    scores = {}
    for name, reference in baseline.items():
        if not is_signal(reference):
            if reference.size or quantized[name].size:
                scores[name] = {metric: function(reference, quantized[name]) for metric, function in EXACT_METRICS.items()}
            continue
        a, b = values_of(name, reference, quantized[name])
        if a.size:
            left_out = DIRECTIONS if a.size == 1 else frozenset()
            wanted = {metric: function for metric, function in TENSOR_METRICS.items() if metric not in left_out}
            scores[name] = {metric: max(function(a, b), LOWEST) for metric, function in wanted.items()}
    return scores


def is_signal(array: Array) -> bool:
    """Return whether a distance between values means something: floats, and integers of up to 16 bits, which hold audio.

    Longer integers are token ids, classes and lengths.
    """
    kind = array.dtype.kind
    return bool(kind in "fcV" or (kind in "iu" and array.itemsize <= 2))  # V: bfloat16, which is not numpy's own


def values_of(name: str, reference: Array, test: Array) -> tuple[Array, Array]:
    """Return the values of two outputs that can be compared; see `comparable` and `values_to_compare`."""
    return values_to_compare(*comparable(name, reference, test))


def comparable(name: str, reference: Array, test: Array) -> tuple[Array, Array]:
    """Return two outputs in one shape; spectrograms of different lengths are aligned by dynamic time warping."""
    if reference.shape == test.shape:
        return reference, test
    if reference.ndim == test.ndim == 3 and reference.shape[0] == test.shape[0] == 1:
        if reference.shape[1] == test.shape[1]:
            i, j = align_by_dtw(reference[0], test[0])
            return reference[0][:, i], test[0][:, j]
        if reference.shape[2] == test.shape[2]:
            i, j = align_by_dtw(reference[0].T, test[0].T)
            return reference[0][i], test[0][j]
    raise LengthsDifferError(
        f"the output {name!r} is of shape {list(test.shape)}, fp32's of {list(reference.shape)}: the quantized model decides "
        "other lengths, and there is no common time axis to compare along. Exclude the nodes that decide them with "
        "mode.nodes_to_exclude."
    )


def per_sample_entry(item: EvaluationSample, scores: SampleScores) -> dict[str, Any]:
    """Return what the report's `evaluation.per_sample` holds of one sample."""
    truth = {name: {"baseline": pair[0], "quantized": pair[1]} for name, pair in scores.truth.items()}
    return {"id": item.sample.id, "fidelity": scores.fidelity, "truth": truth, **scores.notes}


def length_change(before: Outputs, after: Outputs) -> float:
    """Return how much longer or shorter an axis of an output has become, relative to fp32's, at worst."""
    pairs = [pair for name, a in before.items() for pair in zip(a.shape, after[name].shape, strict=False)]
    return max((abs(is_now - was) / max(was, 1) for was, is_now in pairs), default=0.0)


def summarize(
    names: list[str], scored: list[SampleScores], totals: dict[str, tuple[float, float]]
) -> dict[str, dict[str, Any]]:
    """Return the report's `evaluation.metrics`: the mean over samples of each metric, in the order of `METRICS`.

    A ratio that is infinite for equal outputs is averaged over the samples whose outputs differ, where there are any: one
    unchanged sample would make the mean infinite.
    """
    given = {name: [s.fidelity[name] for s in scored if name in s.fidelity] for name in _keys(scored, "fidelity")}
    given = {name: differing(name, values) or values for name, values in given.items()}
    fidelity = {name: _mean(values) for name, values in given.items()}
    counts = Counter(name for s in scored for name in s.truth) | Counter({name: len(values) for name, values in given.items()})
    truth = {
        name: tuple(_mean([s.truth[name][side] for s in scored if name in s.truth]) for side in (0, 1))
        for name in _keys(scored, "truth")
    }
    values: dict[str, tuple[float, float]] = {**{k: (v[0], v[1]) for k, v in truth.items()}, **totals}
    summary = {}
    for name, metric in METRICS.items():
        if names and name not in names:
            continue
        if name in fidelity and metric.baseline is not None:
            summary[name] = _entry(name, metric.baseline, fidelity[name], counts[name])
        elif name in values:
            summary[name] = _entry(name, *values[name], counts.get(name, len(scored)))
    return summary


def differing(name: str, values: Sequence[float]) -> list[float]:
    """Return the values of a metric on samples whose outputs differ, where equal ones have an infinite value in it."""
    return [value for value in values if METRICS[name].baseline != math.inf or value != math.inf]


def _entry(name: str, baseline: float, quantized: float, samples: int) -> dict[str, Any]:
    metric = METRICS[name]
    return {
        "baseline": baseline,
        "quantized": quantized,
        "delta": quantized - baseline,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "version": metric.version,
        "samples": samples,
    }


def _keys(scored: list[SampleScores], kind: str) -> list[str]:
    return list(dict.fromkeys(name for scores in scored for name in getattr(scores, kind)))


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
