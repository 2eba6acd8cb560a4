"""The operator types that the settings of a mode name, checked as soon as a graph is loaded."""

from typing import assert_never

from pipeline.config.choices import Format
from pipeline.config.mode_settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.graph.node_patterns import check_op_types, check_present
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.dynamic import SUPPORTED as DYNAMIC
from pipeline.quantize.plan import special_types
from pipeline.quantize.static import static_types

KEY = "mode.op_types"


def check_type_names(source: SourceGraph, mode: AnyModeConfig) -> None:
    """Check the names of operator types in a mode's settings, which planning would find wrong only later.

    Raises:
        ConfigError: a type is not one of the mode, with the nearest that are; a type that stays in fp32 is not of the graph.
    """
    present = {node.op_type for scope in graphs_of(source.model.graph) for node in scope.node}
    match mode:
        case StaticConfig():
            check_op_types(mode.op_types, static_types(mode.format), present, KEY)
            special_types(mode, present)
        case DynamicConfig():
            check_op_types(mode.op_types, DYNAMIC, present, KEY)
            special_types(mode, present)
        case WeightOnlyConfig():
            check_op_types(mode.op_types, STORABLE, present, KEY)
        case AutoConfig():
            check_op_types(mode.op_types, static_types(Format.qdq), present, KEY)
        case Fp16Config():
            check_present(mode.ops_in_fp32, present, "mode.ops_in_fp32")
        case OptimizeConfig():
            pass
        case _:
            assert_never(mode)
