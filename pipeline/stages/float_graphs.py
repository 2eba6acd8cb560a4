"""Graphs of a model that a mode without a search leaves as they are."""

from pipeline.config.mode_settings import DynamicConfig, StaticConfig, WeightOnlyConfig
from pipeline.graph.source_graph import SourceGraph
from pipeline.stages.context import RunContext


def quantized_graphs(context: RunContext) -> dict[str, SourceGraph]:
    """Return the graphs that modes apply to, without those that the model rather leaves as they are."""
    config, found = context.config, dict(context.loaded.graphs)
    if not isinstance(config.mode, StaticConfig | DynamicConfig | WeightOnlyConfig):
        return found
    for graph, why in context.loaded.adapter.stays_float.items():
        if graph not in config.graph_modes:
            context.run_log.note(
                f"{graph}: stays float: {why}. mode=auto measures it; +mode@graph_modes.{graph}=static quantizes it."
            )
            del found[graph]
    return found
