"""A node that stays float between integer neighbours is float when it runs."""

import dataclasses

import numpy as np
import onnx
import pytest

from pipeline.config.choices import IntegerType
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.quantize.ort_fusion_guard import keep_float
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.static import quantize_static, tensors_to_calibrate
from pipeline.stages.quantize import quantize
from tests.quantize.test_modes import sample_of

BLOCK = """block (float[1, 16, frames] x) => (float[1, 16, frames] y) {
    [before] a = Conv <pads = [1, 1]> (x, wa)
    [between] b = Conv <pads = [1, 1], group = 16> (a, wb)
    [cut] c = Relu (b)
    [after] y = Conv <pads = [1, 1]> (c, wc)
}"""


@pytest.fixture
def block(source_of, build, make_weight):
    """Return a graph whose middle Conv has channels of very different size, prepared, and its source."""
    loud = make_weight(16, 1, 3) * np.logspace(0, -3, 16, dtype=np.float32).reshape(-1, 1, 1)
    rest = make_weight(16, 16, 3) * np.logspace(0, 3, 16, dtype=np.float32).reshape(1, -1, 1)
    source = source_of(build(BLOCK, wa=make_weight(16, 16, 3), wb=loud, wc=rest))
    return source, prepare(source, opset=None, needed_opset=13, preprocess=True).model


def quantized_around(block, settings):
    _, model = block
    mode = dataclasses.replace(settings("static"), min_channels=1)
    plan = Plan({"before": Precision.static_int8, "after": Precision.static_int8})
    tensors = tensors_to_calibrate(model, plan, mode)
    ranges = measured_ranges(model, [sample_of(model)], tensors, mode, threads=1, seed=0, on_sample=lambda _: None)
    return quantize_static(model, plan, mode, ranges)


def test_onnxruntime_leaves_a_float_conv_between_integers_as_it_is(block, settings, tmp_path):
    """It would quantize the weights of `between` by itself, with one scale for all channels."""
    quantized = quantized_around(block, settings)
    optimized = tmp_path / "optimized.onnx"
    open_session(quantized, save_optimized=optimized)
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert kinds.count("QLinearConv") == 2, "a Conv that nobody asked for has become integer"


def test_what_runs_is_what_the_graph_says(block, settings):
    quantized, sample = quantized_around(block, settings), sample_of(block[0].model)
    as_written = infer(open_session(quantized, without=["WeightBiasQuantization"]), sample)["y"]
    as_run = infer(open_session(quantized), sample)["y"]
    np.testing.assert_allclose(as_run, as_written, atol=1e-3 * np.abs(as_written).max())


def test_a_graph_without_such_a_node_stays_as_it_is(conv_net):
    model = conv_net()
    before = model.SerializeToString()
    assert keep_float(model) == 0
    assert model.SerializeToString() == before


PRODUCTS = """products (float[frames, 64] x) => (float[frames, 64] y) {
    [product] a = MatMul (x, wa)
    [layer] y = Gemm (a, wb, bias)
}"""


@pytest.fixture
def in_16_bits(source_of, build, make_weight, settings, run_directory):
    """Return a function: a type of weights -> the artifact of a net whose activations have 16 bits, and its graph."""
    net = build(PRODUCTS, wa=make_weight(64, 96), wb=make_weight(96, 64), bias=make_weight(64))
    source, data = source_of(net), {"model": [sample_of(net)]}

    def make(weights):
        mode = settings(
            "static", activation_type=IntegerType.int16, weight_type=weights, dynamic_op_types=[], weight_only_op_types=[]
        )
        artifact = quantize({"model": source}, mode, data, data, run_directory).artifacts["model"]
        return artifact, onnx.load(artifact.path)

    return make


@pytest.mark.parametrize("weights", [IntegerType.int8, IntegerType.uint8, IntegerType.int4])
def test_activations_of_16_bits_are_multiplied_with_16_bits(in_16_bits, weights):
    """ONNX Runtime 1.32 rounds them to 8 bits: 45 dB, where these are worth 80 to 90."""
    _, model = in_16_bits(weights)
    sample = sample_of(model)
    as_written = infer(open_session(model, optimization="none"), sample)["y"]
    as_run = infer(open_session(model), sample)["y"]
    np.testing.assert_allclose(as_run, as_written, atol=1e-4 * np.abs(as_written).max())


def test_products_that_are_kept_from_8_bits_are_called_what_they_are(in_16_bits):
    artifact, model = in_16_bits(IntegerType.int8)
    assert [node.op_type for node in model.graph.node].count("Clip") == 2
    assert set(artifact.quantized_nodes.values()) == {"int8 weight, int16 activations, static ranges"}
