"""report.json, schema 1: a contract, since tools outside of this project read it."""

import dataclasses
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.quantize.target import cpu_flags

if TYPE_CHECKING:
    from pipeline.stages.context import RunContext

SCHEMA = 1
LIBRARIES = (
    "onnx",
    "onnxruntime",
    "numpy",
    "scipy",
    "hydra-core",
    "omegaconf",
    "soundfile",
    "kaldi-native-fbank",
    "jiwer",
)
RELEVANT_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_tile", "f16c", "asimd", "asimddp", "i8mm",
    "fphp", "sve", "sve2",
)  # fmt: skip


def report_of(
    state: "RunContext", status: str, done: list[dict[str, Any]], surroundings: dict[str, Any], error: str | None
) -> dict[str, Any]:
    """Return the report of a run as far as it has come.

    Args:
        state: what the stages have given.
        status: running, done or failed.
        done: name, status and seconds of each finished stage.
        surroundings: what `environment` returned.
        error: the message, where the run failed.
    """
    report: dict[str, Any] = {"schema": SCHEMA, "status": status}
    if error is not None:
        report["error"] = error
    report |= {
        "model": state.config.model.name,
        "mode": state.config.mode.name,
        "stages": [*done, *_unfinished(state, status, done)],
        "inputs": state.run_log.inputs,
        "environment": surroundings,
        "warnings": state.run_log.warnings,
        "skipped": state.run_log.skipped,
    }
    if (ids := state.evaluation_set.ids if state.model is not None else None) is not None:
        report["samples"] = ids
    if state.inspection is not None:
        report["inspect"] = {name: dataclasses.asdict(found) for name, found in state.inspection.items()}
    if state.quantized is not None:
        report["artifacts"] = [_artifact(artifact) for artifact in state.quantized.artifacts.values()]
        report["calibrated_on"] = state.quantized.calibrated_on
        report["rewrites"] = {name: _rewrites(found) for name, found in state.quantized.rewritten.items()}
        if state.quantized.searches:
            report["search"] = {
                name: found | {"report_loss": _report_loss(state, found["metric"])}
                for name, found in state.quantized.searches.items()
            }
    if state.benchmarks is not None:
        report["benchmark"] = {name: dataclasses.asdict(found) for name, found in state.benchmarks.items()}
    if state.evaluation is not None:
        report["evaluation"] = dataclasses.asdict(state.evaluation)
    return report


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its inputs: versions, processor, commit."""
    flags = cpu_flags()
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_flags": [flag for flag in RELEVANT_FLAGS if flag in flags],
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "commit": _commit(),
    }


def _unfinished(state: "RunContext", status: str, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    finished = {stage["name"] for stage in done}
    rest = [name for name in state.config.stages if name not in finished]
    return [{"name": name, "status": status if number == 0 else "pending", "seconds": None} for number, name in enumerate(rest)]


def _report_loss(state: "RunContext", metric: str) -> dict[str, Any] | None:
    """Return the loss on the reported part, in the metric that a search was limited in; None before it is known."""
    found = None if state.evaluation is None else state.evaluation.losses.get(metric)
    return None if found is None else dataclasses.asdict(found)


def _rewrites(found: Any) -> dict[str, Any]:  # noqa: ANN401  a Rewritten; importing it here would be a circle
    return {
        "applied": [dataclasses.asdict(rewrite) for rewrite in found.applied],
        "rejected": [{"name": name, "reason": reason} for name, reason in found.rejected],
    }


def _artifact(artifact: Any) -> dict[str, Any]:  # noqa: ANN401  an Artifact; importing it here would be a circle
    return {
        "graph": artifact.graph,
        "file": artifact.path.name,
        "sha256": artifact.sha256,
        "bytes": artifact.size_bytes,
        "baseline_bytes": artifact.baseline_bytes,
        "quantized_nodes": list(artifact.quantized_nodes),
        "precisions": artifact.quantized_nodes,
        "kernels": artifact.kernels,
        "kept": [dataclasses.asdict(kept) for kept in artifact.kept],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str | None:
    """Return the commit of the project, `-dirty` where files differ from it; None outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
