"""The rewrite with dynamic ranges: the numbers of ONNX Runtime's quantizer, fused as its graphs are."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from pipeline.config.choices import IntegerType
from pipeline.errors import StageError
from pipeline.graph.session import open_session
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, quantize_with_dynamic_ops
from pipeline.quantize.target import needs_reduced_range

PRODUCTS = "g (float[3, 16] x) => (float[3, 8] y) { [one] a = MatMul (x, u) [two] b = MatMul (x, v) [sum] y = Add (a, b) }"
CONV = "g (float[1, 8, 20] x) => (float[1, 4, 20] y) { [conv] y = Conv <pads = [1, 1]> (x, w, b) }"
# As `mode=dynamic` writes them for this processor: without VNNI the sum of two products of 8 bits would saturate.
WRITTEN_HERE = DynamicOpsSettings(reduce_range=needs_reduced_range(None, None))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("op_type", ["MatMul", "Conv"])
def test_outputs_and_kernels_are_those_of_onnxruntime(build, make_weight, kernels_of, op_type, reduce_range, per_channel):
    if op_type == "MatMul":
        model, shape = build(PRODUCTS, u=make_weight(16, 8), v=make_weight(16, 8, seed=1)), (3, 16)
        kind, theirs = IntegerType.int8, QuantType.QInt8
    else:
        model, shape = build(CONV, w=make_weight(4, 8, 3), b=make_weight(4)), (1, 8, 20)
        kind, theirs = IntegerType.uint8, QuantType.QUInt8
    model = onnx.shape_inference.infer_shapes(model)
    nodes = [node.name for node in model.graph.node if node.op_type == op_type]
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    columns = per_channel and op_type == "MatMul"
    mode = QuantizationMode.IntegerOps
    quantizer = ONNXQuantizer(
        copy, columns, reduce_range, mode, False, theirs, QuantType.QUInt8, None, nodes, [], [op_type], {}
    )
    quantizer.quantize_model()
    expected = quantizer.model.model
    quantize_with_dynamic_ops(model, nodes, DynamicOpsSettings({op_type: kind}, per_channel, reduce_range))
    onnx.checker.check_model(model)
    x = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    np.testing.assert_allclose(
        open_session(model).run(None, x)[0], open_session(expected).run(None, x)[0], rtol=1e-6, atol=1e-6
    )
    assert kernels_of(model) == kernels_of(expected)


@pytest.mark.parametrize("weight_shape", [(2, 16, 8), (16,)])
def test_weights_of_other_ranks_run(build, make_weight, weight_shape):
    model = build(
        "g (float[2, 3, 16] x) => (float[*] y) { [one] y = MatMul (x, u) }".replace(
            "[*]", "[a, b]" if len(weight_shape) == 1 else "[a, b, c]"
        ),
        u=make_weight(*weight_shape),
    )
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 16)).astype(np.float32)}
    [expected] = open_session(model).run(None, x)
    quantize_with_dynamic_ops(model, ["one"], WRITTEN_HERE)
    np.testing.assert_allclose(open_session(model).run(None, x)[0], expected, atol=0.03 * np.abs(expected).max())


def test_gemm_becomes_integer(build, make_weight):
    body = "g (float[2, 8] x) => (float[2, 4] y) { [gemm] y = Gemm <alpha = 0.5, beta = 3.0, transB = 1> (x, w, b) }"
    model = build(body, w=make_weight(4, 8), b=make_weight(4, seed=1))
    x = {"x": np.random.default_rng(0).uniform(-1, 1, (2, 8)).astype(np.float32)}
    [expected] = open_session(model).run(None, x)
    quantize_with_dynamic_ops(model, ["gemm"], WRITTEN_HERE)
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(open_session(model).run(None, x)[0], expected, atol=0.03 * np.abs(expected).max())


def test_what_has_no_operator_is_said(build):
    model = build("g (float[2, 8] x, float[8, 4] w) => (float[2, 4] y) { [one] y = MatMul (x, w) }")
    with pytest.raises(StageError, match="one: its weight is not a constant"):
        quantize_with_dynamic_ops(model, ["one"], DynamicOpsSettings())
