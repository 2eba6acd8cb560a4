"""In half precision a graph computes nearly the same, also where its values are sequences, or numbers of Constant nodes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.session import infer, open_session
from pipeline.graph.value_info import type_name
from pipeline.sample import Sample
from tests.quantize.test_written_files import sample, value


@pytest.mark.parametrize("keep", [True, False])
def test_sequences_and_values_that_may_be_missing_stay_float_in_half_precision(written, settings, make_weight, keep):
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "v"], ["step"], name="in_body"),
            helper.make_node("SequenceInsert", ["held", "step"], ["longer"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL),
         helper.make_tensor_sequence_value_info("held", TensorProto.FLOAT, None)],
        [value("on", [], TensorProto.BOOL), helper.make_tensor_sequence_value_info("longer", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"),
        helper.make_node("SplitToSequence", ["h", "one"], ["parts"], axis=0),
        helper.make_node("Identity", ["parts"], ["passed"], name="passes"),
        helper.make_node("Loop", ["count", "", "passed"], ["all"], body=body),
        helper.make_node("SequenceAt", ["all", "last"], ["end"]),
        helper.make_node("MatMul", ["end", "v"], ["y"], name="behind"),
        helper.make_node("Optional", ["h"], ["perhaps"]),
    ]
    perhaps = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 64]))
    constants = {"w": make_weight(64, 64), "v": make_weight(64, 64, seed=1), "one": 1, "count": 2, "last": -1}
    outputs = [
        helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None), value("y", ["n", 64]),
        helper.make_value_info("perhaps", perhaps),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [value("x", ["n", 64])], outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    given = sample(x=(3, 64))
    before = infer(open_session(model), given)
    artifact, half, _ = written(model, settings("fp16", keep_io_types=keep, preprocess=False), given)
    assert [type_name(output.type) for output in half.graph.output][::2] == ["seq(float32)", "optional(float32)"]
    after = infer(open_session(artifact.path), Sample("a", {"x": given.inputs["x"].astype("float32" if keep else "float16")}))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, atol=0.02, err_msg=name)
    assert {"mm", "behind", "in_body"} <= artifact.quantized_nodes.keys()
    assert "may be missing" in {kept.node: kept.reason for kept in artifact.kept}["passes"]


def test_numbers_that_constant_nodes_hold_are_halved_too(written, settings, build, make_weight):
    text = """g (float[n, 64] x) => (float[n, 64] y) {
        half = Constant <value_float = 0.5> () two = Constant <value_floats = [2.0]> ()
        [mm] a = MatMul (x, w) b = Mul (a, half) y = Mul (b, two)
    }"""
    given = sample(x=(3, 64))
    artifact, _, _ = written(build(text, w=make_weight(64, 64)), settings("fp16", preprocess=False), given)
    expected = given.inputs["x"] @ make_weight(64, 64)
    np.testing.assert_allclose(infer(open_session(artifact.path), given)["y"], expected, atol=0.02)
