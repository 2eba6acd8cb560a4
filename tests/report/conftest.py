"""A real run that the tests of reports look at, and reports made by hand."""

import copy
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_directory(shipped_run):
    """Return the directory of a real run of the shipped vocoder."""
    return shipped_run("vocoder", "static").directory


@pytest.fixture(scope="session")
def real_report(run_directory):
    """Return the report of the real run; change copies only."""
    return json.loads((run_directory / "report.json").read_text(encoding="utf-8"))


SPOKEN = (
    ("a", "play more jazz music", "play more jazz music", "play more jaz music"),
    ("b", "call isabel", "call isabel", "call isabel"),
    ("c", "close <script>alert(1)</script> the window", "close the window", "close <b>the</b> the window"),
)


def _metric(baseline, quantized, *, unit="", higher=False):
    return {"baseline": baseline, "quantized": quantized, "delta": None, "unit": unit, "higher_is_better": higher, "version": 1}


@pytest.fixture
def report():
    """Return a small report.json of a recogniser, made by hand: faster, three utterances, one of them damaged."""
    speedup = {"median": 1.5, "low": 1.4, "high": 1.6}
    percentiles = {"p50": 3.0, "p90": 4.0, "p99": 5.0}
    length = {"sample": "a", "elements": 10, "audio_seconds": 1.0, "baseline_ms": 3.0, "quantized_ms": 2.0, "speedup": 1.5}
    measured = {
        "threads": 1, "pairs": 40, "rounds": 4,
        "baseline_ms": percentiles, "quantized_ms": {"p50": 2.0, "p90": 3.0, "p99": 4.0},
        "speedup": speedup, "verdict": "faster", "lengths": {"short": length}, "rtf": 0.002, "baseline_rtf": 0.003,
        "baseline_load_ms": 10.0, "quantized_load_ms": 12.0, "baseline_first_run_ms": 4.0, "quantized_first_run_ms": 3.0,
        "baseline_peak_bytes": 80_000_000, "quantized_peak_bytes": 70_000_000, "runtime_peak_bytes": 60_000_000,
        "self_check": None, "warnings": [],
    }  # fmt: skip
    samples = [
        {"id": name, "fidelity": {"posterior_kl": kl}, "truth": {}, "text": text, "baseline_transcript": before,
         "quantized_transcript": after}
        for (name, text, before, after), kl in zip(SPOKEN, (0.002, 0.001, 0.03), strict=True)
    ]  # fmt: skip
    return copy.deepcopy({
        "schema": 2, "status": "done", "model": "asr", "mode": "static", "warnings": [],
        "stages": [{"name": "quantize", "status": "done", "seconds": 2.0}],
        "inputs": [
            {"path": "data/models/asr/model.onnx", "sha256": "1" * 64, "bytes": 4_000_000},
            {"path": "data/clips/evaluation/manifest.jsonl", "sha256": "2" * 64, "bytes": 300},
            {"path": "data/clips/calibration/manifest.jsonl", "sha256": "3" * 64, "bytes": 300},
        ],
        "environment": {"cpu": "A processor", "cores": 2, "cpu_flags": ["avx2"], "onnxruntime": "1.30.0"},
        "artifacts": [{
            "graph": "encoder", "file": "encoder.int8.onnx", "sha256": "0" * 64, "bytes": 1_000_000,
            "baseline_bytes": 4_000_000,
            "quantized_nodes": {"/a/Conv": "int8, static ranges"}, "kernels": {"QLinearConv": 1},
            "kept": [{"node": "/b/<i>MatMul", "reason": "its weight is not a constant"}],
        }],
        "benchmark": {"encoder": measured},
        "evaluation": {
            "samples": 3, "outputs": {}, "noise": None, "per_sample": samples,
            "metrics": {"wer_percent": _metric(10.0, 20.0, unit="%"), "posterior_kl": _metric(0.0, 0.011, unit="nat")},
        },
    })  # fmt: skip


CONFIG = """\
model: {evaluation_path: data/clips/evaluation/manifest.jsonl}
mode: {name: static, kind: static, method: minmax}
calibration: {kind: real, samples: 32}
evaluation: {kind: asr, path: null}
seed: 0
"""


@pytest.fixture
def save_run(tmp_path):
    """Return a function that writes a report, and the settings of a run, into a directory below `outputs/`."""

    def save(report, name, config=CONFIG):
        directory = tmp_path / "outputs" / str(report.get("model")) / str(report.get("mode")) / name
        directory.mkdir(parents=True)
        (directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
        (directory / "config.yaml").write_text(config, encoding="utf-8")
        return directory

    return save
