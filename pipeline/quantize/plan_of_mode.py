"""What each mode makes of the nodes of a graph, and the opset that it needs."""

from typing import assert_never

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.graph.prepare import PreparedGraph
from pipeline.quantize.dynamic import plan_dynamic
from pipeline.quantize.fp16 import plan_fp16
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import plan_static
from pipeline.quantize.weight_only import plan_weight_only


def plan_for(prepared: PreparedGraph, mode: AnyModeConfig) -> Plan:
    """Return what a mode will make of each node."""
    match mode:
        case StaticConfig():
            return plan_static(prepared, mode)
        case DynamicConfig():
            return plan_dynamic(prepared, mode)
        case WeightOnlyConfig():
            return plan_weight_only(prepared, mode)
        case Fp16Config():
            return plan_fp16(prepared, mode)
        case OptimizeConfig():
            return Plan()
        case AutoConfig():
            raise AssertionError("what a search chooses is not planned before")
        case _:
            assert_never(mode)


def needed_opset(mode: AnyModeConfig) -> int:
    """Return the oldest opset that a mode's operators exist in.

    DequantizeLinear has an axis (one scale per channel) since opset 13, and 16- and 4-bit types since 21.
    """
    match mode:
        case StaticConfig():
            types = {mode.weight_type, mode.activation_type} - {None, IntegerType.int8, IntegerType.uint8}
            return 21 if types else 13
        case DynamicConfig() | WeightOnlyConfig() | AutoConfig():
            return 13
        case Fp16Config() | OptimizeConfig():
            return 7
        case _:
            assert_never(mode)
