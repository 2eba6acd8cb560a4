"""A sequence through a streaming model: what each step is given, against loops that are written out here."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from pipeline.errors import DataError, ModelError
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import load_graph
from pipeline.graph.states import states_of
from pipeline.models.loop_settings import advice_on_states
from pipeline.models.onnx_file import OnnxFile
from pipeline.sample import Sample

GRU = """vad (float[1, 8] x, float[1, 1, 4] h) => (float[1, 1] y, float[1, 1, 4] new_h) {
    row = Unsqueeze (x, zero)
    all, new_h = GRU <hidden_size = 4, linear_before_reset = 1> (row, W, R, B, , h)
    last = Squeeze (new_h, zero)
    score = MatMul (last, w)
    y = Sigmoid (score)
}"""
LSTM = """encoder (float[n, 1, 8] x, float[1, 1, 4] h, float[1, 1, 4] c)
    => (float[n, 1, 1, 4] y, float[1, 1, 4] new_h, float[1, 1, 4] new_c) {
    y, new_h, new_c = LSTM <hidden_size = 4> (x, W, R, B, , h, c)
}"""
CONV = """denoiser (float[1, 4, 16] frames, float[1, 4, 2] cache) => (float[1, 4, 16] y, float[1, 4, 2] new_cache) {
    heard = Concat <axis = 2> (cache, frames)
    y = Conv (heard, w)
    new_cache = Slice (heard, minus_two, end, two)
}"""
RATES = """rates (float[1, k] x, int64 sr, float[1, 1] total) => (float[1, 1] y, float[1, 1] new_total) {
    sum = ReduceSum <keepdims = 1> (x, one)
    rate = Cast <to = 1> (sr)
    y = Add (sum, rate)
    new_total = Add (total, sum)
}"""


@pytest.fixture
def gru(build, make_weight):
    """Return a GRU cell with a score: x (1, 8), h (1, 1, 4)."""
    weights = {"W": make_weight(1, 12, 8), "R": make_weight(1, 12, 4), "B": make_weight(1, 24), "w": make_weight(4, 1)}
    return build(GRU, zero=np.array([0]), **weights)


@pytest.fixture
def conv(build, make_weight):
    """Return a causal convolution with a cache of two frames, on chunks of 16."""
    ends = {"minus_two": np.array([-2]), "end": np.array([1 << 40]), "two": np.array([2])}
    return build(CONV, w=make_weight(4, 4, 3), **ends)


@pytest.fixture
def rates(build):
    """Return a graph that takes any number of samples, a constant rate, and a running total."""
    return build(RATES, one=np.array([1]))


@pytest.fixture
def loop(source_of):
    """Return a function: graph, inputs of a sequence, settings -> outputs of all steps, or what a step was given."""

    def make(model, **settings):
        source = source_of(model)
        return OnnxFile("onnx", str(source.path), **settings).with_graphs({"model": source})

    return make


@pytest.fixture
def rolled(loop):
    """Return a function: graph, inputs of a sequence, settings -> the outputs of all steps."""

    def run(model, inputs, **settings):
        session = open_session(model)
        return loop(model, **settings).infer(Sample("s", inputs), lambda _, sample: infer(session, sample))

    return run


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_by_hand(model, x, h):
    """Return scores and states of a GRU, step by step, as ONNX defines it (linear_before_reset = 1)."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (wz, wr, wh), (rz, rr, rh) = (np.split(weights[name][0], 3) for name in ("W", "R"))
    bz, br, bh, cz, cr, ch = np.split(weights["B"][0], 6)
    scores, states = [], []
    for frame in x:
        z = sigmoid(wz @ frame + bz + rz @ h + cz)
        r = sigmoid(wr @ frame + br + rr @ h + cr)
        h = (1 - z) * np.tanh(wh @ frame + bh + r * (rh @ h + ch)) + z * h
        states.append(h)
        scores.append(sigmoid(h @ weights["w"][:, 0]))
    return np.array(scores), np.array(states)


def test_a_gru_hears_a_sequence_frame_by_frame_as_a_loop_in_numpy_does(rolled, gru):
    x = noise(100, 1, 8)
    found = rolled(gru, {"x": x})
    scores, states = gru_by_hand(gru, x[:, 0], np.zeros(4))
    np.testing.assert_allclose(found["y"][:, 0, 0], scores, atol=1e-5)
    kept = np.linspace(0, 99, 64).round().astype(int)  # of states, some steps are kept
    np.testing.assert_allclose(found["new_h"][:, 0, 0], states[kept], atol=1e-5)


def test_a_sequence_starts_from_its_own_state_or_from_that_of_the_file(rolled, gru, tmp_path):
    x, start = noise(5, 1, 8), noise(1, 1, 4, seed=1)
    scores, _ = gru_by_hand(gru, x[:, 0], start[0, 0])
    np.savez(tmp_path / "start.npz", h=start)
    own = rolled(gru, {"x": x, "h": start})
    by_file = rolled(gru, {"x": x}, initial_states=str(tmp_path / "start.npz"))
    np.testing.assert_allclose(own["y"][:, 0, 0], scores, atol=1e-5)
    np.testing.assert_array_equal(own["y"], by_file["y"])


def test_chunks_of_a_causal_convolution_give_what_the_whole_sequence_does(rolled, conv):
    frames = noise(1, 4, 16 * 6 + 5)  # five frames fill no chunk
    found = rolled(conv, {"frames": frames})
    heard = np.concatenate([np.zeros((4, 2), np.float32), frames[0, :, : 16 * 6]], axis=1)
    [w] = [numpy_helper.to_array(tensor) for tensor in conv.graph.initializer if tensor.name == "w"]
    expected = sum(w[:, :, k] @ heard[:, k : k + 16 * 6] for k in range(3))
    assert found["y"].shape == (6, 1, 4, 16)
    np.testing.assert_allclose(np.concatenate(list(found["y"][:, 0]), axis=1), expected, atol=1e-5)


def test_an_lstm_hears_chunks_along_the_axis_that_is_open(rolled, build, make_weight):
    encoder = build(LSTM, W=make_weight(1, 16, 8), R=make_weight(1, 16, 4), B=make_weight(1, 32))
    x = noise(12, 1, 8)
    found = rolled(encoder, {"x": x}, chunk=3)
    zero = np.zeros((1, 1, 4), np.float32)
    whole = infer(open_session(encoder), Sample("s", {"x": x, "h": zero, "c": zero}))
    np.testing.assert_allclose(found["y"].reshape(12, 4), whole["y"].reshape(12, 4), atol=1e-6)
    np.testing.assert_allclose(found["new_c"][-1], whole["new_c"], atol=1e-6)


def test_steps_overlap_by_the_hop_and_a_constant_input_is_the_same_at_each(rolled, rates):
    x = noise(1, 20)
    found = rolled(rates, {"x": x, "sr": np.array(16000)}, chunk=8, hop=4)
    sums = np.array([x[0, start : start + 8].sum() for start in range(0, 13, 4)])
    np.testing.assert_allclose(found["y"].ravel(), sums + 16000, rtol=1e-6)
    np.testing.assert_allclose(found["new_total"].ravel(), np.cumsum(sums), atol=1e-5)


def test_states_that_are_named_go_where_they_are_told_and_none_go_anywhere_without(rolled, loop, build):
    cross = build("g (float[1] x, float[1] a, float[1] b) => (float[1] p, float[1] q) { p = Add (x, a) q = Add (x, b) }")
    x = np.ones((4, 1), np.float32)
    crossed = rolled(cross, {"x": x}, states={"p": "b", "q": "a"})
    np.testing.assert_array_equal(crossed["p"].ravel(), [1, 2, 3, 4])
    straight = rolled(cross, {"x": x, "b": np.full(1, 5, np.float32)}, states={"p": "a"})
    np.testing.assert_array_equal(straight["q"].ravel(), [6, 6, 6, 6])
    one = {name: np.ones(1, np.float32) for name in ("x", "a", "b")}
    assert loop(cross, states={}).steps(Sample("s", one)) is None


SHAPES = """g (float[1, 8] input_1, {inputs}) => (float[1, 8] out, {outputs}) {{ out = Identity (input_1) {body} }}"""


def test_a_state_without_a_telling_name_is_found_by_a_shape_that_no_other_has(source_of, build):
    alone = build(SHAPES.format(inputs="float[1, 2, 4] input_9", outputs="float[n, 2, 4] stack", body="stack = Neg (input_9)"))
    assert states_of(alone.graph) == {"stack": "input_9"}
    vector = build(SHAPES.format(inputs="float[1, 4] voice", outputs="float[1, 4] score", body="score = Neg (voice)"))
    assert states_of(vector.graph) == {}
    inputs, outputs = "float[1, 2, 4] input_8, float[1, 2, 4] input_9", "float[1, 2, 4] p, float[1, 2, 4] q"
    two = build(SHAPES.format(inputs=inputs, outputs=outputs, body="p = Neg (input_8) q = Neg (input_9)"))
    assert states_of(two.graph) == {}
    [advice] = advice_on_states(source_of(two), {})
    assert "input_8 (by p or q), input_9 (by p or q); if they are, set 'model.states={<output>: <input>}'" in advice


def test_a_sample_with_states_and_one_chunk_is_a_single_call(loop, gru):
    model = loop(gru)
    assert model.steps(Sample("s", {"x": noise(1, 8), "h": noise(1, 1, 4)})) is None
    assert model.steps(Sample("s", {"x": noise(1, 8)})) == 1
    assert model.steps(Sample("s", {"x": noise(7, 1, 8), "h": noise(1, 1, 4)})) == 7


def test_the_beginning_of_a_sequence_has_so_many_steps(loop, rates):
    model = loop(rates, chunk=8, hop=4)
    short = model.shortened(Sample("s", {"x": noise(1, 200), "sr": np.array(1)}), 3)
    assert short.inputs["x"].shape == (1, 16)
    assert model.steps(short) == 3


@pytest.mark.parametrize(
    ("shape", "metadata", "settings", "expected"),
    [
        ("1, 512", {}, {"step_ms": 20.0}, 0.02),
        ("1, 512", {"sample_rate": "16000"}, {}, 0.032),
        ("1, n", {}, {"chunk": 576, "hop": 512, "fixed_inputs": {"sr": 16000}}, 0.032),
        ("1, 257, 1, 2", {"sample_rate": "16000", "hop_length": "256"}, {}, 0.016),
        ("1, t, 80", {"sample_rate": "16000", "hop_length": "160"}, {"chunk": 45, "hop": 32}, 0.32),
        ("1, t, 80", {"sample_rate": "16000"}, {"chunk": 45, "hop": 32}, None),
        ("1, 512", {}, {}, None),
        ("1, 512", {"sample_rate": "unknown"}, {}, None),
    ],
)
def test_the_audio_of_a_step_follows_from_hop_and_sample_rate(loop, build, shape, metadata, settings, expected):
    model = build(f"g (float[{shape}] x, int64 sr, float[2, 1, 4] h) => (float[2, 1, 4] new_h) {{ new_h = Identity (h) }}")
    helper.set_model_props(model, metadata)
    assert loop(model, **settings).audio_seconds(Sample("s", {}), {}) == (None if expected is None else pytest.approx(expected))


def test_a_model_without_states_or_chunks_has_no_steps_whose_audio_is_known(loop, build):
    model = build("g (float[1, 1, t] x) => (float[1, 1, t] y) { y = Relu (x) }")
    helper.set_model_props(model, {"sample_rate": "16000", "hop_length": "256"})
    assert loop(model).audio_seconds(Sample("s", {}), {}) is None


def test_steps_that_overlap_are_not_put_together_as_audio(loop, rates):
    model = loop(rates, chunk=8, hop=4)
    with pytest.raises(DataError, match=r"each step gives 8 samples and goes on by model\.hop=4"):
        model.audio({"y": noise(3, 1, 8)})
    np.testing.assert_array_equal(model.audio({"y": np.arange(12, dtype=np.float32).reshape(3, 1, 4)}), np.arange(12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"states": {"new_hh": "h"}}, "model.states: the graph has no output 'new_hh'. Did you mean new_h?"),
        ({"states": {"new_h": "hh"}}, "model.states.new_h: the graph has no input 'hh'"),
        ({"states": {"y": "h"}}, r"model.states.y: the output is of shape \[1, 1\], but 'h' takes \[1, 1, 4\]"),
        ({"states": {"y": "h", "new_h": "h"}}, "model.states"),
        ({"chunk_input": "h"}, "model.chunk_input: the input 'h' is a state. Allowed: x"),
        ({"chunk_input": "z"}, "model.chunk_input: the input 'z' does not exist"),
        ({"chunk": 0}, "model.chunk: 0 is out of limits"),
        ({"chunk": 4, "hop": 5}, "model.hop: 5 is more than model.chunk=4"),
        ({"chunk": 4, "chunk_axis": 2}, "model.chunk_axis: 2, but 'x' has 2 axes"),
        ({"chunk": 4, "chunk_axis": 1}, "model.chunk: 4, but the graph takes 8 along axis 1 of 'x'"),
        ({"states": {}, "initial_states": "start.npz"}, "model.initial_states: nothing is fed back"),
        ({"initial_states": "start.npz"}, "model.initial_states: .*start.npz is not an .npz"),
        ({"step_ms": 0.0}, "model.step_ms: 0.0 is out of limits"),
    ],
)
def test_a_setting_that_does_not_fit_the_graph_is_refused(loop, gru, settings, message):
    with pytest.raises((ModelError, DataError), match=message):
        loop(gru, **settings)


def test_initial_states_that_do_not_fit_are_refused(loop, gru, tmp_path):
    for arrays, message in (({"g": noise(1)}, "'g' is no state"), ({"h": noise(1, 1, 5)}, "'h' is float32 of shape")):
        np.savez(tmp_path / "start.npz", **arrays)
        with pytest.raises(DataError, match=message):
            loop(gru, initial_states=str(tmp_path / "start.npz"))


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({}, {"x": noise(1, 200), "sr": np.array(1)}, "how much of it a step takes is not known.*Set model.chunk"),
        ({"chunk": 8}, {"x": noise(1, 5), "sr": np.array(1)}, "shorter along axis 1 than a step takes"),
        ({"chunk": 8}, {"x": noise(3, 1, 5), "sr": np.array(1)}, "leave out model.chunk"),
        ({}, {"x": noise(3, 1, 5), "sr": np.zeros(4, np.int64)}, "different numbers of steps: x 3, sr 4"),
        ({}, {"x": noise(0, 1, 5), "sr": np.array(1)}, "no step"),
    ],
)
def test_a_sequence_that_does_not_fit_is_refused(loop, rates, settings, inputs, message):
    with pytest.raises(DataError, match=message):
        loop(rates, **settings).first_call(Sample("s", inputs))


def test_some_states_without_the_others_are_refused(loop, build, make_weight):
    encoder = build(LSTM, W=make_weight(1, 16, 8), R=make_weight(1, 16, 4), B=make_weight(1, 32))
    with pytest.raises(DataError, match="has the state 'h' but lacks 'c'"):
        loop(encoder).first_call(Sample("s", {"x": noise(5, 3, 1, 8), "h": noise(1, 1, 4)}))


def test_a_real_denoiser_hears_a_spectrum_along_its_time_axis_or_frame_by_frame(loop, real_case):
    path = real_case("gtcrn_simple") / "model.onnx"
    source = load_graph("model", str(path))
    model = OnnxFile("onnx", str(path)).with_graphs({"model": source})
    session = open_session(path)
    mix = noise(1, 257, 20, 2)
    states = {"conv_cache": (2, 1, 16, 16, 33), "tra_cache": (2, 3, 1, 1, 16), "inter_cache": (2, 1, 33, 16)}
    given = {name: np.zeros(shape, np.float32) for name, shape in states.items()}
    expected = []
    for frame in range(20):
        outputs = session.run(None, {"mix": np.ascontiguousarray(mix[:, :, frame : frame + 1]), **given})
        expected.append(outputs[0])
        given = dict(zip(given, outputs[1:], strict=True))
    for inputs in ({"mix": mix}, {"mix": np.ascontiguousarray(mix.transpose(2, 0, 1, 3)[:, :, :, None])}):
        found = model.infer(Sample("s", inputs), lambda _, sample: infer(session, sample))
        np.testing.assert_allclose(found["enh"], expected, atol=1e-5)
    with pytest.raises(DataError, match="which axis is time is not clear"):
        model.steps(Sample("s", {"mix": noise(2, 257, 20, 2)}))
