"""Intervals cover what they claim, and the same seed gives the same interval."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.metrics.bootstrap import Interval, mean_interval, ratio_interval


def test_identical_values_have_an_interval_without_width():
    assert mean_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0)
    assert mean_interval([2.0]) == Interval(2.0, 2.0, 2.0)


def test_the_interval_of_a_mean_is_about_two_standard_errors_either_side(rng):
    values = rng.normal(10.0, 2.0, 400)
    interval = mean_interval(values)
    error = values.std() / 20
    assert interval.value == values.mean()
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_a_95_percent_interval_holds_the_truth_in_about_95_of_100_draws(rng):
    inside = 0
    for seed in range(200):
        interval = mean_interval(rng.normal(1.0, 0.1, 60), seed=seed, resamples=300)
        inside += interval.low <= 1.0 <= interval.high
    assert 180 <= inside <= 199


def test_a_word_error_rate_is_a_ratio_of_sums_drawn_by_utterance():
    errors, words = [0, 5, 1, 0], [10, 10, 100, 10]
    interval = ratio_interval(errors, words)
    assert interval.value == 6 / 130
    assert interval.low < 6 / 130 < interval.high <= 0.5


def test_the_seed_decides_the_interval():
    values = list(np.arange(20.0))
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(DataError, match=r"\(0,\)"):
        mean_interval([])
    with pytest.raises(DataError, match="2 and 1"):
        ratio_interval([1, 2], [1])
    with pytest.raises(DataError, match="above zero"):
        ratio_interval([1, 2], [1, 0])
