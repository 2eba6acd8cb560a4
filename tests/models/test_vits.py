"""A VITS voice is called as its maker calls it; what its durations follow from stays float; Piper's gets its metadata."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.graph.session import infer, open_session
from pipeline.models.model_kind import model_kind
from pipeline.models.text.tokens import read_tokens
from pipeline.models.vits import Vits
from pipeline.utterance import Utterance
from tests.small_voice import HOP, RATE_HZ, SYMBOLS, THREE_INPUTS, TOKENS, piper_settings, voice_model, write_piper_voice

PIPER = {"sample_rate": str(RATE_HZ), "comment": "piper", "has_espeak": "1", "voice": "en-us", "n_speakers": "1"}
FEW = (
    "model=vits", "evaluation.samples=4", "evaluation.listen=0", "evaluation.node_samples=0", "evaluation.path=lines.txt",
    "stages=[load,quantize,evaluate]",
)  # fmt: skip
LINES = "hello world.\nlow wood.\nhold hour.\nroll, hello.\n"


def no_audio(path, rate):
    raise AssertionError("no audio is needed")


def inputs_of(model, **utterance):
    return model.sample(Utterance("u", **utterance), no_audio).inputs


@pytest.fixture
def espeak():
    """Skip where espeak-ng is not installed."""
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")


@pytest.fixture
def voice(tmp_path):
    """Return a function that writes a voice with metadata, tokens.txt and, if asked to, a lexicon, and returns its adapter."""

    def write(inputs=None, metadata=None, symbols=SYMBOLS, lexicon=None, **settings):
        arguments = () if inputs is None else (inputs,)
        onnx.save(voice_model(*arguments, **(PIPER if metadata is None else metadata)), tmp_path / "voice.onnx")
        table = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
        (tmp_path / "tokens.txt").write_text(table, encoding="utf-8")
        if lexicon is not None:
            (tmp_path / "lexicon.txt").write_text(lexicon, encoding="utf-8")
        return Vits("v", str(tmp_path / "voice.onnx"), **settings)

    return write


def test_a_voice_of_piper_gets_its_three_scales_in_one_input(tmp_path):
    model = Vits("v", str(write_piper_voice(tmp_path)))
    model.check()
    given = inputs_of(model, tokens=(1, 2, 3))
    assert [*given] == ["input", "input_lengths", "scales"]
    assert given["input"].tolist() == [[1, 2, 3]]
    assert given["input_lengths"].tolist() == [3]
    np.testing.assert_array_equal(given["scales"], np.array([0.5, 1.25, 0.75], np.float32))
    assert {array.dtype for array in (given["input"], given["input_lengths"])} == {np.dtype(np.int64)}


def test_settings_go_before_what_the_voice_says_and_comparison_has_durations_without_noise(tmp_path):
    model = Vits("v", str(write_piper_voice(tmp_path)), noise_scale=0.25, length_scale=2.0)
    sample = model.sample(Utterance("u", tokens=(1, 2)), no_audio)
    assert sample.inputs["scales"].tolist() == [0.25, 2.0, 0.75]
    assert model.for_comparison(sample).inputs["scales"].tolist() == [0.25, 2.0, 0.0]


def test_a_voice_of_others_gets_each_scale_in_an_input_of_its_own(voice):
    model = voice(f"{THREE_INPUTS}, int64[1] sid", {"sample_rate": "16000", "comment": "icefall", "n_speakers": "4"}, speaker=3)
    model.check()
    sample = model.sample(Utterance("u", tokens=(4, 5)), no_audio)
    assert {name: array.tolist() for name, array in sample.inputs.items()} == {
        "x": [[4, 5]], "x_length": [2], "noise_scale": [pytest.approx(0.667)], "length_scale": [1.0],
        "noise_scale_w": [pytest.approx(0.8)], "sid": [3],
    }  # fmt: skip
    assert model.for_comparison(sample).inputs["noise_scale_w"].tolist() == [0.0]


def test_a_voice_of_melo_reads_tokens_and_tones_of_its_lexicon_with_blanks_and_its_own_speaker(voice):
    inputs = f"{THREE_INPUTS.replace('int64[1] x_length', 'int64[1] x_lengths')}, int64[N, L] tones, int64[1] sid"
    metadata = {"sample_rate": "44100", "comment": "melo", "add_blank": "1", "speaker_id": "7", "n_speakers": "1"}
    model = voice(inputs, metadata, lexicon="hi h i 1 2\nyou u 3\n")
    given = inputs_of(model, text="hi, you")
    table = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    h, i, u, comma = (table[symbol] for symbol in "hiu,")
    assert given["x"].tolist() == [[0, h, 0, i, 0, comma, 0, u, 0]]
    assert given["tones"].tolist() == [[0, 1, 0, 2, 0, 0, 0, 3, 0]]
    assert given["sid"].tolist() == [7]


def test_a_lexicon_without_a_tone_for_each_token_is_refused_with_its_line(voice):
    metadata = {"sample_rate": "44100", "comment": "melo"}
    with pytest.raises(DataError, match=r"lexicon\.txt, line 1: 'hi' has \['h', 'i', '1'\]"):
        inputs_of(voice(THREE_INPUTS, metadata, lexicon="hi h i 1\n"), text="hi")


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("published_by", ["piper", "sherpa-onnx"])
def test_piper_s_sentences_begin_and_end_with_marks_and_have_blanks_between(tmp_path, voice, published_by):
    model = Vits("v", str(write_piper_voice(tmp_path))) if published_by == "piper" else voice()
    ids = inputs_of(model, text="hello.")["input"][0]
    assert "".join(SYMBOLS[index] for index in ids) == "^_h_ə_l_ˈ_o_ʊ_._$"


@pytest.mark.usefixtures("espeak")
def test_a_voice_of_coqui_has_blanks_and_ends_of_its_own_and_a_comma_behind(voice):
    ends = {"add_blank": "1", "blank_id": "0", "use_eos_bos": "1", "bos_id": "1", "eos_id": "2"}
    ids = inputs_of(voice(metadata={**PIPER, "comment": "coqui", **ends}), text="hello")["input"][0]
    assert "".join(SYMBOLS[index] for index in ids) == "^_h_ə_l_ˈ_o_ʊ_,$"


def test_letters_are_tokens_where_the_voice_reads_letters(tmp_path):
    model = Vits("v", str(write_piper_voice(tmp_path, phoneme_type="text")))
    assert "".join(SYMBOLS[index] for index in inputs_of(model, text="Hi.")["input"][0]) == "^_h_i_._$"
    assert model.client_metadata["frontend"] == "characters"


@pytest.mark.parametrize(
    ("settings", "utterance", "message"),
    [
        ({}, {}, "'u' has no tokens and no text"),
        ({}, {"tokens": (1, TOKENS)}, f"'u' has the token {TOKENS}; v knows 0 to {TOKENS - 1}"),
        ({"phoneme_type": "text"}, {"text": "1"}, "lacks '1'"),
        ({"phoneme_type": "text"}, {"text": " "}, "nothing that can be spoken"),
    ],
)  # fmt: skip
def test_what_a_voice_cannot_say_is_named(tmp_path, settings, utterance, message):
    with pytest.raises(DataError, match=message):
        inputs_of(Vits("v", str(write_piper_voice(tmp_path, **settings))), **utterance)


def test_text_for_a_voice_without_a_front_end_is_refused(voice):
    with pytest.raises(DataError, match=r"lacks metadata with has_espeak=1 or frontend=characters"):
        inputs_of(voice(metadata={"sample_rate": "22050", "comment": "piper"}), text="hi")


def test_a_call_that_the_client_would_make_otherwise_is_refused(voice):
    with pytest.raises(ModelError, match=r"comment='icefall', so that sherpa-onnx gives it three inputs of one scale"):
        voice(metadata={**PIPER, "comment": "icefall"}).check()


def test_an_input_that_no_vits_has_is_named_with_those_that_are_known(voice):
    with pytest.raises(ModelError, match=r"the input 'mood'; .*known: tones, scales, noise_scale"):
        voice(f"{THREE_INPUTS}, float[1] mood", {"sample_rate": "22050"}).check()


def test_a_speaker_that_the_voice_has_not_is_refused(voice):
    with pytest.raises(ConfigError, match=r"model\.speaker: 1, but .* has speakers 0 to 0"):
        voice(speaker=1).check()


def test_a_file_without_metadata_and_without_piper_s_beside_it_is_refused_unless_its_rate_is_set(tmp_path):
    onnx.save(voice_model(), tmp_path / "voice.onnx")
    with pytest.raises(ModelError, match=r"no metadata .* and no voice\.onnx\.json"):
        Vits("v", str(tmp_path / "voice.onnx")).check()
    Vits("v", str(tmp_path / "voice.onnx"), sample_rate_hz=RATE_HZ).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": {}}, r"nothing at audio\.sample_rate"),
        ({"num_speakers": "two"}, r"'two' at num_speakers, where Piper has a value of the type int"),
        ({"phoneme_type": "pinyin"}, r"phoneme_type 'pinyin'; known are espeak and text"),
        ({"phoneme_id_map": {"_": [0], "^": [1]}}, r"no '\$' in phoneme_id_map"),
        ({"phoneme_id_map": {"_": 0}}, r"phoneme_id_map\['_'\] = 0; one token id in a list"),
        ({"phoneme_id_map": {"_": [0], "^": [1], "$": [TOKENS]}}, rf"the id {TOKENS}, but the graph .* {TOKENS} tokens"),
    ],
)  # fmt: skip
def test_settings_of_a_voice_that_cannot_be_its_are_refused(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        Vits("v", str(write_piper_voice(tmp_path, **changes))).check()


def test_a_voice_is_known_by_its_inputs_alone_and_in_its_directory(tmp_path):
    path = write_piper_voice(tmp_path)
    assert model_kind(path).model == model_kind(tmp_path).model == "vits"
    onnx.save(voice_model(THREE_INPUTS), path)
    assert model_kind(path).model == "vits"


@pytest.fixture
def piper_run(run_quickly, tmp_path):
    """Return a function: overrides -> the run of a voice as Piper publishes it, and the voice's file."""
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")
    path = write_piper_voice(tmp_path)
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")

    def run(*overrides):
        calibrated = any(override in ("mode=static", "mode=auto") for override in overrides)
        data = ("calibration=sentences", "calibration.path=lines.txt", "calibration.samples=4") if calibrated else ()
        return run_quickly(*FEW, f"model.path={path}", *data, *overrides).succeeded(), path

    return run


def kept(run):
    return {entry["node"]: entry["reason"] for entry in run.report["artifacts"][0]["kept"]}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only", "fp16"])
def test_speech_keeps_its_length_and_the_file_gets_what_the_client_wants(piper_run, mode):
    run, path = piper_run(f"mode={mode}")
    artifact = run.directory / run.report["artifacts"][0]["file"]
    metadata = {entry.key: entry.value for entry in onnx.load(artifact).metadata_props}
    assert metadata == {
        "model_type": "vits", "comment": "piper", "language": "English", "voice": "en-us", "has_espeak": "1", "n_speakers": "1",
        "sample_rate": str(RATE_HZ),
    }  # fmt: skip
    assert read_tokens(run.directory / "tokens.txt", "t") == {symbol: index for index, symbol in enumerate(SYMBOLS)}
    assert any("tokens.txt" in note for note in run.report["notes"])
    assert run.report["evaluation"]["metrics"]["duration_mae_frames"]["quantized"] == 0
    assert run.report["evaluation"]["metrics"]["mr_stft"]["quantized"] > 0, "all of it stayed float"
    reasons, nodes = kept(run), run.report["artifacts"][0]["quantized_nodes"]
    for name in ("enc_p_q", "enc_p_o", "enc_p_ffn_1", "enc_p_ffn_2", "dp_conv", "dp_proj"):
        if mode == "fp16" or name == "dp_proj":  # which has 32 values
            assert (
                reasons[name] == "the length of the output follows from it (model.keep_durations)" or "shapes" in reasons[name]
            )
        else:
            assert nodes[name] == "int16 weight, float computation"
    assert not {"enc_p_proj", "flow_in", "dec_pre", "dec_res_0"} & reasons.keys()
    adapter = Vits("v", str(path), noise_scale=0)
    for tokens in (tuple(range(3, 30)), tuple(range(6, 38)), (7, 9) * 20):
        sample = adapter.for_comparison(adapter.sample(Utterance("u", tokens=tokens), no_audio))
        [before], [after] = (infer(open_session(file), sample).values() for file in (path, artifact))
        assert before.shape == after.shape
        assert before.shape[-1] % HOP == 0
        assert (before != after).any()


def test_the_encoder_is_quantized_too_where_other_lengths_are_accepted(piper_run):
    run, _ = piper_run("mode=static", "model.keep_durations=false")
    assert run.report["artifacts"][0]["quantized_nodes"]["enc_p_ffn_1"] == "int8, static ranges"


def test_a_node_that_a_length_follows_from_cannot_be_asked_for(run_quickly, tmp_path):
    path = write_piper_voice(tmp_path)
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")
    run = run_quickly(*FEW, f"model.path={path}", "mode=dynamic", "mode.nodes_to_quantize=[enc_p_q]")
    assert run.exit_code == 2
    assert "enc_p_q, which therefore stays in float. Leave it out, or accept another length with" in run.stderr


@pytest.mark.usefixtures("espeak")
def test_sentences_that_the_voice_cannot_speak_are_skipped_and_listed(run_quickly, tmp_path):
    path = write_piper_voice(tmp_path)
    (tmp_path / "lines.txt").write_text(f"{LINES}vision\n你好\n", encoding="utf-8")
    run = run_quickly(
        "model=vits", f"model.path={path}", "mode=fp16", "stages=[load,quantize]", "evaluation.path=lines.txt",
        "evaluation.on_bad_sample=skip",
    ).succeeded()  # fmt: skip
    reasons = {entry["sample"]: entry["reason"] for entry in run.report["skipped"]}
    assert "lacks 'ʒ'" in reasons["lines_005"]
    assert "cannot read '你'" in reasons["lines_006"]


def test_the_noise_of_the_durations_is_read_by_calibration_alone(run_quickly, tmp_path):
    path = write_piper_voice(tmp_path)
    run = run_quickly("model=vits", f"model.path={path}", "mode=dynamic", "model.noise_scale_w=0.5")
    assert run.exit_code == 2
    assert "model.noise_scale_w: would have no effect" in run.stderr


def test_a_real_voice_is_quantized_where_durations_do_not_follow_and_keeps_its_length(run_quickly, real_voice):
    run = run_quickly(
        "model=vits", f"model.path={real_voice}", "mode=static", "stages=[load,quantize,evaluate]", "calibration.samples=2",
        "evaluation.samples=4", "evaluation.listen=0", "evaluation.node_samples=0",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    quantized = {node.partition("/")[2].partition("/")[0] for node in artifact["quantized_nodes"]}
    assert quantized == {"enc_p", "flow", "dec"}
    assert [node for node in artifact["quantized_nodes"] if "enc_p" in node] == ["/enc_p/proj/Conv"]
    assert run.report["evaluation"]["metrics"]["duration_mae_frames"]["quantized"] == 0
    adapter = Vits("v", str(real_voice), noise_scale=0)
    table = json.loads(real_voice.with_name(f"{real_voice.name}.json").read_text(encoding="utf-8"))["phoneme_id_map"]
    tokens = [1, 0, *(number for symbol in "wɪðˈaʊt nˈɔɪz." for number in (*table[symbol], 0)), 2]
    sample = adapter.for_comparison(adapter.sample(Utterance("u", tokens=tuple(tokens)), no_audio))
    [before], [after] = (infer(open_session(file), sample).values() for file in (real_voice, run.directory / artifact["file"]))
    assert before.shape == after.shape


def test_a_token_of_two_code_points_stays_out_of_the_table_that_the_client_reads(tmp_path):
    table = {**piper_settings()["phoneme_id_map"], "aɪ": [TOKENS - 1]}
    model = Vits("v", str(write_piper_voice(tmp_path, phoneme_id_map=table)))
    assert "aɪ" not in model.client_files["tokens.txt"]
    assert " 3\n" in model.client_files["tokens.txt"]


def test_the_table_that_tokens_are_looked_up_in_is_the_voice_s(voice):
    model = voice()
    held = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in voice_model().graph.initializer}
    assert model._rows == held["table"][0]


@pytest.mark.usefixtures("espeak")
def test_a_package_of_a_voice_of_piper_s_has_the_table_that_it_came_without_and_speaks_in_the_client(run_quickly, tmp_path):
    pytest.importorskip("sherpa_onnx", reason="needs the extra test")
    path = write_piper_voice(tmp_path)
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")
    settings = (
        "mode=dynamic",
        "package=sherpa_onnx",
        "package.samples=2",
        "stages=[load,quantize]",
        "evaluation.path=lines.txt",
    )
    run = run_quickly("model=vits", f"model.path={path}", *settings).succeeded()
    folder = run.directory / "package"
    assert {"en_US-small-low.int8.onnx", "tokens.txt"} < {file.name for file in folder.iterdir()}
    assert run.report["package"]["trial"]["samples"] == 2
    said = run_quickly(f"run={run.directory}", "say=hello world.").succeeded()
    assert len(list((run.directory / "said").glob("*.wav"))) == 2, said.stdout
