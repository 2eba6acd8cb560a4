"""Whether a recogniser loses on recordings of some lengths what its mean does not show.

An encoder whose attention goes over all frames sums more rounding errors in a longer recording, and meets positions that
calibration has seen less of; in a very short one, a word is all there is. Most recordings of a set are of middling length.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import soundfile

from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.uncertainty import Entry, error_counts, rate_interval
from pipeline.metrics.metric_registry import METRICS, Aggregate, Source
from pipeline.record.results import LengthRange, RateOfLength

MOST = 4
"""Ranges."""
FEWEST = 15
"""Recordings in a range. Where both models err alike, the lower end of its 99 % interval is above zero in about 1 of 100 sets;
of 10 recordings that differ often, it is in 2 or 3 (both simulated)."""
SURE = 0.99
"""The interval that must lie above zero before a range is warned of: of four ranges, one or another is easily beyond 95 %."""
APART = 1.1  # at least, from the beginning of a range to its end, as a factor; else the recordings are of one length
ROUND_S = (60.0, 30.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1)
WORDS = 2.0  # in a recording, on average; below, words are not written apart, or are all that is said


def with_seconds(
    per_sample: Sequence[Entry], items: Sequence[EvaluationSample], metrics: Collection[str]
) -> list[dict[str, Any]]:
    """Return the samples of an evaluation with the lengths of their recordings, where recordings were recognised.

    Args:
        per_sample: the report's `evaluation.per_sample`.
        items: the same samples.
        metrics: names of those that are reported.
    """
    if not _of_transcripts(metrics):
        return [dict(entry) for entry in per_sample]
    found = []
    for entry, item in zip(per_sample, items, strict=True):
        seconds = _seconds_of(item)
        found.append(dict(entry) if seconds is None else {**entry, "seconds": seconds})
    return found


def by_length(per_sample: Sequence[Entry], metrics: Collection[str]) -> list[LengthRange]:
    """Return the error rates by the length of the recordings: up to four ranges, which begin and end at round seconds.

    Each has a similar share of the recordings and of what is said in them: an interval needs the first, a rate the second. Of
    texts in which words are written apart, the rates of words; else those of characters.

    Args:
        per_sample: the report's `evaluation.per_sample`, with the lengths of the recordings.
        metrics: names of those that are reported.

    Returns:
        The ranges, the shortest first; empty where there are too few recordings for two of them, or all are of one length.
    """
    heard = sorted((entry for entry in per_sample if _is_measured(entry)), key=lambda entry: float(entry["seconds"]))
    names = _chosen(heard, metrics)
    if not names or len(heard) < 2 * FEWEST:
        return []
    seconds, texts = [float(entry["seconds"]) for entry in heard], [str(entry["text"]) for entry in heard]
    edges = _edges(seconds, [len(text) for text in texts])
    found = []
    for start, end in pairwise(edges):
        some = _within(heard, start, end, first=start == edges[0])
        said = [str(entry["text"]).split() for entry in some]
        words, characters = sum(map(len, said)), sum(len(word) for text in said for word in text)
        found.append(LengthRange(start, end, len(some), words, characters, {name: _rate(some, name) for name in names}))
    return found


def hidden_loss(per_sample: Sequence[Entry], ranges: Sequence[LengthRange]) -> str | None:
    """Return a warning where one range has lost beyond chance and the whole has not, or less beyond chance; None: none has."""
    heard = [entry for entry in per_sample if _is_measured(entry)]
    for name in ranges[0].rates if ranges else ():
        whole = rate_interval(_changes(heard, name))
        assert whole is not None, "there are two ranges, and recordings in each"
        beyond = 0.0 if whole.low <= 0 else whole.high
        worse = [one for one in ranges if one.rates[name].low > beyond and _is_sure(heard, one, name, first=one is ranges[0])]
        if not worse:
            continue
        worst = max(worse, key=lambda one: one.rates[name].delta)
        rate = worst.rates[name]
        return (
            f"The mean over all lengths hides a loss: on the {worst.samples} recordings of {worst.from_s:g} to "
            f"{worst.to_s:g} s {name} is worse by {rate.delta:.3g} points ({rate.low:.3g} to {rate.high:.3g}), over all by "
            f"{whole.value:.3g} ({whole.low + 0.0:.3g} to {whole.high + 0.0:.3g}). If such recordings matter, evaluate on "
            "them alone (evaluation.path): the verdict is then on them."
        )
    return None


def _is_sure(heard: Sequence[Entry], one: LengthRange, name: str, *, first: bool) -> bool:
    sure = rate_interval(_changes(_within(heard, one.from_s, one.to_s, first=first), name), SURE)
    return sure is not None and sure.low > 0


def _within(heard: Sequence[Entry], start: float, end: float, *, first: bool) -> list[Entry]:
    """Return the recordings of a range: longer than its start, or as long in the first one, and not longer than its end."""
    return [entry for entry in heard if (start < entry["seconds"] or first) and entry["seconds"] <= end]


def _changes(samples: Sequence[Entry], name: str) -> list[tuple[int, int]]:
    return [(after - before, length) for before, after, length in error_counts(samples, name)]


def _rate(samples: Sequence[Entry], name: str) -> RateOfLength:
    counts = error_counts(samples, name)
    before, after, length = (sum(column) for column in zip(*counts, strict=True))
    change = rate_interval(_changes(samples, name))
    assert change is not None, "a range has at least two recordings"
    return RateOfLength(100.0 * before / length, 100.0 * after / length, change.value, change.low, change.high)


def _edges(seconds: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Return where the ranges begin and end, in seconds; empty: there are no two of them.

    Args:
        seconds: the lengths of the recordings, the shortest first.
        sizes: how much text each has.
    """
    share = np.cumsum(np.add(np.divide(sizes, np.sum(sizes)), 1 / len(sizes))) / 2
    longest, places = seconds[-1], [seconds[0]]
    for number in range(1, MOST):
        place = seconds[int(np.searchsorted(share, number / MOST))]
        if _apart(places[-1], place) and _apart(place, longest):
            places.append(place)
    steps = [_step(b - a) for a, b in pairwise([*places, longest])]
    cuts = [_rounded(place, min(pair)) for place, pair in zip(places[1:], pairwise(steps), strict=True)]
    while cuts and min(counts := np.bincount(np.digitize(seconds, cuts, right=True), minlength=len(cuts) + 1)) < FEWEST:
        fewest = int(np.argmin(counts))  # goes to the smaller one of its neighbours
        before, after = (counts[place] if 0 <= place < len(counts) else math.inf for place in (fewest - 1, fewest + 1))
        del cuts[fewest - 1 if before <= after else fewest]
    first, last = (_rounded(seconds[0], steps[0], down=True), -_rounded(-longest, steps[-1], down=True))
    return [first, *cuts, last] if cuts else []


def _step(gap: float) -> float:
    """Return how finely the ends of a range are told, in seconds."""
    return next((step for step in ROUND_S if step <= gap / 4), ROUND_S[-1])


def _rounded(seconds: float, step: float, *, down: bool = False) -> float:
    return round(step * (math.floor(seconds / step + 1e-6) if down else round(seconds / step)), 1)


def _apart(shorter: float, longer: float) -> bool:
    return longer >= APART * shorter and longer - shorter >= 2 * ROUND_S[-1]


def _chosen(samples: Sequence[Entry], metrics: Collection[str]) -> list[str]:
    """Return the metrics that tell of texts like these, of those that are reported."""
    names = _of_transcripts(metrics)
    words = sum(len(str(entry["text"]).split()) for entry in samples) / max(len(samples), 1)
    of_characters = [name for name in names if METRICS[name].aggregate is Aggregate.character_rate]
    of_words = [name for name in names if name not in of_characters]
    return (of_words or of_characters) if words >= WORDS else (of_characters or of_words)


def _of_transcripts(metrics: Collection[str]) -> list[str]:
    return [name for name in metrics if METRICS[name].source is Source.transcripts]


def _is_measured(entry: Mapping[str, Any]) -> bool:
    text = entry.get("text")
    return entry.get("seconds") is not None and bool(text and text.split()) and "quantized_transcript" in entry


def _seconds_of(item: EvaluationSample) -> float | None:
    """Return the length of a recording; None where the file does not tell."""
    audio = None if item.utterance is None else item.utterance.audio
    if audio is None:
        return None
    try:
        header = soundfile.info(audio)
    except (OSError, soundfile.LibsndfileError):
        return None
    return round(header.frames / header.samplerate, 3) if header.samplerate else None
