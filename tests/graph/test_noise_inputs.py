"""Two graphs get the same noise: the same values, frame by frame, at the mean and the scale that each node draws with."""

import numpy as np
import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample

DRAW = "g (float[1, 4, frames] x) => (float[1, 4, frames] y) { [draw] y = %s (x) }"


def drawn(model: onnx.ModelProto, x: np.ndarray, seed: int = 0) -> np.ndarray:
    noisy = with_noise_inputs(model)
    noise = noisy.noise(np.random.default_rng(seed))
    return infer(open_session(noisy.model), Sample("s", {"x": x, **noise}))["y"]


def zeros(frames: int) -> np.ndarray:
    return np.zeros((1, 4, frames), np.float32)


def test_a_graph_without_noise_stays_as_it_is(conv_net):
    model = conv_net()
    noisy = with_noise_inputs(model)
    assert noisy.model is model
    assert not noisy.tables


def test_the_same_seed_gives_the_same_noise_and_another_seed_other_noise(build):
    model = build(DRAW % "RandomNormalLike")
    np.testing.assert_array_equal(drawn(model, zeros(50), 3), drawn(model, zeros(50), 3))
    assert not np.array_equal(drawn(model, zeros(50), 3), drawn(model, zeros(50), 4))


def test_the_first_frames_see_the_same_noise_whatever_the_length(build):
    model = build(DRAW % "RandomNormalLike")
    np.testing.assert_array_equal(drawn(model, zeros(70))[..., :50], drawn(model, zeros(50)))


def test_normal_noise_has_the_mean_and_the_scale_of_its_node(build):
    values = drawn(build(DRAW % "RandomNormalLike <mean = 5.0, scale = 0.5>"), zeros(5000))
    assert values.mean() == pytest.approx(5.0, abs=0.05)
    assert values.std() == pytest.approx(0.5, abs=0.02)


def test_uniform_noise_lies_between_low_and_high(build):
    values = drawn(build(DRAW % "RandomUniformLike <low = 2.0, high = 6.0>"), zeros(5000))
    assert 2.0 <= values.min() < 2.1
    assert 5.9 < values.max() <= 6.0
    assert values.mean() == pytest.approx(4.0, abs=0.1)


def test_noise_of_a_fixed_shape_keeps_it(build):
    model = build("g (float[n] x) => (float[2, 3] y) { [draw] y = RandomNormal <shape = [2, 3]> () }")
    noisy = with_noise_inputs(model)
    given = {"x": np.zeros(1, np.float32), **noisy.noise(np.random.default_rng(0))}
    assert infer(open_session(noisy.model), Sample("s", given))["y"].shape == (2, 3)


def test_each_random_node_draws_noise_of_its_own(build):
    model = build(
        """g (float[1, 4, frames] x) => (float[1, 4, frames] y) {
            [one] a = RandomNormalLike (x)
            [two] b = RandomNormalLike (x)
            [difference] y = Sub (a, b)
        }"""
    )
    assert drawn(model, zeros(100)).std() == pytest.approx(2**0.5, abs=0.2)


def test_the_model_that_was_given_is_not_changed(build):
    model = build(DRAW % "RandomNormalLike")
    before = model.SerializeToString()
    with_noise_inputs(model)
    assert model.SerializeToString() == before


def test_a_draw_of_classes_is_refused_since_it_cannot_be_given_from_outside(build):
    model = build("g (float[1, 4] x) => (int32[1, n] y) { [draw] y = Multinomial <sample_size = 3> (x) }")
    with pytest.raises(ModelError, match="draw"):
        with_noise_inputs(model)


def test_the_shipped_matcha_says_the_same_twice_once_its_noise_is_given(shipped):
    """Without it, two runs of one Matcha differ, and no metric could tell that from the loss of quantization."""
    noisy = with_noise_inputs(shipped("matcha").model)
    assert list(noisy.tables.values()) == ["normal"]
    tokens = np.array([[5, 9, 13, 20, 7, 3]])
    inputs = {
        "x": tokens,
        "x_length": np.array([6]),
        "noise_scale": np.array([0.667], np.float32),
        "length_scale": np.array([1.0], np.float32),
        **noisy.noise(np.random.default_rng(1)),
    }
    session = open_session(noisy.model)
    first, second = (infer(session, Sample("s", inputs))["mel"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
