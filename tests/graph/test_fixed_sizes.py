"""A graph for a batch of one: what follows from sizes is constant, and what it gives is what it gave."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.graph.fixed_sizes import with_sizes
from pipeline.graph.session import open_session
from tests.streaming_graphs import write_streaming


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return onnx.load(write_streaming(tmp_path_factory.mktemp("fixed")) / "encoder.onnx")


def outputs_of(model, seed=4):
    session, rng, feeds = open_session(model), np.random.default_rng(seed), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feeds[value.name] = np.array([16]) if "int64" in value.type else rng.standard_normal(shape).astype(np.float32)
    return session.run(None, feeds)


def test_a_streaming_encoder_of_one_recording_computes_no_shapes_and_gives_the_same(encoder):
    fixed = with_sizes(encoder, {"N": 1}, "encoder.onnx")
    onnx.checker.check_model(fixed, full_check=True)
    for before, after in zip(outputs_of(encoder), outputs_of(fixed), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)
    kinds = [{node.op_type for node in model.graph.node} for model in (encoder, fixed)]
    assert {"Shape", "ConstantOfShape", "Range", "Identity"} <= kinds[0]
    assert not {"Shape", "ConstantOfShape", "Range", "Identity"} & kinds[1]
    counts = [sum(node.op_type != "Constant" for node in model.graph.node) for model in (encoder, fixed)]
    assert counts[1] < 0.6 * counts[0]
    assert fixed.ByteSize() < encoder.ByteSize()
    assert [axis.dim_value for axis in fixed.graph.input[0].type.tensor_type.shape.dim] == [1, 45, 80]


def test_the_graph_that_was_given_stays_as_it_is_and_one_without_the_axis_comes_out_as_it_was(encoder):
    content = encoder.SerializeToString()
    assert with_sizes(encoder, {"batch": 1}, "encoder.onnx").SerializeToString() == content
    with_sizes(encoder, {"N": 1}, "encoder.onnx")
    assert encoder.SerializeToString() == content


def test_a_large_constant_stays_computed_and_one_of_equal_numbers_is_written_as_one(build):
    text = """g (float[N, 64] x) => (float[N, 64] y, float[400, 400] t) {
        size = Shape (x)
        zeros = ConstantOfShape (size)
        y = Max (x, zeros)
        r = Range (from, to, by)
        c = Unsqueeze (r, last)
        t = Add (r, c)
    }"""
    model = build(text, **{
        "from": np.float32(0), "to": np.float32(400), "by": np.float32(1), "last": np.array([1]),
    })  # fmt: skip
    fixed = with_sizes(model, {"N": 1}, "g.onnx")
    assert [node.op_type for node in fixed.graph.node] == ["Max", "Add"]
    sizes = {tensor.name: numpy_helper.to_array(tensor).size for tensor in fixed.graph.initializer}
    assert sizes == {"zeros": 1, "r": 400, "c": 400}
