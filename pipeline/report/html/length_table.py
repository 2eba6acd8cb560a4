"""Error rates by the length of the recordings."""

from dataclasses import dataclass

from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS, Aggregate
from pipeline.report.html.language import tr
from pipeline.report.intervals import effect_of
from pipeline.report.schema import Report


@dataclass(frozen=True)
class LengthRow:
    """The recordings of a range of lengths.

    Attributes:
        seconds: the range.
        samples: how many recordings.
        said: how many words or characters are said in them.
        baseline: fp32's error rate.
        quantized: the quantized model's.
        gap: the paired difference from fp32.
        effect: what quantization did, in words.
    """

    seconds: str
    samples: int
    said: int
    baseline: float
    quantized: float
    gap: Interval
    effect: str


@dataclass(frozen=True)
class LengthTable:
    """All ranges, for each metric; `counted` is what the rates count."""

    counted: str
    rows: dict[str, list[LengthRow]]


def lengths(report: Report) -> LengthTable | None:
    """Return the error rates by the length of the recordings; None where they are not known."""
    ranges = [] if report.evaluation is None else report.evaluation.by_length
    names = [name for name in ranges[0].rates if all(name in one.rates for one in ranges)] if ranges else []
    if not names:
        return None
    of_characters = any(name in METRICS and METRICS[name].aggregate is Aggregate.character_rate for name in names)
    rows: dict[str, list[LengthRow]] = {name: [] for name in names}
    for one in ranges:
        seconds = tr("{low} to {high}", low=f"{one.from_s:g}", high=f"{one.to_s:g}")
        for name in names:
            rate = one.rates[name]
            gap = Interval(rate.delta, rate.low, rate.high)
            said = one.characters if of_characters else one.words
            effect = effect_of(gap, higher_is_better=False)
            rows[name].append(LengthRow(seconds, one.samples, said, rate.baseline, rate.quantized, gap, effect))
    return LengthTable(tr("characters") if of_characters else tr("words"), rows)
