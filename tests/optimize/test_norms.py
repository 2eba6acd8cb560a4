"""Layer norms over channels, affine parts, and masks."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.optimize.rules import drop_redundant_masks, fuse_layer_norm, mul_add_to_batch_norm

NORM = """(float[n,6,t] x) => (float[n,6,t] y) {
    m = ReduceMean<axes = [1]>(x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean<axes = [1]>(p) e = Add(v, eps) s = Sqrt(e)
    q = Div(d, s) g = Mul(q, gain) y = Add(g, shift) }"""


def norm(rng, text=NORM, opset=17):
    row = {name: rng.uniform(0.5, 2, (1, 6, 1)).astype(np.float32) for name in ("gain", "shift")}
    return graph_of(text, opset, two=np.array(2.0, np.float32), eps=np.array(1e-4, np.float32), **row)


def test_a_layer_norm_over_channels_is_one_operator_between_transpositions(rng):
    before = norm(rng)
    sites, after = changed(before, fuse_layer_norm.rewrite)
    assert (sites, op_types(after)) == (1, ["Transpose", "LayerNormalization", "Transpose"])
    assert difference(before, after, x=rng.standard_normal((2, 6, 5), dtype=np.float32)) < 1e-6


def test_a_layer_norm_whose_parts_are_read_elsewhere_keeps_them(rng):
    before = norm(rng, NORM.replace("=> (float[n,6,t] y)", "=> (float[n,6,t] y, float[n,6,t] q)"))
    sites, after = changed(before, fuse_layer_norm.rewrite)
    assert sites == 1
    assert op_types(after).count("Mul") == 1  # the gain stays, the division is what became an operator
    assert difference(before, after, x=rng.standard_normal((2, 6, 5), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("text", "opset", "reason"),
    [
        (NORM, 16, "LayerNormalization needs opset 17, the graph has 16"),
        (NORM.replace("axes = [1]", "axes = [2]"), 17, "no layer norm over the second of three axes"),
        (NORM.replace("Pow(d, two)", "Pow(d, eps)"), 17, "no layer norm over the second of three axes"),
    ],
)
def test_other_norms_are_left_alone(rng, text, opset, reason):
    assert changed(norm(rng, text, opset), fuse_layer_norm.rewrite)[0] == reason


@pytest.mark.parametrize("rank", [3, 4])
def test_a_factor_and_a_shift_are_one_pass(rng, rank):
    ones, axes = (1,) * (rank - 2), ",t" * (rank - 2)
    before = graph_of(
        f"(float[n,6{axes}] x) => (float[n,6{axes}] y) {{ m = Mul(gain, x) y = Add(m, shift) }}",
        gain=rng.standard_normal((6, *ones), dtype=np.float32),
        shift=rng.standard_normal((1, 6, *ones), dtype=np.float32),
    )
    sites, after = changed(before, mul_add_to_batch_norm.rewrite)
    assert (sites, op_types(after)) == (1, ["BatchNormalization"])
    assert difference(before, after, x=rng.standard_normal((2, 6, *(4,) * (rank - 2)), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        ((), "{ m = Mul(x, gain) y = Add(m, shift) }"),  # one number
        ((4,), "{ m = Mul(x, gain) y = Add(m, shift) }"),  # along another axis
        ((6, 1), "{ m = Mul(x, gain) y = Add(m, x) }"),
    ],
)
def test_other_factors_are_left_alone(rng, gain, text):
    model = graph_of(
        f"(float[n,6,4] x) => (float[n,6,4] y) {text}",
        gain=np.ones(gain, np.float32),
        shift=rng.standard_normal((6, 1), dtype=np.float32),
    )
    assert changed(model, mul_add_to_batch_norm.rewrite)[0] == "no Mul and Add by one number a channel each"


MASKED = """(float[n,6,t] x, float[n,6,t] z, int64[n] lengths, int64[t] places) => (float[n,6,t] y) {
    l = Unsqueeze(lengths, one) b = Less(places, l) f = Cast<to = 1>(b) m = Unsqueeze(f, one)
    """


def masked(text):
    return graph_of(MASKED + text + "}", one=np.array([1]), c=np.full((6, 1), 0.3, np.float32))


def masks(rng):
    x, z = rng.standard_normal((2, 2, 6, 5), dtype=np.float32)
    return {"x": x, "z": z, "lengths": np.array([5, 3]), "places": np.arange(5)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a = Mul(x, m) y = Mul(a, m)", 1),
        ("a = Mul(m, x) b2 = Add(a, c) d = Sigmoid(b2) y = Mul(d, m)", 1),
        ("a = Mul(x, m) b2 = Add(a, z) d = Mul(b2, m) e = Sub(d, x) y = Mul(e, m)", 1),
    ],
)
def test_a_mask_that_is_applied_again_is_dropped(rng, text, left):
    before = masked(text)
    sites, after = changed(before, drop_redundant_masks.rewrite)
    assert sites == op_types(before).count("Mul") - left
    assert op_types(after).count("Mul") == left
    assert difference(before, after, **masks(rng)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "a = Mul(x, m) b2 = Softmax(a) y = Mul(b2, m)",  # looks at neighbours
        "a = Mul(x, m) b2 = Relu(a) d = Mul(b2, m) y = Add(d, a)",  # read unmasked as well
        "a = Mul(x, z) y = Mul(a, z)",  # not of zeros and ones
    ],
)
def test_a_mask_that_somebody_needs_stays(text):
    assert changed(masked(text), drop_redundant_masks.rewrite)[0] == "no mask that is applied again downstream"
