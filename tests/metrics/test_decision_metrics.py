"""Decisions of a detector against fp32's: calculated by hand."""

import numpy as np
import pytest

from pipeline.metrics.decision_metrics import decision_auc, probabilities_of, segment_f1, segments


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    reference, test = np.array([0.9, 0.8, 0.2, 0.1, 0.4]), np.array([0.7, 0.3, 0.3, 0.1, 0.2])
    # pairs of an active and another step: 0.7 is above all three; 0.3 is above two, and equal to one
    assert decision_auc(reference, test) == pytest.approx((3 + 2 + 0.5) / 6)


def test_the_area_agrees_with_counting_all_pairs(rng):
    reference, test = rng.random(200), np.round(rng.random(200), 1)
    active = reference >= 0.5
    pairs = test[active][:, None] - test[~active][None, :]
    assert decision_auc(reference, test) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert decision_auc(reference, reference) == 1
    assert decision_auc(reference, 1 - reference) == 0
    assert decision_auc(np.full(20, 0.9), test[:20]) is None


def active(*spans, steps=40):
    values = np.full(steps, 0.1)
    for start, end in spans:
        values[start:end] = 0.9
    return values


def test_segments_are_the_same_where_half_of_their_union_is_in_both():
    assert segments(active((0, 3), (38, 40)) >= 0.5) == [(0, 3), (38, 40)]
    wanted = active((2, 10), (20, 30))
    assert segment_f1(wanted, wanted) == 1
    assert segment_f1(wanted, active((2, 10))) == pytest.approx(2 / 3)  # one of two, and no false one
    assert segment_f1(wanted, active((4, 12), (20, 24))) == pytest.approx(2 * 1 / 4)  # 6 of 10; 4 of 10
    assert segment_f1(wanted, active((2, 30))) == 0  # 8 and 10 of 28
    assert segment_f1(active(), active()) == 1
    assert segment_f1(active(), active((1, 5))) == 0


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 1, 1), (1, 20)])
def test_one_value_a_step_between_0_and_1_is_a_probability(shape):
    np.testing.assert_array_equal(probabilities_of(np.full(shape, 0.25, np.float32)), np.full(20, 0.25))


@pytest.mark.parametrize(
    "output",
    [
        np.full((20, 2), 0.5),
        np.full((2, 20), 0.5),
        np.full(9, 0.5),
        np.linspace(-0.1, 1, 20),
        np.ones(20, np.int64),
        np.float32(0.5),
    ],
)
def test_anything_else_is_not(output):
    assert probabilities_of(np.asarray(output)) is None
