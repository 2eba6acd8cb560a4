"""Integer operators that ONNX Runtime's quantizer writes: right, or the node stays with the reason; never an exception."""

import numpy as np
import onnx
import pytest

from pipeline.config.choices import Format, IntegerType
from pipeline.errors import StageError
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.quantize.ort_quantizer import IntegerOperators, with_integer_operators
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

X = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)


def sqnr_db(before, after, inputs):
    a, b = (infer(open_session(each), Sample("s", inputs))["y"] for each in (before, after))
    return 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum())


def settings_for(**ranges):
    return IntegerOperators(IntegerType.int8, IntegerType.uint8, ranges, per_channel=True, reduce_range=True, options={})


def gemm(build, make_weight, bias, attributes):
    constants = {} if bias is None else {"b": np.random.default_rng(1).standard_normal(bias).astype(np.float32)}
    inputs = "x, w" if bias is None else "x, w, b"
    text = f"g (float[5, 16] x) => (float[5, 24] y) {{ [gemm] y = Gemm <transB = 1{attributes}> ({inputs}) }}"
    return with_shapes(build(text, w=make_weight(24, 16), **constants))


@pytest.mark.parametrize("attributes", ["", ", alpha = 0.5", ", beta = 2.0", ", alpha = 0.5, beta = 2.0"])
@pytest.mark.parametrize("bias", [None, (24,), (1, 24), (), (1,), (1, 1)])
def test_a_gemm_becomes_a_qgemm_whatever_its_factors_and_the_shape_of_its_bias(build, make_weight, bias, attributes):
    model = gemm(build, make_weight, bias, attributes)
    y = infer(open_session(model), Sample("s", {"x": X}))["y"]
    ranges = {"x": (X.min(), X.max()), "y": (y.min(), y.max())}
    quantized, left = with_integer_operators(model, ["gemm"], settings_for(**ranges))
    assert not left
    assert "QGemm" in {node.op_type for node in quantized.graph.node}
    assert sqnr_db(model, quantized, {"x": X}) > 30


@pytest.mark.parametrize("bias", [(5, 1), (5, 24)])
def test_a_gemm_whose_bias_is_no_vector_stays_with_the_reason_and_others_are_quantized(build, make_weight, bias):
    model = with_shapes(
        build(
            """g (float[5, 16] x) => (float[5, 24] y) {
                [other] h = Gemm (x, v)
                [gemm] y = Gemm (h, w, b)
            }""",
            v=make_weight(16, 16),
            w=make_weight(16, 24),
            b=make_weight(*bias),
        )
    )
    quantized, left = with_integer_operators(model, ["other", "gemm"], settings_for(x=(-4, 4), h=(-8, 8), y=(-20, 20)))
    assert list(left) == ["gemm"]
    assert "fails at it" in left["gemm"]
    assert {node.op_type for node in quantized.graph.node} >= {"QGemm", "Gemm"}


def test_a_conv_whose_bias_is_left_out_by_an_empty_name_is_quantized(build, make_weight):
    model = build(
        "g (float[1, 8, n] x) => (float[1, 8, n] y) { [conv] y = Conv <pads = [1, 1]> (x, w) }", w=make_weight(8, 8, 3)
    )
    model.graph.node[0].input.append("")
    quantized, left = with_integer_operators(with_shapes(model), ["conv"], settings_for(x=(-4, 4), y=(-6, 6)))
    assert not left
    assert "QLinearConv" in {node.op_type for node in quantized.graph.node}


BRANCHED = """g (float[1, 8, n] x, bool c) => (float[1, 8, n] y) {
    [conv] a = Conv <pads = [1, 1]> (x, w)
    y = If (c) <then_branch = t () => (float[1, 8, n] p) { p = Relu (a) },
                else_branch = e () => (float[1, 8, n] q) { q = Tanh (a) }>
}"""


def test_a_layer_that_a_branch_reads_is_an_error_of_one_line_that_names_the_format_that_works(
    build, make_weight, source_of, run_directory, settings
):
    source = source_of(build(BRANCHED, w=make_weight(8, 8, 3)))
    samples = {"model": [Sample("s", {"x": np.ones((1, 8, 20), np.float32), "c": np.array(True)})]}
    with pytest.raises(StageError, match=r"mode\.format=qoperator: no node can.*mode\.format=qdq"):
        quantize(
            {"model": source}, settings("static", format=Format.qoperator, min_channels=1), samples, samples, run_directory
        )
    made = quantize({"model": source}, settings("static", min_channels=1), samples, samples, run_directory)
    assert "conv" in made.artifacts["model"].quantized_nodes


def test_onnx_attention_stays_float_with_the_reason_since_onnx_runtime_quantizes_another_one(
    build, make_weight, source_of, run_directory, settings
):
    text = """g (float[1, n, 32] x) => (float[1, n, 32] y) {
        [q] q = MatMul (x, w)
        [attention] y = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)
    }"""
    weights = {name: make_weight(1, 12, 32, seed=seed) for seed, name in enumerate("kv")}
    source = source_of(build(text, 23, 11, w=make_weight(32, 32), **weights))
    samples = {"model": [Sample("s", {"x": np.ones((1, 12, 32), np.float32)})]}
    mode = settings("dynamic", op_types=["Attention", "MatMul"])
    artifact = quantize({"model": source}, mode, samples, samples, run_directory).artifacts["model"]
    assert set(artifact.quantized_nodes) == {"q"}
    assert [kept.node for kept in artifact.kept] == ["attention"]
    assert "ONNX's Attention" in artifact.kept[0].reason
    assert onnx.load(artifact.path).graph.node[-1].op_type == "Attention"
