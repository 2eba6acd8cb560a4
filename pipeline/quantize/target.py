"""What depends on the processor that the model will run on."""

import platform
import re
from functools import cache
from pathlib import Path

from pipeline.config.settings import IntegerType, Target


def target_of(target: Target | None) -> Target:
    """Return the target, by default this machine."""
    if target is not None:
        return target
    return Target.arm if platform.machine().lower() in ("arm64", "aarch64", "armv7l") else Target.x86


def activation_type_of(activation_type: IntegerType | None, target: Target | None) -> IntegerType:
    """Return the type of activations: uint8 on x86, whose instructions multiply unsigned by signed; int8 on ARM."""
    if activation_type is not None:
        return activation_type
    return IntegerType.int8 if target_of(target) is Target.arm else IntegerType.uint8


def needs_reduced_range(reduce_range: bool | None, target: Target | None) -> bool:
    """Return whether weights get 7 bits: without VNNI, x86 adds two products in 16 bits, which saturate at 8 bits.

    For another target than this machine's family the newer processors are assumed, which need none.
    """
    if reduce_range is not None:
        return reduce_range
    return target_of(target) is target_of(None) and _adds_in_16_bits()


def saturates_here(reduce_range: bool | None, target: Target | None) -> bool:
    """Return whether weights get 8 bits although this machine adds in 16: what is measured here is worse than elsewhere."""
    return not needs_reduced_range(reduce_range, target) and _adds_in_16_bits()


@cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction sets that this process can execute, by Linux's names, as far as they are known.

    On x86 they are read from the processor itself (CPUID, and what the system has switched on), as ONNX Runtime does when it
    chooses kernels; by LLVM, a dependency of numba. /proc/cpuinfo can list more: under an emulator such as qemu-user it is
    that of the host. Systems other than Linux have none. numpy's list lacks AVX-VNNI, the VNNI of processors without AVX-512.
    """
    features = _asked_of_the_processor() if target_of(None) is Target.x86 else frozenset()
    return features or _listed_by_the_kernel()


def _adds_in_16_bits() -> bool:
    flags = cpu_flags()
    return target_of(None) is Target.x86 and bool(flags) and not flags & {"avx512_vnni", "avx_vnni"}


def _asked_of_the_processor() -> frozenset[str]:
    from llvmlite.binding import get_host_cpu_features

    try:
        features = get_host_cpu_features()
    except RuntimeError:  # LLVM cannot read the features of this one
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
