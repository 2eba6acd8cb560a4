"""Bias correction: no mean error is left on the calibration data, in a chain of nodes as well."""

import dataclasses

import numpy as np
import pytest
from onnx import numpy_helper

from pipeline.config.mode_settings import Algorithms
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph import upstream_of
from pipeline.ptq.algorithms import fit, rewrite
from pipeline.ptq.bias_correction import correct_biases, find_biases
from pipeline.ptq.layer_order import levels, stream
from pipeline.ptq.simulate import simulate
from pipeline.sample import Sample


def mean_error(model, changed, tensor, samples, axis=1):
    """Return the mean difference of each channel over all samples and positions."""
    pairs = zip(*(stream(each, [tensor], samples, 1) for each in (model, changed)), strict=True)
    gaps = [np.moveaxis(b[tensor] - a[tensor], axis, -1) for a, b in pairs]
    return np.concatenate([gap.reshape(-1, gap.shape[-1]) for gap in gaps]).astype(np.float64).mean(axis=0)


def with_algorithms(mode, algorithms):
    return dataclasses.replace(mode, **dataclasses.asdict(algorithms))


def test_the_mean_error_of_every_channel_vanishes(residual_net, make_samples, static):
    samples = make_samples(1, 8, 40)
    plan, mode, ranges = static(residual_net, samples)
    corrected = correct_biases(residual_net, plan, mode, ranges, samples)
    for tensor in ("a", "c"):
        before, after = (
            np.abs(mean_error(residual_net, simulate(each, plan, mode, ranges), tensor, samples)).max()
            for each in (residual_net, corrected)
        )
        assert after < 1e-3 * before


def test_only_biases_of_quantized_nodes_change(residual_net, make_samples, static):
    samples = make_samples(1, 8, 40)
    plan, mode, ranges = static(residual_net, samples, nodes_to_quantize=["second"])
    corrected = correct_biases(residual_net, plan, mode, ranges, samples)
    pairs = zip(residual_net.graph.initializer, corrected.graph.initializer, strict=True)
    assert [old.name for old, new in pairs if old != new] == ["bb"]


def test_the_add_behind_a_matmul_is_its_bias(build, infer_shapes, make_weight, make_samples, static):
    text = """linear (float[1, n, 16] x) => (float[1, n, 8] y) { [matmul] a = MatMul (x, w) [add] y = Add (b, a) }"""
    model = infer_shapes(build(text, w=make_weight(16, 8), b=make_weight(8, 1)[:, 0]))
    samples = [type(s)(s.id, {"x": s.inputs["x"].transpose(0, 2, 1) + 3}) for s in make_samples(1, 16, 20)]
    plan, mode, ranges = static(model, samples, op_types=["MatMul"], dynamic_op_types=["MatMul"])
    corrected = correct_biases(model, plan, mode, ranges, samples)
    before, after = (
        np.abs(mean_error(model, simulate(each, plan, mode, ranges), "y", samples, axis=2)).max() for each in (model, corrected)
    )
    assert after < 1e-3 * before


def test_a_token_that_is_suppressed_stays_so(build, infer_shapes, make_weight, static):
    text = "decoder (float[1, n, 16] x) => (float[1, n, 8] y) { [matmul] a = MatMul (x, w) [suppress] y = Add (a, b) }"
    suppressed = np.array([0, 0, -np.inf, 0, 0, -np.inf, 0, 0], np.float32)
    model = infer_shapes(build(text, w=make_weight(16, 8), b=suppressed))
    rng = np.random.default_rng(0)
    samples = [Sample(f"s{i}", {"x": rng.standard_normal((1, 20, 16)).astype(np.float32) + 3}) for i in range(4)]
    plan, mode, ranges = static(model, samples, op_types=["MatMul"], dynamic_op_types=["MatMul"])
    corrected = initializers_of(correct_biases(model, plan, mode, ranges, samples))
    bias = numpy_helper.to_array(corrected["b"])
    np.testing.assert_array_equal(np.isneginf(bias), np.isneginf(suppressed))
    assert np.isfinite(bias[[0, 1, 3, 4, 6, 7]]).all() and bias.any()


@pytest.mark.parametrize("bias", [(8,), (1, 8), (1, 1), (1,), (), (20, 8)])
@pytest.mark.parametrize("attributes", ["", ", beta = 2.0", ", transB = 1"])
def test_only_a_bias_with_a_value_per_channel_is_corrected(build, infer_shapes, make_weight, static, bias, attributes):
    text = f"linear (float[20, 16] x) => (float[20, 8] y) {{ [gemm] y = Gemm <alpha = 1.0{attributes}> (x, w, b) }}"
    shape = (8, 16) if "transB" in attributes else (16, 8)
    values = np.full(bias, 0.5, np.float32)
    model = infer_shapes(build(text, w=make_weight(*shape), b=values))
    samples = [Sample("s", {"x": np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32) + 3})]
    plan, mode, ranges = static(model, samples, op_types=["Gemm"], weight_only_op_types=[])
    corrected = correct_biases(model, plan, mode, ranges, samples)
    found = find_biases(model, ["gemm"])
    assert bool(found) == (bias in [(8,), (1, 8)] and "beta" not in attributes)
    assert list(corrected.graph.initializer[1].dims) == list(bias)


@pytest.mark.parametrize(
    "body",
    [
        "[matmul] y = MatMul (x, w)",
        "[matmul] a = MatMul (x, w) [relu] y = Relu (a)",
        "[matmul] a = MatMul (x, w) [add] y = Add (a, x)",
        "[matmul] a = MatMul (x, w) [one] c = Add (a, b) [two] y = Mul (c, b)",
    ],
    ids=["nothing follows", "another operator", "no constant", "a constant with another reader"],
)
def test_a_matmul_without_a_bias_of_its_own(build, make_weight, body):
    model = build(f"linear (float[n, 8] x) => (float[n, 8] y) {{ {body} }}", w=make_weight(8, 8), b=make_weight(8, 1)[:, 0])
    assert find_biases(model, {"matmul"}) == {}


def test_parallel_nodes_are_of_one_level(build, make_weight):
    text = """parallel (float[n, 8] x) => (float[n, 8] y) {
        [a] a = MatMul (x, w) [b] b = MatMul (x, w) [c] c = MatMul (a, w) [sum] d = Add (b, c) [e] y = MatMul (d, w)
    }"""
    found = levels(build(text, w=make_weight(8, 8)), {"a", "b", "c", "e"})
    assert [[node.name for node in level] for level in found] == [["a", "b"], ["c"], ["e"]]
    part = upstream_of(build(text, w=make_weight(8, 8)), ["c"])
    assert [node.name for node in part.graph.node] == ["a", "c"]


def test_nothing_is_changed_where_nothing_is_switched_on(residual_net, make_samples, static):
    samples = make_samples(1, 8, 40)
    plan, mode, ranges = static(residual_net, samples)
    assert rewrite(residual_net, plan, Algorithms(), samples) is residual_net
    assert fit(residual_net, plan, with_algorithms(mode, Algorithms()), ranges, samples) is residual_net


def test_all_of_them_together_bring_the_output_nearer(residual_net, make_samples, static, run, quantized):
    samples = make_samples(1, 8, 200)
    others = make_samples(1, 8, 200, seed=99)
    every = Algorithms(
        fold_batch_norm=True, cross_layer_equalization=True, smooth_quant=True, rounding=True, bias_correction=True
    )
    errors = []
    for algorithms in (Algorithms(), every):
        plan, mode, _ = static(residual_net, samples)
        model = rewrite(residual_net, plan, algorithms, samples)
        plan, mode, ranges = static(model, samples)
        model = fit(model, plan, with_algorithms(mode, algorithms), ranges, samples)
        pairs = zip(run(residual_net, others), run(quantized(model, plan, mode, ranges), others), strict=True)
        errors.append(np.mean([np.mean((a[0] - b[0]) ** 2) for a, b in pairs]))
    assert errors[1] < 0.5 * errors[0]
