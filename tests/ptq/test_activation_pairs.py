"""Weights as fine as the activations of calibration allow, where two products are added in 16 bits."""

import itertools

import numpy as np
import pytest

from pipeline.calibration.channel_pairs import DIRECTIONS, reach_of
from pipeline.config.choices import Target
from pipeline.ptq.activation_pairs import looks_at_pairs, reaches_of, weight_grids
from pipeline.ptq.algorithms import fit
from pipeline.ptq.gptq import round_weights
from pipeline.ptq.simulate import weight_grid
from pipeline.quantize.paired_sums import HEADROOM, LARGEST_SUM, Pairing, corners_of, in_rows, sums_of_pairs
from pipeline.quantize.saturation import patches, sums_in_16_bits
from pipeline.sample import Sample

GROUPS = 2


def seldom_loud_together(count=3, frames=400):
    """Return samples of 8 channels: each is loud in its own part of the time."""
    rng = np.random.default_rng(1)
    found = []
    for index in range(count):
        x = rng.uniform(0, 0.2, (1, 8, frames)).astype(np.float32)
        for channel in range(8):
            x[0, channel, channel::8] += rng.uniform(0.5, 1)
        found.append(Sample(f"s{index}", {"x": x}))
    return found


@pytest.fixture
def net(build, infer_shapes, make_weight):
    """Return a graph of a grouped Conv whose weights of a channel have one sign: their sums are large."""
    weight = np.abs(make_weight(8, 8 // GROUPS, 3)) + 0.5
    text = f"g (float[1, 8, n] x) => (float[1, 8, m] y) {{ [conv] y = Conv <pads = [1, 1], group = {GROUPS}> (x, w) }}"
    return infer_shapes(build(text, w=weight))


@pytest.fixture
def calibrated(net, static):
    """Return the plan, mode, ranges with grids, and samples of `net` for any x86."""
    samples = seldom_loud_together()
    plan, mode, ranges = static(net, samples, target=Target.x86)
    reaches = reaches_of(net, ["conv"], samples, threads=1, seed=0)
    ranges.weights = weight_grids(net, ["conv"], mode, ranges, reaches)
    return plan, mode, ranges, samples


def integers_of(ranges, samples):
    """Return the uint8 that stand for the samples, and the one of value 0."""
    low, high = ranges["x"]
    scale = np.float32((high - low) / 255)
    zero = int(np.rint(-low / scale))
    return [np.clip(np.rint(s.inputs["x"] / scale) + zero, 0, 255).astype(np.uint8) for s in samples], zero


def saturating(net, integers, activations, zero):
    """Return how many sums of two products are cut at 16 bits, of a Conv by integer weights."""
    count = 0
    for array in activations:
        groups, _ = patches(net.graph.node[0], array, (3,), zero)
        rows = in_rows(integers, Pairing.conv).reshape(GROUPS, -1, groups.shape[2])
        count += sum(sums_in_16_bits(seen, own)[1] for seen, own in zip(groups, rows, strict=True))
    return count


def test_the_reach_of_a_pair_is_its_largest_weighted_sum():
    channels = np.random.default_rng(0).standard_normal((6, 50)).astype(np.float32)
    found = reach_of(channels)
    for pair, (index, (first, second)) in itertools.product(range(3), enumerate(DIRECTIONS)):
        expected = max(first * a + second * b for a, b in channels[2 * pair : 2 * pair + 2].T)
        assert found[pair, index] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.0, 3.0), (-3.0, 0.1), (2.0, 2.5)])
def test_corners_bound_every_pair_of_integers_that_calibration_saw(low, high):
    rng = np.random.default_rng(0)
    channels = rng.uniform(low, high, (4, 300)).astype(np.float32)
    channels[1] = np.maximum(high - channels[0], low)  # never loud together with channel 0
    scale, zero = 3.0 / 255, 20
    integers = np.clip(np.rint(channels / scale) + zero, 0, 255)
    corners = corners_of(reach_of(channels), scale, zero, groups=1)
    assert corners.min() >= 0
    assert corners.max() <= 255 + 1e-3
    for weights in np.abs(rng.standard_normal((50, 2))):
        rows = np.tile(weights, 2)[None]
        bound = sums_of_pairs(rows, corners)[0]
        seen = [(weights @ np.concatenate([integers[p : p + 2], np.full((2, 1), zero)], axis=1)).max() for p in (0, 2)]
        assert np.all(bound * 255 >= seen)
        assert np.all(bound * 255 <= 255.01 * weights.sum())
        if low >= 0:  # nothing is cut at 0
            assert np.all(bound * 255 <= 1.01 * HEADROOM * (np.array(seen) + 1.5 * weights.sum()))


def test_scales_are_finer_and_no_sum_saturates_on_calibration_data(net, calibrated, constant):
    plan, mode, ranges, samples = calibrated
    weight = constant(net, "w")
    blind = weight_grid(weight, net.graph.node[0], plan, mode, type(ranges)(ranges))
    grid = ranges.weights["conv"]
    assert np.all(grid.scale < 0.8 * blind.scale)
    integers = grid.quantize(weight)
    seen, zero = integers_of(ranges, samples)
    assert saturating(net, integers, seen, zero) == 0
    louder = [np.minimum(np.rint(array * 1.08), 255).astype(np.uint8) for array in seen]
    assert saturating(net, integers, louder, zero) == 0
    assert saturating(net, integers, [np.full_like(array, 255) for array in seen], zero) > 0


def test_weights_that_keep_outputs_fit_as_well(net, calibrated, constant, quantized):
    plan, mode, ranges, samples = calibrated
    rounded = round_weights(net, plan, mode, ranges, samples)
    grid = ranges.weights["conv"]
    steps = grid.scale[:, None, None]
    new = constant(rounded, "w") / steps
    np.testing.assert_allclose(new, np.rint(new), atol=1e-4)
    integers = grid.quantize(constant(rounded, "w"))
    np.testing.assert_array_equal(integers, np.rint(new))  # nothing had to give way
    assert sums_of_pairs(in_rows(integers.astype(int), Pairing.conv), grid.pairs.corners).max() <= LARGEST_SUM
    written = quantized(rounded, plan, mode, ranges)
    np.testing.assert_array_equal(constant(written, "w_quantized"), integers)
    np.testing.assert_array_equal(constant(written, "w_scale"), grid.scale)


def test_outputs_are_kept_by_default_where_scales_are_coarser(net, calibrated, constant):
    plan, mode, ranges, samples = calibrated
    assert looks_at_pairs(mode)
    weight = constant(net, "w")
    assert (constant(fit(net, plan, mode, ranges, samples), "w") != weight).any()


def test_other_targets_and_types_look_at_weights_alone(settings):
    assert looks_at_pairs(settings("static", target=Target.x86))
    for changes in ({"target": Target.arm}, {"target": Target.x86_vnni}, {"reduce_range": True}, {"reconstruct": True}):
        assert not looks_at_pairs(settings("static", **({"target": Target.x86} | changes)))


def test_a_weight_that_two_convs_read_fits_what_both_multiply(build, infer_shapes, static, constant, quantized, make_weight):
    text = """g (float[1, 8, n] x) => (float[1, 8, n] y) {
        [one] a = Conv <pads = [1, 1]> (x, w)
        r = Relu (a)
        [two] y = Conv <pads = [1, 1]> (r, w)
    }"""
    model, samples = infer_shapes(build(text, w=np.abs(make_weight(8, 8, 3)))), seldom_loud_together()
    plan, mode, ranges = static(model, samples, target=Target.x86)
    reaches = reaches_of(model, ["one", "two"], samples, threads=1, seed=0)
    ranges.weights = weight_grids(model, ["one", "two"], mode, ranges, reaches)
    both = [ranges.weights[name].scale for name in ("one", "two")]
    assert (both[0] != both[1]).any()
    np.testing.assert_array_equal(constant(quantized(model, plan, mode, ranges), "w_scale"), np.maximum(*both))
