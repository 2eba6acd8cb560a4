"""Whether the error of a streaming model grows: signal to noise in each tenth of the steps.

What a model gets wrong in a state goes through its graph again at the next step. In one that forgets, the error stays what it
is after a few steps; in one that accumulates, it grows with the length of what is heard, and a test on short clips shows
nothing of it.
"""

import math
from collections.abc import Collection

import numpy as np

from pipeline.evaluate.sample_scores import LOWEST, is_signal
from pipeline.record.results import ErrorOverTime
from pipeline.sample import Array, FloatArray, Outputs

PARTS = 10
MARGIN_DB = 1.0  # that the last tenth is worse than the median where an error is said to grow
TREND = 0.56  # Spearman's rank correlation of ten values with time: in one of twenty series without a trend it is beyond this


class OverTime:
    """The error of each output over the steps of sequences."""

    def __init__(self) -> None:
        """Start without sequences."""
        self._sums: dict[str, FloatArray] = {}  # (fp32's power, own states' error, one step's error) x tenths

    def add(self, baseline: Outputs, own: Outputs, one_step: Outputs, states: Collection[str]) -> None:
        """Take one more sequence; one of fewer steps than ten says nothing.

        Args:
            baseline: fp32's outputs (steps, ...).
            own: the quantized model's, with its own states.
            one_step: the quantized model's, with fp32's states at each step.
            states: outputs that are left out: not all of their steps are kept.
        """
        for name, reference in baseline.items():
            others = (own.get(name), one_step.get(name))
            if name in states or not is_signal(reference) or reference.ndim < 2 or len(reference) < PARTS:
                continue
            if any(other is None or other.shape != reference.shape for other in others):
                continue
            errors = [np.subtract(other, reference, dtype=np.float64) for other in others if other is not None]
            found = np.stack([_powers(part) for part in (reference, *errors)])
            self._sums[name] = self._sums.get(name, np.zeros_like(found)) + found

    def results(self) -> dict[str, ErrorOverTime]:
        """Return what was found of each output."""
        return {name: _result(*sums) for name, sums in self._sums.items()}


def growth_words(name: str, found: ErrorOverTime) -> str:
    """Return a warning of an output whose error grows."""
    last, middle = (
        "no error" if value is None else f"{value:.1f} dB of signal to noise" for value in (found.last, found.median)
    )
    return (
        f"{name}: its error grows with the length of what is heard: {last} in the last tenth of the steps, {middle} in the "
        "median. What its states lose is not forgotten; keep the layers that compute them in float with mode.nodes_to_exclude, "
        "or choose mode=auto."
    )


def _powers(values: Array) -> FloatArray:
    """Return the sums of squares of each tenth; what is not finite is left out."""
    squares = np.square(np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    by_step = squares.reshape(len(squares), -1).sum(axis=1)
    return np.array([part.sum() for part in np.array_split(by_step, PARTS)])


def _result(power: FloatArray, own: FloatArray, one_step: FloatArray) -> ErrorOverTime:
    tenths, alone = ([_db(signal, noise) for signal, noise in zip(power, error, strict=True)] for error in (own, one_step))
    middle = _median(tenths)
    return ErrorOverTime(
        [_told(value) for value in tenths],
        [_told(value) for value in alone],
        _told(tenths[0]),
        _told(middle),
        _told(tenths[-1]),
        grows=_grows(tenths, alone),
    )


def _grows(own: list[float | None], one_step: list[float | None]) -> bool | None:
    if min(_fall(own), _fall(own) - max(_fall(one_step), 0.0)) <= MARGIN_DB:
        return False
    levels = [math.inf if value is None else value for value in own]  # a tenth of silence has no error to speak of
    ranks = np.argsort(np.argsort(levels))
    trend = float(np.corrcoef(ranks, np.arange(PARTS))[0, 1])
    return True if trend < -TREND else None


def _db(signal: float, noise: float) -> float | None:
    """Return a ratio in dB; None where there is no signal."""
    if not signal:
        return None
    return max(10.0 * math.log10(signal / noise), LOWEST) if noise else math.inf


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _fall(values: list[float | None]) -> float:
    """Return how much worse the last value is than the median, in dB; 0 where that cannot be said."""
    middle, last = _median(values), values[-1]
    if middle is None or last is None or math.isinf(last):
        return 0.0
    return math.inf if math.isinf(middle) else middle - last


def _told(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
