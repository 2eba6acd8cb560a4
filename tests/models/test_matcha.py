"""A user's Matcha is a directory: its graph, its tokens and what turns text into them; files that do not fit are refused."""

import sys

import numpy as np
import onnx
import pytest

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.models.matcha import Matcha
from pipeline.models.model_sessions import ModelSessions, traced
from pipeline.models.vocoder import Vocoder
from pipeline.paths import resolve_path
from pipeline.utterance import Utterance

LEXICON = "你好 n i3 h ao3\n你 n i3\n好 h ao3\n世 sh ix4\n世界 sh ix4 j ie4\nok ou k ei\n"
CHINESE = ("_", "n", "i3", "h", "ao3", "sh", "ix4", "j", "ie4", "ou", "k", "ei", "，", "。")
IPA = ("_", "^", "$", " ", ".", ",", *"ˈhəlˌoʊwɜːd")


def no_audio(path, rate):
    raise AssertionError("no audio is needed")


def tokens(model, text):
    """Return the symbols that a text becomes, blanks left out, after checking that they are where they should be."""
    ids = model.sample(Utterance("u", text=text), no_audio).inputs["x"][0]
    assert len(ids) % 2 == 1
    assert not ids[::2].any()
    return ids[1::2].tolist()


def test_the_graph_of_most_steps_is_taken_from_a_directory(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(CHINESE, LEXICON)))
    assert resolve_path(model.graphs["acoustic"]).name == "model-steps-6.onnx"
    assert model.rate_hz == 22_050
    model.check()


def test_chinese_is_cut_into_the_longest_words_of_the_lexicon(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(CHINESE, LEXICON, jieba="1")))
    spoken = [CHINESE[index] for index in tokens(model, "你好，世界 OK。世好")]
    assert spoken == ["n", "i3", "h", "ao3", "，", "sh", "ix4", "j", "ie4", "ou", "k", "ei", "。", "sh", "ix4", "h", "ao3"]


def test_both_forms_of_a_punctuation_mark_are_the_same_token(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(CHINESE, LEXICON)))
    assert tokens(model, "你好,世界.") == tokens(model, "你好，世界。")


def test_a_character_that_no_word_has_is_named(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(CHINESE, LEXICON)))
    with pytest.raises(DataError, match="'龘', of the text '你好龘'"):
        tokens(model, "你好龘")


def test_a_word_whose_token_the_table_lacks_is_named_with_its_line(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(CHINESE, f"{LEXICON}龘 d a2\n")))
    with pytest.raises(DataError, match=r"lexicon\.txt, line 7: '龘' has the token 'd'"):
        tokens(model, "你好")


@pytest.fixture
def espeak():
    """Skip where espeak-ng is not installed."""
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")


@pytest.mark.usefixtures("espeak")
def test_english_becomes_the_code_points_of_espeak_with_spaces_and_marks(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(tuple(dict.fromkeys(IPA)), has_espeak="1", voice="en-us")))
    table = list(dict.fromkeys(IPA))
    assert "".join(table[index] for index in tokens(model, "hello, world.")) == "həlˈoʊ, wˈɜːld."


@pytest.mark.usefixtures("espeak")
def test_begin_and_end_are_marked_where_the_metadata_says_so(matcha_dir):
    table = list(dict.fromkeys(IPA))
    model = Matcha("m", dir=str(matcha_dir(tuple(table), has_espeak="1", voice="en-us", use_eos_bos="1")))
    spoken = [table[index] for index in tokens(model, "hello")]
    assert (spoken[0], spoken[-1]) == ("^", "$")


@pytest.mark.usefixtures("espeak")
def test_a_phoneme_that_the_table_lacks_is_named(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(tuple(dict.fromkeys(IPA)), has_espeak="1", voice="en-us")))
    with pytest.raises(DataError, match=r"utterance 'u': tokens\.txt of m lacks 'b', 'æ'"):
        tokens(model, "bad")


@pytest.mark.usefixtures("espeak")
def test_a_voice_that_espeak_has_not_is_named(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(IPA[:4], has_espeak="1", voice="klingon-x")))
    with pytest.raises(DataError, match="no voice 'klingon-x'"):
        tokens(model, "hello")


def test_without_espeak_its_installation_is_advised(matcha_dir, monkeypatch):
    from pipeline.models.text import espeak

    espeak._library.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    model = Matcha("m", dir=str(matcha_dir(IPA[:4], has_espeak="1", voice="en-us")))
    with pytest.raises(DataError, match=r"pip install .*\[espeak\]"):
        tokens(model, "hello")


def test_text_for_a_model_without_a_front_end_is_refused(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(IPA[:4], has_espeak="0")))
    with pytest.raises(DataError, match=r"lacks tokens\.txt with lexicon\.txt"):
        tokens(model, "hello")


def test_tokens_of_a_manifest_are_used_as_they_are(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(IPA[:4])))
    sample = model.sample(Utterance("u", text="hello", tokens=(1, 2, 3)), no_audio)
    assert sample.inputs["x"].tolist() == [[1, 2, 3]]


def test_a_token_that_the_graph_does_not_know_is_refused(matcha_dir):
    model = Matcha("m", dir=str(matcha_dir(IPA[:4])))
    with pytest.raises(DataError, match="utterance 'u' has the token 4; m knows 0 to 3"):
        model.sample(Utterance("u", tokens=(1, 4)), no_audio)


def test_a_table_larger_than_the_graph_knows_is_refused(matcha_dir):
    folder = matcha_dir(IPA[:6], rows=4)
    with pytest.raises(ModelError, match=r"tokens\.txt has a token with the id 5, .* knows 4 tokens"):
        Matcha("m", dir=str(folder)).check()


def test_a_sample_rate_that_contradicts_the_metadata_is_refused(matcha_dir):
    with pytest.raises(ModelError, match=r"model\.sample_rate_hz: 16000, but the metadata of .* has 22050"):
        Matcha("m", dir=str(matcha_dir(IPA[:4])), sample_rate_hz=16_000).check()


def test_metadata_that_is_no_number_is_refused(matcha_dir):
    with pytest.raises(ModelError, match="sample_rate='fast', which is not a number"):
        Matcha("m", dir=str(matcha_dir(IPA[:4], sample_rate="fast"))).check()


VOCODER = "vocoder (float[N, 80, T] mel) => (float[N, 80, T] audio) { [out] audio = Tanh (mel) }"


@pytest.fixture
def vocoder_path(tmp_path, build):
    """Return a function that writes a vocoder of a sample rate."""

    def write(rate):
        model = build(VOCODER, opset=14)
        onnx.helper.set_model_props(model, {"model_type": "hifigan", "sample_rate": str(rate)})
        onnx.save(model, tmp_path / "hifigan.onnx")
        return str(tmp_path / "hifigan.onnx")

    return write


def test_a_vocoder_of_another_sample_rate_is_refused(matcha_dir, vocoder_path):
    with pytest.raises(ModelError, match=r"makes audio of 16000 Hz, but .* speaks at 22050 Hz"):
        Matcha("m", dir=str(matcha_dir(IPA[:4])), vocoder_path=vocoder_path(16_000)).check()


def test_the_vocoder_is_given_the_mels_of_the_acoustic_model(matcha_dir, vocoder_path):
    model = Matcha("m", dir=str(matcha_dir(IPA[:4])), vocoder_path=vocoder_path(22_050), quantize=["acoustic", "vocoder"])
    assert set(model.graphs) == {"acoustic", "vocoder"}
    sample = model.sample(Utterance("u", tokens=(1, 2, 3)), no_audio)
    ensemble = ModelSessions({name: resolve_path(path) for name, path in model.graphs.items()}, 1)
    [given] = traced(ensemble, model.infer, [sample], 0, "vocoder")
    outputs = model.infer(sample, ensemble.runner([0]))
    np.testing.assert_array_equal(given.inputs["mel"], outputs["mel"])
    assert outputs["audio"].shape == (240,)
    assert model.audio_seconds(given, {"audio": outputs["audio"]}) == pytest.approx(3 * 256 / 22_050)


@pytest.mark.parametrize(
    ("parts", "message"),
    [(["acustic"], "Did you mean acoustic"), ([], "at least one"), (["vocoder"], r"model\.vocoder_path is not set")],
)
def test_parts_that_cannot_be_quantized_are_refused(matcha_dir, parts, message):
    with pytest.raises(ConfigError, match=rf"model\.quantize: .*{message}"):
        _ = Matcha("m", dir=str(matcha_dir(IPA[:4])), quantize=parts).graphs


def test_a_vocoder_takes_its_sample_rate_and_its_input_from_the_file(vocoder_path):
    vocoder = Vocoder("v", vocoder_path(16_000))
    assert vocoder.rate_hz == 16_000
    assert set(vocoder.sample_of_mel("s", np.zeros((80, 5), np.float32)).inputs) == {"mel"}


def test_the_command_speaks_sentences_of_a_user_s_model_and_lists_those_that_it_skipped(run_quickly, matcha_dir, tmp_path):
    folder = matcha_dir(CHINESE, LEXICON, jieba="1")
    (tmp_path / "lines.txt").write_text("你好世界。\n龘\n\n世界，你好\n", encoding="utf-8")
    command = (
        "model=matcha", f"model.dir={folder}", "model.vocoder_path=null", "model.asr_path=null", "mode=fp16",
        "stages=[load,quantize,evaluate]", "evaluation.path=lines.txt",
    )  # fmt: skip
    refused = run_quickly(*command)
    assert refused.exit_code == 2
    assert "evaluation.on_bad_sample=skip" in refused.stderr
    run = run_quickly(*command, "evaluation.on_bad_sample=skip").succeeded()
    assert sorted(run.report["samples"]["selection"] + run.report["samples"]["report"]) == ["lines_001", "lines_004"]
    [skipped] = run.report["skipped"]
    assert (skipped["set"], skipped["sample"]) == ("evaluation.path", "lines_002")
    assert "'龘'" in skipped["reason"]
    assert any("1 of 3 samples" in warning for warning in run.report["warnings"])


@pytest.mark.parametrize("parts", [("acoustic", "vocoder"), ("vocoder",)], ids=["both", "vocoder"])
def test_the_command_quantizes_the_parts_that_are_named_and_hears_the_result(run_quickly, parts):
    run = run_quickly(
        "model=matcha", f"model.quantize=[{','.join(parts)}]", "mode=static", "stages=[load,quantize,evaluate]",
        "evaluation.samples=2", "evaluation.listen=0", "evaluation.node_samples=0", "calibration.samples=2",
    ).succeeded()  # fmt: skip
    assert [artifact["file"] for artifact in run.report["artifacts"]] == [f"{part}.int8.onnx" for part in parts]
    metrics = run.report["evaluation"]["metrics"]
    assert {"roundtrip_wer_percent", "log_mel_l1", "mse"} <= set(metrics)
    assert metrics["mse"]["quantized"] > 0
    # The acoustic model's mel is the same, to the bit, where only the vocoder was changed.
    assert (metrics["log_mel_l1"]["quantized"] == 0) == ("acoustic" not in parts)
