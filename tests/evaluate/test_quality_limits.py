"""Which limits a model is held to, and what follows from a loss and its interval."""

import pytest

from pipeline.config.settings import EvaluationConfig
from pipeline.evaluate.quality_limits import Limit, check_limit, limits_of, outcome_of
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics.metric_registry import METRICS
from pipeline.models.matcha import Matcha
from pipeline.models.onnx_file import OnnxFile
from pipeline.record.results import MeasuredLoss, Outcome

LIMIT = Limit("log_mel_l1", 0.1)
MATCHA = Matcha(name="matcha", path="data/models/matcha/model-steps-3.onnx")
USUAL = {"acoustic": None}


def check(value, low, high, limit=LIMIT):
    return check_limit(limit, MeasuredLoss(limit.metric, value, low, high, 8))


@pytest.mark.parametrize(
    ("loss", "outcome"),
    [
        ((0.05, 0.04, 0.06), "within the limit"),
        ((0.373, 0.36, 0.39), "beyond the limit"),
        ((0.095, 0.08, 0.12), "not decided"),
        ((0.105, 0.08, 0.12), "not decided"),
        ((0.05, None, None), "within the limit"),  # of one sample
        ((0.2, None, None), "beyond the limit"),
        ((float("inf"), None, None), "beyond the limit"),  # outputs of another length
        ((None, None, None), "beyond the limit"),
    ],
)
def test_a_loss_is_within_or_beyond_its_limit_only_where_its_whole_interval_is(loss, outcome):
    assert check(*loss).outcome == outcome


def test_what_was_not_measured_is_neither_within_nor_beyond():
    found = check_limit(LIMIT, None, "on noise")
    assert (found.outcome, found.why) == ("not measured", "on noise")
    assert outcome_of([found]) is Outcome.unmeasured
    assert outcome_of([]) is Outcome.unmeasured


def test_one_broken_limit_breaks_the_verdict_and_an_undecided_one_holds_it_back():
    fine, unsure, broken = check(0.05, 0.04, 0.06), check(0.1, 0.08, 0.12), check(0.2, 0.19, 0.21)
    assert outcome_of([fine]) is Outcome.within
    assert outcome_of([fine, unsure]) is Outcome.undecided
    assert outcome_of([fine, unsure, broken]) is Outcome.beyond


def test_a_word_error_rate_over_few_utterances_decides_nothing_unless_its_whole_interval_is_beyond():
    rate = Limit("wer_percent", 0.3, decides=False)
    fine = check(0.001, 0.0005, 0.002, Limit("posterior_kl", 0.005))
    assert outcome_of([fine, check(0.5, -1.0, 2.0, rate)]) is Outcome.within
    assert outcome_of([fine, check(0.5, None, None, rate)]) is Outcome.within
    assert outcome_of([fine, check(3.0, 1.0, 5.0, rate)]) is Outcome.beyond


@pytest.mark.parametrize(
    ("kind", "labels", "metric"),
    [
        (EvaluationKind.tensors, None, "relative_error"),
        (EvaluationKind.tensors, "labels.npy", "accuracy_percent"),
        (EvaluationKind.audio, None, "log_mel_l1"),
        (EvaluationKind.asr, None, "posterior_kl"),
    ],
)
def test_a_kind_of_model_is_held_to_the_limit_that_a_search_of_it_would_keep(kind, labels, metric):
    found = limits_of(EvaluationConfig(kind=kind, labels=labels), OnnxFile(name="x"), {"x": None}, {})
    assert (found[0].metric, found[0].value) == (metric, METRICS[metric].default_limit)
    assert not found[0].asked


def test_speech_is_held_to_its_length_and_a_vocoder_behind_mels_to_its_audio():
    config = EvaluationConfig(kind=EvaluationKind.tts)
    assert [limit.metric for limit in limits_of(config, MATCHA, USUAL, {})] == [
        "log_mel_l1", "length_change", "roundtrip_wer_percent",
    ]  # fmt: skip
    assert limits_of(config, MATCHA, {"vocoder": None}, {})[0].metric == "mr_stft"


def test_a_limit_of_the_user_takes_the_place_of_the_usual_ones():
    search = {"metric": "roundtrip_wer_percent", "budget": {"max_loss": 2.0, "max_length_change": 0.1}}
    found = limits_of(EvaluationConfig(kind=EvaluationKind.tts), MATCHA, {"acoustic": search}, {"acoustic": 2.0})
    assert found == [Limit("roundtrip_wer_percent", 2.0, asked=True), Limit("length_change", 0.1)]


def test_a_search_for_speed_alone_is_held_to_the_usual_limit():
    search = {"metric": "log_mel_l1", "budget": {"min_speedup": 2.0, "max_length_change": 0.02}}
    found = limits_of(EvaluationConfig(kind=EvaluationKind.tts), MATCHA, {"acoustic": search}, {"acoustic": None})
    assert found[0] == Limit("log_mel_l1", 0.1)
