"""Each adapter knows how an utterance becomes the inputs of its graph, and what the outputs mean."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.kaldi_fbank import kaldi_fbank
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.errors import DataError
from pipeline.graph.session import infer, open_session
from pipeline.metrics.text_metrics import wer_percent
from pipeline.models.ctc import Ctc
from pipeline.models.matcha import Matcha
from pipeline.models.onnx_file import OnnxFile
from pipeline.models.speech_model import Speaks, Transcribes
from pipeline.models.vocoder import Vocoder
from pipeline.utterance import Utterance


def read(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


def refuse_to_read(path, rate):
    raise AssertionError("no audio is needed")


@pytest.fixture(scope="module")
def asr(repo):
    """Return the recogniser that ships."""
    return Ctc("asr", str(repo / "data/models/asr/model.onnx"))


def test_a_vocoder_reproduces_a_recording_from_its_mel(repo, shipped):
    [utterance] = islice(manifest_lines(repo / "data/voice/evaluation/manifest.jsonl", "data"), 1)
    vocoder = Vocoder("vocoder", "vocos.onnx")
    sample = vocoder.sample(utterance, read)
    assert sample.inputs["mels"].shape[:2] == (1, 80)
    assert sample.inputs["mels"].dtype == np.float32
    outputs = infer(open_session(shipped("vocoder").path), sample)
    audio, recording = vocoder.audio(outputs), read(utterance.audio, 22_050)
    assert audio.ndim == 1
    assert len(audio) == pytest.approx(len(recording), abs=2 * 256)
    assert vocoder.audio_seconds(sample, outputs) == pytest.approx(len(recording) / 22_050, abs=0.03)
    mels = [vocoder.mel(wave)[:, : len(recording) // 256 - 1] for wave in (audio, recording)]
    assert np.abs(mels[0] - mels[1]).mean() < 0.5  # nat


def test_a_vocoder_whose_output_is_audio_gives_it_as_it_is():
    audio = Vocoder("hifigan", "hifigan.onnx", "mel").audio({"audio": np.ones((1, 1, 512), np.float32)})
    assert audio.shape == (512,)


def test_the_input_of_a_vocoder_has_the_name_that_its_settings_give():
    sample = Vocoder("hifigan", "hifigan.onnx", "mel").sample_of_mel("s", np.zeros((80, 9), np.float32))
    assert {name: array.shape for name, array in sample.inputs.items()} == {"mel": (1, 80, 9)}


def test_the_recogniser_hears_what_was_said(repo, asr):
    utterances = list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), 5))
    session = open_session(Path(asr.path))
    heard = [asr.transcript(infer(session, asr.sample(utterance, read))) for utterance in utterances]
    assert wer_percent([utterance.text for utterance in utterances], heard) < 40


def test_features_come_every_ten_milliseconds(asr):
    audio = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    sample = asr.sample_of_audio("s", audio)
    assert sample.inputs["x"].shape == (1, 100, 80)
    assert sample.inputs["x_lens"].tolist() == [100]
    assert asr.audio_seconds(sample, {}) == pytest.approx(1.0)


def test_a_recording_too_short_for_a_frame_is_refused():
    with pytest.raises(DataError, match="too short"):
        kaldi_fbank(np.zeros(0, np.float32), 16_000)


def test_the_greedy_path_drops_blanks_and_repeats_and_starts_words_with_a_space(tmp_path):
    (tmp_path / "tokens.txt").write_text("<blk> 0\n\u2581a 1\nb 2\n\u2581c 3\n", encoding="utf-8")
    model = Ctc("asr", str(tmp_path / "model.onnx"))
    path = [1, 1, 0, 2, 2, 0, 3, 3]
    outputs = {"log_probs": np.log(np.eye(4, dtype=np.float32)[path] + 1e-6)[None], "log_probs_len": np.array([7])}
    assert model.transcript(outputs) == "ab c"
    assert model.posteriors(outputs).shape == (7, 4)


@pytest.mark.parametrize(("text", "message"), [("<blk> 0\na 2\n", "no token has the id 1"), (None, "there is no file")])
def test_a_token_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "tokens.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"model\.tokens_path: .*{message}"):
        _ = Ctc("asr", str(tmp_path / "model.onnx")).tokens


def test_a_sentence_becomes_tokens_their_number_and_two_scales():
    sample = Matcha("matcha", "m.onnx").sample(Utterance("s", tokens=(4, 5, 6)), refuse_to_read)
    assert {name: array.tolist() for name, array in sample.inputs.items()} == {
        "x": [[4, 5, 6]],
        "x_length": [3],
        "noise_scale": [pytest.approx(0.667)],
        "length_scale": [1.0],
    }
    assert sample.inputs["x"].dtype == sample.inputs["x_length"].dtype == np.int64


def test_the_duration_of_synthesised_speech_follows_from_its_frames():
    seconds = Matcha("matcha", "m.onnx").audio_seconds(None, {"mel": np.zeros((1, 80, 100), np.float32)})
    assert seconds == pytest.approx(100 * 256 / 22_050)


@pytest.mark.parametrize(
    ("model", "lacking"),
    [(Matcha("m", "m.onnx"), "no tokens"), (Vocoder("v", "v.onnx"), "no audio"), (Ctc("a", "a.onnx"), "no audio")],
    ids=["matcha", "vocoder", "asr"],
)
def test_an_utterance_that_lacks_what_the_model_reads_is_refused_by_name(model, lacking):
    with pytest.raises(DataError, match=f"'nameless' has {lacking}"):
        model.sample(Utterance("nameless", text="words"), refuse_to_read)


def test_how_an_utterance_becomes_the_inputs_of_an_unknown_model_is_not_guessed():
    with pytest.raises(DataError, match=r"calibration\.path=<npz>"):
        OnnxFile("onnx", "m.onnx").sample(Utterance("u"), refuse_to_read)


def test_what_speaks_and_what_transcribes_is_known():
    assert isinstance(Vocoder("v", "v.onnx"), Speaks)
    assert isinstance(OnnxFile("o", "o.onnx"), Speaks)  # evaluation=audio on any model
    assert isinstance(Ctc("a", "a.onnx"), Transcribes)
    assert not isinstance(Ctc("a", "a.onnx"), Speaks)
