"""Cross-layer equalization and smoothing: exact in float, known answers, and patterns that must be left alone."""

import numpy as np
import onnx
import pytest

from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.prepare import initializers_of, prepare
from pipeline.graph.session import open_session
from pipeline.ptq.channel_groups import rescale
from pipeline.ptq.channel_search import channel_groups
from pipeline.ptq.cross_layer_equalization import equalize, factors_of
from pipeline.ptq.smooth_quant import smooth_quant
from pipeline.quantize.plan import Plan, Precision


def largest_difference(run, model, changed, samples):
    pairs = zip(run(model, samples), run(changed, samples), strict=True)
    return max(np.abs(a[0] - b[0]).max() / np.abs(a[0]).max() for a, b in pairs)


def channel_maxima(run, model, tensor, samples, axis=1):
    arrays = [arrays[0] for arrays in run(model, samples, [tensor])]
    return np.max([np.abs(a).max(axis=tuple(i for i in range(a.ndim) if i != axis)) for a in arrays], axis=0)


def test_equalization_computes_the_same(residual_net, make_samples, static, run):
    samples = make_samples(1, 8, 40)
    plan, *_ = static(residual_net, samples)
    changed = equalize(residual_net, plan, samples)
    assert largest_difference(run, residual_net, changed, samples) < 1e-4
    assert changed.graph.initializer != residual_net.graph.initializer


def test_a_residual_stream_shares_its_factors(residual_net):
    [group] = channel_groups(residual_net)
    assert {axis.tensor for axis in group.axes} == {"a", "b", "c", "d", "e"}
    assert {side.constant for side in group.sides if side.power < 0} == {"wa", "ba", "wb", "bb"}
    assert {side.constant for side in group.sides if side.power > 0} == {"wb", "wc"}


def test_a_tensor_that_is_declared_again_without_a_shape_has_the_one_it_had(residual_net):
    [group] = channel_groups(residual_net)
    again = onnx.ModelProto.FromString(residual_net.SerializeToString())
    for value in list(again.graph.value_info):
        again.graph.value_info.append(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None))
    assert channel_groups(again) == [group]


def test_equalization_makes_ranges_equal(build, infer_shapes, make_weight, make_samples, static, run):
    text = """pair (float[1, 8, n] x) => (float[1, 8, n] y) {
        [one] a = Conv <pads = [1, 1]> (x, wa, ba)
        [two] y = Conv <pads = [1, 1]> (a, wb)
    }"""
    loud = np.geomspace(0.2, 5, 16, dtype=np.float32)
    weights = {"wa": make_weight(16, 8, 3) * loud[:, None, None], "wb": make_weight(8, 16, 3), "ba": np.zeros(16, np.float32)}
    model = infer_shapes(build(text, **weights))
    samples = make_samples(1, 8, 60)
    plan, *_ = static(model, samples)
    changed = equalize(model, plan, samples)
    before, after = (channel_maxima(run, each, "a", samples) for each in (model, changed))
    assert before.max() / before.min() > 10
    assert after.max() / after.min() == pytest.approx(1, abs=1e-4)


def test_a_weight_that_is_not_finite_spoils_no_other(build, infer_shapes, make_weight, make_samples, constant):
    text = """pair (float[1, 8, n] x) => (float[1, 8, n] y) {
        [one] a = Conv <pads = [1, 1]> (x, wa) [two] y = Conv <pads = [1, 1]> (a, wb)
    }"""
    spoilt = make_weight(8, 16, 3, seed=1)
    spoilt[0, 3, 1] = np.nan
    model = infer_shapes(build(text, wa=make_weight(16, 8, 3), wb=spoilt))
    changed = equalize(model, Plan({"one": Precision.static_int8}), make_samples(1, 8, 20))
    assert np.isfinite(constant(changed, "wa")).all()
    np.testing.assert_array_equal(np.isnan(constant(changed, "wb")), np.isnan(spoilt))


def test_strength_0_makes_the_reading_weights_equal():
    weights = np.array([1.0, 4.0, 0.5])
    factors = factors_of([np.array([3.0, 2.0, 1.0])], weights, strength=0)
    assert weights * factors == pytest.approx(np.full(3, (weights * factors)[0]))


def test_a_dead_channel_gets_no_endless_factor():
    factors = factors_of([np.array([0.0, 1.0, 1.0])], np.ones(3), strength=1)
    assert np.isfinite(factors).all()
    assert factors.max() / factors.min() == pytest.approx(64)


@pytest.mark.parametrize("groups", [2, 8])
def test_grouped_convolutions_are_exact(build, infer_shapes, make_weight, make_samples, static, run, groups):
    text = f"""grouped (float[1, 8, n] x) => (float[1, 4, m] y) {{
        [one] a = Conv <pads = [1, 1], group = {groups}> (x, wa, ba)
        [relu] b = Relu (a)
        [two] c = Conv <pads = [1, 1], group = {groups}> (b, wb)
        [three] d = ConvTranspose <group = 2> (c, wc, bc)
        [four] y = Conv (d, wd)
    }}"""
    weights = {"wa": make_weight(8, 8 // groups, 3), "wb": make_weight(8, 8 // groups, 3), "wc": make_weight(8, 3, 3)}
    weights |= {"wd": make_weight(4, 6, 1), "ba": make_weight(8, 1)[:, 0], "bc": make_weight(6, 1)[:, 0]}
    model = infer_shapes(build(text, **weights))
    samples = make_samples(1, 8, 30)
    assert len(channel_groups(model)) == 3
    plan, *_ = static(model, samples)
    assert largest_difference(run, model, equalize(model, plan, samples), samples) < 1e-4


NEAR_MISSES = {
    "a sigmoid is not homogeneous": "[one] a = Conv (x, wa) [act] b = Sigmoid (a) [two] y = Conv (b, wb)",
    "an output must keep its values": "[one] a = Conv (x, wa) [two] y = Conv (a, wb)",
    "one number for all channels cannot follow": "[one] a = Conv (x, wa) [add] b = Add (a, one) [two] y = Conv (b, wb)",
    "a weight that something else reads": "[one] a = Conv (x, wa) [two] b = Conv (a, wb) [sum] y = Add (b, wb)",
}


@pytest.mark.parametrize("body", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_near_misses_are_left_alone(build, infer_shapes, make_weight, body):
    outputs = (
        "float[1, 4, n] y, float[1, 4, n] a" if "output" in body or "[two] y = Conv (a, wb)" in body else "float[1, 4, n] y"
    )
    text = f"near (float[1, 4, n] x) => ({outputs}) {{ {body} }}"
    weights = {"wa": make_weight(4, 4, 1), "wb": make_weight(4, 4, 1), "one": np.array(1.0, np.float32)}
    assert channel_groups(infer_shapes(build(text, **weights))) == []


def test_smoothing_goes_into_a_normalization(build, infer_shapes, make_weight, make_samples, static, run, constant):
    text = """attention (float[1, n, 16] x) => (float[1, n, 8] y) {
        [norm] a = LayerNormalization (x, scale, bias)
        [matmul] y = MatMul (a, w)
    }"""
    loud = np.ones(16, np.float32)
    loud[3] = 50
    model = infer_shapes(build(text, scale=loud, bias=make_weight(16, 1)[:, 0], w=make_weight(16, 8)))
    samples = [type(s)(s.id, {"x": s.inputs["x"].transpose(0, 2, 1).copy()}) for s in make_samples(1, 16, 20)]
    plan, *_ = static(model, samples, op_types=["MatMul"], dynamic_op_types=["MatMul"])
    changed = smooth_quant(model, plan, samples, strength=1.0)
    assert largest_difference(run, model, changed, samples) < 1e-4
    after = channel_maxima(run, changed, "a", samples, axis=2)
    assert after.max() / after.min() == pytest.approx(1, abs=1e-4)
    half = smooth_quant(model, plan, samples)
    maxima = channel_maxima(run, model, "a", samples, axis=2)
    expected = np.sqrt(maxima / np.abs(constant(model, "w")).max(axis=1))
    found = constant(model, "scale") / constant(half, "scale")
    assert found / found[0] == pytest.approx(expected / expected[0], rel=1e-4)


def test_smoothing_leaves_a_gelu_alone(build, infer_shapes, make_weight):
    text = """gelu (float[n, 8] x) => (float[n, 8] y) {
        [erf] a = Erf (x)  [mul] b = Mul (x, a)  [half] c = Mul (b, scalar)  [matmul] y = MatMul (c, w)
    }"""
    assert channel_groups(infer_shapes(build(text, scalar=np.array(0.5, np.float32), w=make_weight(8, 8)))) == []


@pytest.mark.parametrize("algorithm", [equalize, smooth_quant])
def test_a_shipped_model_computes_the_same(shipped, make_samples, static, run, algorithm):
    model = prepare(shipped("vocoder"), opset=None, needed_opset=13, preprocess=True).model
    samples = [type(s)(s.id, {"mels": s.inputs["x"] - 5}) for s in make_samples(1, 80, 30, count=2)]
    plan, *_ = static(model, samples, op_types=["Conv", "MatMul"])
    changed = algorithm(model, plan, samples)
    pairs = zip(run(model, samples), run(changed, samples), strict=True)
    assert max(np.abs(a - b).max() / np.abs(a).max() for p, q in pairs for a, b in zip(p, q, strict=True)) < 1e-4


@pytest.mark.parametrize("name", ["vocoder", "asr", "matcha"])
def test_any_factors_are_exact_in_a_shipped_model(shipped, name):
    rng = np.random.default_rng(0)
    inputs = {
        "vocoder": {"mels": values(rng, 1, 80, 30) - 5},
        "asr": {"x": values(rng, 1, 100, 80), "x_lens": np.array([100])},
        "matcha": {
            "x": rng.integers(1, 40, (1, 20)),
            "x_length": np.array([20]),
            "noise_scale": np.ones(1, np.float32),
            "length_scale": np.ones(1, np.float32),
        },
    }[name]
    model = prepare(shipped(name), opset=None, needed_opset=13, preprocess=True).model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    groups = channel_groups(model)
    for group in groups:
        side = group.sides[0]
        channels = initializers_of(changed)[side.constant].dims[side.axis] * side.groups
        rescale(changed, group, np.exp(rng.uniform(-1, 1, channels)))
    noisy = [with_noise_inputs(each) for each in (model, changed)]
    feeds = inputs | noisy[0].noise(np.random.default_rng(1))
    before, after = (open_session(each.model).run(None, feeds) for each in noisy)
    assert groups
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def values(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)
