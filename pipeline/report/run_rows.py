"""A run as rows of a comparison: what was done, at what price, to what effect, and under which conditions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from pipeline.measure.benchmark_result import GraphBenchmark, Speedup
from pipeline.record.run_directory import CONFIG_FILE
from pipeline.report.evaluation_schema import Bounds, MetricResult
from pipeline.report.intervals import metric_interval
from pipeline.report.schema import ArtifactReport, Report
from pipeline.report.verdict import quality_outcome
from pipeline.sample import samples_of

LIBRARIES = ("onnxruntime", "onnx", "numpy", "scipy", "kaldi_native_fbank", "jiwer")  # those that move a number


@dataclass(frozen=True)
class Row:
    """One graph of a finished run; what was not measured is None.

    Attributes:
        model: its name.
        mode: its name.
        directory: of the run.
        status: of the run.
        graph: its role.
        quantize_seconds: how long the quantize stage took.
        data: what it was calibrated on.
        bytes: of the artifact.
        baseline_bytes: of the original.
        speedup: with its interval.
        verdict: faster, slower or same.
        quality: what follows from the limits of quality: `within the limit`, ...; None: the report knows no limits.
        latency_ms: median, of the quantized model.
        rtf: real-time factor of the quantized model.
        load_ms: time to build a session of the quantized model.
        peak_bytes: peak memory of a process that runs the quantized model.
        metrics: name -> values of both models, and the interval.
        conditions: what must be the same before two runs can be ranked.
        settings: settings of the run, flat: name -> value.
        sha256: of the artifact: runs with the same one have made the same model.
    """

    model: str
    mode: str
    directory: str
    status: str
    graph: str
    quantize_seconds: float | None
    data: str
    bytes: int
    baseline_bytes: int
    speedup: Speedup | None
    verdict: str | None
    quality: str | None
    latency_ms: float | None
    rtf: float | None
    load_ms: float | None
    peak_bytes: int | None
    metrics: dict[str, MetricResult]
    conditions: dict[str, str]
    settings: dict[str, Any]
    sha256: str = ""


def rows_of(directory: Path, report: Report) -> list[Row]:
    """Return a row per graph of a finished run; `settings` are those of mode, calibration and seed, all of them."""
    config = _config(directory)
    evaluated = {} if report.evaluation is None else report.evaluation.metrics
    metrics = {name: replace(metric, interval=_interval(report, name)) for name, metric in evaluated.items()}
    seconds = next((stage.seconds for stage in report.stages if stage.name == "quantize"), None)
    outcome = quality_outcome(report)
    rows = []
    for artifact in report.artifacts or []:
        measured = (report.benchmark or {}).get(artifact.graph)
        row = Row(
            model=report.model or "",
            mode=report.mode or "",
            directory=str(directory),
            status=report.status,
            graph=artifact.graph,
            quantize_seconds=seconds,
            data=report.calibrated_on or _calibrated_on(config),
            bytes=artifact.bytes,
            baseline_bytes=artifact.baseline_bytes,
            speedup=None if measured is None else measured.speedup,
            verdict=None if measured is None else measured.verdict,
            quality=None if outcome is None else outcome.value,
            latency_ms=None if measured is None else measured.quantized_ms.p50,
            rtf=None if measured is None else measured.rtf,
            load_ms=None if measured is None else measured.quantized_load_ms,
            peak_bytes=None if measured is None else measured.quantized_peak_bytes,
            metrics=metrics,
            conditions=_conditions(report, config, artifact, measured),
            settings=_flat({key: value for key, value in config.items() if key in ("mode", "calibration", "seed")}),
            sha256=artifact.sha256,
        )
        rows.append(row)
    return rows


def why_not_done(report: Report) -> str:
    """Return why a run whose report does not say `done` has no numbers."""
    if report.status == "interrupted":
        return "It was interrupted; what was done is in its directory."
    return report.error or "It was not over when its report was read."


def with_differing_settings(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with those settings alone in which they differ from another run of the same mode."""
    by_mode: dict[str, list[Row]] = {}
    for row in rows:
        by_mode.setdefault(row.mode, []).append(row)
    apart: dict[str, list[str]] = {}
    for mode, members in by_mode.items():
        keys = dict.fromkeys(key for row in members for key in row.settings)
        apart[mode] = [key for key in keys if len({str(row.settings.get(key)) for row in members}) > 1]
    return [replace(row, settings={key: row.settings[key] for key in apart[row.mode] if key in row.settings}) for row in rows]


def _interval(report: Report, name: str) -> Bounds | None:
    found = metric_interval(report, name)
    return None if found is None else Bounds(found.low, found.high)


def _conditions(
    report: Report, config: Mapping[str, Any], artifact: ArtifactReport, measured: GraphBenchmark | None
) -> dict[str, str]:
    """Return what must be the same before two runs can be ranked."""
    environment = report.environment
    flags = environment.get("cpu_flags")
    originals = sorted(entry.sha256 for entry in report.inputs if entry.path.endswith(".onnx"))
    return {
        "graph": str(report.model) if report.model == artifact.graph else f"{report.model}, {artifact.graph}",
        "original": _digest([originals, artifact.baseline_bytes]),
        "machine": ", ".join(
            str(part)
            for part in (
                environment.get("cpu"),
                f"{environment.get('cores')} cores",
                *(flags if isinstance(flags, list) else []),
            )
        ),
        "libraries": ", ".join(f"{name} {environment[name]}" for name in LIBRARIES if environment.get(name)),
        "evaluation set": _evaluation_set(report, config),
        "threads": "not timed" if measured is None else str(measured.threads),
    }


def _evaluation_set(report: Report, config: Mapping[str, Any]) -> str:
    """Return a hash of what was evaluated: samples, texts, files, and the versions of the metrics."""
    evaluation = report.evaluation
    if evaluation is None:
        return "not evaluated"
    settings = config.get("evaluation") or {}
    place = settings.get("path") or (config.get("model") or {}).get("evaluation_path")
    folder = str(Path(place).parent) if place and Path(place).suffix else place
    files = [
        (Path(entry.path).name, entry.sha256) for entry in report.inputs if place and _same_place(entry.path, place, folder)
    ]
    samples = [(sample.id, sample.text) for sample in evaluation.per_sample]
    versions = {name: metric.version for name, metric in evaluation.metrics.items()}
    seed = config.get("seed") if evaluation.noise else None
    shown = _digest(
        [settings.get("kind"), settings.get("sample_rate_hz"), sorted(files), samples, sorted(versions.items()), seed]
    )
    return f"{evaluation.samples} samples ({shown})"


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
    return samples_of(calibration.get("samples"), calibration.get("kind"))


def _config(directory: Path) -> dict[str, Any]:
    """Return a run's settings; empty where they cannot be read: then less is known, and less is claimed."""
    try:
        found = yaml.load((directory / CONFIG_FILE).read_text(encoding="utf-8"), _loader())
    except Exception:  # a file that is missing or damaged in whatever way; YAML's errors share no base with OmegaConf's
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


@cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a loader that reads numbers and dates as OmegaConf's does, in a tenth of its time: it is written in C."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # where PyYAML was built without C
        yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers

    return Loader


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
