"""A transducer of NeMo: an LSTM that goes on from its own tokens and states, and durations that skip frames."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.errors import ModelError
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.nemo_transducer import NemoTransducer
from pipeline.paths import resolve_path
from pipeline.utterance import Utterance
from tests.nemo_graphs import DURATIONS, HIDDEN, LETTERS, METADATA, write_nemo


@pytest.fixture
def written(tmp_path, build):
    """Return a function that writes a small model."""
    return lambda *durations, **metadata: write_nemo(tmp_path / "nemo", build, *durations, **metadata)


def calls_of(folder, repo) -> tuple[list[Call], dict]:
    """Return what the graphs are given for a clip that ships, and what comes out."""
    model, calls = NemoTransducer("n", dir=str(folder)), []
    sessions = ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)
    clip = Utterance("e000", audio=repo / "data/clips/evaluation/e000.flac")
    sample = model.sample(clip, lambda path, rate: read_audio(path, rate, SampleRateMismatch.refuse, []))
    return calls, model.infer(sample, sessions.runner([0], calls))


def test_the_decoder_is_given_the_blank_and_zeros_then_its_tokens_and_states(written, repo):
    calls, outputs = calls_of(written(), repo)
    decoder = [call for call in calls if call.graph == "decoder"]
    targets = [int(call.sample.inputs["targets"][0, 0]) for call in decoder]
    assert targets == [LETTERS, *outputs["tokens"].tolist()]
    assert len(set(targets)) > 5
    first = decoder[0].sample.inputs
    assert first["targets"].dtype == first["target_length"].dtype == np.int32
    assert all(not first[name].any() and first[name].shape == (1, 1, HIDDEN) for name in ("states.1", "onnx::LSTM_3"))
    for before, after in pairwise(decoder):
        np.testing.assert_array_equal(after.sample.inputs["states.1"], before.outputs["states"])
        np.testing.assert_array_equal(after.sample.inputs["onnx::LSTM_3"], before.outputs["162"])


def heard_frames(calls: list[Call]) -> list[int]:
    """Return the frame that each call of the joiner was given."""
    frames = calls[0].outputs["outputs"][0].T
    joiner = [call.sample.inputs["encoder_outputs"][0, :, 0] for call in calls if call.graph == "joiner"]
    return [int(np.flatnonzero((frames == frame).all(axis=1))[0]) for frame in joiner]


def test_without_durations_every_frame_is_asked_until_it_says_blank_or_has_said_ten(written, repo):
    calls, _ = calls_of(written(), repo)
    asked = heard_frames(calls)
    assert sorted(set(asked)) == list(range(int(calls[0].outputs["encoded_lengths"][0])))
    assert asked == sorted(asked)
    assert max(map(asked.count, asked)) == 10


@pytest.mark.parametrize(("token", "duration", "frames"), [(LETTERS, 3, 3), (0, 4, 4), (0, 0, 1), (LETTERS, 0, 1)])
def test_durations_skip_frames_and_a_frame_says_five_tokens_at_most(written, repo, token, duration, frames):
    """The joiner always says the same here."""
    folder = written(DURATIONS)
    model = onnx.load(folder / "joiner.onnx")
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "b_o"]
    values = np.zeros(LETTERS + 1 + DURATIONS, np.float32)
    values[[token, LETTERS + 1 + duration]] = 1e4
    bias.CopyFrom(numpy_helper.from_array(values, "b_o"))
    onnx.save(model, folder / "joiner.onnx")
    calls, outputs = calls_of(folder, repo)
    asked, count = heard_frames(calls), int(calls[0].outputs["encoded_lengths"][0])
    assert sorted(set(asked)) == list(range(0, count, frames))
    assert asked.count(0) == (5 if (token, duration) == (0, 0) else 1)
    assert len(outputs["tokens"]) == (0 if token == LETTERS else len(asked))


def test_features_are_normalised_and_as_many_as_the_metadata_says(written):
    audio = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    for metadata, bands in (({}, 80), ({"feat_dim": 128}, 128), ({"is_giga_am": 1, "feat_dim": 80}, 64)):
        signal, length = NemoTransducer("n", dir=str(written(**metadata))).sample_of_audio("a", audio).inputs.values()
        assert signal.shape == (1, bands, 100)
        assert length.tolist() == [100]
        np.testing.assert_allclose(signal.mean(axis=2), 0, atol=1e-4)
        np.testing.assert_allclose(signal.std(axis=2), 1, atol=1e-3)
    raw = next(iter(NemoTransducer("n", dir=str(written(normalize_type="NA"))).sample_of_audio("a", audio).inputs.values()))
    assert raw.mean() < -1


def test_a_directory_of_nemo_is_told_from_one_of_icefall(written):
    folder = written()
    for place in (folder, folder / "encoder.onnx"):
        assert (model_kind(place).model, model_kind(place).place) == ("nemo_transducer", folder)
    NemoTransducer("n", dir=str(folder)).check()


@pytest.mark.parametrize(
    ("durations", "metadata", "message"),
    [
        (0, {"vocab_size": 30}, r"gives 27 classes.*vocab_size=30"),
        (DURATIONS, {"url": "rnnt"}, r"gives 32 classes.*no 'tdt'"),
        (0, {"url": "tdt"}, r"gives 27 classes.*has 'tdt'"),
        (0, {"pred_hidden": 64}, r"'states\.1' is of shape \(1, \?, 32\).*\(1, 1, 64\)"),
        (0, {"feat_dim": 128}, r"'audio_signal' is of shape \(\?, 80, \?\).*\(1, 128, \?\)"),
        (0, {"normalize_type": "all_features"}, r"normalize_type='all_features'"),
        (0, {"pred_rnn_layers": "two"}, r"not a number"),
    ],
)
def test_what_the_client_would_end_its_process_for_is_refused(written, durations, metadata, message):
    with pytest.raises(ModelError, match=message):
        NemoTransducer("n", dir=str(written(durations, **metadata))).check()


@pytest.mark.parametrize("key", ["vocab_size", "subsampling_factor", "normalize_type", "pred_rnn_layers", "pred_hidden"])
def test_metadata_that_the_client_needs_must_be_there(written, key):
    folder = written()
    model = onnx.load(folder / "encoder.onnx")
    onnx.helper.set_model_props(model, {name: str(value) for name, value in METADATA.items() if name != key})
    onnx.save(model, folder / "encoder.onnx")
    with pytest.raises(ModelError, match=f"has no {key}"):
        NemoTransducer("n", dir=str(folder)).check()


@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: ["<blk> 0", *lines[1:-1], "z! 26"]])
def test_a_token_table_whose_last_token_is_not_the_blank_is_refused(written, change):
    folder = written()
    lines = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
    (folder / "tokens.txt").write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"27 are needed, the last one '<blk>'"):
        NemoTransducer("n", dir=str(folder)).check()


def test_a_streaming_encoder_is_refused_with_what_to_do(written, build):
    folder = written()
    model = onnx.load(folder / "encoder.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("cache_last_channel", 1, [1, 17, 8, 512]))
    onnx.save(model, folder / "encoder.onnx")
    with pytest.raises(ModelError, match=r"cache_last_channel.*model=onnx"):
        NemoTransducer("n", dir=str(folder)).check()


def test_without_a_directory_there_is_no_transducer():
    with pytest.raises(ModelError, match=r"model\.dir: not set"):
        _ = NemoTransducer("n").graphs


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_the_command_quantizes_each_graph_and_reports_the_words(run_quickly, written, mode):
    run = run_quickly(
        "model=nemo_transducer", f"model.dir={written(DURATIONS)}", f"mode={mode}",
        "stages=[load,inspect,quantize,evaluate]", "evaluation.samples=2",
        *(["calibration.samples=2"] if mode == "static" else []),
    ).succeeded()  # fmt: skip
    assert [artifact["file"] for artifact in run.report["artifacts"]] == [
        f"{part}.int8.onnx" for part in ("encoder", "decoder", "joiner")
    ]
    assert set(run.report["evaluation"]["metrics"]) >= {"wer_percent", "cer_percent", "mse"}
    assert "joiner.outputs" in run.report["evaluation"]["outputs"]
    assert "posterior_kl" in run.report["verdict"]["quality"] and "not measured" not in run.report["verdict"]["quality"]


def test_a_search_compares_the_logits_after_what_fp32_has_said(run_quickly, written):
    run = run_quickly(
        "model=nemo_transducer", f"model.dir={written(DURATIONS)}", "mode=auto", "mode.seconds=2", "stages=[load,quantize]",
        "evaluation.samples=8", "calibration.samples=2",
    ).succeeded()  # fmt: skip
    assert {search["metric"] for search in run.report["search"].values()} == {"posterior_kl"}


@pytest.mark.parametrize("durations", [DURATIONS, 0])
def test_given_its_own_decisions_a_model_gives_the_same_logits(written, repo, durations):
    folder = written(durations)
    calls, outputs = calls_of(folder, repo)
    model = NemoTransducer("n", dir=str(folder))
    run = ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1).runner([0])
    again = model.given_decisions(next(call.sample for call in calls if call.graph == "encoder"), run, outputs)
    assert np.array_equal(again["logits"], outputs["logits"])
    said = outputs["path"][:, 0]
    assert np.array_equal(said, model.posteriors(outputs).argmax(axis=1))
    assert np.array_equal(said[said != LETTERS], outputs["tokens"])
