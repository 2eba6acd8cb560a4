"""Tensor metrics give the values that one computes by hand, and refuse what has no value."""

import math

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.metrics import tensor_metrics

REFERENCE = np.array([[1.0, -2.0], [3.0, 4.0]], dtype=np.float32)
TEST = np.array([[1.5, -2.0], [3.0, 3.0]], dtype=np.float32)  # errors 0.5, 0, 0, 1

PAIRED = [
    tensor_metrics.mse,
    tensor_metrics.relative_error,
    tensor_metrics.sqnr_db,
    tensor_metrics.cosine,
    tensor_metrics.max_abs_error,
]


def test_mse_is_the_mean_of_squared_differences():
    assert tensor_metrics.mse(REFERENCE, TEST) == 1.25 / 4


def test_relative_error_is_the_mean_error_over_the_mean_level():
    assert tensor_metrics.relative_error(REFERENCE, TEST) == 1.5 / 10


def test_relative_error_is_not_decided_by_one_element_near_zero():
    assert tensor_metrics.relative_error([1.0, 1e-12], [1.0, 1e-3]) == pytest.approx(1e-3)


def test_sqnr_is_ten_log_of_the_power_ratio():
    assert tensor_metrics.sqnr_db(REFERENCE, TEST) == pytest.approx(10 * math.log10(30 / 1.25))
    assert tensor_metrics.sqnr_db(np.ones(10), np.full(10, 1.01)) == pytest.approx(40.0)


def test_cosine_is_one_for_the_same_direction_minus_one_for_the_opposite_and_zero_at_right_angles():
    assert tensor_metrics.cosine(REFERENCE, 3 * REFERENCE) == pytest.approx(1.0, abs=1e-15)
    assert tensor_metrics.cosine(REFERENCE, -REFERENCE) == -1.0
    assert tensor_metrics.cosine([1.0, 0.0], [0.0, 1.0]) == 0.0


def test_cosine_survives_values_whose_squares_vanish():
    assert tensor_metrics.cosine([1e-200, 1e-200], [1e-200, 0.0]) == pytest.approx(math.sqrt(0.5))


def test_max_abs_error_is_the_worst_element():
    assert tensor_metrics.max_abs_error(REFERENCE, TEST) == 1.0


def test_a_silent_reference_has_no_finite_ratio():
    silence, noise = np.zeros(4), np.ones(4)
    assert tensor_metrics.relative_error(silence, noise) == math.inf
    assert tensor_metrics.sqnr_db(silence, noise) == -math.inf
    assert tensor_metrics.cosine(silence, noise) == 0.0
    assert tensor_metrics.relative_error(silence, silence) == 0.0
    assert tensor_metrics.cosine(silence, silence) == 1.0


def test_sums_of_float32_and_float16_are_accumulated_in_float64():
    ones = np.ones(3_000_000, dtype=np.float16)
    assert tensor_metrics.mse(ones, ones * np.float16(3)) == 4.0


def test_integers_do_not_wrap_around():
    assert tensor_metrics.max_abs_error(np.array([0], dtype=np.uint8), np.array([1], dtype=np.uint8)) == 1.0


@pytest.mark.parametrize("metric", PAIRED)
def test_shapes_that_differ_are_refused_even_where_numpy_would_broadcast(metric):
    with pytest.raises(DataError, match=r"\(2, 2\).*\(2,\)"):
        metric(REFERENCE, TEST[0])


@pytest.mark.parametrize("metric", PAIRED)
def test_nan_and_infinity_are_refused_with_the_side_that_holds_them(metric):
    with pytest.raises(DataError, match="1 of 4 values of the test"):
        metric(REFERENCE, [[1.5, -2.0], [3.0, np.nan]])
    with pytest.raises(DataError, match="2 of 4 values of the reference"):
        metric([1.0, 2.0, np.inf, -np.inf], [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("metric", PAIRED)
def test_empty_tensors_are_refused(metric):
    with pytest.raises(DataError, match="empty"):
        metric(np.zeros((0, 3)), np.zeros((0, 3)))
