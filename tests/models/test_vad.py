"""A detector of speech: what its steps are given, what its client decides, and the tracks that it hears."""

from itertools import islice, pairwise

import numpy as np
import onnx
import pytest

from pipeline.audio.noisy_track import noisy_track
from pipeline.audio.vad_features import ten_vad_features
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.errors import PipelineError
from pipeline.graph.source_graph import load_graph
from pipeline.metrics.decision_metrics import segments
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.vad import Vad
from tests.vad_graphs import TEN_STATISTICS, write_vad

FAMILIES = ("silero_v5", "silero_v4", "k2", "ten", "fsmn")


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


@pytest.fixture
def clips(repo):
    """Return the first recordings that ship."""
    return list(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), 6))


@pytest.fixture
def written(tmp_path, build):
    """Return a function that writes a small detector of a family."""
    return lambda family: write_vad(tmp_path / family, build, family)


def heard_by(path, clip, **settings):
    """Return a detector, the track of a clip, what each step was given and gave, and the outputs of all."""
    source = load_graph("vad", str(path), fixed=Vad("v", str(path)).fixed_inputs)
    vad = Vad("v", str(path), **settings).with_graphs({"vad": source})
    vad.check()
    track, calls = vad.track(clip, reader), []
    sessions = ModelSessions({"vad": source}, 1)
    sample = vad.sample_of_audio("s", track.audio)
    run = sessions.runner([0])

    def noted(graph, call):
        outputs = run(graph, type(call)(call.id, {**call.inputs, **source.fixed}))
        calls.append((call.inputs, outputs))
        return outputs

    return vad, track, calls, vad.infer(sample, noted)


@pytest.mark.parametrize(
    ("family", "size", "hop", "states"),
    [("silero_v5", 576, 512, {"stateN": "state"}), ("silero_v4", 512, 512, {"hn": "h", "cn": "c"}),
     ("k2", 512, 512, {"new_h": "h", "new_c": "c"})],
)  # fmt: skip
def test_each_step_gets_the_samples_that_the_client_gives_and_the_states_of_the_step_before(
    written, clips, family, size, hop, states
):
    _, track, calls, _ = heard_by(written(family), clips[0])
    assert len(calls) == 1 + (len(track.audio) - size) // hop
    for step, (given, _) in enumerate(calls):
        np.testing.assert_array_equal(
            given[next(iter(given.keys() - set(states.values())))][0], track.audio[step * hop :][:size]
        )
    assert not any(calls[0][0][name].any() for name in states.values())
    for (_, before), (given, _) in pairwise(calls):
        for output, name in states.items():
            np.testing.assert_array_equal(given[name], before[output])


def test_ten_vad_gets_its_own_frame_and_the_two_before(written, clips):
    _, track, calls, _ = heard_by(written("ten"), clips[0])
    features = ten_vad_features(track.audio, 256, TEN_STATISTICS)
    assert features.shape == (len(track.audio) // 256, 1, 3, 41)
    assert len(calls) == len(features)
    assert not features[0, 0, :2].any()
    for before, after in pairwise(features[:, 0]):
        np.testing.assert_array_equal(after[:2], before[1:])
    np.testing.assert_array_equal(features[:, 0, 2, 40], np.float32(1.6))  # no pitch, less a mean of -8, times 0.2
    for (given, _), frame in zip(calls, features, strict=True):
        np.testing.assert_allclose(given["input_1"], frame, atol=1e-5)  # the metadata is text


def test_ten_vad_hears_bands_of_a_tone_where_it_is():
    tone = (0.3 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)).astype(np.float32)
    features = ten_vad_features(tone, 256, {**TEN_STATISTICS, "mean": np.zeros(41), "inv_stddev": np.ones(41)})
    assert np.abs(int(features[30, 0, 2, :39].argmax()) - 12) <= 1  # 1 kHz is at 15 of Slaney's 45.2, of 41 steps to 8 kHz


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_finds_speech_where_it_is_in_the_tracks(written, clips, family):
    found, there = 0, 0
    for clip in clips:
        vad, track, _, outputs = heard_by(written(family), clip, snr_db=[30, 30])
        chances = vad.probabilities(outputs)
        every = vad.detector.decided_every or vad.hop
        spoken = np.array([track.clean[k * every : (k + 1) * every].any() for k in range(len(chances))])
        assert chances[spoken].mean() > chances[~spoken].mean() + 0.05
        found, there = found + len(segments(vad.speech(chances))), there + len(segments(spoken))
    assert found >= 0.5 * there


@pytest.fixture
def decided(written):
    """Return a function: probabilities of 32 ms each -> where the client says that somebody speaks."""
    path = written("silero_v5")
    return lambda values, **settings: Vad("v", str(path), **settings).speech(np.asarray(values, float)).astype(int).tolist()


def test_speech_begins_once_it_has_lasted_and_ends_once_it_has_been_silent_for_long(decided):
    """A quarter of a second is 8 steps, half a second 16."""
    spoken = [0.9] * 20
    assert decided([0.1] * 3 + spoken + [0.1] * 30) == [0] * 11 + [1] * 12 + [1] * 16 + [0] * 14
    assert decided([0.1] * 3 + [0.9] * 7 + [0.1] * 30) == [0] * 40
    assert decided(spoken + [0.1] * 10 + spoken, min_speech_s=0) == [0] + [1] * 49
    assert decided(spoken + [0.1] * 20 + spoken, min_speech_s=0, min_silence_s=0.1) == [0] + [1] * 23 + [0] * 17 + [1] * 19


def test_speech_goes_on_between_the_threshold_and_a_lower_one(decided):
    assert decided([0.9] * 20 + [0.4] * 30, min_speech_s=0) == [0] + [1] * 49
    assert decided([0.9] * 20 + [0.34] * 30, min_speech_s=0) == [0] + [1] * 35 + [0] * 14
    assert decided([0.4] * 30) == [0] * 30
    assert sum(decided([0.4] * 30, threshold=0.35, min_speech_s=0)) == 29


def test_a_track_is_the_same_every_time_and_holds_the_recording_between_pauses(clips):
    recording = reader(clips[0].audio, 16_000)
    track, again = (noisy_track("e000", recording, 16_000, 10.0, [5, 15]) for _ in range(2))
    np.testing.assert_array_equal(track.audio, again.audio)
    assert not np.array_equal(track.audio[:16_000], noisy_track("e001", recording, 16_000, 10.0, [5, 15]).audio[:16_000])
    assert 10.0 <= len(track.audio) / 16_000 < 10.0 + len(recording) / 16_000 + 1.6
    twice = np.concatenate([track.clean, track.clean])  # it begins anywhere
    pauses = [(start, end) for start, end in segments(twice == 0) if end - start >= 0.6 * 16_000]
    scale = np.abs(track.clean).max() / np.abs(recording).max()
    first = pauses[1][1] - np.flatnonzero(recording)[0]
    np.testing.assert_allclose(twice[first:][: len(recording)], scale * recording, atol=1e-6)
    assert np.abs(track.audio).max() <= 1
    noise = track.audio - track.clean
    snr = 10 * np.log10(np.mean(recording**2) / np.mean(noise**2)) - 20 * np.log10(
        np.abs(recording).max() / np.abs(track.clean).max()
    )
    assert 4 < snr < 16 or np.abs(track.audio).max() == 1


def test_recordings_are_heard_as_they_are_where_no_tracks_are_asked_for(written, clips):
    vad = Vad("v", str(written("silero_v5")), track_s=None)
    np.testing.assert_array_equal(vad.track(clips[0], reader).audio, reader(clips[0].audio, 16_000))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kind_of_a_detector_is_seen(written, family):
    path = written(family)
    kind = model_kind(path)
    assert (kind.model, kind.key, kind.place) == ("vad", "model.path", path)


def other_order(path):
    model = onnx.load(path)
    state, rate = model.graph.input[1], model.graph.input[2]
    copied = [type(state).FromString(value.SerializeToString()) for value in (rate, state)]
    del model.graph.input[1:]
    model.graph.input.extend(copied)
    onnx.save(model, path)


def without_metadata(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def wider(path):
    model = onnx.load(path)
    model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = 32
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("family", "change", "settings", "message"),
    [
        ("silero_v5", other_order, {}, r"takes input, sr, state and gives output, stateN.*names and order decide"),
        ("silero_v5", None, {"window": 1024}, r"model\.window: 1024, but Silero VAD 5 takes 512 samples"),
        ("silero_v4", wider, {}, r"'h' is of shape \[2, 1, 32\].*gives it \[2, 1, 64\]"),
        ("ten", without_metadata, {}, r"reads 41 numbers `mean`.*and it has 0"),
        ("ten", None, {"threshold": 1.5}, r"model\.threshold: 1\.5 is out of limits"),
        ("fsmn", lambda path: (path.parent / "am.mvn").unlink(), {}, r"am\.mvn: not found"),
        ("fsmn", lambda path: (path.parent / "am.mvn").write_text("<Nnet>"), {}, r"has no <AddShift> and <Rescale>"),
        ("silero_v4", None, {"track_s": 0.1}, r"model\.track_s: 0\.1 is out of limits"),
        ("silero_v4", None, {"snr_db": [10]}, r"model\.snr_db: \[10\]"),
        ("silero_v4", None, {"min_silence_s": -1}, r"model\.min_silence_s: -1"),
    ],
)
def test_what_the_client_would_refuse_or_never_say_is_an_error(written, family, change, settings, message):
    path = written(family)
    if change:
        change(path)
    with pytest.raises(PipelineError, match=message):
        Vad("v", str(path), **settings).check()
