"""Products of integers with scales from calibration: those of dynamic scales, where extremes are the same."""

import numpy as np
import onnx
import pytest

from pipeline.graph.session import open_session
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, quantize_with_dynamic_ops
from pipeline.quantize.static_matmul_scales import fix_scales, nodes_with_fixed_scales, tensors_with_scales_at_run_time
from pipeline.quantize.target import needs_reduced_range

LAYERS = """g (float[n, 16] x, float[n, 8] z) => (float[n, 8] y, float[n, 8] w) {
    [one] a = MatMul (x, u) [bias] b = Add (a, shift) [two] c = MatMul (x, v) [sum] y = Add (b, c) [other] d = MatMul (z, s)
    [uneven] w = Add (d, z)
}"""


@pytest.fixture
def layers(build, make_weight):
    shift = np.random.default_rng(1).standard_normal(8).astype(np.float32)
    weights = {"u": make_weight(16, 8), "v": make_weight(16, 8, seed=1), "s": make_weight(8, 8)}
    model = onnx.shape_inference.infer_shapes(build(LAYERS, shift=shift, **weights))
    # Weights as the modes write them for this processor: 8 bits saturate without VNNI, by other amounts at each scale.
    settings = DynamicOpsSettings(reduce_range=needs_reduced_range(None, None))
    quantize_with_dynamic_ops(model, ["one", "two", "other"], settings)
    return model


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((5, size)).astype(np.float32) for name, size in (("x", 16), ("z", 8))}


def outputs_of(model, inputs):
    return open_session(model).run(None, inputs)


def test_with_the_extremes_of_a_sample_its_outputs_are_the_same(layers, inputs):
    assert tensors_with_scales_at_run_time(layers) == ["x", "z"]
    ranges = {name: (float(array.min()), float(array.max())) for name, array in inputs.items()}
    fixed = fix_scales(layers, ranges)
    onnx.checker.check_model(fixed)
    kinds = [node.op_type for node in fixed.graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("QuantizeLinear"), kinds.count("Add")) == (3, 2, 2)
    assert not {"DynamicQuantizeLinear", "Cast", "Mul"} & set(kinds)
    for found, expected in zip(outputs_of(fixed, inputs), outputs_of(layers, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_has_no_range_keeps_its_scale_at_run_time(layers, inputs):
    fixed = fix_scales(layers, {"x": (-4.0, 4.0)})
    assert tensors_with_scales_at_run_time(fixed) == ["z"]
    assert nodes_with_fixed_scales(fixed) == {"one", "two"}
    for found, expected in zip(outputs_of(fixed, inputs), outputs_of(layers, inputs), strict=True):
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_values_beyond_a_range_are_clipped(layers, inputs):
    fixed = fix_scales(layers, {"x": (-1.0, 1.0)})
    clipped = inputs | {"x": np.clip(inputs["x"], -1, 1)}
    for found, expected in zip(outputs_of(fixed, inputs), outputs_of(layers, clipped), strict=True):
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_convolution_with_a_scale_at_run_time_stays_as_it_is(build, make_weight):
    model = onnx.shape_inference.infer_shapes(
        build("g (float[1, 4, t] x) => (float[1, 4, t] y) { [conv] y = Conv (x, w) }", w=make_weight(4, 4, 1))
    )
    quantize_with_dynamic_ops(model, ["conv"], DynamicOpsSettings())
    fixed = fix_scales(model, {"x": (-1.0, 1.0)})
    assert [node.op_type for node in fixed.graph.node] == [node.op_type for node in model.graph.node]
