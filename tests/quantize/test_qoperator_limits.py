"""`mode.format=qoperator`: what ONNX Runtime's quantizer gets wrong stays float with the reason, and the rest is as good."""

import numpy as np
import onnx
import pytest

from pipeline.config.choices import Format
from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

RNG = np.random.default_rng(0)


@pytest.fixture
def quantized(build, source_of, run_directory, settings):
    """Return a function that quantizes a graph with integer operators wherever they exist: the artifact and its SQNR in dB."""

    def run(text, x, opset=17, **weights):
        model = build(text, opset, 8, **weights)
        samples = [Sample(f"s{number}", {"x": x * factor}) for number, factor in enumerate((1.0, 0.9, 0.8))]
        mode = settings(
            "static", format=Format.qoperator, op_types=["all"], dynamic_op_types=[], weight_only_op_types=[], min_channels=1
        )
        source, data = source_of(model), {"model": samples}
        artifact = quantize({"model": source}, mode, data, data, run_directory).artifacts["model"]
        onnx.checker.check_model(str(artifact.path), full_check=True)
        before, after = (infer(open_session(path), samples[0]) for path in (source.path, artifact.path))
        assert list(before) == list(after)
        return artifact, {name: sqnr_db(before[name], after[name]) for name in before}

    return run


def sqnr_db(reference, test):
    return float(10 * np.log10((reference**2).sum() / (((reference - test) ** 2).sum() + 1e-30)))


def sound(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def reasons(artifact):
    return {kept.node: kept.reason for kept in artifact.kept}


@pytest.mark.parametrize("bias", [(5, 1), (5, 24)])
def test_a_gemm_with_a_bias_per_row_stays_float_for_the_reason_that_qdq_gives(quantized, make_weight, bias):
    artifact, sqnr = quantized(
        "g (float[5, 16] x) => (float[5, 24] y) { [first] h = Gemm (x, v)  [gemm] y = Gemm <beta = 0.3> (h, w, b) }",
        sound(5, 16), v=make_weight(16, 16), w=make_weight(16, 24), b=make_weight(*bias),
    )  # fmt: skip
    assert reasons(artifact) == {"gemm": "its bias is not a vector"}
    assert list(artifact.quantized_nodes) == ["first"]
    assert sqnr["y"] > 30


def test_a_relu_leaves_what_others_read_of_its_input(quantized, make_weight):
    artifact, sqnr = quantized(
        "g (float[4, 16] x) => (float[4, 16] h, float[4, 8] y) { h = MatMul (x, w) [relu] r = Relu (h) [m] y = MatMul (r, v) }",
        sound(4, 16), w=make_weight(16, 16), v=make_weight(16, 8),
    )  # fmt: skip
    assert "without this Relu" in reasons(artifact)["relu"]
    assert min(sqnr.values()) > 28  # 3 dB, where h is cut at zero


def test_a_relu_beside_another_reader_still_cuts(quantized, make_weight):
    _, sqnr = quantized(
        "g (float[4, 16] x) => (float[4, 16] y) { [mm] h = MatMul (x, w) [relu] r = Relu (h) [add] y = Add (r, h) }",
        sound(4, 16), w=make_weight(16, 16),
    )  # fmt: skip
    assert sqnr["y"] > 28  # 9 dB, where the Relu is left out


def test_a_clip_whose_limits_are_not_those_of_a_range_still_cuts(quantized, make_weight):
    artifact, sqnr = quantized(
        "g (float[4, 16] x) => (float[4, 8] y) { [mm] h = MatMul (x, w) [clip] c = Clip (h, lo, hi) [mm2] y = MatMul (c, v) }",
        sound(4, 16), w=make_weight(16, 16), v=make_weight(16, 8), lo=np.float32(0.5), hi=np.float32(2.0),
    )  # fmt: skip
    assert "limits" in reasons(artifact)["clip"]
    assert sqnr["y"] > 28


def test_softmax_over_many_frames_gets_its_measured_range(quantized, make_weight):
    artifact, sqnr = quantized(
        "g (float[4, 32] x) => (float[4, 400] y) { [mm] h = MatMul (x, w) [softmax] y = Softmax (h) }",
        sound(4, 32), w=make_weight(32, 400),
    )  # fmt: skip
    assert "softmax" in artifact.quantized_nodes
    assert sqnr["y"] > 25  # 5 dB with the range from 0 to 1


def test_a_weight_of_three_axes_stays_float_where_each_channel_would_get_a_scale(quantized, make_weight):
    artifact, sqnr = quantized(
        "g (float[2, 5, 16] x) => (float[2, 5, 16] y) { [mm] h = MatMul (x, w) [batched] y = MatMul (h, v) }",
        sound(2, 5, 16), w=make_weight(16, 16), v=make_weight(2, 16, 16),
    )  # fmt: skip
    assert "mode.per_channel=false" in reasons(artifact)["batched"]
    assert sqnr["y"] > 30


def test_what_is_computed_from_constants_alone_stays_as_it_is(quantized, make_weight):
    artifact, sqnr = quantized(
        """g (float[4, 16] x) => (float[4, 64] y, float[64, 16] e) {
            [mm] h = MatMul (x, w)
            [turn] t = Transpose <perm = [1, 0]> (table)
            [head] y = MatMul (h, t)
            [same] e = Mul (table, one)
        }""",
        sound(4, 16), w=make_weight(16, 16), table=make_weight(64, 16), one=np.float32(1),
    )  # fmt: skip
    assert "mm" in artifact.quantized_nodes
    assert sqnr["y"] > 30


def test_names_that_the_quantizer_makes_itself_do_not_clash(quantized, make_weight):
    artifact, sqnr = quantized(
        """g (float[1, 32, n] x) => (float[1, n, 64] v_scale, float[1, n, 64] y) {
            [conv] x_quantized = Conv <pads = [1, 1]> (x, w)
            [x_QuantizeLinear] w_quantized = Transpose <perm = [0, 2, 1]> (x_quantized)
            [mm] v_scale = MatMul (w_quantized, v)
            [mm_quant] x_scale = MatMul (v_scale, v2)
            [add] y = Add (x_scale, v_zero_point)
        }""",
        sound(1, 32, 40), w=make_weight(32, 32, 3), v=make_weight(32, 64), v2=make_weight(64, 64), v_zero_point=make_weight(64),
    )  # fmt: skip
    assert {"conv", "mm", "mm_quant", "add"} <= artifact.quantized_nodes.keys()
    assert min(sqnr.values()) > 25


def test_a_bias_that_two_layers_read_and_that_is_an_output_keeps_its_values(quantized, make_weight):
    artifact, sqnr = quantized(
        """g (float[1, 16, n] x) => (float[1, 16, n] y, float[16] b) {
            [first] h = Conv (x, w, b) [second] y = Conv (h, v, b)
        }""",
        sound(1, 16, 20), w=make_weight(16, 16, 1), v=make_weight(16, 16, 1, seed=1), b=make_weight(16, 1)[:, 0],
    )  # fmt: skip
    assert list(artifact.quantized_nodes) == ["first", "second"]
    assert sqnr["y"] > 30
    assert sqnr["b"] > 200, "nothing has changed"
