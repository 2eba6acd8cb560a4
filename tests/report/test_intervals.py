"""Intervals of a report's metrics, and words that are marked."""

import pytest

from pipeline.report.html.transcripts import marked, transcripts
from pipeline.report.intervals import difference_interval, metric_interval, worst_samples
from pipeline.report.report_file import report_from_json


def read(report):
    """Return a report.json as what its readers get."""
    return report_from_json(report, "report")


def test_an_interval_that_the_report_holds_is_taken_as_it_is(report):
    report["evaluation"]["metrics"]["wer_percent"]["interval"] = {"low": 1.0, "high": 2.0}
    found = metric_interval(read(report), "wer_percent")
    assert (found.low, found.high) == (1.0, 2.0)


def test_an_interval_of_a_mean_is_drawn_from_the_samples(report):
    found = metric_interval(read(report), "posterior_kl")
    assert found.value == pytest.approx(0.011)
    assert 0.001 <= found.low < found.value < found.high <= 0.03


def test_an_interval_of_an_error_rate_counts_words_of_all_utterances(report):
    assert metric_interval(read(report), "wer_percent").value == pytest.approx(100 * 2 / 10)
    assert difference_interval(read(report), "wer_percent").value == pytest.approx(100 * 1 / 10)


def test_without_samples_there_is_no_interval(report):
    report["evaluation"]["per_sample"] = []
    assert metric_interval(read(report), "posterior_kl") is None
    assert difference_interval(read(report), "wer_percent") is None
    assert worst_samples(read(report)) is None


def test_a_metric_that_is_infinite_for_a_sample_has_no_interval(report):
    report["evaluation"]["per_sample"][0]["fidelity"]["posterior_kl"] = None
    assert metric_interval(read(report), "posterior_kl") is None


def test_where_nothing_changed_no_sample_is_called_worst(report):
    for sample in report["evaluation"]["per_sample"]:
        sample["fidelity"]["posterior_kl"] = 0.0
    assert worst_samples(read(report)) is None


def test_the_worst_samples_come_first(report):
    name, worst = worst_samples(read(report), 2)
    assert name == "posterior_kl"
    assert [sample.id for sample in worst] == ["c", "a"]


@pytest.mark.parametrize(
    ("said", "heard", "pieces"),
    [
        ("a b c", "a b c", [("a b c", "same")]),
        ("a b c", "a x c", [("a", "same"), ("b", "lost"), ("x", "added"), ("c", "same")]),
        ("a b", "a", [("a", "same"), ("b", "lost")]),
        ("a", "a b", [("a", "same"), ("b", "added")]),
        ("a b", "", [("a b", "lost")]),
        ("", "a", [("a", "added")]),
        ("", "", []),
    ],
)
def test_words_are_marked_as_lost_and_added(said, heard, pieces):
    assert [(piece.text, piece.kind) for piece in marked(said, heard)] == pieces


def test_transcripts_that_quantization_changed_come_first(report):
    found = transcripts(read(report).evaluation.per_sample)
    assert [(one.id, one.changed) for one in found] == [("a", True), ("c", True), ("b", False)]
