"""Folding of batch normalizations: exact, and only where it is."""

import numpy as np
import pytest

from pipeline.ptq.batch_norm_folding import fold_batch_normalization

NORM = "y = BatchNormalization (a, scale, offset, mean, variance)"


def norm_of(channels, make_weight):
    vectors = {name: make_weight(channels, 1, seed=k)[:, 0] for k, name in enumerate(("scale", "offset", "mean"))}
    return vectors | {"variance": np.abs(make_weight(channels, 1, seed=9)[:, 0]) + 0.1}


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("[conv] a = Conv (x, w)", {"w": (6, 8, 3)}),
        ("[conv] a = Conv <group = 2> (x, w, b)", {"w": (6, 4, 3), "b": (6, 1)}),
        ("[conv] a = ConvTranspose (x, w, b)", {"w": (8, 6, 3), "b": (6, 1)}),
        ("[conv] a = ConvTranspose <group = 2> (x, w)", {"w": (8, 3, 3)}),
    ],
)
def test_folding_is_exact(build, make_weight, make_samples, run, body, weights):
    arrays = {name: make_weight(*shape).squeeze(-1) if name == "b" else make_weight(*shape) for name, shape in weights.items()}
    model = build(
        f"net (float[1, 8, n] x) => (float[1, 6, m] y) {{ {body} [norm] {NORM} }}", **arrays, **norm_of(6, make_weight)
    )
    samples = make_samples(1, 8, 20)
    before = run(model, samples)
    assert fold_batch_normalization(model) == ["norm"]
    assert [node.op_type for node in model.graph.node] == [body.split("= ")[1].split()[0]]
    assert len(model.graph.initializer) == 2
    for a, b in zip(before, run(model, samples), strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=1e-4 * np.abs(a[0]).max())


@pytest.mark.parametrize(
    "body",
    [
        f"[conv] a = Conv (x, w) [norm] {NORM} [other] z = Relu (a)",
        f"[conv] b = Conv (x, w) [relu] a = Relu (b) [norm] {NORM} [other] z = Relu (y)",
    ],
    ids=["the convolution has another reader", "something is between"],
)
def test_near_misses_are_left_alone(build, make_weight, body):
    outputs = "float[1, 6, m] y, float[1, 6, m] z"
    model = build(f"net (float[1, 8, n] x) => ({outputs}) {{ {body} }}", w=make_weight(6, 8, 3), **norm_of(6, make_weight))
    before = model.SerializeToString()
    assert fold_batch_normalization(model) == []
    assert model.SerializeToString() == before
