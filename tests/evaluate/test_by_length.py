"""A recogniser's errors by the length of the recordings, and a loss that the mean over all lengths hides."""

import json

import numpy as np
import pytest
import soundfile

from pipeline.evaluate.by_length import FEWEST, by_length, hidden_loss
from pipeline.metrics.text_metrics import deletion_percent, wer_percent

NAMES = ("wer_percent", "cer_percent", "deletion_percent", "posterior_kl")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def heard(seconds, text, before, after):
    return {"id": f"{seconds}", "seconds": seconds, "text": text, "baseline_transcript": before, "quantized_transcript": after}


def recordings(count=120, longest=30.0, *, changed=lambda number, seconds, words: words):
    """Return recordings of one word a second, of which fp32 gets all right, and the quantized model what `changed` says."""
    found = []
    for number, seconds in enumerate(np.random.default_rng(5).permutation(np.linspace(1.2, longest, count)).tolist()):
        words = [WORDS[place % 10] for place in range(max(int(seconds), 1))]
        found.append(heard(seconds, " ".join(words), " ".join(words), " ".join(changed(number, seconds, words))))
    return found


def without_last(number, seconds, words):
    """Leave out the last word of every second long recording."""
    return words[:-1] if seconds > 25 and number % 2 else words


def test_ranges_hold_a_share_of_text_and_recordings_and_each_recording_once_at_round_seconds():
    samples = recordings()
    ranges = by_length(samples, NAMES)
    assert [(one.from_s, one.to_s) for one in ranges] == [(0, 12), (12, 19), (19, 25), (25, 30)]
    assert sum(one.samples for one in ranges) == len(samples)
    assert sum(one.words for one in ranges) == sum(len(sample["text"].split()) for sample in samples)
    texts, counts = ([getattr(one, key) for one in ranges] for key in ("characters", "samples"))
    assert sorted(texts) == texts
    assert sorted(counts, reverse=True) == counts
    shares = [text / sum(texts) + count / len(samples) for text, count in zip(texts, counts, strict=True)]
    assert shares == pytest.approx([0.5] * 4, abs=0.05)
    assert min(counts) >= FEWEST


def test_a_recording_as_long_as_an_edge_is_in_one_range():
    samples = [sample | {"seconds": float(round(sample["seconds"]))} for sample in recordings(180) if sample["seconds"] > 10]
    ranges = by_length(samples, NAMES)
    assert any(sample["seconds"] in {one.to_s for one in ranges[:-1]} for sample in samples)
    assert min(sample["seconds"] for sample in samples) == ranges[0].from_s
    assert sum(one.samples for one in ranges) == len(samples)


def test_rates_are_those_of_the_recordings_of_a_range():
    samples = recordings(changed=without_last)
    *others, last = by_length(samples, NAMES)
    some = [sample for sample in samples if sample["seconds"] > last.from_s]
    texts, after = ([sample[key] for sample in some] for key in ("text", "quantized_transcript"))
    assert list(last.rates) == ["wer_percent", "deletion_percent"]
    for name, function in (("wer_percent", wer_percent), ("deletion_percent", deletion_percent)):
        rate = last.rates[name]
        assert (rate.baseline, rate.quantized) == (0, pytest.approx(function(texts, after)))
        assert rate.delta == pytest.approx(rate.quantized)
        assert 0 < rate.low < rate.delta < rate.high
        assert all(one.rates[name].quantized == 0 for one in others)


def test_texts_whose_words_are_not_written_apart_are_counted_by_characters():
    samples = [sample | {"text": sample["text"].replace(" ", "")} for sample in recordings()]
    for one in by_length(samples, NAMES):
        assert list(one.rates) == ["cer_percent"]
    assert list(by_length(samples, ["wer_percent"])[0].rates) == ["wer_percent"], "nothing else is reported"


@pytest.mark.parametrize(
    "samples",
    [
        recordings(2 * FEWEST - 1),
        [sample | {"seconds": 5.0} for sample in recordings()],
        [sample | {"seconds": 5.0 + 0.004 * number} for number, sample in enumerate(recordings())],
        [sample | {"seconds": None} for sample in recordings()],
        [],
    ],
    ids=["few", "one length", "nearly one length", "lengths not known", "none"],
)
def test_where_there_is_nothing_to_compare_there_are_no_ranges(samples):
    assert by_length(samples, NAMES) == []
    assert hidden_loss(samples, []) is None


def test_ranges_of_few_recordings_are_put_together():
    assert len(by_length(recordings(60), NAMES)) == 3
    assert len(by_length(recordings(40), NAMES)) == 2


def told(samples):
    return hidden_loss(samples, by_length(samples, NAMES))


def test_a_loss_on_long_recordings_that_the_mean_hides_is_told_of_with_both_intervals():
    samples = recordings(changed=lambda number, seconds, words: words[:-2] if seconds > 25 or number % 40 == 0 else words)
    worst = by_length(samples, NAMES)[-1]
    rate = worst.rates["wer_percent"]
    assert told(samples).startswith(
        f"The mean over all lengths hides a loss: on the {worst.samples} recordings of 25 to 30 s wer_percent is worse by "
        f"{rate.delta:.3g} points ({rate.low:.3g} to {rate.high:.3g}), over all by "
    )


def test_of_several_ranges_that_have_lost_the_worst_is_named_where_the_mean_is_uncertain():
    samples = sorted(recordings(), key=lambda sample: sample["seconds"])
    for number, sample in enumerate(samples):
        words, seconds = sample["text"].split(), sample["seconds"]
        if 12 < seconds <= 19 or seconds > 25:  # a loss of one word, or of two, that is small beside what the others differ by
            sample["quantized_transcript"] = " ".join(words[: -1 if seconds <= 19 else -2])
        else:
            sample["quantized_transcript" if number % 2 else "baseline_transcript"] = " ".join(words[::2])
    ranges = by_length(samples, NAMES)
    assert [one.rates["wer_percent"].low > 0 for one in ranges] == [False, True, False, True]
    assert "recordings of 25 to 30 s wer_percent is worse by" in told(samples)
    assert "over all by 3" in told(samples)
    assert "(-" in told(samples)


def test_a_loss_on_short_recordings_is_told_of_where_long_ones_have_gained():
    def changed(number, seconds, words):
        return words[:-1] if seconds < 8 and number % 3 == 0 else words

    samples = recordings(changed=changed)
    for number, sample in enumerate(samples):  # fp32 itself leaves out words of long ones, which the other model hears
        if sample["seconds"] > 16 and number % 2:
            sample["baseline_transcript"] = " ".join(sample["text"].split()[:-1])
    assert "recordings of 0 to 12 s" in told(samples)
    assert "over all by -" in told(samples)


def test_a_loss_that_the_mean_shows_or_that_is_chance_is_not_told_of():
    def a_word_in_ten(number, seconds, words):
        return [word for place, word in enumerate(words) if (place + number) % 10]

    rng = np.random.default_rng(0)
    alike = recordings()
    for sample in alike:  # both models err alike, each in places of its own
        for side in ("baseline", "quantized"):
            sample[f"{side}_transcript"] = " ".join(word for word in sample["text"].split() if rng.random() > 0.05)
    assert told(recordings(changed=a_word_in_ten)) is None
    assert told(alike) is None
    assert told(recordings()) is None


def test_a_run_reports_the_errors_by_the_length_of_its_recordings(run_quickly, repo):
    run = run_quickly(
        "model=asr", "mode=weight_only", "mode.bits=4", "stages=[load,quantize,evaluate]", "evaluation.samples=80",
        "evaluation.node_samples=0", "evaluation.metrics=[wer_percent]",
    ).succeeded()  # fmt: skip
    evaluation = run.report["evaluation"]
    manifest = (repo / "data/clips/evaluation/manifest.jsonl").read_text(encoding="utf-8").splitlines()
    audio = {entry["id"]: repo / "data/clips/evaluation" / entry["audio"] for entry in map(json.loads, manifest)}
    for sample in evaluation["per_sample"]:
        assert sample["seconds"] == pytest.approx(soundfile.info(audio[sample["id"]]).duration, abs=0.001)
    ranges = evaluation["by_length"]
    assert [list(one["rates"]) for one in ranges] == [["wer_percent"]] * 2
    assert sum(one["samples"] for one in ranges) == evaluation["samples"]
    words = sum(one["words"] for one in ranges)
    for side in ("baseline", "quantized"):
        of_all = sum(one["rates"]["wer_percent"][side] * one["words"] for one in ranges) / words
        assert of_all == pytest.approx(evaluation["metrics"]["wer_percent"][side])
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    assert all(f"{one['from_s']:g} to {one['to_s']:g}" in page for one in ranges)
    assert "By the length of the recordings" in page
