"""Two graphs get the same noise: the same values, frame by frame, at the mean and the scale that each node draws with."""

import numpy as np
import onnx
import pytest

from pipeline.graph.noise_inputs import TABLE_VALUES, with_noise_inputs
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


def test_what_a_node_draws_depends_on_its_name_and_not_on_the_nodes_around(build):
    """A graph that a branch, a function or a dead node was taken out of still draws the same."""
    one = build("g (float[1, 4, n] x) => (float[1, 4, n] y) { [draw] y = RandomNormalLike (x) }")
    two = build(
        """g (float[1, 4, n] x) => (float[1, 4, n] y) {
            [other] a = RandomNormalLike (x)
            [uniform] b = RandomUniformLike (x)
            [draw] y = RandomNormalLike (x)
        }"""
    )
    np.testing.assert_array_equal(drawn(one, zeros(50)), drawn(two, zeros(50)))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_noise_is_given_at_every_opset_that_draws_it(build, opset):
    values = drawn(build(DRAW % "RandomNormalLike", opset), zeros(5000))
    assert values.std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("kind", "dtype"), [("double", np.float64), ("float16", np.float16), ("float", np.float32)])
@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "of the input"])
def test_noise_has_the_type_that_its_node_asks_for_or_that_of_its_input(build, kind, dtype, asked):
    number = onnx.TensorProto.DataType.Value(kind.upper())
    text = f"g ({'float' if asked else kind}[1, 4, n] x) => ({kind}[1, 4, n] y) {{ [draw] y = RandomNormalLike %s (x) }}"
    model = build(text % (f"<dtype = {number}>" if asked else ""))
    values = drawn(model, zeros(5000).astype(np.float32 if asked else dtype))
    assert values.dtype == dtype
    assert values.std() == pytest.approx(1.0, abs=0.02)


def test_noise_of_one_number_without_axes_is_drawn(build):
    model = build("g (float x) => (float y) { [draw] y = RandomUniformLike <low = 2.0, high = 3.0> (x) }")
    value = drawn(model, np.array(0, np.float32))
    assert value.shape == ()
    assert 2.0 <= value <= 3.0


def test_noise_of_no_values_is_drawn(build):
    assert drawn(build(DRAW % "RandomNormalLike"), zeros(0)).shape == (1, 4, 0)


def test_noise_whose_number_of_axes_is_only_known_when_it_runs_is_drawn_as_if_it_were_known(build):
    unknown = build("g (float[1, 4, n] x, int64[k] s) => (float y) { r = Reshape (x, s) [draw] y = RandomNormalLike (r) }")
    unknown.graph.output[0].type.tensor_type.ClearField("shape")
    noisy = with_noise_inputs(unknown)
    feeds = {"x": zeros(50), "s": np.array([1, 4, 50]), **noisy.noise(np.random.default_rng(0))}
    found = infer(open_session(noisy.model), Sample("s", feeds))["y"]
    np.testing.assert_array_equal(found, drawn(build(DRAW % "RandomNormalLike"), zeros(50)))


def test_noise_of_any_length_is_given_and_does_not_repeat(build):
    model = build("g (float[n] x) => (float[n] y) { [draw] y = RandomNormalLike (x) }")
    values = drawn(model, np.zeros(2 * TABLE_VALUES + 1000, np.float32))
    assert values.std() == pytest.approx(1.0, abs=0.01)
    first, second = values[:TABLE_VALUES], values[TABLE_VALUES : 2 * TABLE_VALUES]
    spectra = np.fft.rfft(first), np.fft.rfft(second)
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj()) / TABLE_VALUES  # at every lag
    white = np.sqrt(2 * np.log(TABLE_VALUES) / TABLE_VALUES)  # about the largest one of as many lags of white noise
    assert np.abs(correlation).max() < 1.5 * white


LOOP = """g (float[1, 64] x, int64 n) => (float[k, 1, 64] y) {
    yes = Constant <value = bool {1}> ()
    state, y = Loop (n, yes, x) <body = each (int64 i, bool c, float[1, 64] h) => (bool d, float[1, 64] out, float[1, 64] z) {
        z = RandomNormalLike (h)
        out = Add (h, z)
        d = Identity (c)
    }>
}"""


def test_each_step_of_a_loop_draws_noise_of_its_own(build):
    noisy = with_noise_inputs(build(LOOP))
    feeds = {"x": np.zeros((1, 64), np.float32), "n": np.array(50), **noisy.noise(np.random.default_rng(0))}
    values = infer(open_session(noisy.model), Sample("s", feeds))["y"].reshape(50, 64)
    correlation = np.corrcoef(values) - np.eye(50)
    assert values.std() == pytest.approx(1.0, abs=0.1)
    assert np.abs(correlation).max() < 0.7


def test_each_step_of_a_scan_draws_noise_of_its_own(build):
    model = build(
        """g (float[steps, 64] x) => (float[steps, 64] y) {
            y = Scan <num_scan_inputs = 1, body = each (float[64] row) => (float[64] z) { z = RandomNormalLike (row) }> (x)
        }"""
    )
    values = drawn(model, np.zeros((50, 64), np.float32))
    assert np.abs(np.corrcoef(values) - np.eye(50)).max() < 0.7


def test_a_branch_of_an_if_draws_what_its_node_draws_outside(build):
    inside = build(
        """g (float[1, 4, n] x, bool c) => (float[1, 4, n] y) {
            y = If (c) <then_branch = t () => (float[1, 4, n] a) { [draw] a = RandomNormalLike (x) },
                        else_branch = e () => (float[1, 4, n] b) { b = Identity (x) }>
        }"""
    )
    noisy = with_noise_inputs(inside)
    feeds = {"x": zeros(50), "c": np.array(True), **noisy.noise(np.random.default_rng(0))}
    found = infer(open_session(noisy.model), Sample("s", feeds))["y"]
    np.testing.assert_array_equal(found, drawn(build(DRAW % "RandomNormalLike"), zeros(50)))


def test_a_dropout_in_training_drops_as_many_values_as_its_ratio_says_and_scales_the_others(build):
    text = "g (float[1, 4, n] x) => (float[1, 4, n] y) { [drop] y = Dropout (x, ratio, training) }"
    model = build(text, ratio=np.float32(0.25), training=np.array(True))
    values = drawn(model, np.ones((1, 4, 5000), np.float32))
    assert (values == 0).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(values[values != 0], 4 / 3, rtol=1e-6)


def test_a_dropout_in_inference_is_no_noise(build):
    text = "g (float[1, 4, n] x) => (float[1, 4, n] y) { [drop] y = Dropout (x, ratio, training) }"
    assert not with_noise_inputs(build(text, ratio=np.float32(0.25), training=np.array(False))).tables
    assert not with_noise_inputs(build("g (float[n] x) => (float[n] y) { [drop] y = Dropout (x) }")).tables


def test_classes_are_drawn_as_often_as_their_logits_say(build):
    model = build("g (float[2, 3] x) => (int32[2, k] y) { [draw] y = Multinomial <sample_size = 9000> (x) }")
    share = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    with np.errstate(divide="ignore"):
        values = drawn(model, np.log(share).astype(np.float32))
    assert values.dtype == np.int32
    found = np.stack([(values == each).mean(axis=1) for each in range(3)], axis=1)
    np.testing.assert_allclose(found, share, atol=0.02)


def test_a_bernoulli_draws_as_onnx_runtime_does(build):
    model = build("g (double[1, n] x) => (float[1, n] y) { [draw] y = Bernoulli <dtype = 1> (x) }")
    probabilities = np.full((1, 20000), 0.9)
    theirs = infer(open_session(model), Sample("s", {"x": probabilities}))["y"]
    ours = drawn(model, probabilities)
    assert ours.dtype == theirs.dtype
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.02)


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
