"""Which of the nodes that a mode excludes lie in which graph, where several graphs follow one mode."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.mode_settings import AnyModeConfig
from pipeline.errors import ConfigError
from pipeline.graph.module_paths import Paths
from pipeline.graph.node_patterns import match_nodes
from pipeline.graph.prepare import prepare
from pipeline.graph.runtime_versions import opset_for
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of, name_bodies
from pipeline.quantize.plan import reaches_bodies

KEY = "mode.nodes_to_exclude"


def modes_of_graphs(
    sources: Mapping[str, SourceGraph], mode: AnyModeConfig, graph_modes: Mapping[str, AnyModeConfig], needed_opset: int
) -> dict[str, AnyModeConfig]:
    """Return each graph's mode; of the common one, each graph gets the exclusions that mean one of its own nodes.

    Args:
        sources: the graphs.
        mode: what those do that have no mode of their own.
        graph_modes: graph name -> its own mode.
        needed_opset: of the common mode.

    Raises:
        ConfigError: an exclusion means no node of any graph that follows the mode; close names of all are suggested.
    """
    following = [name for name in sources if name not in graph_modes]
    modes = {name: graph_modes.get(name, mode) for name in sources}
    if len(following) < 2 or not mode.nodes_to_exclude:
        return modes  # one graph: the plan matches them, and knows what preparation has folded away
    names = {name: _names(sources[name], mode, needed_opset) for name in following}
    paths = ChainMap(*(dict(sources[name].paths) for name in following))
    match_nodes(mode.nodes_to_exclude, set().union(*names.values()), KEY, paths)
    for name in following:
        own = [pattern for pattern in mode.nodes_to_exclude if _means_a_node(pattern, names[name], sources[name].paths)]
        modes[name] = replace(mode, nodes_to_exclude=own)
    return modes


def _means_a_node(pattern: str, names: set[str], paths: Paths) -> bool:
    try:
        return bool(match_nodes([pattern], names, KEY, paths))
    except ConfigError:
        return False


def _names(source: SourceGraph, mode: AnyModeConfig, needed_opset: int) -> set[str]:
    """Return the names of a graph's nodes when they are planned, those that preparation has removed, and of bodies if asked."""
    opset = opset_for(mode.opset, mode.runtime, source.opset)
    prepared = prepare(source, opset=opset, needed_opset=needed_opset, preprocess=mode.preprocess)
    scopes = [prepared.model.graph]
    if reaches_bodies(mode):
        name_bodies(prepared.model.graph)
        scopes = list(graphs_of(prepared.model.graph))
    return {*prepared.folded, *(node.name for scope in scopes for node in scope.node)}
