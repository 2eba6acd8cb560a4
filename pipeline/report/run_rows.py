"""A run as rows of a comparison: what was done, at what price, to what effect, and under which conditions."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.record.run_directory import CONFIG_FILE
from pipeline.report.intervals import metric_interval

LIBRARIES = ("onnxruntime", "onnx", "numpy", "scipy", "kaldi_native_fbank", "jiwer")  # those that move a number
Row = dict[str, Any]


def rows_of(directory: Path, report: Mapping[str, Any]) -> list[Row]:
    """Return a row per graph of a finished run; `settings` are all of its settings, flat, for the caller to thin out."""
    config = _config(directory)
    metrics = {
        name: dict(metric) | {"interval": _interval(report, name)}
        for name, metric in report.get("evaluation", {}).get("metrics", {}).items()
    }
    seconds = next((stage["seconds"] for stage in report["stages"] if stage["name"] == "quantize"), None)
    rows = []
    for artifact in report.get("artifacts", []):
        measured = report.get("benchmark", {}).get(artifact["graph"], {})
        row = {
            "model": report["model"],
            "mode": report["mode"],
            "directory": str(directory),
            "status": report["status"],
            "graph": artifact["graph"],
            "quantize_seconds": seconds,
            "data": report.get("calibrated_on") or _calibrated_on(config),
            "bytes": artifact["bytes"],
            "baseline_bytes": artifact["baseline_bytes"],
            "speedup": measured.get("speedup"),
            "verdict": measured.get("verdict"),
            "latency_ms": measured.get("quantized_ms", {}).get("p50"),
            "rtf": measured.get("rtf"),
            "load_ms": measured.get("quantized_load_ms"),
            "peak_bytes": measured.get("quantized_peak_bytes"),
            "metrics": metrics,
            "conditions": _conditions(report, config, artifact, measured),
            "settings": _flat({key: value for key, value in config.items() if key in ("mode", "calibration", "seed")}),
        }
        rows.append(row)
    return rows


def _interval(report: Mapping[str, Any], name: str) -> dict[str, float] | None:
    found = metric_interval(report, name)
    return None if found is None else {"low": found.low, "high": found.high}


def _conditions(
    report: Mapping[str, Any], config: Mapping[str, Any], artifact: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, str]:
    """Return what must be the same before two runs can be ranked."""
    environment = report.get("environment", {})
    originals = sorted(entry["sha256"] for entry in report.get("inputs", []) if entry["path"].endswith(".onnx"))
    return {
        "graph": report["model"] if report["model"] == artifact["graph"] else f"{report['model']}, {artifact['graph']}",
        "original": _digest([originals, artifact["baseline_bytes"]]),
        "machine": ", ".join(
            str(part)
            for part in (environment.get("cpu"), f"{environment.get('cores')} cores", *environment.get("cpu_flags", []))
        ),
        "libraries": ", ".join(f"{name} {environment[name]}" for name in LIBRARIES if environment.get(name)),
        "evaluation set": _evaluation_set(report, config),
        "threads": str(measured["threads"]) if measured else "not timed",
    }


def _evaluation_set(report: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return a hash of what was evaluated: samples, texts, files, and the versions of the metrics."""
    evaluation = report.get("evaluation")
    if evaluation is None:
        return "not evaluated"
    settings = config.get("evaluation") or {}
    place = settings.get("path") or (config.get("model") or {}).get("evaluation_path")
    folder = str(Path(place).parent) if place and Path(place).suffix else place
    files = [
        (Path(entry["path"]).name, entry["sha256"])
        for entry in report.get("inputs", [])
        if place and _same_place(entry["path"], place, folder)
    ]
    samples = [(sample["id"], sample.get("text")) for sample in evaluation.get("per_sample", [])]
    versions = {name: metric.get("version") for name, metric in evaluation["metrics"].items()}
    seed = config.get("seed") if evaluation.get("noise") else None
    shown = _digest(
        [settings.get("kind"), settings.get("sample_rate_hz"), sorted(files), samples, sorted(versions.items()), seed]
    )
    return f"{evaluation['samples']} samples ({shown})"


def _same_place(path: str, place: str, folder: str | None) -> bool:
    """Whether a file that was read is the evaluation set, or lies beside its manifest; paths may be absolute in one."""
    own = Path(path)
    named = Path(place)
    if own == named or path.endswith(f"/{place}") or str(named).endswith(f"/{path}"):
        return True
    if folder in (None, "", "."):
        return False
    # Beside the manifest: clips, but not the manifest or the arrays of another set, such as the one for calibration.
    return own.suffix not in (".jsonl", ".json", ".onnx", ".npz") and f"/{path}".rpartition("/")[0].endswith(
        f"/{folder}".replace("//", "/")
    )


def _calibrated_on(config: Mapping[str, Any]) -> str:
    calibration = config.get("calibration") or {}
    if (config.get("mode") or {}).get("kind") != "static" or not calibration:
        return "no data"
    return f"{calibration.get('samples')} {calibration.get('kind')} samples"


def _config(directory: Path) -> dict[str, Any]:
    """Return a run's settings; empty where they cannot be read: then less is known, and less is claimed."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(directory / CONFIG_FILE))
    except Exception:  # a file that is missing or damaged in whatever way; YAML's errors share no base with OmegaConf's
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _digest(value: Any) -> str:  # noqa: ANN401
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
