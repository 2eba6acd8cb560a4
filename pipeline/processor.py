"""The processor of this machine."""

import platform
import re
from functools import cache
from pathlib import Path

X86 = ("x86_64", "amd64", "i386", "i686")


@cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction sets that this process can execute, by Linux's names, as far as they are known.

    On x86 the processor itself is asked (CPUID, and what the system has switched on), as ONNX Runtime asks it when it chooses
    kernels; by LLVM, which numba brings. /proc/cpuinfo can list more: under an emulator such as qemu-user it is that of the
    machine below. Where numba is not installed, Linux's list is read, and on other systems that of numpy, which lacks AVX-VNNI
    (the VNNI of processors without AVX-512).
    """
    is_x86 = platform.machine().lower() in X86
    features = _asked_of_the_processor() if is_x86 else frozenset()
    return features or _listed_by_the_kernel() or (_listed_by_numpy() if is_x86 else frozenset())


def cpu_name() -> str:
    """Return the name of the processor, empty where the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor()  # which starts a program


def _asked_of_the_processor() -> frozenset[str]:
    try:
        from llvmlite.binding import get_host_cpu_features

        features = get_host_cpu_features()
    except (ImportError, RuntimeError):  # it is not installed, or does not know how to ask this one
        return frozenset()
    return frozenset(_linux_name(feature) for feature, present in features.items() if present)


def _linux_name(feature: str) -> str:
    """Return Linux's name of a feature that LLVM writes as avx512vnni, avxvnni, amx-int8 or sse4.1."""
    name = feature.replace("-", "_").replace(".", "_")
    return re.sub(r"^(avx|avx512)(vnni|bf16)", r"\1_\2", name)


def _listed_by_the_kernel() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "").split())


def _listed_by_numpy() -> frozenset[str]:
    """Return the features that numpy chooses its own kernels by: no part of its interface, so it may be gone."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__ as features  # type: ignore[import-not-found]
    except ImportError:
        return frozenset()
    return frozenset(_linux_name(name.lower()) for name, present in features.items() if present)
