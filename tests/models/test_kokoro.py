"""Kokoro is called as sherpa-onnx calls it, with a style a voice and a length; what its durations follow from stays float."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_deciding import length_deciding_nodes
from pipeline.models.kokoro import Kokoro
from pipeline.models.model_kind import model_kind
from pipeline.utterance import Utterance
from tests.small_kokoro import HOP, METADATA, RATE_HZ, ROWS, SYMBOLS, TOKENS, kokoro_model, styles, write_kokoro

FEW = (
    "model=kokoro", "evaluation.samples=4", "evaluation.listen=0", "evaluation.node_samples=0", "evaluation.path=lines.txt",
    "stages=[load,quantize,evaluate]",
)  # fmt: skip
LINES = "hello world.\nlow wood.\nhold hour.\nroll, hello.\n"
KITTEN = {**METADATA, "model_type": "kitten-tts", "style_dim": "1,16", "n_speakers": "3"}
CLIENT = Path(__file__).resolve().parent.parent / "sherpa_client.py"


def no_audio(path, rate):
    raise AssertionError("no audio is needed")


def sample_of(model, name="u", **utterance):
    return model.sample(Utterance(name, **utterance), no_audio)


@pytest.fixture
def espeak():
    """Skip where espeak-ng is not installed."""
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")


@pytest.fixture
def kokoro(tmp_path):
    """Return a function that writes a model with voices.bin and tokens.txt, and returns its adapter."""

    def write(model=None, held=None, **settings):
        path = write_kokoro(tmp_path / "kokoro", model)
        if held is not None:
            path.with_name("voices.bin").write_bytes(held)
        return Kokoro("k", dir=str(path.parent), **settings)

    return write


def test_a_sentence_gets_the_style_that_the_voice_has_for_its_length(kokoro):
    model = kokoro(voices=[2], speed=1.5)
    model.check()
    for length in (3, 17, ROWS + 1):
        given = sample_of(model, tokens=(5,) * length).inputs
        assert [*given] == ["tokens", "style", "speed"]
        assert given["tokens"].tolist() == [[5] * length]
        np.testing.assert_array_equal(given["style"], styles()[2, length - 2][None])
        np.testing.assert_array_equal(given["speed"], np.array([1.5], np.float32))
    with pytest.raises(DataError, match=rf"'u' has {ROWS + 2} tokens; k speaks {ROWS + 1} at once"):
        sample_of(model, tokens=(5,) * (ROWS + 2))


def test_the_sentences_of_a_set_are_spoken_by_all_voices_or_by_those_that_are_named(kokoro):
    def heard(model):
        given = [sample_of(model, f"lines_{k:03d}", tokens=(5, 6, 7)).inputs["style"] for k in range(12)]
        return {int(np.argmin(np.abs(styles()[:, 1] - style).sum(axis=1))) for style in given}

    assert heard(kokoro()) == {0, 1, 2}
    assert heard(kokoro(voices=[2, 0])) == {0, 2}


@pytest.mark.parametrize(("speed", "dtype"), [("float[1]", np.float32), ("int32[1]", np.int32)])
def test_inputs_are_bound_by_their_place_whatever_their_names_and_types(kokoro, speed, dtype):
    model = kokoro(kokoro_model("input_ids", speed, "waveform", **METADATA))
    model.check()
    sample = sample_of(model, tokens=tuple(range(4, 14)))
    assert [*sample.inputs] == ["input_ids", "style", "speed"]
    assert sample.inputs["speed"].dtype == dtype
    [wave] = infer(open_session(Path(model.graphs["voice"])), sample).values()
    assert model.audio({"waveform": wave}).shape == wave.shape
    assert wave.size % HOP == 0
    if dtype == np.int32:
        with pytest.raises(ConfigError, match=r"model\.speed: 1\.5, but .* takes whole numbers only"):
            kokoro(kokoro_model("input_ids", speed, "waveform", **METADATA), speed=1.5).check()


@pytest.mark.usefixtures("espeak")
def test_a_sentence_begins_and_ends_with_silence(kokoro):
    ids = sample_of(kokoro(), text="hello, world.").inputs["tokens"][0]
    assert "".join(SYMBOLS[index] for index in ids) == "$həlˈoʊ, wˈɜːld.$"


@pytest.mark.usefixtures("espeak")
def test_a_mark_on_a_letter_that_is_no_token_is_left_out_and_a_letter_is_refused(kokoro):
    assert "\u0329" not in SYMBOLS
    ids = sample_of(kokoro(), text="button").inputs["tokens"][0]
    assert "".join(SYMBOLS[index] for index in ids) == "$bˈʌʔn$"
    with pytest.raises(DataError, match=r"tokens\.txt of k lacks 'ʒ'"):
        sample_of(kokoro(), text="vision")


@pytest.mark.usefixtures("espeak")
def test_a_voice_of_kitten_has_one_style_a_speed_of_its_own_and_ends_of_its_own(kokoro):
    metadata = {**KITTEN, "start_id": "3", "end_id": "4", "speaker_speed_priors": "0.5,0.8,0.25"}
    held = styles(rows=1)
    model = kokoro(kokoro_model(**metadata), held.tobytes(), voices=[1], speed=2.0)
    model.check()
    given = sample_of(model, text="hello. hi").inputs
    np.testing.assert_array_equal(given["style"], held[1])
    assert given["speed"].tolist() == [pytest.approx(1.6)]
    assert "".join(SYMBOLS[index] for index in given["tokens"][0]) == ",həlˈoʊ.  hˈaɪ."


def test_a_graph_of_others_without_metadata_gets_what_the_client_wants(kokoro):
    model = kokoro(kokoro_model(), styles(2, 510).tobytes())
    model.check()
    assert (model.rate_hz, model.client_metadata["style_dim"], model.client_metadata["n_speakers"]) == (24_000, "510,1,16", "2")
    assert kokoro(kokoro_model(**METADATA), styles().tobytes()).client_metadata == {}


def test_voices_may_be_arrays_with_names(kokoro, tmp_path):
    np.savez(tmp_path / "voices.npz", **{name: styles()[k][:, None] for k, name in enumerate(("af", "am", "bf"))})
    model = kokoro(kokoro_model(), voices_path=str(tmp_path / "voices.npz"), voices=[1])
    model.check()
    np.testing.assert_array_equal(sample_of(model, tokens=(1, 2, 3)).inputs["style"], styles()[1, 1][None])
    assert model.client_metadata["speaker_names"] == "af,am,bf"
    with pytest.raises(ConfigError, match=r"reads raw float32 from voices\.bin, and .*voices\.npz is an \.npz"):
        model.client_layout()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"held": styles(2).tobytes()}, ModelError, r"the styles of 2 voices of 90 x 16 float32; the metadata says 3 voices"),
        ({"held": b"abc"}, ModelError, r"has 3 bytes, the styles of .* voices"),
        ({"held": b"PK\5\6" + bytes(18)}, ModelError, r"is no \.npz with an array of styles"),
        ({"held": np.full_like(styles(), np.nan).tobytes()}, ModelError, "numbers that are not finite"),
        ({"model": kokoro_model(**{**METADATA, "style_dim": "90,2,16"})}, ModelError, r"style_dim='90,2,16'"),
        ({"model": kokoro_model(**{**METADATA, "style_dim": "90,1,8"})}, ModelError, r"a style of 16 numbers"),
        ({"model": kokoro_model(**{**METADATA, "n_speakers": "many"})}, ModelError, "n_speakers='many', which is not a number"),
    ],
)  # fmt: skip
def test_styles_that_are_not_the_model_s_are_refused(kokoro, settings, error, message):
    with pytest.raises(error, match=message):
        kokoro(settings.get("model"), settings.get("held")).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"voices": [3]}, r"model\.voices: 3, but .*voices\.bin has the voices 0 to 2"),
        ({"voices": []}, r"model\.voices: empty"),
        ({"speed": 0.0}, r"model\.speed: 0\.0 is out of limits; allowed: above 0"),
    ],
)  # fmt: skip
def test_settings_that_the_model_cannot_have_are_refused(kokoro, settings, message):
    kokoro()
    path = write_kokoro(Path(kokoro().dir))
    with pytest.raises(ConfigError, match=message):
        Kokoro("k", str(path), **settings).check()


def test_a_graph_with_other_inputs_is_refused(kokoro, build):
    model = build("other (float[N, 80, T] mel) => (float[N, 80, T] y) { y = Identity (mel) }")
    with pytest.raises(ModelError, match=r"takes mel; Kokoro takes token ids \(1, length\), a style \(1, width\) and a speed"):
        kokoro(model).check()


def test_a_table_of_another_model_and_missing_files_are_named(kokoro):
    model = kokoro()
    folder = Path(model.dir)
    (folder / "tokens.txt").write_text(f"a {TOKENS}\n", encoding="utf-8")
    with pytest.raises(ModelError, match=rf"the id {TOKENS}, but the graph of .* knows {TOKENS} tokens"):
        model.check()
    (folder / "voices.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.voices_path: there is no file .*voices\.bin"):
        Kokoro("k", dir=str(folder)).check()


@pytest.mark.parametrize("metadata", [METADATA, {}])
def test_the_model_is_known_by_its_metadata_or_by_its_inputs_in_its_directory(kokoro, metadata):
    folder = Path(kokoro(kokoro_model(**metadata)).dir)
    assert model_kind(folder).model == model_kind(folder / "model.onnx").model == "kokoro"


@pytest.fixture
def kokoro_run(run_quickly, tmp_path):
    """Return a function: overrides -> the run of a model as sherpa-onnx publishes it, and its file."""
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")
    path = write_kokoro(tmp_path / "kokoro")
    (tmp_path / "lines.txt").write_text(LINES, encoding="utf-8")

    def run(*overrides):
        calibrated = any(override in ("mode=static", "mode=auto") for override in overrides)
        data = ("calibration=sentences", "calibration.path=lines.txt", "calibration.samples=4") if calibrated else ()
        return run_quickly(*FEW, f"model.dir={path.parent}", *data, *overrides).succeeded(), path

    return run


FLOAT = {"bert_q", "bert_k", "bert_v", "bert_o", "spoken_lstm", "duration_fc", "duration_proj"}


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_speech_keeps_its_length_and_the_client_speaks_with_the_file(kokoro_run, tmp_path, mode):
    pytest.importorskip("sherpa_onnx", reason="needs the extra test")
    run, path = kokoro_run(f"mode={mode}")
    [artifact] = run.report["artifacts"]
    lengths = {node: label for node, label in artifact["quantized_nodes"].items() if node in FLOAT}
    assert set(lengths.values()) == {"int16 weight, float computation"}
    assert "spoken_lstm" in lengths
    assert {"encode_fc", "res_fc"} <= {*artifact["quantized_nodes"]}
    assert run.report["evaluation"]["metrics"]["duration_mae_frames"]["quantized"] == 0
    assert run.report["evaluation"]["metrics"]["mr_stft"]["quantized"] > 0
    file = run.directory / artifact["file"]
    assert {entry.key: entry.value for entry in onnx.load(file).metadata_props} == METADATA
    texts = ["həlˈoʊ wˈɜːld.", "wʊd, lˈoʊ"]
    job = {
        "task": "speak", "kokoro": str(file), "voices": str(path.with_name("voices.bin")), "sid": 2,
        "tokens": str(path.with_name("tokens.txt")), "texts": texts, "phonemes": texts,
    }  # fmt: skip
    theirs = spoken_by_client(tmp_path, job)
    adapter = Kokoro("k", dir=str(path.parent), voices=[2])
    for number, text in enumerate(texts):
        ids = tuple([0, *(SYMBOLS.index(symbol) for symbol in text), 0])
        sample = sample_of(adapter, tokens=ids)
        [before], [after] = (infer(open_session(place), sample).values() for place in (path, file))
        assert before.shape == after.shape == theirs[f"audio_{number}"].shape
        assert np.abs(theirs[f"audio_{number}"] - after).max() < 0.2 * np.abs(after).max(), "apart by more than the noise"


def spoken_by_client(folder, job):
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, str(CLIENT), str(folder / "job.json"), str(folder / "result.npz")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "result.npz") as result:
        return dict(result)


PROBE = """probe (int64[1, L] tokens, float[1, 16] style, float[1] speed) => (float[samples] audio) {
    numbers = Cast <to = 1> (tokens)
    flat = Constant <value = int64[1] {-1}> ()
    ids = Reshape (numbers, flat)
    row = Reshape (style, flat)
    audio = Concat <axis = 0> (ids, row, speed)
}"""


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize(
    "family", [METADATA, {**KITTEN, "speaker_speed_priors": "0.5,0.8,0.25", "start_id": "9", "end_id": "8"}]
)
def test_what_the_graph_is_given_is_what_the_client_gives_it(kokoro, build, tmp_path, family):
    pytest.importorskip("sherpa_onnx", reason="needs the extra test")
    probe = build(PROBE)
    onnx.helper.set_model_props(probe, family)
    kitten = family["model_type"] == "kitten-tts"
    model = kokoro(probe, styles(rows=1).tobytes() if kitten else None, voices=[1])
    model.check()
    folder = Path(model.dir)
    texts = ["hello, world. who? hi! oh; well: no.", "low wood", "hold... on"]
    phonemes = [model.client_input(Utterance("u", text=text)) for text in texts]
    job = {
        "task": "speak", "kitten" if kitten else "kokoro": str(folder / "model.onnx"), "voices": str(folder / "voices.bin"),
        "tokens": str(folder / "tokens.txt"), "texts": texts, "phonemes": phonemes, "sid": 1,
    }  # fmt: skip
    theirs = spoken_by_client(tmp_path, job)
    assert int(theirs["sample_rate_hz"]) == RATE_HZ
    for number, text in enumerate(texts):
        ours = sample_of(model, text=text).inputs
        expected = np.concatenate([ours["tokens"][0], ours["style"][0], ours["speed"]]).astype(np.float32)
        np.testing.assert_array_equal(theirs[f"audio_{number}"], expected)


def test_of_the_real_architecture_albert_and_the_encoder_of_durations_stay_float_and_nothing_else():
    """Set KOKORO to the model.onnx of data/recipes/export_kokoro.py; --random makes one without real weights."""
    if "KOKORO" not in os.environ:
        pytest.skip("needs a Kokoro: KOKORO=model.onnx, made by data/recipes/export_kokoro.py")
    path = Path(os.environ["KOKORO"])
    model = Kokoro("k", str(path))
    model.check()
    graph = onnx.load(path, load_external_data=False).graph
    lengths = length_deciding_nodes(graph)
    layers = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM")]
    upstream = [name for name in layers if name in lengths]
    parts = {name.strip("/").partition("/")[0] for name in upstream}
    assert parts == {"bert", "bert_encoder", "text_encoder", "lstm", "duration_proj"}
    assert not [name for name in upstream if "cnn" in name or name == "/text_encoder/lstm/LSTM"]
    assert len([name for name in layers if name.startswith("/decoder/") and name not in lengths]) > 100
