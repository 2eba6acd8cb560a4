"""Recordings, manifests, arrays and reports that tests/fuzz.py mutates by seeds, and what reads them in a run."""

import json
import random
from pathlib import Path

import numpy as np
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.arrays import read_arrays, read_labels
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.report.report_file import read_report
from tests.mutated_bytes import REPO, mutated_bytes


def run_data(seed: int, folder: Path) -> None:
    """Read a mutated recording, manifest, set of arrays or report, as a run does."""
    rng = random.Random(seed)
    match rng.randrange(5):
        case 0 | 1:
            clip = REPO / "data" / "clips" / "evaluation" / "e000.flac"
            if rng.random() < 0.5:
                audio, rate = soundfile.read(clip, dtype="int16")
                suffix = rng.choice(("wav", "flac", "ogg", "aiff"))
                soundfile.write(folder / f"a.{suffix}", audio[: rng.choice((100, 8000))], rate)
                clip = folder / f"a.{suffix}"
            path = folder / f"mutated{clip.suffix}"
            path.write_bytes(mutated_bytes(clip.read_bytes(), rng))
            read_audio(path, 16_000, SampleRateMismatch.resample, [])
        case 2:
            whole = (REPO / "data" / "clips" / "evaluation" / "manifest.jsonl").read_bytes()
            (folder / "m.jsonl").write_bytes(mutated_bytes(whole[:2000], rng))
            list(manifest_lines(folder / "m.jsonl", "evaluation.path"))
        case 3:
            save = rng.choice((np.savez, np.savez_compressed))
            save(folder / "a.npz", **{f"{n}/x": np.ones((2, 30), np.float32) for n in range(3)})
            (folder / "m.npz").write_bytes(mutated_bytes((folder / "a.npz").read_bytes(), rng))
            read_arrays(folder / "m.npz", "calibration.path", 5)
            np.save(folder / "a.npy", np.arange(30))
            (folder / "m.npy").write_bytes(mutated_bytes((folder / "a.npy").read_bytes(), rng))
            read_labels(folder / "m.npy")
        case 4:
            report = {
                "schema": 2,
                "status": "done",
                "model": "m",
                "mode": "static",
                "stages": [{"name": "load", "status": "done"}],
            }
            (folder / "report.json").write_bytes(mutated_bytes(json.dumps(report).encode(), rng))
            read_report(folder, "rerun")
