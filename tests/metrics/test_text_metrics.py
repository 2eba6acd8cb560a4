"""Error rates are jiwer's, decoding and divergences are what one computes by hand."""

import math

import jiwer
import numpy as np
import pytest

from pipeline.audio.ctc_decode import ctc_greedy
from pipeline.errors import DataError
from pipeline.metrics import text_metrics

WORDS = ["one", "two", "three", "four", "five", "six", "turn", "the", "light", "on", "off", "at", "noon", "please"]


def random_pairs(rng, count):
    """Return texts and damaged copies: words dropped, doubled and replaced."""
    pairs = []
    for _ in range(count):
        reference = list(rng.choice(WORDS, rng.integers(1, 12)))
        hypothesis = []
        for word in reference:
            draw = rng.random()
            hypothesis += [] if draw < 0.1 else [word, word] if draw < 0.2 else [rng.choice(WORDS)] if draw < 0.4 else [word]
        pairs.append((" ".join(reference), " ".join(hypothesis)))
    return pairs


def levenshtein(a, b):
    """Edit distance by the textbook's table: independent of jiwer."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def test_error_rates_equal_jiwers_and_the_textbooks_on_500_random_pairs(rng):
    pairs = random_pairs(rng, 500)
    for reference, hypothesis in pairs:
        assert text_metrics.wer_percent([reference], [hypothesis]) == 100 * jiwer.wer(reference, hypothesis)
        errors, words = text_metrics.word_errors(reference, hypothesis)
        assert text_metrics.character_errors(reference, hypothesis) == (levenshtein(reference, hypothesis), len(reference))
        assert (errors, words) == (levenshtein(reference.split(), hypothesis.split()), len(reference.split()))
    references, hypotheses = map(list, zip(*pairs, strict=True))
    assert text_metrics.wer_percent(references, hypotheses) == 100 * jiwer.wer(references, hypotheses)
    characters = sum(levenshtein(*pair) for pair in pairs) / sum(len(reference) for reference in references)
    assert text_metrics.cer_percent(references, hypotheses) == pytest.approx(100 * characters)


def test_wer_of_a_set_is_errors_over_words_not_the_mean_of_rates():
    assert text_metrics.wer_percent(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"]) == 10.0


def test_words_that_are_left_out_are_counted_apart_from_those_that_are_wrong_or_too_many():
    assert text_metrics.word_deletions("turn on the light", "turn the lights") == (1, 4)
    assert text_metrics.deletion_percent(["turn on the light", "a b c d e f"], ["turn light", "a b x d e f g"]) == 20.0
    assert text_metrics.deletion_percent(["turn it on"], [""]) == 100.0


def test_wer_may_exceed_100_percent():
    assert text_metrics.wer_percent(["yes"], ["no no no"]) == 300.0


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        (["a", "b"], ["a"], "as many hypotheses"),
        ([], [], "as many hypotheses"),
        (["a", " "], ["a", "b"], "Reference 1 holds no word"),
        ("a", "a", "lists of texts"),
    ],
)
def test_error_rates_refuse_texts_that_do_not_pair_up(references, hypotheses, message):
    for metric in (text_metrics.wer_percent, text_metrics.cer_percent, text_metrics.deletion_percent):
        with pytest.raises(DataError, match=message):
            metric(references, hypotheses)


def one_hot(*tokens, vocabulary=5):
    return np.log(np.eye(vocabulary)[list(tokens)] * 0.9 + 0.02)


def test_ctc_merges_repeats_removes_blanks_and_keeps_a_token_repeated_across_a_blank():
    assert ctc_greedy(one_hot(0, 3, 3, 0, 3, 2, 2, 0), length=8, blank_id=0) == [3, 3, 2]


def test_ctc_ignores_padding_and_knows_any_blank():
    assert ctc_greedy(one_hot(1, 4, 1, 2, 2), length=3, blank_id=4) == [1, 1]
    assert ctc_greedy(one_hot(1, 2), length=0, blank_id=0) == []


def test_ctc_refuses_a_length_beyond_the_frames():
    with pytest.raises(DataError, match="at least 3 frames"):
        ctc_greedy(one_hot(1, 2), length=3, blank_id=0)


def test_kl_of_a_fair_coin_against_a_biased_one_is_known():
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert text_metrics.posterior_kl(np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])) == pytest.approx(expected)


def test_kl_is_the_mean_over_frames_and_is_not_symmetric():
    p, q = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.9, 0.1], [0.5, 0.5]])
    assert text_metrics.posterior_kl(p, q) == pytest.approx(text_metrics.posterior_kl(p[:1], q[:1]) / 2)
    assert text_metrics.posterior_kl(p, q) != pytest.approx(text_metrics.posterior_kl(q, p))


def test_kl_takes_logits_and_is_never_negative(rng):
    logits, other = rng.standard_normal((2, 7, 11))
    normalised = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert text_metrics.posterior_kl(logits, other) == pytest.approx(text_metrics.posterior_kl(normalised, other + 3.0))
    assert text_metrics.posterior_kl(logits, logits - 0.5) == pytest.approx(0.0, abs=1e-15)


def test_kl_lets_a_token_be_impossible_in_the_reference_but_not_in_the_test_alone():
    certain, even = np.array([[0.0, -np.inf]]), np.log([[0.5, 0.5]])
    assert text_metrics.posterior_kl(certain, even) == pytest.approx(math.log(2))
    assert text_metrics.posterior_kl(even, certain) == math.inf


def test_kl_refuses_nan_and_other_shapes():
    with pytest.raises(DataError, match="NaN"):
        text_metrics.posterior_kl([[0.0, np.nan]], [[0.0, 0.0]])
    with pytest.raises(DataError, match="shapes"):
        text_metrics.posterior_kl(np.zeros((2, 3)), np.zeros((1, 3)))


def test_duration_error_is_the_mean_distance_in_frames():
    assert text_metrics.duration_mae_frames([10, 20, 30], [12, 20, 29]) == 1.0
    with pytest.raises(DataError, match="lengths"):
        text_metrics.duration_mae_frames([10, 20], [10])
