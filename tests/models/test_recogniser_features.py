"""Recognisers get what their client feeds them: its resampler, its scale, its features."""

import math
import shutil

import numpy as np
import onnx
import pytest
import soundfile

from pipeline.audio.kaldi_fbank import WENET, kaldi_fbank, stacked_frames
from pipeline.audio.kaldi_resample import kaldi_resample
from pipeline.data.audio_files import read_audio
from pipeline.errors import ModelError
from pipeline.models.ctc import Ctc
from pipeline.models.recogniser_families import FAMILIES, family_of
from pipeline.models.vocoder import Vocoder


def by_definition(x, from_hz, to_hz):
    """Resample sample by sample, as Kaldi's feat/resample.h defines it."""
    cutoff = 0.99 * 0.5 * min(from_hz, to_hz)
    width = 6 / (2 * cutoff)
    out = []
    for n in range(math.ceil(len(x) * to_hz / from_hz)):
        total = 0.0
        for k in range(math.ceil((n / to_hz - width) * from_hz), math.floor((n / to_hz + width) * from_hz) + 1):
            t = k / from_hz - n / to_hz
            if 0 <= k < len(x) and abs(t) < width:
                h = 2 * cutoff if t == 0 else math.sin(2 * math.pi * cutoff * t) / (math.pi * t)
                total += x[k] * h * 0.5 * (1 + math.cos(2 * math.pi * cutoff / 6 * t)) / from_hz
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(8000, 16_000), (22_050, 16_000), (44_100, 16_000), (48_000, 16_000), (16_000, 8000)]
)
@pytest.mark.parametrize("count", [1, 97, 400])
def test_the_resampler_is_kaldi_s_linear_resample(from_hz, to_hz, count):
    x = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    found = kaldi_resample(x, from_hz, to_hz)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(x, from_hz, to_hz), atol=2e-5)


def test_telephone_audio_keeps_images_above_4_khz_as_the_client_hears_them():
    tone = np.sin(2 * np.pi * 3950 * np.arange(8000) / 8000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(kaldi_resample(tone, 8000, 16_000)))
    assert spectrum[4050] > 0.05 * spectrum[3950], "at the other side of 4 kHz"


def test_nothing_is_resampled_at_the_rate_of_the_model():
    x = np.ones(10, np.float32)
    np.testing.assert_array_equal(kaldi_resample(x, 16_000, 16_000), x)


def test_recognisers_resample_as_their_client_and_vocoders_do_not(repo, tmp_path):
    audio = np.random.default_rng(0).standard_normal(800).astype(np.float32)
    asr = Ctc("asr", str(repo / "data/models/asr/model.onnx"))
    vocoder = Vocoder("vocoder", str(repo / "data/models/vocoder/vocos.onnx"))
    np.testing.assert_array_equal(asr.resample(audio, 8000, 16_000), kaldi_resample(audio, 8000, 16_000))
    assert np.abs(vocoder.resample(audio, 8000, 16_000) - kaldi_resample(audio, 8000, 16_000)).max() > 0.01
    soundfile.write(tmp_path / "a.wav", audio / 8, 8000, subtype="FLOAT")
    from pipeline.config.choices import SampleRateMismatch

    read = read_audio(tmp_path / "a.wav", 16_000, SampleRateMismatch.resample, [], asr.resample)
    np.testing.assert_array_equal(read, kaldi_resample(audio / 8, 8000, 16_000))


@pytest.fixture
def recogniser(repo, tmp_path):
    """Return a function: metadata -> the recogniser that ships, with this metadata."""

    def make(features=None, **metadata):
        model = onnx.load(repo / "data/models/asr/model.onnx")
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / "model.onnx")
        shutil.copy(repo / "data/models/asr/tokens.txt", tmp_path)
        return Ctc("asr", str(tmp_path / "model.onnx"), features=features)

    return make


def speech(seconds=1.0):
    return (0.1 * np.random.default_rng(1).standard_normal(int(16_000 * seconds))).astype(np.float32)


@pytest.mark.parametrize(("settings", "shift"), [
    ({}, 0.0),
    ({"model_type": "zipformer2_ctc"}, 0.0),
    ({"model_type": "wenet_ctc"}, 2 * math.log(32_768)),
    ({"features": "wenet"}, 2 * math.log(32_768)),
    ({"features": "icefall", "model_type": "wenet_ctc"}, 0.0),
])  # fmt: skip
def test_samples_are_scaled_as_the_family_of_the_model_was_trained(recogniser, settings, shift):
    features = recogniser(**settings).sample_of_audio("a", speech()).inputs["x"][0]
    np.testing.assert_allclose(features - kaldi_fbank(speech(), 16_000), shift, atol=0.05)  # of dither


def test_dither_is_the_same_every_time():
    np.testing.assert_array_equal(*(kaldi_fbank(speech(), 16_000, WENET) for _ in range(2)))


def test_a_family_that_is_not_known_is_refused_with_those_that_are(recogniser):
    with pytest.raises(ModelError, match=r"model_type='EncDecCTC'.*model\.features=icefall"):
        recogniser(model_type="EncDecCTC").check()
    with pytest.raises(ModelError, match=r"model\.features: .*'wennet'.*wenet"):
        recogniser(features="wennet").check()


def test_every_family_is_found_by_the_types_of_its_metadata():
    for family in FAMILIES.values():
        for model_type in family.model_types:
            assert family_of(None, {"model_type": model_type}, "model.onnx") is family


def test_frames_are_stacked_and_normalised_by_the_metadata():
    features = np.arange(20 * 2, dtype=np.float32).reshape(20, 2)
    mean, scale = np.full(14, -1, np.float32), np.full(14, 2, np.float32)
    found = stacked_frames(features, 7, 6, mean, scale) / 2 + 1
    assert found.shape == (4, 14)
    np.testing.assert_array_equal(found[0], features[[0, 0, 0, 0, 1, 2, 3]].reshape(-1))
    np.testing.assert_array_equal(found[1], features[3:10].reshape(-1))
    np.testing.assert_array_equal(found[3], features[[15, 16, 17, 18, 19, 19, 19]].reshape(-1))


SENSE_VOICE = """g (float[1, T, 560] x, int32[1] x_length, int32[1] language, int32[1] text_norm)
    => (float[1, F, 6] logits) {
    long = ReduceMean <axes = [2], keepdims = 1> (x)
    logits = MatMul (long, row)
}"""


def test_sense_voice_is_given_its_further_inputs_and_its_first_tokens_are_no_words(tmp_path, build):
    model = build(SENSE_VOICE, row=np.zeros((1, 6), np.float32))
    numbers = {"neg_mean": ",".join(["0"] * 560), "inv_stddev": ",".join(["1"] * 560)}
    metadata = {
        "model_type": "sense_voice_ctc",
        "lfr_window_size": "7",
        "lfr_window_shift": "6",
        "without_itn": "15",
        **numbers,
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "model.onnx")
    tokens = "".join(f"{token} {k}\n" for k, token in enumerate(["<blank>", "<en>", "<neutral>", "<speech>", "<woitn>", "yes"]))
    (tmp_path / "tokens.txt").write_text(tokens, encoding="utf-8")
    asr = Ctc("sense", str(tmp_path / "model.onnx"))
    asr.check()
    sample = asr.sample_of_audio("a", speech())
    assert sample.inputs["x"].shape == (1, math.ceil(98 / 6), 560)
    assert {name: array.tolist() for name, array in sample.inputs.items() if name != "x"} == {
        "x_length": [17], "language": [0], "text_norm": [15],
    }  # fmt: skip
    assert all(array.dtype == np.int32 for name, array in sample.inputs.items() if name != "x")
    logits = np.full((1, 7, 6), -9, np.float32)
    logits[0, np.arange(7), [1, 2, 3, 4, 0, 5, 5]] = 9
    assert asr.transcript({"logits": logits}) == "yes"
    assert asr.audio_seconds(sample, {}) == pytest.approx(1.02)


def test_fp32_s_own_error_rate_near_a_hundred_is_the_first_warning(recogniser, tmp_path, run_quickly):
    recogniser(features=None, model_type="zipformer2_ctc")
    arguments = (
        "model=zipformer_ctc",
        "model.dir=.",
        "mode=dynamic",
        "stages=[load,quantize,evaluate]",
        "evaluation.samples=4",
    )
    good = run_quickly(*arguments).succeeded().report
    wrong = run_quickly(*arguments, "model.features=wenet").succeeded().report
    assert "fp32's own" not in str(good["warnings"])
    assert wrong["warnings"][0].startswith("wer_percent: fp32's own is") or wrong["warnings"][0].startswith(
        "cer_percent: fp32's"
    )
