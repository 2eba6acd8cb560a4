"""A denoiser: the frames that it is given, the audio that its frames become, and how clean that is."""

from itertools import islice, pairwise

import numpy as np
import onnx
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.datasets import EvaluationSample
from pipeline.data.manifest import manifest_lines
from pipeline.errors import PipelineError
from pipeline.evaluate.audio_scorer import AudioScorer
from pipeline.graph.source_graph import load_graph
from pipeline.metrics.enhancement_metrics import pause_floor_db, si_sdr_db
from pipeline.models.denoiser import Denoiser
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import ModelSessions
from tests.denoiser_graphs import STARTED, write_denoiser

FAMILIES = ("gtcrn", "dpdfnet")


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


@pytest.fixture
def clip(repo):
    """Return a recording that ships."""
    return next(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), 1))


@pytest.fixture
def written(tmp_path, build):
    """Return a function that writes a small denoiser of a family."""
    return lambda family, **settings: write_denoiser(tmp_path / family, build, family, **settings)


def loaded(path, **settings):
    """Return a denoiser that knows its graph, and what runs it."""
    denoiser = Denoiser("d", str(path), **settings)
    denoiser.check()
    source = load_graph("denoiser", str(path))
    return denoiser.with_graphs({"denoiser": source}), ModelSessions({"denoiser": source}, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_that_pass_unchanged_are_the_audio_again(written, family):
    denoiser, _ = loaded(written(family))
    audio = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    sample = denoiser.sample_of_audio("a", audio)
    [frames] = sample.inputs.values()
    assert frames.shape == ((63, 1, 257, 1, 2) if family == "gtcrn" else (63, 1, 1, 257, 2))
    late = 0 if family == "gtcrn" else 1024  # DPDFNet answers two windows later
    heard = denoiser.audio({"enh": frames})
    np.testing.assert_allclose(heard[: 62 * 256 - late], audio[late : 62 * 256], atol=1e-5)
    assert len(heard) == 62 * 256
    assert not heard[62 * 256 - late :].any()


def test_a_frame_is_the_transform_of_512_samples_under_the_root_of_a_hann_window(written):
    denoiser, _ = loaded(written("gtcrn"))
    audio = (0.1 * np.random.default_rng(0).standard_normal(4096)).astype(np.float32)
    [frames] = denoiser.sample_of_audio("a", audio).inputs.values()
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    expected = np.fft.rfft(audio[512:1024] * window)
    np.testing.assert_allclose(frames[3, 0, :, 0, 0] + 1j * frames[3, 0, :, 0, 1], expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_go_from_frame_to_frame_and_those_of_dpdfnet_start_from_its_metadata(written, family):
    denoiser, sessions = loaded(written(family))
    audio = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    calls, run = [], sessions.runner([0])

    def noted(graph, call):
        outputs = run(graph, call)
        calls.append((call.inputs, outputs))
        return outputs

    denoiser.infer(denoiser.sample_of_audio("a", audio), noted)
    name, output = ("tra_cache", "tra_cache_out") if family == "gtcrn" else ("state", "state_out")
    first = np.zeros((1, 1, 16)) if family == "gtcrn" else np.concatenate([*STARTED.values(), np.zeros(16)])
    np.testing.assert_allclose(calls[0][0][name], first, atol=1e-6)
    for (_, before), (given, _) in pairwise(calls):
        np.testing.assert_array_equal(given[name], before[output])


def test_a_gate_makes_pauses_quieter_and_the_scores_say_so(written, clip):
    denoiser, sessions = loaded(written("gtcrn"), snr_db=[10, 10])
    track = denoiser.track(clip, reader)
    outputs = denoiser.infer(denoiser.sample_of_audio(clip.id, track.audio), sessions.runner([0]))
    item = EvaluationSample(denoiser.sample(clip, reader), clip)
    scores = AudioScorer(denoiser, 16_000, reader).score(item, outputs, {**outputs, "enh": 0.5 * outputs["enh"]})
    floor, half = scores.truth["pause_floor_db"]
    assert floor < pause_floor_db(track.clean, track.audio, 16_000) - 3
    assert half == pytest.approx(floor - 6.02, abs=0.01)
    assert scores.truth["si_sdr_db"][0] == pytest.approx(scores.truth["si_sdr_db"][1], abs=1e-3)
    audio = denoiser.audio(outputs)
    assert scores.truth["si_sdr_db"][0] == pytest.approx(si_sdr_db(track.clean[: len(audio)], audio[: len(track.clean)]))
    assert "truth_log_mel_l1" not in scores.truth


def test_signal_to_distortion_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    clean, noise = (rng.standard_normal(100_000) for _ in range(2))
    noise -= clean * (noise @ clean) / (clean @ clean)
    noisy = 3.0 * (clean + 0.1 * noise * np.linalg.norm(clean) / np.linalg.norm(noise))
    assert si_sdr_db(clean, noisy) == pytest.approx(20.0, abs=1e-6)
    assert si_sdr_db(clean, 0.5 * clean) == 120
    assert si_sdr_db(clean, np.zeros_like(clean)) == -120


def test_the_level_of_pauses_leaves_out_their_edges():
    clean, audio = np.zeros(16_000, np.float32), np.full(16_000, 0.01, np.float32)
    clean[:4000] = clean[12_000:] = 0.5
    audio[4000 : 4000 + 2400] = audio[12_000 - 800 : 12_000] = 0.9
    assert pause_floor_db(clean, audio, 16_000) == pytest.approx(-40.0)
    assert pause_floor_db(clean, np.zeros_like(audio), 16_000) == -120
    assert pause_floor_db(np.ones_like(clean), audio, 16_000) is None


def test_a_denoiser_as_its_authors_publish_it_gets_the_metadata_that_the_client_reads(written):
    path = written("gtcrn", as_published=True)
    denoiser, _ = loaded(path)
    assert denoiser.client_metadata["model_type"] == "gtcrn"
    assert denoiser.client_metadata["tra_cache_shape"] == "1,1,16"
    assert denoiser.rate_hz == 16_000
    assert not Denoiser("d", str(written("gtcrn"))).client_metadata
    assert model_kind(path).model == "denoiser"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kind_of_a_denoiser_is_seen(written, family):
    path = written(family)
    assert (model_kind(path).model, model_kind(path).place) == ("denoiser", path)


def of_another_model(path):
    model = onnx.load(path)
    model.graph.input[1].name = "cache"
    model.graph.node[-2].input[0] = "cache"
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("family", "metadata", "settings", "message"),
    [
        ("gtcrn", {"n_fft": 400}, {}, r"n_fft=400, hop_length=256, window_length=512"),
        ("gtcrn", {"window_type": "hamming"}, {}, r"window_type='hamming'; known are hann, hann_sqrt"),
        ("gtcrn", {"n_fft": 1024, "window_length": 1024}, {}, r"first input is of shape \[1, 257, 1, 2\].*\[1, 513, 1, 2\]"),
        ("dpdfnet", {"pad_mode": "constant"}, {}, r"'pad_mode': 'constant'"),
        ("dpdfnet", {"erb_norm_init": "1,2"}, {}, r"has 2 numbers `erb_norm_init`, and says that there are 6"),
        ("dpdfnet", {}, {"track_s": 5000.0}, r"model\.track_s: 5000\.0"),
    ],
)
def test_what_the_client_would_refuse_or_do_otherwise_is_an_error(written, family, metadata, settings, message):
    with pytest.raises(PipelineError, match=message):
        Denoiser("d", str(written(family, **metadata)), **settings).check()


def test_a_graph_that_is_no_denoiser_says_which_are(written):
    path = written("gtcrn", as_published=True)
    of_another_model(path)
    with pytest.raises(PipelineError, match=r"takes mix, cache, .*model_type=gtcrn or dpdfnet"):
        Denoiser("d", str(path)).check()
