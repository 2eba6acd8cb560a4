"""Updates of a range, and shapes of a Reshape."""

import re

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.graph.session import infer, open_session
from pipeline.optimize.rules import fold_static_dims, materialize_reshape_shape, scatter_nd_to_concat, simplify_floor_div
from pipeline.sample import Sample

CACHE = """(float[2,16,3] x, float[2,4,3] u, float[2,6,3] v) => (float[2,16,3] y, float[2,4,3] z)
    { a = ScatterND(x, low, u) z = Slice(a, three, seven, one) y = ScatterND(a, high, v) }"""


def box(*ranges):
    return np.stack(np.meshgrid(*(np.arange(*r) for r in ranges), indexing="ij"), axis=-1)


def limits():
    return {name: np.array([value]) for name, value in (("three", 8), ("seven", 12), ("one", 1))}


def test_a_chain_of_updates_becomes_one_concat(rng):
    before = graph_of(CACHE, low=box((0, 2), (2, 6), (0, 3)), high=box((0, 2), (6, 12), (0, 3)), **limits())
    sites, after = changed(before, scatter_nd_to_concat.rewrite)
    assert sites == 2
    assert op_types(after).count("Concat") == 1  # the first is needed no more: what the Slice reads lies in x
    assert "ScatterND" not in op_types(after)
    shapes = {"x": (2, 16, 3), "u": (2, 4, 3), "v": (2, 6, 3)}
    assert difference(before, after, **{n: rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}) == 0


def test_an_update_of_single_places_is_left_alone():
    text = "(float[4,4] x, float[2] u) => (float[4,4] y) { y = ScatterND(x, i, u) }"
    model = graph_of(text, i=np.array([[0, 1], [2, 2]]))
    assert changed(model, scatter_nd_to_concat.rewrite)[0] == "no ScatterND over a constant range of one axis"


ATTENTION = """(float[n,t,12] x) => (float[n,t,2,6] y) {
    r = Relu(x) s = Shape(r) a = Gather(s, i0) b = Gather(s, i1) c = Gather(s, i2) d = Div(c, i2)
    a1 = Unsqueeze(a, axis) b1 = Unsqueeze(b, axis) d1 = Unsqueeze(d, axis) two = Constant<value_ints = [2]>()
    shape = Concat<axis = 0>(a1, b1, two, d1) y = Reshape(r, shape) }"""


def test_computed_shapes_become_constants(rng):
    indices = {f"i{k}": np.array(k) for k in range(3)}
    before = graph_of(ATTENTION, axis=np.array([0]), **indices)
    sites, after = changed(before, materialize_reshape_shape.rewrite)
    assert (sites, op_types(after)) == (1, ["Relu", "Reshape"])
    for shape in ((1, 5, 12), (3, 2, 12)):
        assert difference(before, after, x=rng.standard_normal(shape, dtype=np.float32)) == 0


def test_a_shape_with_two_unknown_lengths_is_left_alone():
    model = graph_of("(float[n,t] x, float[a,b] w) => (float[a,b] y) { s = Shape(w) y = Reshape(x, s) }")
    assert (
        changed(model, materialize_reshape_shape.rewrite)[0]
        == "no Reshape to a computed shape of which all lengths but one are known"
    )


HALVES = """(float[n,6,t] x) => (float[n,3,t] y, float[k] z) {
    s = Shape(x) c = Gather(s, i1) h = Div(c, i2) h1 = Unsqueeze(h, axis) lead = Slice(x, axis, h1, one)
    s2 = Shape(lead) c2 = Gather(s2, i1) r = Range(i0, c2, i1) z = Cast<to = 1>(r) y = Neg(lead) }"""


def test_numbers_that_follow_from_known_lengths_become_constants(rng):
    indices = {f"i{k}": np.array(k) for k in range(3)}
    before = graph_of(HALVES, axis=np.array([0]), one=np.array([1]), **indices)
    sites, after = changed(before, fold_static_dims.rewrite)
    assert sites == 1  # the end of the Slice: its length is what the next pass knows
    sites, after = changed(after, fold_static_dims.rewrite)
    assert (sites, op_types(after)) == (1, ["Slice", "Range", "Cast", "Neg"])
    assert difference(before, after, x=rng.standard_normal((2, 6, 5), dtype=np.float32)) == 0


def test_a_number_that_only_the_input_tells_is_left_alone():
    model = graph_of("(float[n,t] x) => (int64[k] y) { s = Shape(x) y = Gather(s, i) }", i=np.array([1]))
    assert changed(model, fold_static_dims.rewrite)[0] == "no number that follows from known lengths alone"


LAYERS = """(float[n,8,t] x, float[n,1,t] mask) => (float[n,8,t] y, int64[k] z) {
    c = Conv<pads = [2, 2], dilations = [2]>(x, w) m = Mul(c, mask) a = Add(m, x)
    s = Shape(x) l = Gather(s, i2) h = Sub(l, i1) r = Range(i0, h, i1)
    s2 = Shape(a) l2 = Gather(s2, i2) h2 = Sub(l2, i1) r2 = Range(i0, h2, i1) z = Add(r, r2)
    b = Shape(c) b0 = Gather(b, i0) b1 = Unsqueeze(b0, axis) t1 = Unsqueeze(l2, axis) v = Concat<axis = 0>(b1, eight, t1)
    q = Reshape(a, v) y = Relu(q) }"""


def test_lengths_that_are_equal_are_one(rng):
    """The output of a Conv that keeps the length is as long as its input, whatever shape inference calls it."""
    constants = {f"i{k}": np.array(k) for k in range(3)} | {"axis": np.array([0]), "eight": np.array([8])}
    before = graph_of(LAYERS, w=rng.standard_normal((8, 8, 3), dtype=np.float32), **constants)
    _, same = changed(before, fold_static_dims.rewrite)
    assert op_types(same).count("Sub") == 1
    _, after = changed(same, materialize_reshape_shape.rewrite)
    assert "Concat" not in op_types(after)
    assert (
        difference(before, after, x=rng.standard_normal((2, 8, 7), dtype=np.float32), mask=np.ones((2, 1, 7), np.float32)) == 0
    )


def test_lengths_that_may_differ_stay_two():
    """Two tensors that are broadcast may be of different lengths: one of them 1."""
    model = graph_of(
        "(float[t] x, float[u] z) => (float[v] y, int64 k) { y = Add(x, z) s = Shape(x) a = Gather(s, i) s2 = Shape(y) "
        "b = Gather(s2, i) k = Sub(a, b) }",
        i=np.array(0),
    )
    assert changed(model, fold_static_dims.rewrite)[0] == "no number that follows from known lengths alone"


FLOOR = """(int64[n] a) => (int64[n] y) {
    q = Div(a, b)          less = Sub(q, one)     r = Mod(a, b)        none = Equal(r, zero)   some = Not(none)
    below = Less(a, zero)  signs = Xor(below, no) both = And(signs, some)  y = Where(both, less, q)
}"""
NUMBERS = {"zero": np.array(0), "one": np.array(1), "no": np.array(False), "yes": np.array(True)}


@pytest.mark.parametrize("divisor", [1, 2, 7])
def test_a_floor_division_is_three_nodes(divisor):
    before = graph_of(FLOOR, b=np.array(divisor), **NUMBERS)
    sites, after = changed(before, simplify_floor_div.rewrite)
    assert (sites, op_types(after)) == (1, ["Mod", "Sub", "Div"])
    numbers = np.arange(-20, 21)
    [found] = infer(open_session(after), Sample("x", {"a": numbers})).values()
    np.testing.assert_array_equal(found, numbers // divisor)


def floor_of(a, y, number):
    """Return the nine nodes that an exporter makes of y = a // b, under names of their own."""
    nodes = FLOOR[FLOOR.index("{") + 1 : -1]
    for name in ("q", "less", "r", "none", "some", "below", "signs", "both"):
        nodes = re.sub(rf"\b{name}\b", f"{name}{number}", nodes)
    return re.sub(r"\by\b", y, re.sub(r"\ba\b", a, nodes))


@pytest.mark.parametrize("between", ["Sub(inner, one)", "Add(one, inner)", "Identity(inner)"])
def test_a_quotient_of_a_quotient_is_one(between):
    nodes = f"a1 = Sub(x, one) {floor_of('a1', 'inner', 1)} a2 = {between} {floor_of('a2', 'y', 2)}"
    text = f"(int64[n] x) => (int64[n] y) {{ {nodes} }}"
    before = graph_of(text, b=np.array(2), **NUMBERS)
    sites, after = changed(before, simplify_floor_div.rewrite)
    assert sites == 2
    if "Identity" not in between:
        assert op_types(after) == ["Add", "Mod", "Sub", "Div"]
    numbers = np.arange(-20, 21)
    [found] = infer(open_session(after), Sample("x", {"x": numbers})).values()
    inner = (numbers - 1) // 2
    np.testing.assert_array_equal(found, {"S": inner - 1, "A": inner + 1, "I": inner}[between[0]] // 2)


def test_a_quotient_that_is_needed_as_it_is_stays_beside_the_quotient_of_it():
    text = f"(int64[n] x) => (int64[n] inner, int64[n] y) {{ {floor_of('x', 'inner', 1)} {floor_of('inner', 'y', 2)} }}"
    sites, after = changed(graph_of(text, b=np.array(3), **NUMBERS), simplify_floor_div.rewrite)
    numbers = np.arange(-20, 21)
    found = infer(open_session(after), Sample("x", {"x": numbers}))
    assert sites == 2
    np.testing.assert_array_equal(found["inner"], numbers // 3)
    np.testing.assert_array_equal(found["y"], numbers // 9)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Sub(q, one)", "Sub(q, b)"),
        ("Less(a, zero)", "Less(a, one)"),
        ("Equal(r, zero)", "Equal(r, one)"),
        ("Mod(a", "Mod(q"),
        ("Xor(below, no)", "Xor(below, yes)"),
    ],
)
def test_what_only_looks_like_a_floor_division_is_left_alone(old, new):
    model = graph_of(FLOOR.replace(old, new), b=np.array(2), **NUMBERS)
    assert isinstance(changed(model, simplify_floor_div.rewrite)[0], str)


def test_a_floor_division_by_a_negative_number_is_left_alone():
    assert isinstance(changed(graph_of(FLOOR, b=np.array(-2), **NUMBERS), simplify_floor_div.rewrite)[0], str)
