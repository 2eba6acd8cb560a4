"""A graph above 2 GB is treated as any other; here the limit is a few kilobytes, and every graph is above it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.graph import large_models
from pipeline.graph.large_models import byte_size, is_large, save_with_external_data, without_weights
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.sample import Sample

TEXT = """g (float[n, 16] x) => (float[m, 8] y) {
    [first] a = MatMul (x, w) [second] b = MatMul (a, v) [shape] y = Reshape (b, to) }"""


@pytest.fixture
def model(build, make_weight):
    """Return a graph with two weights of some kilobytes and a shape."""
    return build(TEXT, w=make_weight(16, 32), v=make_weight(32, 8, seed=1), to=np.array([-1, 8]))


@pytest.fixture
def low_limit(monkeypatch):
    """Let every graph with weights be too large to be serialized."""
    monkeypatch.setattr(large_models, "SERIALIZED_LIMIT_BYTES", 1000)


def outputs_of(model_or_path):
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    return infer(open_session(model_or_path), Sample("s", {"x": x}))["y"]


def test_a_copy_without_weights_keeps_their_shapes_and_the_values_of_small_constants(model):
    bare = without_weights(model)
    constants = {tensor.name: tensor for tensor in bare.graph.initializer}
    assert list(constants["w"].dims) == [16, 32]
    assert not constants["w"].raw_data
    assert onnx.numpy_helper.to_array(constants["to"]).tolist() == [-1, 8]
    assert bare.ByteSize() < 1000 < model.ByteSize()
    assert [node.name for node in bare.graph.node] == ["first", "second", "shape"]


def test_shapes_are_inferred_and_weights_stay(model):
    before = model.SerializeToString(deterministic=True)
    shaped = with_shapes(model)
    assert model.SerializeToString(deterministic=True) == before
    expected = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert shaped.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_a_large_graph_is_opened_from_a_file_and_computes_the_same(model, monkeypatch):
    before, expected = model.SerializeToString(deterministic=True), outputs_of(model)
    monkeypatch.setattr(large_models, "SERIALIZED_LIMIT_BYTES", 1000)
    assert is_large(model)
    np.testing.assert_array_equal(outputs_of(model), expected)
    assert model.SerializeToString(deterministic=True) == before


def test_no_file_of_a_large_graph_is_left_behind(model, low_limit, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outputs_of(model)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_stored_as_bytes_are_saved_too(model, tmp_path):
    expected = outputs_of(model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel().tolist()))
    assert not weight.HasField("raw_data")
    path, beside = save_with_external_data(model, tmp_path / "model.onnx")
    assert path.stat().st_size < 1000 <= beside.stat().st_size
    np.testing.assert_array_equal(outputs_of(path), expected)


def test_a_file_of_weights_replaces_one_of_its_name_whatever_the_current_directory_holds(model, tmp_path, monkeypatch):
    """`onnx.save_model` refuses to write, since it looks for the file in the current directory."""
    monkeypatch.chdir(tmp_path)
    expected = outputs_of(model)
    for _ in range(2):
        files = save_with_external_data(model, tmp_path / "model.onnx")
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert files[0].stat().st_mode == files[1].stat().st_mode, "who may read the graph may read its weights"
    np.testing.assert_array_equal(outputs_of(files[0]), expected)


def test_a_model_of_small_constants_gets_no_file_of_weights(tmp_path, build):
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, b) }", b=np.float32(1))
    assert save_with_external_data(model, tmp_path / "model.onnx") == [tmp_path / "model.onnx"]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_large_graph_is_prepared_like_a_small_one(model, source_of, monkeypatch):
    model.opset_import[0].version = 11
    plain = prepare(source_of(model), opset=None, needed_opset=17, preprocess=True).model
    monkeypatch.setattr(large_models, "SERIALIZED_LIMIT_BYTES", 1000)
    large = prepare(source_of(model), opset=None, needed_opset=17, preprocess=True).model
    assert [node.op_type for node in large.graph.node] == [node.op_type for node in plain.graph.node]
    assert large.opset_import[0].version == plain.opset_import[0].version == 17
    np.testing.assert_array_equal(outputs_of(large), outputs_of(plain))


def test_the_size_of_a_large_graph_is_that_of_its_parts(model, monkeypatch):
    size = byte_size(model)
    monkeypatch.setattr(large_models, "SERIALIZED_LIMIT_BYTES", 1000)
    assert byte_size(model) == pytest.approx(size, rel=0.01)
