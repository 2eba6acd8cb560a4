"""Whisper writes token by token from a cache: words come out, and the decoder is calibrated on what it is given on the way."""

from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import onnx
import pytest
import soundfile

from pipeline.audio.whisper_mel import client_log_mel, recorded_frames, whisper_log_mel
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.errors import DataError, ModelError
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import Call, ModelSessions, traced
from pipeline.models.whisper import Whisper
from pipeline.paths import resolve_path
from pipeline.utterance import Utterance
from tests.whisper_graphs import (
    ENGLISH,
    EOT,
    GERMAN,
    MULTILINGUAL,
    NO_TIMESTAMPS,
    PIECES,
    PLACES,
    SOT,
    TRANSLATE,
    write_whisper,
)

OF_OPENAI = {  # whisper.audio.log_mel_spectrogram of `tones()`, openai-whisper 20250625, torch 2.13.0
    80: {(0, 0): 0.636545, (10, 50): 0.999253, (11, 50): 1.088719, (12, 99): 0.947761, (45, 50): -0.911281},
    128: {(0, 0): 0.560785, (17, 50): 0.988006, (79, 50): -0.864131},
}


@pytest.fixture
def folder(tmp_path, build):
    """Return a directory with the small model."""
    return write_whisper(tmp_path / "whisper", build)


@pytest.fixture
def model(folder):
    """Return the small model."""
    return Whisper("w", dir=str(folder))


@pytest.fixture
def ensemble(model):
    """Return its graphs, ready to run."""
    return ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)


@pytest.fixture
def clip(repo):
    """Return a function: model -> the inputs of a clip that ships."""
    return lambda model, name="e000": model.sample(Utterance(name, audio=repo / f"data/clips/evaluation/{name}.flac"), reader)


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


def tones():
    time = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (440, 3000))
    return (0.1 * low + 0.01 * high).astype(np.float32)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_spectrogram_is_openai_s(bands):
    mel = whisper_log_mel(tones(), bands)
    assert mel.shape == (bands, 100)
    for place, value in OF_OPENAI[bands].items():
        assert mel[place] == pytest.approx(value, abs=2e-5)


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("cut", [0, 79, 80, 100])
def test_what_the_encoder_is_given_is_the_client_s(repo, bands, cut):
    audio = soundfile.read(repo / "data/clips/evaluation/e000.flac", dtype="float32")[0]
    audio = audio[: len(audio) // 160 * 160 - cut]
    options = knf.WhisperFeatureOptions()
    options.dim = bands
    theirs = knf.OnlineWhisperFbank(options)
    theirs.accept_waveform(16_000, audio.tolist())
    theirs.input_finished()
    power = np.stack([theirs.get_frame(k) for k in range(theirs.num_frames_ready)], axis=1)
    scaled = np.log10(np.maximum(power, 1e-10))
    mel = client_log_mel(audio, bands)
    assert recorded_frames(mel) == power.shape[1]
    assert mel.shape[1] == power.shape[1] + 1000
    np.testing.assert_allclose(mel[:, : power.shape[1]], (np.maximum(scaled, scaled.max() - 8) + 4) / 4, atol=1e-3)


def test_of_a_long_recording_the_client_hears_half_a_second_less_than_thirty():
    mel = client_log_mel(np.tile(tones(), 40))
    assert mel.shape == (80, 3000)
    assert recorded_frames(mel) == 2950


def test_a_recording_of_no_frame_is_refused():
    with pytest.raises(DataError, match="79 samples is too short"):
        client_log_mel(np.zeros(79, np.float32))


def test_words_are_written_until_the_end_of_text(model, ensemble, clip):
    model.check()
    outputs = model.infer(clip(model, "e006"), ensemble.runner([0]))
    assert model.transcript(outputs) == "i c c"
    assert outputs["logits"].shape == (4, 96)
    assert outputs["logits"].argmax(axis=1).tolist() == [*outputs["tokens"].tolist(), EOT]


def test_it_writes_no_more_than_six_tokens_for_a_second(model, ensemble, clip):
    sample = clip(model, "e002")
    assert recorded_frames(sample.inputs["mel"]) == 116
    assert len(model.infer(sample, ensemble.runner([0]))["tokens"]) == 6


def test_it_writes_no_more_than_half_of_its_places(folder, ensemble, clip):
    edit(folder / "small-encoder.onnx", eot=95)
    model = Whisper("w", dir=str(folder))
    sample = clip(model)
    sample.inputs["mel"] = np.tile(sample.inputs["mel"][..., :100], 20)
    assert len(model.infer(sample, ensemble.runner([0]))["tokens"]) == PLACES // 2


def test_each_step_is_given_the_last_token_the_cache_so_far_and_how_full_it_is(model, ensemble, clip):
    steps = traced(ensemble, model.infer, [clip(model), clip(model, "e001")], 0, "decoder")
    assert [sample.step for sample in steps] == [0, 1, 2, 4, 8] * 2, "early and late ones, however long the text is"
    assert [sample.inputs["tokens"].tolist() for sample in steps[:3]] == [[[SOT, NO_TIMESTAMPS]], [[10]], [[19]]]
    assert [int(sample.inputs["offset"][0]) for sample in steps[:5]] == [0, 2, 3, 5, 9]
    for sample in steps:
        cache, filled = sample.inputs["in_n_layer_self_k_cache"], int(sample.inputs["offset"][0])
        assert cache.shape == (1, 1, PLACES, 32)
        assert cache[0, 0, :filled].any(axis=-1).all()
        assert not cache[0, 0, filled:].any()


def test_samples_of_the_decoder_end_where_they_fill_the_memory_that_is_theirs(model, ensemble, clip, monkeypatch):
    monkeypatch.setattr("pipeline.models.model_sessions.TRACED_BYTES", 100_000)
    steps = traced(ensemble, model.infer, [clip(model)] * 4, 0, "decoder")
    assert [sample.step for sample in steps] == [0, 1, 2, 4, 8], "those of the first clip, all of them"


def test_after_its_own_decisions_its_logits_are_its_own(model, ensemble, clip):
    sample = clip(model)
    outputs = model.infer(sample, ensemble.runner([0]))
    np.testing.assert_array_equal(model.given_decisions(sample, ensemble.runner([0]), outputs)["logits"], outputs["logits"])


def test_after_other_decisions_its_logits_differ_from_there_on(model, ensemble, clip):
    sample = clip(model)
    outputs = model.infer(sample, ensemble.runner([0]))
    others = outputs | {"tokens": outputs["tokens"].copy()}
    others["tokens"][3] = 25
    logits = model.given_decisions(sample, ensemble.runner([0]), others)["logits"]
    same = [np.array_equal(a, b) for a, b in zip(logits, outputs["logits"], strict=True)]
    assert same[:5] == [True] * 4 + [False]


def test_tokens_are_pieces_of_text_in_base64(model):
    assert model.tokens[0] + model.tokens[1] == "日".encode()
    assert model.transcript({"tokens": np.array([0, 1, 2, EOT, 3])}) == "日 a b", "what is no text is left out"
    assert "\ufffd" in model.transcript({"tokens": np.array([2, 0])}), "half a character is shown as such"
    assert len(model.tokens) == len(PIECES)


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"language": "de"}, [SOT, GERMAN, 85, NO_TIMESTAMPS]),
        ({"language": "en", "task": "translate"}, [SOT, ENGLISH, TRANSLATE, NO_TIMESTAMPS]),
    ],
)
def test_language_and_task_are_the_first_tokens(tmp_path, build, clip, settings, prompt):
    model = Whisper("w", dir=str(write_whisper(tmp_path / "whisper", build, **MULTILINGUAL)), **settings)
    assert first_tokens(model, clip)[0] == prompt


def test_without_a_language_the_model_tells_it_and_the_quantized_one_is_compared_in_the_same(tmp_path, build, clip):
    model = Whisper("w", dir=str(write_whisper(tmp_path / "whisper", build, **MULTILINGUAL)))
    asked, prompt = first_tokens(model, clip)
    assert asked == [SOT]
    assert prompt[1] in (ENGLISH, GERMAN)
    other = ENGLISH + GERMAN - prompt[1]
    calls: list[Call] = []
    sessions = ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)
    decided = {"tokens": np.array([3]), "language": np.array([other])}
    model.given_decisions(clip(model), sessions.runner([0], calls), decided)
    assert calls[1].sample.inputs["tokens"].tolist() == [[SOT, other, 85, NO_TIMESTAMPS]]


@pytest.mark.parametrize("settings", [{"language": "de"}, {"task": "translate"}])
def test_a_model_of_english_has_no_other_language_and_translates_nothing(folder, settings):
    with pytest.raises(ModelError, match=r"writes English alone .* Leave them out"):
        Whisper("w", dir=str(folder), **settings).check()


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"language": "fr"}, r"model\.language: the model knows no language 'fr'"), ({"task": "translat"}, "mean translate")],
)
def test_a_language_or_a_task_that_is_none_is_refused(tmp_path, build, settings, told):
    with pytest.raises(ModelError, match=told):
        Whisper("w", dir=str(write_whisper(tmp_path / "whisper", build, **MULTILINGUAL)), **settings).check()


def test_metadata_that_the_client_needs_is_asked_for(folder):
    edit(folder / "small-encoder.onnx", no_timestamps=None)
    with pytest.raises(ModelError, match=r"small-encoder\.onnx: its metadata has no no_timestamps"):
        Whisper("w", dir=str(folder)).check()


def test_a_decoder_of_another_model_is_refused(folder):
    edit(folder / "small-encoder.onnx", n_vocab=51864)
    with pytest.raises(ModelError, match=r"has 96 classes, but .* n_vocab=51864\. They are of different models"):
        Whisper("w", dir=str(folder)).check()


def test_a_decoder_of_other_inputs_is_refused(folder):
    (folder / "small-decoder.onnx").write_bytes((folder / "small-encoder.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"takes mel and gives .*; a decoder as sherpa-onnx runs it takes tokens, keys so far"):
        Whisper("w", dir=str(folder)).check()


def test_a_token_table_of_plain_text_is_refused(folder):
    (folder / "small-tokens.txt").write_text("hello! 0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the token 'hello!' \(id 0\) is not base64"):
        Whisper("w", dir=str(folder)).check()


def test_its_kind_is_seen(folder):
    found = model_kind(folder)
    assert (found.model, found.key, found.place) == ("whisper", "model.dir", folder)
    assert model_kind(folder / "small-decoder.onnx").place == folder


def first_tokens(model: Whisper, clip) -> list[list[int]]:
    model.check()
    calls: list[Call] = []
    sessions = ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)
    model.infer(clip(model), sessions.runner([0], calls))
    return [call.sample.inputs["tokens"][0].tolist() for call in calls[1:3]]


def edit(path: Path, **metadata) -> None:
    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props} | metadata
    onnx.helper.set_model_props(model, {key: str(value) for key, value in known.items() if value is not None})
    onnx.save(model, path)
