"""Large constants of whole numbers lie in a file in the smallest type that holds them, and mean the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.graph.session import infer, open_session
from pipeline.quantize.small_integers import store_integers
from pipeline.sample import Sample

X = {"x": np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)}
GATHER = "g (float[1000, 3] x) => (float[k, 3] y) { y = Gather <axis = 0> (x, rows) }"


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(0, 255, TensorProto.UINT8), (-128, 100, TensorProto.INT8), (0, 999, TensorProto.UINT16)]
)
def test_indices_are_stored_in_as_few_bytes_as_hold_them(build, tmp_path, low, high, kind):
    model = build(GATHER, rows=np.linspace(low, high, 500).astype(np.int64))
    before = infer(open_session(model), Sample("s", X))["y"]
    store_integers(model)
    onnx.checker.check_model(model, full_check=True)
    assert [tensor.data_type for tensor in model.graph.initializer] == [kind]
    assert np.array_equal(infer(open_session(model, save_optimized=tmp_path / "loaded.onnx"), Sample("s", X))["y"], before)
    assert [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node] == ["Gather"], "cast once, at load"


@pytest.mark.parametrize("rows", [np.arange(100), np.arange(300) + (1 << 40)], ids=["few values", "values of 41 bits"])
def test_few_values_and_large_ones_stay(build, rows):
    model = build(GATHER, rows=rows.astype(np.int64))
    before = model.SerializeToString()
    store_integers(model)
    assert model.SerializeToString() == before


def test_the_indices_of_a_quantized_model_are_small_and_its_share_of_integer_weights_does_not_count_them(
    build, make_weight, written, settings
):
    text = "g (float[1000, 64] x) => (float[k, 64] y) { r = Gather <axis = 0> (x, rows) [mm] y = MatMul (r, w) }"
    model = build(text, rows=np.arange(1000, dtype=np.int64), w=make_weight(64, 64))
    x = Sample("s", {"x": np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)})
    artifact, graph, _ = written(model, settings("dynamic"), x)
    assert {tensor.name: tensor.data_type for tensor in graph.graph.initializer}["rows_small"] == TensorProto.UINT16
    assert artifact.weights["int8"] > 0.97
    assert "int16" not in artifact.weights
