"""Whether one graph is faster than another: the test behind it is scipy's."""

import numpy as np
import pytest
import scipy.stats

from pipeline.measure.rewrite_gain import signed_rank


@pytest.mark.parametrize("count", [1, 5, 10, 20, 50, 51, 200])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.3, 2.0])
def test_the_signed_rank_test_is_scipys(count, shift):
    values = np.random.default_rng(count).normal(shift, 1.0, count)
    assert signed_rank(values) == pytest.approx(scipy.stats.wilcoxon(values, alternative="greater").pvalue, rel=1e-9, abs=1e-15)
    assert signed_rank(-values) == pytest.approx(scipy.stats.wilcoxon(values, alternative="less").pvalue, rel=1e-9, abs=1e-15)


def test_ties_have_their_mean_rank_and_zeros_say_nothing():
    values = np.array([0.0, 1.0, 1.0, -1.0, 2.0, 0.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    ranks = np.array([2.0, 2.0, 2.0, 4.0])
    sums = np.where(signs > 0, ranks, 0).sum(axis=1)
    assert signed_rank(values) == pytest.approx(np.mean(sums >= 8.0))
    assert signed_rank(np.zeros(3)) == 1.0
