"""Whisper tiny.en with its real weights, where they are: WHISPER_DIR names what data/recipes/export_whisper.py has written.

WHISPER_DIR=tiny.en python -m pytest tests/test_real_whisper.py
"""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.whisper import Whisper
from pipeline.paths import resolve_path
from pipeline.utterance import Utterance
from tests.conftest import REAL
from tests.test_sherpa_onnx import client

CLIPS = {
    "LJ050-0075": "The Commission shares this concern.",
    "LJ050-0115": "This is especially necessary with regard to the FBI and CIA.",
    "LJ050-0159": "The Commission recommends that prompt and favorable consideration be given to this request.",
}


@pytest.fixture(scope="module")
def folder():
    """Return the directory with the real model; skip where it, or a real recording, is not on this machine."""
    place = os.environ.get("WHISPER_DIR")
    if place is None or not (REAL / "lj").is_dir():
        pytest.skip("needs WHISPER_DIR, a directory that data/recipes/export_whisper.py has written, and ../shared/real/lj")
    return resolve_path(place)


def reader(path, rate_hz):
    return read_audio(path, rate_hz, SampleRateMismatch.resample, [], Whisper.resample.__get__(Whisper("w")))


def heard(model: Whisper, files: dict[str, Path]) -> list[str]:
    """Return what a model writes of the clips."""
    run = ModelSessions(files, 1).runner([0])
    clips = [Utterance(name, audio=REAL / f"lj/{name}.flac") for name in CLIPS]
    return [model.transcript(model.infer(model.sample(clip, reader), run)) for clip in clips]


def test_it_writes_what_is_said(folder):
    model = Whisper("w", dir=str(folder))
    model.check()
    assert heard(model, {part: resolve_path(path) for part, path in model.graphs.items()}) == list(CLIPS.values())


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_its_decoder_is_small_and_the_client_writes_the_same(folder, run_in, tmp_path, mode):
    recordings = [f"calibration.path={REAL / 'lj'}", "calibration=audio", "calibration.samples=8"] if mode == "static" else []
    run = run_in(tmp_path, "model=whisper", f"model.dir={folder}", f"mode={mode}", *recordings, "stages=[load,quantize]")
    artifacts = run.succeeded().report["artifacts"]
    files = {artifact["graph"]: run.directory / artifact["file"] for artifact in artifacts}
    sizes = {part: path.stat().st_size for part, path in files.items()}
    model = Whisper("w", dir=str(folder))
    assert sizes["decoder"] / resolve_path(model.graphs["decoder"]).stat().st_size <= 0.3
    ours = heard(model, files)
    theirs = client(tmp_path, {
        "task": "hear", "loader": "from_whisper", "files": {part: str(path) for part, path in files.items()},
        "tokens": str(model.side_files[0]), "audio": [str(REAL / f"lj/{name}.flac") for name in CLIPS],
    })["text"].tolist()  # fmt: skip
    assert ours == theirs
    assert np.mean([a == b for a, b in zip(ours, CLIPS.values(), strict=True)]) >= 0.6
