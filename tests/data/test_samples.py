"""Samples come from manifests, arrays or noise, in a stable order, and each is checked against the graph's inputs."""

import numpy as np
import onnx
import pytest
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.arrays import check_samples, read_arrays
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.data.random_inputs import random_samples
from pipeline.errors import DataError
from pipeline.paths import resolve_path
from pipeline.sample import Sample


def inputs(*declared):
    return [onnx.helper.make_tensor_value_info(*value) for value in declared]


MEL = inputs(("mel", onnx.TensorProto.FLOAT, [None, 80, "frames"]))


def test_a_manifest_gives_utterances_in_its_order_with_audio_beside_it(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "b", "audio": "b.flac", "text": "hi"}\n\n{"id": "a", "tokens": [1, 2]}\n', encoding="utf-8")
    first, second = manifest_lines(path, "key")
    assert (first.id, first.text, first.audio) == ("b", "hi", tmp_path / "b.flac")
    assert (second.id, second.tokens, second.audio) == ("a", (1, 2), None)


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "a"}\n{"id": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"key: .*line 2: the id 'a' is there twice"):
        list(manifest_lines(path, "key"))


def test_arrays_give_samples_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **{"b/x": np.ones(1), "b/y": np.zeros(2), "a/x": np.ones(3), "c/x": np.ones(1)})
    samples = read_arrays(path, "key", 2)
    assert [sample.id for sample in samples] == ["b", "a"]
    assert set(samples[0].inputs) == {"x", "y"}


def test_all_inputs_of_a_sample_are_read_wherever_they_lie_in_the_file(tmp_path):
    """An .npz that was written input by input holds every sample's x before any sample's y."""
    path = tmp_path / "data.npz"
    np.savez(path, **{f"{sample}/{name}": np.ones(1) for name in "xy" for sample in "abc"})
    assert [(sample.id, set(sample.inputs)) for sample in read_arrays(path, "key", 2)] == [("a", {"x", "y"}), ("b", {"x", "y"})]


def test_noise_has_the_type_and_the_shape_of_the_input_and_is_the_same_for_a_seed():
    first, second = (random_samples(MEL, 2, 50, seed=4) for _ in range(2))
    assert first[0].inputs["mel"].shape == (1, 80, 50)
    assert first[0].inputs["mel"].dtype == np.float32
    np.testing.assert_array_equal(first[1].inputs["mel"], second[1].inputs["mel"])
    assert not np.array_equal(first[0].inputs["mel"], first[1].inputs["mel"])
    assert not np.array_equal(first[0].inputs["mel"], random_samples(MEL, 1, 50, seed=5)[0].inputs["mel"])


def test_noise_for_tokens_is_small_and_a_length_is_the_length():
    declared = inputs(("x", onnx.TensorProto.INT64, [None, None]), ("x_length", onnx.TensorProto.INT64, [None]))
    [sample] = random_samples(declared, 1, 30, seed=0)
    assert sample.inputs["x"].shape == (1, 30)
    assert 1 <= sample.inputs["x"].min() <= sample.inputs["x"].max() <= 7
    assert sample.inputs["x_length"].tolist() == [30]


def test_there_is_no_noise_for_text():
    with pytest.raises(DataError, match="calibration=random: the input 'text'"):
        random_samples(inputs(("text", onnx.TensorProto.STRING, [1])), 1, 30, seed=0)


def test_a_sample_that_fits_is_accepted():
    check_samples([Sample("s", {"mel": np.zeros((1, 80, 7), np.float32)})], MEL, "key")


def test_a_sample_with_a_misspelt_input_is_refused_with_the_nearest():
    bad = Sample("s", {"mel": np.zeros((1, 80, 7), np.float32), "mels": np.zeros(1, np.float32)})
    with pytest.raises(DataError, match=r"sample 's' has an input 'mels'.*mel"):
        check_samples([bad], MEL, "key")


@pytest.fixture
def tone(tmp_path):
    """Return a function that writes a tone of 440 Hz at a rate, and returns its path."""

    def write(rate, seconds=0.5):
        path = tmp_path / f"{rate}.flac"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate), rate)
        return path

    return write


def test_audio_of_the_right_rate_is_read_as_it_is(tone):
    notes = []
    audio = read_audio(tone(16_000), 16_000, SampleRateMismatch.refuse, notes)
    assert audio.dtype == np.float32
    assert audio.shape == (8000,)
    assert not notes


def test_audio_of_another_rate_keeps_its_length_in_seconds_and_its_pitch(tone):
    notes = []
    audio = read_audio(tone(44_100), 16_000, SampleRateMismatch.resample, notes)
    assert len(audio) == pytest.approx(8000, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(audio[:8000]))) == 220  # 440 Hz, in steps of 2 Hz
    assert len(notes) == 1


def test_a_folder_of_another_rate_is_noted_once(tone):
    notes = []
    for _ in range(2):
        read_audio(tone(44_100), 16_000, SampleRateMismatch.resample, notes)
    assert len(notes) == 1


def test_audio_of_another_rate_is_refused_where_the_settings_say_so(tone):
    with pytest.raises(DataError, match="44100 Hz, but the model takes 16000 Hz"):
        read_audio(tone(44_100), 16_000, SampleRateMismatch.refuse, [])


def test_a_path_is_found_from_the_working_directory_first_then_from_the_project(tmp_path, monkeypatch, repo):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("pyproject.toml") == repo / "pyproject.toml"
    (tmp_path / "pyproject.toml").touch()
    assert resolve_path("pyproject.toml") == tmp_path / "pyproject.toml"
    assert resolve_path("nowhere.onnx") == tmp_path / "nowhere.onnx"


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [
        ("sentences/calibration.jsonl", "sentences/evaluation.jsonl"),
        ("voice/calibration/manifest.jsonl", "voice/evaluation/manifest.jsonl"),
        ("clips/calibration/manifest.jsonl", "clips/evaluation/manifest.jsonl"),
    ],
)
def test_calibration_and_evaluation_never_overlap(repo, calibration, evaluation):
    used, scored = (list(manifest_lines(repo / "data" / path, "data")) for path in (calibration, evaluation))
    assert used and scored
    assert not {u.text for u in used if u.text} & {u.text for u in scored if u.text}
    assert not {u.tokens for u in used if u.tokens} & {u.tokens for u in scored if u.tokens}
    audio = [{u.audio.read_bytes() for u in part if u.audio} for part in (used, scored)]
    assert not audio[0] & audio[1]
