"""What depends on the processor that the model will run on."""

import platform

from pipeline.config.choices import IntegerType, Target
from pipeline.processor import cpu_flags

NAMES = {Target.x86: "x86", Target.arm: "ARM"}


def target_of(target: Target | None) -> Target:
    """Return the target, by default this machine."""
    if target is not None:
        return target
    return Target.arm if platform.machine().lower() in ("arm64", "aarch64", "armv7l") else Target.x86


def measured_elsewhere(target: Target | None) -> str | None:
    """Return what the speed of a file for another family of processors than this machine's is worth; None for this one's."""
    wanted, here = target_of(target), target_of(None)
    return None if wanted is here else f"measured on {NAMES[here]}: says nothing of {NAMES[wanted]}"


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


def _adds_in_16_bits() -> bool:
    flags = cpu_flags()
    return target_of(None) is Target.x86 and bool(flags) and not flags & {"avx512_vnni", "avx_vnni"}
