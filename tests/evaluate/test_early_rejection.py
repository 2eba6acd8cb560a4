"""What is rejected before all samples are scored would have been rejected after all of them."""

import numpy as np
import pytest

from pipeline.evaluate.early_rejection import LEAST_WITHOUT, estimated, surely_above


def test_models_that_would_have_been_allowed_are_hardly_ever_rejected_and_far_ones_early():
    rng = np.random.default_rng(0)
    samples, limit = 16, 0.15
    wrong, used, far = 0, [], 0
    for _ in range(2000):
        hard = rng.lognormal(0.0, 0.4, samples)  # how much any model loses on a sample
        measure = 0.14 * hard * rng.lognormal(0.0, 0.08, samples)
        level = rng.uniform(0.7, 2.5) * limit
        losses = level * hard / hard.mean() * rng.lognormal(0.0, 0.08, samples)
        count = next((k for k in range(1, samples) if surely_above(losses[:k], limit, list(measure))), samples)
        allowed = losses.mean() <= limit
        wrong += allowed and count < samples
        if level > 1.5 * limit:
            far += 1
            used.append(count)
    assert wrong <= 4, "of 2000"
    assert np.mean(used) < 3.5, "of 16"


def test_one_sample_alone_rejects_nothing_without_a_model_to_compare_with():
    assert not surely_above([100.0], 0.1)
    assert not surely_above([100.0] * (LEAST_WITHOUT - 1), 0.1)
    assert surely_above([100.0] * LEAST_WITHOUT, 0.1)


def test_samples_of_which_every_model_loses_more_come_first_and_reject_nothing():
    assert not surely_above([0.5, 0.5], 0.2, [0.5, 0.5, 0.01, 0.01, 0.01, 0.01])


def test_the_loss_on_all_samples_is_estimated_by_that_of_the_other_model():
    assert estimated([0.2, 0.4], [0.1, 0.2, 0.3]) == pytest.approx(0.4)
    assert estimated([0.2, 0.4]) == pytest.approx(0.3)
