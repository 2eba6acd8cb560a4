"""What exporters write around attention: shapes asked for anew, masks, Convs of one tap between products."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.graph.session import infer, open_session
from pipeline.optimize.rules import conv1x1_to_matmul, deduplicate_shape_ops, where_to_arithmetic
from pipeline.sample import Sample

CONVOLUTION = """(float[n,t,8] x, bool[n,1,t] padding) => (float[n,t,8] y) {
    a = Transpose<perm = [0, 2, 1]>(x)      b = Conv(a, w1, bias)
    left, right = Split<axis = 1>(b)        gate = Sigmoid(right)
    c = Mul(left, gate)                     d = Where(padding, zero, c)
    e = Conv<group = 8, pads = [2, 2]>(d, deep)
    f = Sigmoid(e)                          g = Mul(e, f)
    h = Conv(g, w2)                         i = Transpose<perm = [0, 2, 1]>(h)
    y = Add(i, x)
}"""


def convolution(rng):
    return graph_of(
        CONVOLUTION,
        w1=rng.standard_normal((16, 8, 1), dtype=np.float32),
        bias=rng.standard_normal(16, dtype=np.float32),
        deep=rng.standard_normal((8, 1, 5), dtype=np.float32),
        w2=rng.standard_normal((8, 8, 1), dtype=np.float32),
        zero=np.zeros((), np.float32),
    )


def test_the_convolution_module_of_a_conformer_becomes_products_around_its_depthwise_conv(rng):
    before = convolution(rng)
    sites, after = changed(before, conv1x1_to_matmul.rewrite)
    assert sites == 2
    assert op_types(after).count("Conv") == 1
    turned = [node.input[0] for node in after.graph.node if node.op_type == "Transpose"]
    filled = next(node for node in after.graph.node if node.op_type == "Where")
    # The mask, and what is around the depthwise Conv: right before it, since ONNX Runtime gathers its input into blocks anyway
    assert sorted(turned[:2]) == sorted(["padding", filled.output[0]])
    assert len(turned) == 3
    padding = np.arange(11)[None, None] >= np.array([11, 6])[:, None, None]
    for length in (11, 1):
        x = rng.standard_normal((2, length, 8), dtype=np.float32)
        assert difference(before, after, x=x, padding=padding[:, :, :length]) < 1e-6


def test_a_conv_of_one_tap_that_an_output_shows_keeps_its_layout_there(rng):
    before = graph_of(
        "(float[n,8,t] x) => (float[n,8,t] y) { y = Conv(x, w) }", w=rng.standard_normal((8, 8, 1), dtype=np.float32)
    )
    sites, after = changed(before, conv1x1_to_matmul.rewrite)
    assert (sites, op_types(after)) == (1, ["Transpose", "MatMul", "Transpose"])
    assert difference(before, after, x=rng.standard_normal((2, 8, 5), dtype=np.float32)) < 1e-6


def test_a_transposed_tensor_that_is_an_output_keeps_its_name(rng):
    before = graph_of(
        "(float[n,8,t] x) => (float[n,t,8] y, float[n,t,8] z) { a = Conv(x, w) y = Transpose<perm = [0, 2, 1]>(a) "
        "b = Transpose<perm = [0, 2, 1]>(y) z = Transpose<perm = [0, 2, 1]>(b) }",
        w=rng.standard_normal((8, 8, 1), dtype=np.float32),
    )
    sites, after = changed(before, conv1x1_to_matmul.rewrite)
    assert (sites, op_types(after).count("Transpose")) == (1, 1)
    assert difference(before, after, x=rng.standard_normal((2, 8, 5), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize("settings", ["strides = [2]", "group = 2", "pads = [1, 0]"])
def test_a_conv_of_one_tap_that_does_more_is_left_alone(rng, settings):
    weights = rng.standard_normal((8, 4 if "group" in settings else 8, 1), dtype=np.float32)
    model = graph_of(f"(float[n,8,t] x) => (float[n,8,u] y) {{ y = Conv<{settings}>(x, w) }}", w=weights)
    assert changed(model, conv1x1_to_matmul.rewrite)[0].startswith("no Conv of one tap")


MASKS = """(float[n,4,t] x, bool[n,t] padding) => (float[n,4,t] y, float[n,4,t] z) {
    one = Unsqueeze(padding, axis)   two = Unsqueeze(padding, axis)
    a = Mul(x, factor)               b = Mul(a, factor)
    y = Where(one, fill, b)          c = Neg(a)
    z = Where(two, zero, c)
}"""


def masks(fill, text=MASKS):
    return graph_of(
        text,
        axis=np.array([1]),
        factor=np.array(0.5, np.float32),
        fill=np.array(fill, np.float32),
        zero=np.zeros((), np.float32),
    )


@pytest.mark.parametrize("fill", [-10000.0, -np.inf])
def test_what_one_mask_fills_becomes_products_and_sums(rng, fill):
    before = masks(fill, MASKS.replace("(float[n,4,t] x,", "(float[n,4,t] in,").replace("{", "{ x = Tanh(in) ", 1))
    sites, after = changed(before, where_to_arithmetic.rewrite)
    assert sites == 2
    assert op_types(after).count("Where") == 3  # what is kept, that times the factor, and what is filled in
    inputs = {"in": rng.standard_normal((2, 4, 6), dtype=np.float32), "padding": np.arange(6) >= np.array([[6], [3]])}
    first, second = (infer(open_session(model), Sample("x", inputs)) for model in (before, after))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_what_is_filled_for_anything_but_a_softmax_holds_what_it_is_filled_with(rng):
    text = """(float[n,4,t] in, bool[n,1,t] padding) => (float[n,4,t] y, float[n,4,t] z) {
        x = Tanh(in)    w = Mul(x, factor)
        u = Neg(w)      y = Where(padding, fill, u)
        v = Neg(u)      z = Where(padding, fill, v)
    }"""
    before = graph_of(text, factor=np.array(1e6, np.float32), fill=np.array(-10000, np.float32))
    sites, after = changed(before, where_to_arithmetic.rewrite)
    assert (sites, op_types(after).count("Min")) == (2, 0)
    inputs = {"in": rng.standard_normal((2, 4, 6), dtype=np.float32), "padding": np.ones((2, 1, 6), bool)}
    for array in infer(open_session(after), Sample("x", inputs)).values():
        np.testing.assert_array_equal(array, -10000.0)


def test_what_may_hold_an_infinity_is_selected_as_before(rng):
    nothing = "no two Where nodes that fill with a constant by the same mask"
    assert changed(masks(0.0), where_to_arithmetic.rewrite)[0] == nothing  # the caller gives it
    twice = MASKS.replace("{", "{ s = Softplus(w) v = Where(padding2, minus, s) x = Mul(v, v) ", 1).replace(
        "float[n,4,t] x, bool", "float[n,4,t] w, bool[n,4,t] padding2, bool"
    )
    model = graph_of(
        twice,
        axis=np.array([1]),
        factor=np.array(0.5, np.float32),
        fill=np.array(1, np.float32),
        zero=np.zeros((), np.float32),
        minus=np.array(-np.inf, np.float32),
    )
    assert changed(model, where_to_arithmetic.rewrite)[0] == nothing


def test_shapes_of_tensors_that_meet_are_asked_for_once(rng):
    text = """(float[n,t,4] x) => (float[n,t,4] y, int64[1] u, int64[1] v) {
        a = Shape(x)             u = Slice(a, one, two)      cut = Slice(x, zero, u, one)
        b = Add(cut, x)          c = Relu(b)
        d = Shape(c)             v = Slice(d, one, two)      y = Slice(c, zero, v, one)
    }"""
    before = graph_of(text, zero=np.array([0]), one=np.array([1]), two=np.array([2]))
    sites, after = changed(before, deduplicate_shape_ops.rewrite, assume=True)
    assert sites == 1
    assert [node.input[0] for node in after.graph.node if node.op_type == "Shape"] == ["x", "x"]
    assert difference(before, after, x=rng.standard_normal((2, 7, 4), dtype=np.float32)) == 0


def test_a_length_of_one_is_no_length_that_meets(rng):
    text = """(float[n,t,4] x, float[n,1,4] z) => (float[n,t,4] y, int64[3] u, int64[3] v) {
        y = Add(x, z)   u = Shape(x)   v = Shape(z)
    }"""
    assert changed(graph_of(text), deduplicate_shape_ops.rewrite, assume=True)[0].startswith("no two Shape nodes")
