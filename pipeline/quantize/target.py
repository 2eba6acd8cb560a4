"""The processors that a model is made for: what each computes with, and what follows for an artifact.

The table is of ONNX Runtime 1.32 on the CPU; `MlasPlatform` of its source (onnxruntime/core/mlas/lib/platform.cpp) says which
kernels a processor gets. What was measured stands in docs/processors.md, with the processor; nothing was timed on ARM.
"""

import platform
from dataclasses import dataclass

from pipeline.config.choices import IntegerType, Target
from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, DynamicConfig, StaticConfig
from pipeline.processor import cpu_flags

ARM = ("arm64", "aarch64", "armv7l")
ANY = frozenset[str]()


@dataclass(frozen=True)
class Processor:
    """A kind of processor, as far as it matters to integer kernels.

    Attributes:
        meaning: which processors these are.
        flags: Linux's names of the instruction sets that make one of this kind; any of them.
        in_16_bits: products of uint8 activations and int8 weights are added in pairs in 16 bits, which saturate
            (`paired_sums.py`). Those with uint8 weights are not.
        dynamic_matmul: type of the weights of MatMul and Gemm in `mode=dynamic` that is exact and fast.
        slow: kernels that gain little or lose, each with how that is known.
        source: where the kernels are named.
    """

    meaning: str
    flags: frozenset[str]
    in_16_bits: bool
    dynamic_matmul: IntegerType
    slow: tuple[str, ...]
    source: str


SCALAR = "ConvInteger with int8 weights: a scalar loop (timed on AVX512-VNNI: five times slower than fp32), so Conv gets uint8"
FLOAT_S8S8 = "int8 activations: a Conv whose input has several readers stays float between Q and DQ (seen in profiles)"
U8U8 = "uint8 weights in Conv: 1.2 to 1.6 times fp32's speed where int8 weights give 1.5 to 2.0 (timed on AMD Zen 3, AVX2)"
UNTIMED = "not timed by this project"

PROCESSORS: dict[Target, Processor] = {
    Target.x86: Processor(
        "any x86-64 processor: right on all of them",
        ANY,
        in_16_bits=True,
        dynamic_matmul=IntegerType.int8,
        slow=(SCALAR, FLOAT_S8S8),
        source="MlasGemmU8S8KernelAvx2 and what follows it in platform.cpp",
    ),
    Target.x86_avx2: Processor(
        "x86-64 without VNNI: AMD up to Zen 3, Intel before Ice Lake and Alder Lake",
        frozenset({"avx2"}),
        in_16_bits=True,
        dynamic_matmul=IntegerType.uint8,
        slow=(SCALAR, FLOAT_S8S8, U8U8),
        source="MlasGemmU8S8KernelAvx2, MlasConvSymDispatchAvx2 (vpmaddubsw); MlasGemmU8U8KernelAvx2 (vpmaddwd: exact)",
    ),
    Target.x86_vnni: Processor(
        "x86-64 with AVX512-VNNI or AVX-VNNI: AMD from Zen 4 on, Intel from Ice Lake and Alder Lake on",
        frozenset({"avx512_vnni", "avx_vnni"}),
        in_16_bits=False,
        dynamic_matmul=IntegerType.int8,
        slow=(SCALAR, FLOAT_S8S8),
        source="MlasGemmU8S8KernelAvx512Vnni, MlasConvSymDispatchAvx512Vnni, and their AvxVnni forms (vpdpbusd: exact)",
    ),
    Target.x86_amx: Processor(
        "x86-64 with AMX: Intel Xeon from Sapphire Rapids on",
        frozenset({"amx_int8"}),
        in_16_bits=False,
        dynamic_matmul=IntegerType.int8,
        slow=(SCALAR, FLOAT_S8S8, "weights of uint8: AMX has a kernel for int8 weights only"),
        source="MlasGemmU8S8DispatchAmx (tdpbusd: exact)",
    ),
    Target.arm: Processor(
        "64-bit ARM with dot products: phones and boards from 2018 on (Cortex-A55, A75 and later), Apple",
        frozenset({"asimddp"}),
        in_16_bits=False,
        dynamic_matmul=IntegerType.int8,
        slow=(UNTIMED,),
        source="MlasGemmU8X8DispatchUdot, MlasConvSymU8DispatchDot (udot: exact)",
    ),
    Target.arm_i8mm: Processor(
        "64-bit ARM with I8MM: Cortex-A510, A710, X2, Neoverse V1, Apple M2 and later",
        frozenset({"i8mm"}),
        in_16_bits=False,
        dynamic_matmul=IntegerType.int8,
        slow=(UNTIMED,),
        source="MlasGemmU8X8DispatchUmmla, on Linux and Android (ummla: exact)",
    ),
}


def this_machine() -> Target:
    """Return the kind of this machine's processor; `x86`, which is right on all, where its instructions are not known."""
    flags = cpu_flags()
    family = (Target.arm_i8mm,) if platform.machine().lower() in ARM else (Target.x86_amx, Target.x86_vnni, Target.x86_avx2)
    found = next((kind for kind in family if flags & PROCESSORS[kind].flags), None)
    return found or (Target.arm if platform.machine().lower() in ARM else Target.x86)


def target_of(target: Target | None) -> Target:
    """Return the target, by default this machine."""
    return this_machine() if target is None else target


def is_arm(target: Target) -> bool:
    """Return whether a target is a 64-bit ARM processor."""
    return target in (Target.arm, Target.arm_i8mm)


def measured_elsewhere(target: Target | None) -> str | None:
    """Return what a speed that is measured here is worth for a target that this machine is none of; None where it is one."""
    wanted, here = target_of(target), this_machine()
    if wanted is here or (wanted is Target.x86 and not is_arm(here)):
        return None
    names = ["ARM" if is_arm(one) else "x86" for one in (here, wanted)]
    names = names if names[0] != names[1] else [here.name, wanted.name]
    return f"measured on {names[0]}: says nothing of {names[1]}"


def made_for_another(target: Target, machine: str) -> str | None:
    """Return what to tell of a file for a target on a device of another family; None where it is of that family.

    Args:
        target: what the file is made for.
        machine: the architecture of the device, such as aarch64.
    """
    on_arm = machine.lower() in ARM
    if is_arm(target) == on_arm:
        return None
    fitting = "arm, or arm_i8mm" if on_arm else "x86"
    return f"the device is {machine}, but the file is made for {target.name}: give mode.target={fitting}."


def activation_type_of(activation_type: IntegerType | None, target: Target | None) -> IntegerType:
    """Return the type of activations: uint8 on all targets, unless the user names one.

    x86 multiplies unsigned by signed. ARM has kernels of equal kind for both (udot and sdot, ummla and smmla), and those with
    uint8 activations give the same bits as exact products on x86, so that what is measured here holds there; int8 activations
    leave some Convs in float on x86 (docs/processors.md).
    """
    return activation_type or IntegerType.uint8


def adds_in_16_bits(target: Target | None) -> bool:
    """Return whether products with int8 weights are added in 16 bits by the target, by default this machine."""
    return PROCESSORS[target_of(target)].in_16_bits


def needs_reduced_range(reduce_range: bool | None, target: Target | None) -> bool:
    """Return whether all int8 weights get 7 bits: where they are asked for, and by default where 8 bits can saturate.

    For quantizers that cannot look at pairs of weights; ours can, see `limits_pairs`.
    """
    return adds_in_16_bits(target) if reduce_range is None else reduce_range


def limits_pairs(reduce_range: bool | None, target: Target | None) -> bool:
    """Return whether scales of int8 weights are to keep sums of two products within 16 bits."""
    return reduce_range is None and adds_in_16_bits(target)


def described(target: Target) -> str:
    """Return a target in words, with what it does with sums of integer products."""
    kind = PROCESSORS[target]
    sums = "adds two products with int8 weights in 16 bits, which saturate" if kind.in_16_bits else "adds products exactly"
    return f"{target.name} ({kind.meaning}): {sums}"


def exact_on_target_only(mode: AnyModeConfig) -> bool:
    """Return whether the target of a mode computes sums of products exactly, and this machine does not.

    Quality is then measured with exact sums, as on the target; speed is that of this machine.
    """
    if not isinstance(mode, DynamicConfig | StaticConfig | AutoConfig):
        return False
    return adds_in_16_bits(None) and not adds_in_16_bits(mode.target)
