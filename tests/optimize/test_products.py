"""Powers, quotients, constants inside weights, and products that are computed at once."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.optimize.rules import (
    fold_add_into_bias,
    fold_mul_into_weights,
    fuse_batch_norm,
    merge_parallel_matmuls,
    strength_reduction,
)


def test_a_square_and_a_quotient_become_products(rng):
    two, c = np.array(2.0, np.float32), rng.uniform(1, 3, (4, 1)).astype(np.float32)
    before = graph_of("(float[b,4,t] x) => (float[b,4,t] y) { p = Pow(x, two) y = Div(p, c) }", two=two, c=c)
    sites, after = changed(before, strength_reduction.rewrite)
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
    assert changed(graph_of(text, c=constant), strength_reduction.rewrite)[0] == "no Pow by 2 and no Div by a constant"


@pytest.mark.parametrize("factor", [np.array(0.5, np.float32), np.linspace(0.5, 2, 6, dtype=np.float32)])
def test_a_factor_after_a_matmul_goes_into_its_weights(rng, factor):
    before = graph_of(
        "(float[b,t,4] x) => (float[b,t,6] y) { m = MatMul(x, w) a = Add(bias, m) y = Mul(c, a) }",
        w=rng.standard_normal((4, 6), dtype=np.float32),
        bias=rng.standard_normal(6, dtype=np.float32),
        c=factor,
    )
    sites, after = changed(before, fold_mul_into_weights.rewrite)
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
    sites, after = changed(before, fold_mul_into_weights.rewrite)
    assert (sites, op_types(after)) == (1, [op_type])
    assert difference(before, after, x=rng.standard_normal((1, 4, 9), dtype=np.float32)) < 1e-6


def test_a_factor_goes_through_a_leaky_relu_into_what_follows(rng):
    before = graph_of(
        "(float[1,4,t] x) => (float[1,4,u] y) { s = Mul(x, c) r = LeakyRelu<alpha = 0.1>(s) y = Conv(r, w) }",
        w=rng.standard_normal((4, 4, 3), dtype=np.float32),
        c=np.array(0.3, np.float32),
    )
    sites, after = changed(before, fold_mul_into_weights.rewrite)
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
    assert changed(model, fold_mul_into_weights.rewrite)[0] == "no constant factor next to a linear layer"


@pytest.mark.parametrize(("op_type", "group"), [("Conv", 1), ("Conv", 2), ("ConvTranspose", 1), ("ConvTranspose", 2)])
def test_a_batch_norm_goes_into_the_weights(rng, op_type, group):
    before = graph_of(
        "(float[1,4,t] x) => (float[1,4,u] y) "
        f"{{ z = {op_type}<group = {group}>(x, w) y = BatchNormalization(z, g, h, m, v) }}",
        w=rng.standard_normal((4, 4 // group, 3), dtype=np.float32),
        **{name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "ghmv"},
    )
    sites, after = changed(before, fuse_batch_norm.rewrite)
    assert (sites, op_types(after)) == (1, [op_type])
    assert difference(before, after, x=rng.standard_normal((1, 4, 9), dtype=np.float32)) < 1e-5


def test_a_batch_norm_of_its_own_is_left_alone(rng):
    text = "(float[1,4,t] x) => (float[1,4,t] y) { r = Relu(x) y = BatchNormalization(r, g, h, m, v) }"
    model = graph_of(text, **{name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "ghmv"})
    assert changed(model, fuse_batch_norm.rewrite)[0] == "no BatchNormalization after a Conv or ConvTranspose of its own"


HEADS = """(float[t,8] waves) => (float[1,2,t,4] y0, float[1,2,t,4] y1, float[1,2,t,4] y2) {
    p0 = MatMul(waves, w0) r0 = Reshape(p0, cut) y0 = Transpose<perm = [0, 2, 1, 3]>(r0)
    p1 = MatMul(waves, w1) r1 = Reshape(p1, cut) y1 = Transpose<perm = [0, 2, 1, 3]>(r1)
    p2 = MatMul(waves, w2) r2 = Reshape(p2, cut) y2 = Transpose<perm = [0, 2, 1, 3]>(r2) }"""


def heads(rng, text=HEADS, opset=17, **other):
    weights = {f"w{i}": rng.standard_normal((8, 8), dtype=np.float32) for i in range(3)}
    return graph_of(text, opset, cut=np.array([1, -1, 2, 4]), **weights, **other)


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_products_of_one_tensor_that_are_cut_into_heads_alike_become_one(rng, opset):
    before = heads(rng, opset=opset)
    sites, after = changed(before, merge_parallel_matmuls.rewrite)
    assert sites == 3
    assert op_types(after) == ["MatMul", "Reshape", "Transpose", "Split"]
    assert difference(before, after, waves=rng.standard_normal((6, 8), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y2 = Transpose<perm = [0, 2, 1, 3]>", "y2 = Transpose<perm = [0, 2, 3, 1]>"),
        ("Reshape(p2, cut)", "Reshape(p2, other)"),
        ("MatMul(waves, w2)", "MatMul(loud, w2)"),
        ("y2 = Transpose<perm = [0, 2, 1, 3]>(r2)", "y2 = Transpose<perm = [0, 2, 1, 3]>(r2) z = Neg(p2)"),
    ],
)
def test_a_product_that_is_cut_otherwise_or_is_of_something_else_stays_alone(rng, old, new):
    text = HEADS.replace(old, new).replace("{", "{ loud = Add(waves, waves) ", 1)
    if "Neg" in new:
        text = text.replace("=> (", "=> (float[t,8] z, ")
    text = text.replace("float[1,2,t,4] y2", "float[a,b,c,d] y2")
    before = heads(rng, text, other=np.array([1, -1, 4, 2]))
    sites, after = changed(before, merge_parallel_matmuls.rewrite)
    assert sites == 2
    assert op_types(after).count("MatMul") == 2
    assert difference(before, after, waves=rng.standard_normal((6, 8), dtype=np.float32)) < 1e-6


def test_one_product_alone_has_nothing_to_join(rng):
    text = (
        "(float[t,8] x) => (float[1,2,t,4] y) { p = MatMul(x, w0) r = Reshape(p, cut) y = Transpose<perm = [0, 2, 1, 3]>(r) }"
    )
    assert isinstance(changed(heads(rng, text), merge_parallel_matmuls.rewrite)[0], str)


NORMALIZED = """(float[n,t,6] x) => (float[n,3,u,4] y) {
    a = Add(x, up) b = Mul(a, down) c = Unsqueeze(b, axis) y = Conv(c, w, v) }"""
NORMALIZATION = {"up": np.array(4.5, np.float32), "down": np.array(0.25, np.float32), "axis": np.array([1])}


def conv(rng, text, **other):
    w = rng.standard_normal((3, 1, 3, 3), dtype=np.float32)
    return graph_of(text, w=w, v=rng.standard_normal(3, dtype=np.float32), **NORMALIZATION, **other)


@pytest.mark.parametrize(
    ("old", "new", "sites"),
    [
        ("", "", 1),
        ("Add(x, up)", "Add(up, x)", 1),
        ("Add(x, up)", "Sub(x, up)", 1),
        ("Add(x, up)", "Sub(up, x)", 1),
        ("Mul(a, down)", "Div(a, down)", 1),
        ("Mul(a, down)", "Sub(a, down)", 2),
        ("Conv(c, w, v)", "Conv(c, w)", 1),
    ],
)
def test_a_number_added_to_the_input_of_a_conv_goes_into_its_bias(rng, old, new, sites):
    before = conv(rng, NORMALIZED.replace(old, new))
    found, after = changed(before, fold_add_into_bias.rewrite)
    assert found == sites
    assert op_types(after) == ["Unsqueeze", "Conv"]
    assert difference(before, after, x=rng.standard_normal((2, 7, 6), dtype=np.float32)) < 1e-5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Conv(c", "Conv<pads = [1, 1, 1, 1]>(c"),
        ("Conv(c", 'Conv<auto_pad = "SAME_UPPER">(c'),
        ("Add(x, up)", "Add(x, row)"),
        ("=> (", "=> (float[n,t,6] b, "),
        ("Add(x, up)", "Mul(x, up)"),
    ],
)
def test_a_number_stays_where_zeros_are_padded_or_others_need_the_sum(rng, old, new):
    text = NORMALIZED.replace(old, new).replace("float[n,3,u,4] y", "float[n,3,u,v] y")
    before = conv(rng, text, row=np.arange(6, dtype=np.float32))
    reason, after = changed(before, fold_add_into_bias.rewrite)
    assert isinstance(reason, str)
    assert op_types(after) == op_types(before)
