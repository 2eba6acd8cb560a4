"""Whether one graph is faster than another: the test behind it is scipy's."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import scipy.stats

from pipeline.measure.rewrite_gain import measure_gain, signed_rank


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


@pytest.mark.parametrize(("changed_ms", "rounds", "faster"), [(1.2, 2, False), (0.8, 4, True), (1.0, 4, False)])
def test_what_is_slower_is_given_up_after_both_orders_and_what_is_faster_is_not_believed_so_soon(changed_ms, rounds, faster):
    begun = []

    def timed(*_, at_least, **__):
        begun.append(at_least)
        return [(1.0, changed_ms + 1e-4 * number) for number in range(at_least)]

    place = SimpleNamespace(bench=lambda *_: SimpleNamespace(round=timed))
    gain = measure_gain(onnx.ModelProto(), onnx.ModelProto(), [], place=place)
    assert (len(begun), gain.faster) == (rounds, faster)
