"""Bounds of tensors hold for what ONNX Runtime computes, and are as narrow as the operators allow."""

from math import inf, sqrt

import numpy as np
import pytest
from small_graphs import graph_of

from pipeline.graph.graph_editor import Graph
from pipeline.graph.session import infer, open_session
from pipeline.optimize.value_bounds import Bounds, ValueBounds
from pipeline.sample import Sample

EVERYTHING = """(float[n,4] x, bool[n,4] m, int64[n,4] i) => (float[n,4] y) {
    t = Tanh(x)               s = Sigmoid(x)            e = Erf(x)                 k = Clip(x, low, high)
    r = Relu(t)               g = Neg(k)                b = Abs(k)                 l = LeakyRelu<alpha = 0.1>(k)
    o = Add(t, k)             d = Sub(s, k)             p = Mul(k, k)              q = Mul(k, t)
    u = Pow(k, two)           v = Sqrt(p)               c = Cast<to = 1>(m)        w = Where(m, k, t)
    f = Softmax<axis = -1>(k) h = LogSoftmax(k)         j = Exp(k)                 aa = Softplus(k)
    k4 = Transpose(k)
    bb = MatMul(k, weight)    cc = MatMul(t, k4)        dd = Concat<axis = 1>(k, t) ee = ReduceMean<axes = [1]>(k)
    ff = Add(p, one)          gg = Div(k, ff)           hh = Reciprocal(ff)        ii = Min(k, t)
    jj = Max(k, t)            kk = LayerNormalization(k, gamma, beta)              ll = Sin(k)
    mm = Cast<to = 1>(i)      nn = HardSigmoid(k)       oo = Pad(k, pads, seven)
    y = Identity(x)
}"""


def everything(rng):
    scalars = {"low": -3.0, "high": 2.0, "two": 2.0, "one": 1.0, "seven": 7.0}
    weights = {name: np.array(value, np.float32) for name, value in scalars.items()}
    rows = {name: rng.standard_normal(4, dtype=np.float32) for name in ("gamma", "beta")}
    weight = rng.standard_normal((4, 4), dtype=np.float32)
    return graph_of(EVERYTHING, weight=weight, pads=np.array([0, 1, 0, 0]), **weights, **rows)


def test_what_is_computed_lies_within_the_bounds(rng):
    model = everything(rng)
    names = [output for node in model.graph.node for output in node.output]
    bounds = ValueBounds(Graph(model))
    found = {name: bounds.of(name) for name in names}
    model.graph.output.extend(value for value in model.graph.value_info if value.name in names and value.name != "y")
    session = open_session(model)
    for size in (0.1, 3.0, 100.0):
        x = (size * rng.standard_normal((4, 4))).astype(np.float32)
        sample = Sample("x", {"x": x, "m": rng.random((4, 4)) < 0.5, "i": rng.integers(-9, 9, (4, 4))})
        for name, array in infer(session, sample).items():
            limits = found[name]
            assert limits is not None, name
            assert limits.finite == (name != "y"), name
            slack = 1e-5 * max(1.0, np.abs(array).max())
            assert limits.low - slack <= array.min(), name
            assert array.max() <= limits.high + slack, name


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("k", Bounds(-3.0, 2.0)),
        ("q", Bounds(-3.0, 3.0)),
        ("p", Bounds(0.0, 9.0)),
        ("w", Bounds(-3.0, 2.0)),
        ("c", Bounds(0.0, 1.0)),
        ("mm", Bounds(-inf, inf)),
        ("gg", Bounds(-3.0, 2.0)),
        ("oo", Bounds(-3.0, 7.0)),
        ("y", Bounds(-inf, inf, finite=False)),
    ],
)
def test_bounds_are_those_of_the_operators(rng, tensor, expected):
    assert ValueBounds(Graph(everything(rng))).of(tensor) == expected


def test_a_layer_norm_is_bounded_by_its_length_and_its_parameters(rng):
    model = everything(rng)
    weights = {tensor.name: np.abs(np.frombuffer(tensor.raw_data, np.float32)).max() for tensor in model.graph.initializer}
    found = ValueBounds(Graph(model)).of("kk")
    assert found is not None
    assert found.high == pytest.approx(sqrt(4) * weights["gamma"] + weights["beta"])


@pytest.mark.parametrize(
    "node",
    ["Add(x, x)", "Mul(x, zero)", "Div(one, t)", "Sqrt(t)", "Softmax(masked)", "Clip(t, s)", "Sin(x)", "MatMul(x, x)"],
)
def test_what_may_be_no_number_has_no_bounds(node):
    text = f"""(float[n,4] x, float s, bool[n,4] m) => (float[n,4] y) {{
        t = Tanh(x)   masked = Where(m, minus, t)   y = {node}
    }}"""
    numbers = {"zero": 0.0, "one": 1.0, "minus": -np.inf}
    model = graph_of(text, **{name: np.array(value, np.float32) for name, value in numbers.items()})
    assert ValueBounds(Graph(model)).of("y") is None


def test_infinities_of_a_mask_are_below_every_number_but_are_numbers(rng):
    text = "(float[n,4] x, bool[n,4] m) => (float[n,4] y) { t = Tanh(x)  y = Where(m, minus, t) }"
    found = ValueBounds(Graph(graph_of(text, minus=np.array(-np.inf, np.float32)))).of("y")
    assert found == Bounds(-inf, 1.0, finite=False)
