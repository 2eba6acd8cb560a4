"""The static rewrite: the numbers of ONNX Runtime's quantizer, and what it says of what it cannot do."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from pipeline.config.choices import IntegerType
from pipeline.errors import StageError
from pipeline.graph.session import open_session
from pipeline.quantize.ort_quantizer import quiet
from pipeline.quantize.qdq_placement import PairSettings, place_pairs
from pipeline.quantize.qdq_writer import Ranges, insert_pairs
from pipeline.quantize.target import needs_reduced_range

NET = """g (float[1, 16, 20] x) => (float[1, 16, 20] y) {
  [first] a = Conv <pads = [1, 1]> (x, w0, b0)
  [cut] r = Relu (a)
  [second] c = Conv <pads = [1, 1]> (r, w1, b0)
  [sum] y = Add (c, r)
}"""
TYPES = [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")]


@pytest.fixture
def net(build, make_weight):
    model = build(NET, w0=make_weight(16, 16, 3), w1=make_weight(16, 16, 3, seed=1), b0=make_weight(16, seed=2))
    return onnx.shape_inference.infer_shapes(model)


def ranges_of(model):
    ranges = Ranges({"x": (-3.0, 3.0)})
    for node in model.graph.node:
        ranges[node.output[0]] = (0.0, 4.0) if node.op_type == "Relu" else (-4.0, 5.0)
    return ranges


def by_onnxruntime(model, nodes, settings, ranges):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    kinds = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    types = sorted({node.op_type for node in model.graph.node if node.name in nodes})
    options = {"ActivationSymmetric": settings.symmetric}
    with quiet():
        quantizer = QDQQuantizer(
            copy, settings.per_channel, settings.reduce_range, kinds[settings.weights.name], kinds[settings.activations.name],
            TensorsData(CalibrationMethod.MinMax, data), list(nodes), [], types, options,
        )  # fmt: skip
        quantizer.quantize_model()
    return quantizer.model.model


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("activations", "weights"), TYPES)
def test_the_numbers_are_those_of_onnxruntime(net, activations, weights, symmetric, reduce_range, per_channel):
    settings = PairSettings(IntegerType[activations], IntegerType[weights], per_channel, symmetric, reduce_range)
    nodes = ["first", "cut", "second", "sum"]
    expected = by_onnxruntime(net, nodes, settings, ranges_of(net))
    insert_pairs(net, nodes, settings, ranges_of(net))
    onnx.checker.check_model(net)
    theirs, ours = constants(expected), constants(net)
    shared = {name for name in theirs if name in ours and not name.startswith("b0")}  # a shared bias is copied by them
    assert {"w0_scale", "w0_quantized", "w1_scale", "r_scale", "r_zero_point", "y_scale"} <= shared
    for name in shared - {"a_scale", "a_zero_point"}:
        np.testing.assert_array_equal(ours[name].ravel(), theirs[name].ravel(), err_msg=name)
    x = {"x": np.random.default_rng(0).standard_normal((1, 16, 20)).astype(np.float32)}
    [ours_out], [theirs_out] = open_session(net).run(None, x), open_session(expected).run(None, x)
    np.testing.assert_allclose(ours_out, theirs_out, atol=1.01 * float(ours["y_scale"]))


def test_a_relu_that_nobody_named_goes_into_the_pair(net, kernels_of):
    insert_pairs(net, ["first", "second"], PairSettings(), ranges_of(net))
    assert "Relu" not in {node.op_type for node in net.graph.node}
    assert kernels_of(net)["QLinearConv"] == 2


POOLED = """g (float[1, 16, 20] x) => (float[1, 8] y) {
  [conv] a = Conv <pads = [1, 1]> (x, w0)
  [pool] p = GlobalAveragePool (a)
  [flat] f = Flatten (p)
  [layer] y = Gemm (f, w1)
}"""


def test_what_is_pooled_between_integers_is_pooled_as_integers(build, make_weight, kernels_of):
    model = onnx.shape_inference.infer_shapes(build(POOLED, w0=make_weight(16, 16, 3), w1=make_weight(16, 8)))
    insert_pairs(model, ["conv", "layer"], PairSettings(), ranges_of(model))
    ends = {"QuantizeLinear": 1, "DequantizeLinear": 1}
    assert kernels_of(model) == {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1, **ends}


def test_what_is_pooled_for_a_float_layer_is_pooled_as_floats(build, make_weight):
    model = onnx.shape_inference.infer_shapes(build(POOLED, w0=make_weight(16, 16, 3), w1=make_weight(16, 8)))
    assert set(place_pairs(model, ["conv"], PairSettings()).grids) == {"x", "a"}


def test_float_readers_of_a_float_tensor_keep_it(build, make_weight):
    model = build(
        "g (float[1, 4, 9] x) => (float[1, 4, 9] y, float[1, 4, 9] z) { [conv] y = Conv (x, w) [other] z = Tanh (x) }",
        w=make_weight(4, 4, 1),
    )
    insert_pairs(model, ["conv"], PairSettings(), Ranges({"x": (-1.0, 1.0), "y": (-2.0, 2.0)}))
    assert next(node for node in model.graph.node if node.name == "other").input[0] == "x"


def test_a_bias_that_32_bits_cannot_hold_widens_the_scale_of_its_weights(build):
    weights, bias = np.full((2, 1, 1), 1e-9, np.float32), np.array([1e6, 0.0], np.float32)
    body = "g (float[1, 1, 5] x) => (float[1, 2, 5] y) { [conv] y = Conv (x, w, b) }"
    model = build(body, w=weights, b=bias)
    insert_pairs(model, ["conv"], PairSettings(), Ranges({"x": (-1.0, 1.0), "y": (0.0, 1e6)}))
    made = constants(model)
    np.testing.assert_allclose(made["b_quantized"] * made["b_quantized_scale"].astype(np.float64), bias, rtol=1e-3)


def test_a_name_that_is_taken_is_not_taken_again(build, make_weight):
    model = build(
        "g (float[1, 4, 9] length, float[1] length_scale) => (float[1, 4, 9] y) "
        "{ [scale] s = Mul (length, length_scale) [conv] c = Conv (length, w) [sum] y = Add (c, s) }",
        w=make_weight(4, 4, 1),
    )
    insert_pairs(model, ["conv"], PairSettings(), Ranges({"length": (-1.0, 1.0), "c": (-2.0, 2.0)}))
    onnx.checker.check_model(model)
    open_session(model)


def test_alpha_and_beta_of_a_gemm_go_into_its_constants(build, make_weight):
    body = "g (float[2, 8] x) => (float[2, 4] y) { [gemm] y = Gemm <alpha = 0.5, beta = 3.0, transB = 1> (x, w, b) }"
    model = build(body, w=make_weight(4, 8), b=make_weight(4, seed=1))
    x = {"x": np.random.default_rng(0).uniform(-1, 1, (2, 8)).astype(np.float32)}
    [expected] = open_session(model).run(None, x)
    settings = PairSettings(reduce_range=needs_reduced_range(None, None))  # 8 bits of a weight saturate without VNNI
    insert_pairs(model, ["gemm"], settings, Ranges({"x": (-1.0, 1.0), "y": (expected.min(), expected.max())}))
    [found] = open_session(model).run(None, x)
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_what_cannot_be_quantized_is_said_and_nothing_changes(build, make_weight):
    model = build("g (float[2, 8] x, float[8, 4] w) => (float[2, 4] y) { [gemm] y = Gemm (x, w) }")
    before = model.SerializeToString()
    with pytest.raises(StageError, match="gemm: its weight is not a constant"):
        insert_pairs(model, ["gemm"], PairSettings(), Ranges({}))
    with pytest.raises(StageError, match="nobody: the graph has no such node"):
        insert_pairs(model, ["nobody"], PairSettings(), Ranges({}))
    assert model.SerializeToString() == before
    assert place_pairs(model, ["gemm"], PairSettings()).skipped == {"gemm": "its weight is not a constant"}


def test_a_missing_range_is_said(net):
    with pytest.raises(StageError, match="no range of the tensor 'x'"):
        insert_pairs(net, ["first"], PairSettings(), Ranges({"r": (0.0, 1.0)}))
