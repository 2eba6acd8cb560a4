"""Powers, quotients, and constant factors inside weights."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.rewrite import batch_norm, scale, square


def test_a_square_and_a_quotient_become_products(rng):
    two, c = np.array(2.0, np.float32), rng.uniform(1, 3, (4, 1)).astype(np.float32)
    before = graph_of("(float[b,4,t] x) => (float[b,4,t] y) { p = Pow(x, two) y = Div(p, c) }", two=two, c=c)
    sites, after = changed(before, square.rewrite)
    assert sites == 2
    assert op_types(after) == ["Mul", "Mul"]
    assert difference(before, after, x=rng.standard_normal((2, 4, 5), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("(float[n] x) => (float[n] y) { y = Pow(x, c) }", np.array(3.0, np.float32)),
        ("(float[n] x) => (float[n] y) { y = Div(x, c) }", np.array(0.0, np.float32)),
        ("(int64[n] x) => (int64[n] y) { y = Div(x, c) }", np.array(2)),
        ("(float[n] x) => (float[n] y) { d = Div(x, c) y = Erf(d) }", np.array(1.4142135, np.float32)),
    ],
)
def test_other_powers_and_quotients_are_left_alone(text, constant):
    assert changed(graph_of(text, c=constant), square.rewrite)[0] == "no Pow by 2 and no Div by a constant"


@pytest.mark.parametrize("factor", [np.array(0.5, np.float32), np.linspace(0.5, 2, 6, dtype=np.float32)])
def test_a_factor_after_a_matmul_goes_into_its_weights(rng, factor):
    before = graph_of(
        "(float[b,t,4] x) => (float[b,t,6] y) { m = MatMul(x, w) a = Add(bias, m) y = Mul(c, a) }",
        w=rng.standard_normal((4, 6), dtype=np.float32),
        bias=rng.standard_normal(6, dtype=np.float32),
        c=factor,
    )
    sites, after = changed(before, scale.rewrite)
    assert (sites, op_types(after)) == (1, ["MatMul", "Add"])
    assert difference(before, after, x=rng.standard_normal((1, 5, 4), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_a_factor_after_a_conv_goes_into_its_weights(rng, op_type):
    before = graph_of(
        f"(float[1,4,t] x) => (float[1,4,u] y) {{ z = {op_type}(x, w, bias) y = Mul(z, c) }}",
        w=rng.standard_normal((4, 4, 3), dtype=np.float32),
        bias=rng.standard_normal(4, dtype=np.float32),
        c=rng.uniform(0.5, 2, (1, 4, 1)).astype(np.float32),
    )
    sites, after = changed(before, scale.rewrite)
    assert (sites, op_types(after)) == (1, [op_type])
    assert difference(before, after, x=rng.standard_normal((1, 4, 9), dtype=np.float32)) < 1e-6


def test_a_factor_goes_through_a_leaky_relu_into_what_follows(rng):
    before = graph_of(
        "(float[1,4,t] x) => (float[1,4,u] y) { s = Mul(x, c) r = LeakyRelu<alpha = 0.1>(s) y = Conv(r, w) }",
        w=rng.standard_normal((4, 4, 3), dtype=np.float32),
        c=np.array(0.3, np.float32),
    )
    sites, after = changed(before, scale.rewrite)
    assert (sites, op_types(after)) == (1, ["LeakyRelu", "Conv"])
    assert difference(before, after, x=rng.standard_normal((1, 4, 9), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    "text",
    [
        "(float[1,4,t] x) => (float[1,4,u] y) { s = Mul(x, c) r = LeakyRelu<alpha = 0.1>(s) y = Conv(r, w) }",  # negative
        "(float[1,4,t] x) => (float[1,4,u] y, float[1,4,u] z) { z = Conv(x, w) y = Mul(z, c) }",  # read by an output
        "(float[1,4,t] x) => (float[1,4,u] y) { z = Conv(x, w) e = Exp(z) y = Mul(e, c) }",  # not linear
    ],
)
def test_other_factors_are_left_alone(rng, text):
    model = graph_of(text, w=rng.standard_normal((4, 4, 3), dtype=np.float32), c=np.array(-0.3, np.float32))
    assert changed(model, scale.rewrite)[0] == "no constant factor next to a linear layer"


@pytest.mark.parametrize(("op_type", "group"), [("Conv", 1), ("Conv", 2), ("ConvTranspose", 1), ("ConvTranspose", 2)])
def test_a_batch_norm_goes_into_the_weights(rng, op_type, group):
    before = graph_of(
        "(float[1,4,t] x) => (float[1,4,u] y) "
        f"{{ z = {op_type}<group = {group}>(x, w) y = BatchNormalization(z, g, h, m, v) }}",
        w=rng.standard_normal((4, 4 // group, 3), dtype=np.float32),
        **{name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "ghmv"},
    )
    sites, after = changed(before, batch_norm.rewrite)
    assert (sites, op_types(after)) == (1, [op_type])
    assert difference(before, after, x=rng.standard_normal((1, 4, 9), dtype=np.float32)) < 1e-5


def test_a_batch_norm_of_its_own_is_left_alone(rng):
    text = "(float[1,4,t] x) => (float[1,4,t] y) { r = Relu(x) y = BatchNormalization(r, g, h, m, v) }"
    model = graph_of(text, **{name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "ghmv"})
    assert changed(model, batch_norm.rewrite)[0] == "no BatchNormalization after a Conv or ConvTranspose of its own"
