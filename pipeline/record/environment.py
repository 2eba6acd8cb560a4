"""What a result depends on beside its inputs: versions, processor, commit."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from pipeline.processor import cpu_flags, cpu_name

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


def environment() -> dict[str, str | int | list[str] | None]:
    """Return the report's `environment`."""
    flags = cpu_flags()
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in RELEVANT_FLAGS if flag in flags],
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Return the commit of the project, `-dirty` where files differ from it; None outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
