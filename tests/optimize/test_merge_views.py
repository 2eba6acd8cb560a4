"""Operators that only change axes: one or none where several follow each other, and the same values."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.optimize.rules import merge_views

NOTHING = "no two operators in a row that only change axes"
BETWEEN_CONVS = """(float[n,4,9] x) => (float[n,4,9] y) {
    a = Unsqueeze(x, two) b = Conv<pads = [0,1,0,1]>(a, w) c = Squeeze(b, two) d = Relu(c) e = Unsqueeze(d, two)
    f = Conv<pads = [0,1,0,1]>(e, w) y = Squeeze(f, two) }"""


def test_an_activation_between_two_convs_is_read_as_it_is_written(rng, make_weight):
    before = graph_of(BETWEEN_CONVS, w=make_weight(4, 4, 1, 3), two=np.array([2]))
    sites, after = changed(before, merge_views.rewrite)
    assert (sites, op_types(after)) == (2, ["Unsqueeze", "Conv", "Relu", "Conv", "Squeeze"])
    assert difference(before, after, x=rng.standard_normal((2, 4, 9), dtype=np.float32)) == 0


def test_a_chain_of_several_becomes_one_reshape_with_the_operators_on_values_before_it(rng):
    text = """(float[n,1,6] x) => (float[n,3,2] y, float[n,6] z) {
        a = Squeeze(x, one) b = Sigmoid(a) c = Reshape(b, shape) d = Neg(c) e = Tanh(d) y = Reshape(e, again)
        z = Squeeze(x, one) }"""
    before = graph_of(
        text, one=np.array([1]), shape=np.array([0, 2, 3]), again=np.array([0, 3, 2]),
    )  # fmt: skip
    sites, after = changed(before, merge_views.rewrite)
    assert sites == 2
    assert sorted(op_types(after)) == ["Neg", "Reshape", "Sigmoid", "Squeeze", "Tanh"]
    assert difference(before, after, x=rng.standard_normal((2, 1, 6), dtype=np.float32)) == 0


@pytest.mark.parametrize(
    ("order", "types"), [([1, 0, 2], ["Reshape"]), ([0, 2, 1], ["Transpose"]), ([2, 1, 0], ["Transpose"]), ([0, 1, 2], [])]
)
def test_a_transpose_is_a_reshape_where_it_moves_axes_of_length_one_alone(rng, order, types):
    before = graph_of(f"(float[1,5,3] x) => (float y) {{ a = Transpose<perm = {order}>(x) y = Neg(a) }}")
    sites, after = changed(before, merge_views.rewrite)
    assert op_types(after) == [*types, "Neg"]
    assert sites == (1 if not types else NOTHING if types == ["Transpose"] else sites)
    assert difference(before, after, x=rng.standard_normal((1, 5, 3), dtype=np.float32)) == 0


def test_what_others_read_too_stays(rng):
    text = "(float[2,1,3] x) => (float[2,3] y, float[3,2] z) { y = Squeeze(x, one) z = Reshape(y, shape) }"
    before = graph_of(text, one=np.array([1]), shape=np.array([3, 2]))
    assert changed(before, merge_views.rewrite)[0] == NOTHING


def test_an_output_that_would_be_an_input_keeps_its_operator():
    model = graph_of("(float[2,3] x) => (float[2,3] y) { y = Reshape(x, shape) }", shape=np.array([2, 3]))
    assert changed(model, merge_views.rewrite)[0] == NOTHING


def test_what_two_others_read_is_read_by_both_from_where_it_comes(rng):
    text = "(float[2,3] x) => (float[2,3] y, float[2,3] z) { a = Unsqueeze(x, one) b = Squeeze(a, one) y = Neg(b) z = Exp(b) }"
    before = graph_of(text, one=np.array([1]))
    sites, after = changed(before, merge_views.rewrite)
    assert (sites, sorted(op_types(after))) == (2, ["Exp", "Neg"])
    assert difference(before, after, x=rng.standard_normal((2, 3), dtype=np.float32)) == 0


def test_two_lengths_that_only_the_input_tells_are_no_constant_shape():
    text = "(float[n,t,1,1] x) => (float[n,t] y) { a = Squeeze(x, three) b = Neg(a) y = Squeeze(b, two) }"
    model = graph_of(text, three=np.array([3]), two=np.array([2]))
    assert changed(model, merge_views.rewrite)[0] == NOTHING


def test_a_tensor_of_no_values_has_no_shape_of_numbers():
    model = graph_of("(float[2,0,1] x) => (float[0,2] y) { a = Squeeze(x, two) y = Reshape(a, shape) }", two=np.array([2]),
                     shape=np.array([-1, 2]))  # fmt: skip
    assert changed(model, merge_views.rewrite)[0] == NOTHING


RECURRENT = """(float[1,1,8] x, float[1,4] h, float[1,4] c) => (float[1,1,4] y, float[1,4] g) {
    a = Transpose<perm = [1,0,2]>(x) h1 = Unsqueeze(h, zero) c1 = Unsqueeze(c, zero)
    [first] b, g1, d1 = LSTM<hidden_size = 4>(a, W, R, B, , h1, c1)
    e = Squeeze(b, one) f = Transpose<perm = [1,0,2]>(e) i = Transpose<perm = [1,0,2]>(f)
    [second] j, g2, d2 = LSTM<hidden_size = 4>(i, W2, R, B, , g1, d1)
    k = Squeeze(j, one) y = Transpose<perm = [1,0,2]>(k) g = Squeeze(g2, zero) }"""


def test_layers_that_run_for_one_step_are_written_without_what_turns_their_axes(rng, make_weight):
    weights = {"W": make_weight(1, 16, 8), "W2": make_weight(1, 16, 4), "R": make_weight(1, 16, 4), "B": make_weight(1, 32)}
    before = graph_of(RECURRENT, **weights, zero=np.array([0]), one=np.array([1]))
    sites, after = changed(before, merge_views.rewrite)
    assert (sites, op_types(after)) == (4, ["Unsqueeze", "Unsqueeze", "LSTM", "Reshape", "LSTM", "Squeeze", "Reshape"])
    inputs = {"x": (1, 1, 8), "h": (1, 4), "c": (1, 4)}
    assert difference(before, after, **{n: rng.standard_normal(s, dtype=np.float32) for n, s in inputs.items()}) == 0
