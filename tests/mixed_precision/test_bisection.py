"""How far a path goes within a limit, and with how few measurements that is found."""

import itertools

import numpy as np
import pytest

from pipeline.mixed_precision.bisection import LITTLE, Bisection
from pipeline.mixed_precision.greedy_knapsack import Step
from pipeline.quantize.plan import Precision


def path_of(losses, gains=None):
    return [
        Step(f"g{number}", Precision.static_int8, gain, loss)
        for number, (loss, gain) in enumerate(zip(losses, gains or itertools.repeat(1.0), strict=False))
    ]


def found(path, limit, loss_after, scale=None):
    """Return how far a path goes, the points that were measured, and the bisection."""
    bisection = Bisection(path, limit, scale)
    bisection.know(0, 0.0, kept=True)
    bisection.know(len(path), loss_after(len(path)), kept=loss_after(len(path)) <= limit)
    measured = []
    while (point := bisection.next()) is not None:
        measured.append(point)
        bisection.know(point, loss_after(point), kept=loss_after(point) <= limit)
    return bisection.low, measured, bisection


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.3, 0.99, 5.0, 100.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_furthest_point_within_the_limit_is_found_whatever_the_sums_of_single_losses_say(limit, seed):
    rng = np.random.default_rng(seed)
    single = rng.exponential(0.1, 60)
    real = [0.0, *np.cumsum(rng.exponential(0.1, 60))]  # has nothing to do with the sums
    reached, measured, _ = found(path_of(single), limit, lambda count: real[count])
    assert reached == max(count for count, loss in enumerate(real) if loss <= limit)
    assert len(set(measured)) == len(measured)


def test_where_losses_add_up_by_a_factor_that_is_known_three_measurements_are_enough():
    single = np.sort(np.random.default_rng(0).exponential(0.01, 140))
    real = [0.0, *(1.7 * np.cumsum(single))]
    reached, measured, bisection = found(path_of(single), 0.15, lambda count: real[count], scale=1.68)
    assert reached == max(count for count, loss in enumerate(real) if loss <= 0.15)
    assert len(measured) <= 3
    assert bisection.scale == pytest.approx(1.7)


def test_steps_that_gain_next_to_nothing_are_not_told_apart():
    gains = [1.0] * 10 + [LITTLE / 100] * 50
    real = [0.01 * count for count in range(61)]
    reached, measured, _ = found(path_of([0.01] * 60, gains), 0.405, lambda count: real[count])
    assert 10 <= reached <= 40
    assert len(measured) <= 3


def test_without_a_limit_on_the_loss_a_path_is_followed_to_its_end():
    bisection = Bisection(path_of([0.1] * 4), None)
    bisection.know(0, 0.0, kept=True)
    bisection.know(4, 3.0, kept=True)
    assert bisection.next() is None
    assert bisection.low == 4


def test_steps_that_alone_lose_a_lot_are_not_approached_one_step_after_the_other():
    counts = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        single = np.sort(rng.exponential(0.01, 120))
        lost = single * rng.lognormal(0.0, 1.0, 120)
        lost[rng.integers(0, 120, 2)] += rng.exponential(0.5, 2)
        real = [0.0, *np.cumsum(lost)]
        _, measured, _ = found(
            path_of(single), rng.uniform(0.1, 0.9) * real[-1], lambda count, real=real: real[count], scale=1.0
        )
        counts.append(len(measured))
    assert max(counts) <= 9
