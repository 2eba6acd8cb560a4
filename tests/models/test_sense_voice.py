"""SenseVoice: what is asked for beside the features, what is no word, and what the client would refuse."""

from itertools import islice

import onnx
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.errors import PipelineError
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.sense_voice import SenseVoice
from tests.sense_voice_graphs import CLASSES, SPECIAL, write_sense_voice


@pytest.fixture
def written(tmp_path, build):
    """Return a function that writes a small SenseVoice."""
    return lambda **metadata: write_sense_voice(tmp_path / "sense", build, **metadata)


def given(folder, repo, **settings):
    """Return the inputs for a clip that ships, and what is recognised."""
    model = SenseVoice("s", dir=str(folder), **settings)
    model.check()
    clip = next(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), 1))
    sample = model.sample(clip, lambda path, rate: read_audio(path, rate, SampleRateMismatch.refuse, []))
    outputs = model.infer(sample, ModelSessions({"encoder": folder / "model.onnx"}, 1).runner([0]))
    return sample.inputs, outputs, model.transcript(outputs)


def test_language_and_way_of_writing_are_numbers_of_the_metadata(written, repo):
    folder = written()
    asked = {
        (language, use_itn): [
            int(given(folder, repo, language=language, use_itn=use_itn)[0][key][0]) for key in ("language", "text_norm")
        ]
        for language in (None, "yue")
        for use_itn in (False, True)
    }
    assert asked == {(None, False): [0, 15], (None, True): [0, 14], ("yue", False): [7, 15], ("yue", True): [7, 14]}


def test_the_graph_gives_four_tokens_more_than_frames_and_the_first_four_that_are_said_are_no_words(written, repo):
    inputs, outputs, text = given(written(), repo)
    assert outputs["logits"].shape == (1, inputs["x"].shape[1] + 4, CLASSES)
    assert int(inputs["x_length"][0]) == inputs["x"].shape[1]
    best = outputs["logits"][0].argmax(axis=1)
    said = [int(token) for k, token in enumerate(best) if token and (not k or token != best[k - 1])]
    table = [*SPECIAL, *(f"\u2581{chr(97 + k)}" if k % 3 == 0 else chr(97 + k) for k in range(26))]
    assert text == "".join(table[token] for token in said[4:]).replace("\u2581", " ").strip()
    assert len(text) > 5


def test_what_is_asked_for_changes_what_is_said(written, repo):
    folder = written()
    assert given(folder, repo)[2] != given(folder, repo, language="ja")[2]


def test_a_directory_of_sense_voice_is_told_from_another_recogniser(written):
    folder = written()
    for place in (folder, folder / "model.onnx"):
        assert model_kind(place).model == "sense_voice"


def without(folder, key):
    model = onnx.load(folder / "model.onnx")
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != key}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, folder / "model.onnx")


@pytest.mark.parametrize(
    ("metadata", "missing", "settings", "message"),
    [
        ({}, "with_itn", {}, r"has no with_itn, which sherpa-onnx reads"),
        ({}, "lang_yue", {}, r"has no lang_yue, which sherpa-onnx reads"),
        ({"vocab_size": 40}, None, {}, r"has 33 tokens; .*vocab_size=40"),
        ({}, None, {"language": "yeu"}, r"knows no language 'yeu'.*yue"),
        ({}, None, {"features": "wenet"}, r"model\.features: 'wenet'"),
    ],
)
def test_what_the_client_would_end_for_is_an_error(written, metadata, missing, settings, message):
    folder = written(**metadata)
    if missing:
        without(folder, missing)
    with pytest.raises(PipelineError, match=message):
        SenseVoice("s", dir=str(folder), **settings).check()


def test_inputs_in_another_order_are_refused(written):
    folder = written()
    model = onnx.load(folder / "model.onnx")
    swapped = [model.graph.input[place] for place in (0, 1, 3, 2)]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in swapped]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(PipelineError, match="takes x, x_length, text_norm, language; sherpa-onnx gives x, x_length, language"):
        SenseVoice("s", dir=str(folder)).check()
