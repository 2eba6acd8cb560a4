"""Weight rounding: on the grid, with the same scale, and with less error at the output than rounding to nearest."""

import itertools

import numpy as np
import pytest

from pipeline.config.choices import IntegerType, Target
from pipeline.ptq import gptq
from pipeline.ptq.gptq import round_rows, round_weights
from pipeline.ptq.layer_order import stream
from pipeline.ptq.second_moments import patches, second_moments
from pipeline.ptq.simulate import simulate, steps_of, weight_grid
from pipeline.quantize.paired_sums import ROOM, Pairing, in_rows, largest_sums
from pipeline.sample import Sample


def output_error(model, changed, samples, run):
    """Return the mean squared difference of the outputs."""
    return np.mean([np.mean((a[0] - b[0]) ** 2) for a, b in zip(run(model, samples), run(changed, samples), strict=True)])


def correlated(make_samples, channels):
    """Return samples whose channels are mixtures of three signals, as channels of real layers are."""
    mix = np.random.default_rng(3).standard_normal((channels, 3)).astype(np.float32)
    samples = make_samples(1, 3, 200)
    return [type(s)(s.id, {"x": np.einsum("cs,nst->nct", mix, s.inputs["x"])}) for s in samples]


@pytest.fixture
def one_conv(build, infer_shapes, make_weight):
    """Return a function: attributes of the Conv, input channels per group -> a graph of one Conv."""

    def make(attributes="pads = [1, 1]", inputs=8):
        text = f"conv (float[1, 8, n] x) => (float[1, 8, m] y) {{ [conv] y = Conv <{attributes}> (x, w) }}"
        return infer_shapes(build(text, w=make_weight(8, inputs, 3)))

    return make


@pytest.mark.parametrize("target", [Target.x86_vnni, Target.x86])
@pytest.mark.parametrize(
    ("attributes", "inputs"),
    [("pads = [1, 1]", 8), ("pads = [2, 0], dilations = [2], strides = [2]", 8), ('auto_pad = "NOTSET", group = 2', 4)],
)
def test_the_output_error_is_below_that_of_rounding_to_nearest(
    one_conv, make_samples, static, run, constant, attributes, inputs, target
):
    model, samples = one_conv(attributes, inputs), correlated(make_samples, 8)
    plan, mode, ranges = static(model, samples, target=target)
    rounded = round_weights(model, plan, mode, ranges, samples)
    weight, new = constant(model, "w"), constant(rounded, "w")
    grid = weight_grid(weight, model.graph.node[0], plan, mode, ranges)
    steps = steps_of(grid, 3)
    nearest = one_conv(attributes, inputs)
    nearest.graph.initializer[0].raw_data = (grid.quantize(weight) * steps).astype(np.float32).tobytes()
    assert output_error(model, rounded, samples, run) < 0.5 * output_error(model, nearest, samples, run)
    # on the grid, whose scale is the same as before
    np.testing.assert_allclose(new / steps, np.rint(new / steps), atol=1e-4)
    again = weight_grid(new, model.graph.node[0], plan, mode, ranges)
    np.testing.assert_allclose(again.scale, grid.scale, rtol=1e-6)
    np.testing.assert_array_equal(again.quantize(new), np.rint(new / steps))
    largest = largest_sums(in_rows(again.quantize(new).astype(int), Pairing.conv)).max()
    assert largest == ROOM if target is Target.x86 else largest > ROOM


def test_a_quantizer_behind_it_finds_the_same_weights(one_conv, make_samples, static, run, quantized):
    model, samples = one_conv(), correlated(make_samples, 8)
    plan, mode, ranges = static(model, samples)
    rounded = round_weights(model, plan, mode, ranges, samples)
    expected = stream(simulate(rounded, plan, mode, ranges), ["y/simulated"], samples, threads=1)
    for [found], tensors in zip(run(quantized(rounded, plan, mode, ranges), samples), expected, strict=True):
        simulated = tensors["y/simulated"]
        step = (ranges["y"][1] - ranges["y"][0]) / 255
        assert np.mean(np.abs(found - simulated)) < 0.02 * step  # now and then, a value at the middle of two integers


def test_a_depthwise_convolution_of_noise_cannot_be_improved(one_conv, make_samples, static, constant):
    model, samples = one_conv("group = 8", 1), make_samples(1, 8, 600)
    plan, mode, ranges = static(model, samples)
    weight, new = constant(model, "w"), constant(round_weights(model, plan, mode, ranges, samples), "w")
    steps = steps_of(weight_grid(weight, model.graph.node[0], plan, mode, ranges), 3)
    np.testing.assert_allclose(new / steps, np.rint(weight / steps), atol=1e-4)


def test_independent_inputs_are_rounded_to_nearest():
    weights = np.random.default_rng(0).uniform(-90, 90, (1, 4, 10))
    weights[:, :, 0] = 127
    np.testing.assert_array_equal(round_rows(weights, np.eye(10)[None], noise=0.0), np.rint(weights))


def test_two_weights_on_one_input_are_rounded_against_each_other():
    weights = np.array([[[127.0, 10.4, 20.4, 30.4]]])
    moments = np.ones((1, 4, 4))  # all inputs are the same: only the sum of the weights counts
    found = round_rows(weights, moments, noise=1e-6)
    assert found.sum() == pytest.approx(weights.sum(), abs=0.5)
    assert np.abs(found - weights).max() < 1.5
    candidates = [np.array([127, *c]) for c in itertools.product((10, 11), (20, 21), (30, 31))]
    best = min(abs(c.sum() - weights.sum()) for c in candidates)
    assert abs(found.sum() - weights.sum()) == pytest.approx(best)


def test_moments_are_those_of_all_patches(one_conv, make_samples):
    attributes = "pads = [2, 1], dilations = [2], strides = [3]"
    model, samples = one_conv(attributes), make_samples(1, 8, 30, count=2)
    found = second_moments(model, model.graph.node, samples, 1)["w"]
    total, count = np.zeros((24, 24)), 0
    for sample in samples:
        padded = np.pad(sample.inputs["x"][0], [(0, 0), (2, 1)])
        for start in range(0, padded.shape[1] - 4, 3):
            patch = padded[:, start : start + 5 : 2].reshape(-1)
            total, count = total + np.outer(patch, patch), count + 1
    np.testing.assert_allclose(found[0], total / count, rtol=1e-4, atol=1e-5)


def test_a_sample_of_no_frames_adds_no_patches(one_conv):
    node = one_conv().graph.node[0]
    nothing = np.zeros((0, 8, 20), np.float32)
    assert patches(node, nothing, (8, 8, 3), np.random.default_rng(0)).shape == (1, 0, 24)


def test_patches_times_weight_is_the_convolution_in_two_dimensions(build, make_weight, run):
    text = """conv (float[2, 4, 6, 7] x) => (float[2, 6, h, w] y) {
        [conv] y = Conv <pads = [1, 0, 0, 2], strides = [1, 2], group = 2> (x, w)
    }"""
    weight, array = make_weight(6, 2, 3, 2), make_weight(2, 4, 6, 7)
    model = build(text, w=weight)
    [[expected]] = run(model, [Sample("s", {"x": array})])
    seen = patches(model.graph.node[0], array, weight.shape, np.random.default_rng(0))
    products = np.einsum("gpk,gok->gop", seen, weight.reshape(2, 3, -1)).reshape(6, -1)
    np.testing.assert_allclose(products, np.moveaxis(expected, 1, 0).reshape(6, -1), atol=1e-5)


def test_other_weights_are_left_to_the_quantizer(residual_net, make_samples, static):
    samples = make_samples(1, 8, 40)
    plan, mode, ranges = static(residual_net, samples, weight_type=IntegerType.uint8)
    assert round_weights(residual_net, plan, mode, ranges, samples) == residual_net


def test_errors_that_are_made_up_for_together_give_the_same_integers_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2, 400, 30)) @ rng.standard_normal((30, 30))
    moments, weights = inputs.transpose(0, 2, 1) @ inputs / 400, 40 * rng.standard_normal((2, 5, 30))
    monkeypatch.setattr(gptq, "AT_ONCE", 1)
    singly = round_rows(weights, moments, 1e-3)
    monkeypatch.setattr(gptq, "AT_ONCE", 7)
    np.testing.assert_array_equal(round_rows(weights, moments, 1e-3), singly)
    assert (singly != np.rint(weights)).any()
