"""The real client and detectors of speech: the same decisions step by step, in fp32 and quantized."""

import importlib.util
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.graph.source_graph import load_graph
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.vad import Vad
from tests.test_sherpa_onnx import client
from tests.vad_graphs import write_vad

pytest.importorskip("sherpa_onnx", reason="needs the extra test")

TRACKS = 3
SAME = 0.99
QUICK = {"track_s": 4.0, "min_speech_s": 0.1, "min_silence_s": 0.1}
OVERRIDES = [f"model.{key}={value}" for key, value in QUICK.items()]


def reader(path, rate):
    return read_audio(path, rate, SampleRateMismatch.refuse, [])


def decided(path, file, repo, tmp_path, **settings):
    """Return what we and the client decide of tracks, step by step: (ours, theirs)."""
    source = load_graph("vad", str(path), fixed=Vad("v", str(path)).fixed_inputs)
    vad = Vad("v", str(path), **{**QUICK, **settings}).with_graphs({"vad": source})
    vad.check()
    sessions = ModelSessions({"vad": file}, 1)
    ours, tracks = [], []
    for clip in islice(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data"), TRACKS):
        track = vad.track(clip, reader).audio
        tracks.append(str(tmp_path / f"{clip.id}.wav"))
        soundfile.write(tracks[-1], track, 16_000, subtype="FLOAT")
        sample = vad.sample_of_audio(clip.id, track)
        sample = replace(sample, inputs={**sample.inputs, **source.fixed})
        ours.append(vad.speech(vad.probabilities(vad.infer(sample, sessions.runner([0])))))
    layout = vad.client_layout()
    found = client(tmp_path, {
        "task": "detect", "model": str(file), "part": layout.loader, "settings": layout.kotlin,
        "options": dict(layout.options), "audio": tracks,
    })  # fmt: skip
    return np.concatenate(ours), np.concatenate([found[f"speech_{number}"] for number in range(TRACKS)])


def compare(ours, theirs):
    assert len(ours) == len(theirs)
    assert 0.1 < np.mean(theirs) < 0.9
    assert np.mean(ours == theirs) >= SAME


@pytest.mark.parametrize("family", ["silero_v5", "silero_v4", "k2", "ten"])
def test_a_detector_decides_in_the_client_what_it_does_here(build, repo, tmp_path, family):
    path = write_vad(tmp_path / family, build, family)
    for threshold in (0.4, 0.6):
        compare(*decided(path, path, repo, tmp_path, threshold=threshold))


@pytest.mark.parametrize("family", ["silero_v5", "ten"])
def test_a_quantized_detector_runs_in_the_client_and_decides_what_it_does_here(build, repo, run_in, tmp_path, family):
    path = write_vad(tmp_path / family, build, family)
    few = ("calibration.samples=4", "evaluation.samples=4", "package.samples=2", "benchmark.seconds=0", "benchmark.runs=5")
    run = run_in(
        tmp_path, "model=vad", f"model.path={path}", "mode=static", *few, *OVERRIDES, "package=sherpa_onnx",
        "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    compare(*decided(path, run.directory / artifact["file"], repo, tmp_path))
    metrics = run.report["evaluation"]["metrics"]
    assert metrics["decision_auc"]["quantized"] > 0.95
    assert {limit["metric"] for limit in run.report["evaluation"]["limits"]} == {"segment_f1"}
    assert run.report["package"]["trial"]["same_percent"] >= 99
    card = (run.directory / "package" / "README.md").read_text(encoding="utf-8")
    part = "ten-vad" if family == "ten" else "silero-vad"
    assert f"--{part}-model={part.replace('-', '_')}.int8.onnx" in card
    assert f"--{part}-min-silence-duration=0.1" in card
    assert f"{'Ten' if family == 'ten' else 'Silero'}VadModelConfig(model = " in card


@pytest.fixture
def real_detector():
    """Return the file of `SILERO_VAD`, or that of the package silero-vad; skips without either."""
    if (named := os.environ.get("SILERO_VAD")) is not None:
        return Path(named)
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        pytest.skip("needs a real detector: pip install --no-deps silero-vad, or SILERO_VAD")
    return Path(spec.origin).parent / "data" / "silero_vad.onnx"


def test_a_real_detector_is_small_keeps_its_decisions_and_runs_in_the_client(real_detector, repo, run_in, tmp_path):
    few = ("calibration.samples=8", "evaluation.samples=8", "package.samples=2", "evaluation.node_samples=0")
    run = run_in(
        tmp_path, "model=vad", f"model.path={real_detector}", "mode=static", *few, "package=sherpa_onnx",
        "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    [artifact] = run.report["artifacts"]
    assert artifact["bytes"] < 0.35 * artifact["baseline_bytes"]
    assert run.report["evaluation"]["metrics"]["segment_f1"]["quantized"] > 0.9
    assert run.report["evaluation"]["metrics"]["decision_auc"]["quantized"] > 0.99
    compare(*decided(real_detector, run.directory / artifact["file"], repo, tmp_path))
