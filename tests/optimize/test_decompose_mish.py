"""tanh(softplus(x)) by one sigmoid."""

import numpy as np
from small_graphs import changed, difference, graph_of, op_types

from pipeline.graph.session import infer, open_session
from pipeline.optimize.rules import decompose_mish
from pipeline.sample import Sample

MISH = "(float[n] x) => (float[n] y) { s = Softplus(x) t = Tanh(s) y = Mul(x, t) }"


def test_mish_is_replaced_at_its_only_place():
    before = graph_of(MISH)
    sites, after = changed(before, decompose_mish.rewrite)
    assert sites == 1
    assert "Softplus" not in op_types(after)
    assert difference(before, after, x=np.linspace(-30, 30, 999, dtype=np.float32)) < 1e-6


def test_nothing_overflows():
    _, after = changed(graph_of("(float[n] x) => (float[n] y) { s = Softplus(x) y = Tanh(s) }"), decompose_mish.rewrite)
    x = np.array([-1e30, -80, -12, -1, 0, 12, 88, 1e30], np.float32)
    truth = np.tanh(np.log1p(np.exp(np.minimum(x, 100.0).astype(np.float64))))
    found = infer(open_session(after), Sample("x", {"x": x}))["y"]
    np.testing.assert_allclose(found, truth, atol=1e-7)  # the error of ONNX Runtime's Sigmoid is 4e-8


def test_a_softplus_that_others_read_stays():
    text = "(float[n] x) => (float[n] y, float[n] z) { s = Softplus(x) y = Tanh(s) z = Neg(s) }"
    sites, after = changed(graph_of(text), decompose_mish.rewrite)
    assert sites == 1
    assert op_types(after).count("Softplus") == 1


def test_a_tanh_of_something_else_is_left_alone():
    before = graph_of("(float[n] x) => (float[n] y) { s = Relu(x) t = Tanh(s) y = Mul(x, t) }")
    assert changed(before, decompose_mish.rewrite)[0] == "no Tanh of a Softplus"
