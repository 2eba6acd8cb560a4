"""What a node reads: its inputs, and what its bodies take from the graphs around them."""

import numpy as np
import onnx
import pytest
from onnx import parser

from pipeline.graph.subgraph_scopes import drop_unread, input_tensors, outer_scope_inputs

NESTED = """<ir_version: 8, opset_import: ["": 17]> outer (bool c, float[2] x, float[2] z) => (float[2] y) {
    made = Neg (x)
    y = If (c) <
        then_branch = one () => (float[2] a) { t = Add (made, w) a = Mul (t, t) },
        else_branch = two () => (float[2] z) {
            b = If (c) <
                then_branch = three () => (float[2] d) { d = Identity (x) },
                else_branch = four () => (float[2] e) { e = Identity (v) }
            >
            f = Neg (b)
        }
    >
}"""


@pytest.fixture
def nested():
    model = parser.parse_model(NESTED)
    for name in ("w", "v", "u"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), name))
    return model


def test_bodies_take_what_they_do_not_make_themselves_however_deep_they_lie(nested):
    [choice] = [node for node in nested.graph.node if node.op_type == "If"]
    assert outer_scope_inputs(choice) == {"made", "w", "c", "x", "v", "z"}  # z is what the second body passes on
    assert set(input_tensors(choice)) == outer_scope_inputs(choice) | {"c"}
    assert not outer_scope_inputs(nested.graph.node[0])


def test_constants_that_only_a_body_reads_are_kept(nested):
    drop_unread(nested.graph, {"w", "v", "u"})
    assert [tensor.name for tensor in nested.graph.initializer] == ["w", "v"]
