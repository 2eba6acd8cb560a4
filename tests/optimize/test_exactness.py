"""How far each rewrite computes the same: what follows from the graph, and what is assumed of its inputs."""

import inspect

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types
from test_engine import always

from pipeline.graph.graph_editor import Graph
from pipeline.graph.session import infer, open_session
from pipeline.optimize import engine
from pipeline.optimize.around_quantization import notes_on_assumptions
from pipeline.optimize.outcome import Refusal, Sites
from pipeline.optimize.rewrite_registry import REWRITES, Exactness
from pipeline.optimize.rules import deduplicate_shape_ops, where_to_arithmetic
from pipeline.sample import Sample

CONDITION = """(float[n,t,4] x, float[n,{length},4] condition) => (float[n,t,4] y, int64[3] a, int64[3] b) {{
    y = Add(x, condition)   a = Shape(x)   b = Shape(condition)
}}"""


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.name)
def test_every_rewrite_says_how_exact_it_is_and_what_it_assumes(rewrite):
    assert rewrite.exactness in (Exactness.bitwise, Exactness.algebraic)
    assert bool(rewrite.assumption) == ("assume" in inspect.signature(rewrite.change).parameters)


def test_a_condition_of_one_frame_or_of_all_frames_is_not_taken_to_be_as_long_as_the_input(rng):
    model = graph_of(CONDITION.format(length="u"))
    assert deduplicate_shape_ops.rewrite(Graph(model)) == Refusal("no two Shape nodes of tensors of equal lengths", withheld=1)
    sites, after = changed(model, deduplicate_shape_ops.rewrite, assume=True)
    assert sites == 1
    x, one, all_frames = (rng.standard_normal((2, length, 4), dtype=np.float32) for length in (5, 1, 5))
    assert difference(model, after, x=x, condition=all_frames) == 0
    assert difference(model, after, x=x, condition=one) > 0  # what makes it an assumption


def test_lengths_of_one_name_are_equal_without_an_assumption():
    model = graph_of(CONDITION.format(length="t"))
    assert deduplicate_shape_ops.rewrite(Graph(model)) == Sites(1)


def test_a_length_that_a_broadcast_keeps_is_proven_beside_one_that_it_may_change():
    text = """(float[n,t,4] x, float[n,u,4] condition) => (float[n,t,4] y, int64[3] a, int64[3] b, int64[3] c) {
        r = Relu(x)   y = Add(r, condition)   a = Shape(x)   b = Shape(r)   c = Shape(condition)
    }"""
    model = graph_of(text)
    assert deduplicate_shape_ops.rewrite(Graph(model)) == Sites(1, withheld=1)
    assert deduplicate_shape_ops.rewrite(Graph(model), assume=True) == Sites(2, assumed=1)


FILLED = """(float[n,4,t] x, bool[n,1,t] padding) => (float[n,4,t] y, float[n,4,t] z) {{
    a = {bounded}   b = Neg(a)   y = Where(padding, fill, a)   z = Where(padding, fill, b)
}}"""
BOUNDED = ("Tanh(x)", "Sigmoid(x)", "Clip(x, low, high)", "Erf(x)")
UNBOUNDED = ("Relu(x)", "MatMul(w, x)", "Softplus(x)", "Softmax<axis = 1>(x)")


def filled(bounded, fill=0.0):
    scalars = {"low": -3.0, "high": 3.0, "fill": fill}
    weights = {name: np.array(value, np.float32) for name, value in scalars.items() if name in bounded or name == "fill"}
    return graph_of(FILLED.format(bounded=bounded), **weights, **({"w": np.eye(4, dtype=np.float32)} if "w" in bounded else {}))


@pytest.mark.parametrize("bounded", BOUNDED)
def test_what_comes_from_a_bounded_operator_may_be_multiplied_by_its_mask(rng, bounded):
    model = filled(bounded)
    sites, after = changed(model, where_to_arithmetic.rewrite)
    assert (sites, op_types(after).count("Mul")) == (2, 2)
    x = rng.standard_normal((2, 4, 6), dtype=np.float32)
    padding = np.arange(6) >= np.array([6, 3])[:, None, None]
    x[1, :, 3:] = np.inf
    first, second = (infer(open_session(one), Sample("x", {"x": x, "padding": padding})) for one in (model, after))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


@pytest.mark.parametrize("unbounded", UNBOUNDED)
def test_what_may_be_infinite_under_its_mask_is_selected_as_before(unbounded):
    text = FILLED.format(bounded=unbounded)
    model = filled(unbounded)
    found = where_to_arithmetic.rewrite(Graph(model))
    assert isinstance(found, Refusal), text
    if "Softmax" not in unbounded:  # the caller's own infinities reach it
        assert found.withheld == 2
        assert where_to_arithmetic.rewrite(Graph(model), assume=True) == Sites(2, assumed=2)


SCORES = """(float[n,4,t] x, bool[n,1,t] hidden) => (float[n,4,t] y, float[n,4,t] z) {
    a = Tanh(x)                  b = Mul(a, factor)            c = Neg(b)
    d = Where(hidden, fill, c)   y = Softmax<axis = -1>(d)
    e = Neg(c)                   f = Where(hidden, fill, e)    z = Softmax<axis = -1>(f)
}"""


@pytest.mark.parametrize(("factor", "proven"), [(9999.0, True), (20000.0, False)])
def test_scores_that_cannot_be_below_their_fill_value_become_minima_without_an_assumption(factor, proven):
    numbers = {"factor": np.array(factor, np.float32), "fill": np.array(-10000.0, np.float32)}
    found = where_to_arithmetic.rewrite(Graph(graph_of(SCORES, **numbers)))
    assert found == Sites(2) if proven else found.withheld == 2


FULLY_MASKED = """(float[n,t,4] x, bool[n,t,t] hidden) => (float[n,t,4] y, float[n,t,4] z) {
    k = Transpose<perm = [0, 2, 1]>(x)
    a = MatMul(x, k)              b = Where(hidden, minus, a)   c = Softmax<axis = -1>(b)
    d = Where(hidden, zero, c)    y = MatMul(d, x)
    e = MatMul(y, k)              f = Where(hidden, minus, e)   g = Softmax<axis = -1>(f)
    h = Where(hidden, zero, g)    z = MatMul(h, x)
}"""


@pytest.mark.parametrize("assume", [False, True])
def test_a_row_that_is_masked_throughout_stays_zero(rng, assume):
    """WeNet's attention: the softmax of such a row is NaN, which a Where replaces by zero, and a product would keep."""
    numbers = {"minus": np.array(-np.inf, np.float32), "zero": np.zeros((), np.float32)}
    model = graph_of(FULLY_MASKED, **numbers)
    _, after = changed(model, where_to_arithmetic.rewrite, assume=assume)
    x = rng.standard_normal((1, 5, 4), dtype=np.float32)
    hidden = np.zeros((1, 5, 5), bool)
    hidden[:, 3:] = True
    first, second = (infer(open_session(one), Sample("x", {"x": x, "hidden": hidden})) for one in (model, after))
    assert all(np.isfinite(array).all() for array in first.values())
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def condition(length="u"):
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((2, 5, 4), dtype=np.float32) for name in ("x", "condition")}
    return graph_of(CONDITION.format(length=length)), [Sample("a", inputs)]


def test_a_rewrite_that_assumes_something_waits_for_leave_and_says_so():
    model, probe = condition()
    done = engine.apply(model, probe, measure=always)
    assert not done.applied
    reason = dict(done.rejected)["deduplicate_shape_ops"]
    assert "mode.assume=true would allow 1 place, on the assumption that two lengths that meet in a broadcast" in reason


def test_the_report_names_what_is_assumed():
    model, probe = condition()
    done = engine.apply(model, probe, measure=always, assume=True)
    [applied] = done.applied
    assert (applied.exactness, applied.assumed_sites) == ("assumed", 1)
    assert applied.assumption == deduplicate_shape_ops.ASSUMPTION
    [note] = notes_on_assumptions("encoder", done)
    assert note.startswith("encoder: deduplicate_shape_ops (places: 1) assumes that two lengths")


def test_a_rewrite_whose_places_are_all_proven_has_the_class_of_its_row():
    model, probe = condition("t")
    done = engine.apply(model, probe, measure=always, assume=True)
    [applied] = done.applied
    assert (applied.exactness, applied.assumption, applied.assumed_sites) == ("bitwise", "", 0)
    assert notes_on_assumptions("encoder", done) == []
