"""Tensors that were zero in all of calibration: a state at its start, a branch that no sample took.

Such a tensor has no range. Any scale that it gets is a guess, and what it is in use is rounded to nothing or cut. What would
read or make it as integers stays float.
"""

from collections.abc import Collection, Mapping

import onnx

from pipeline.config.choices import Format
from pipeline.config.mode_settings import StaticConfig
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.qdq_placement import PairSettings, place_pairs
from pipeline.quantize.static import Ranges, pair_settings


def silent_nodes(model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges) -> dict[str, str]:
    """Return the planned nodes that would read or make a tensor without a range as integers -> that tensor."""
    silent = {tensor for tensor, ends in ranges.items() if ends == (0.0, 0.0)}
    nodes = plan.nodes(Precision.static_int8)
    if not silent:
        return {}
    if mode.format is Format.qdq:
        return nodes_touching(model, nodes, pair_settings(mode), silent)
    wanted = set(nodes)
    touched = {node.name: [*node.input, *node.output] for node in model.graph.node if node.name in wanted}
    return _first_silent(touched, silent)


def note_on_silence(silent: Mapping[str, str]) -> str:
    """Return what a user must know of nodes without static ranges -> the tensor without a range that each touches."""
    tensors = list(dict.fromkeys(silent.values()))
    more = f" and {len(tensors) - 3} others" if len(tensors) > 3 else ""
    named = ", ".join(repr(tensor) for tensor in tensors[:3]) + more
    many = len(silent) > 1
    return (
        f"{named} {'were' if len(tensors) > 1 else 'was'} zero in all of calibration, so no range is known: {len(silent)} "
        f"node{'s' if many else ''}, such as {next(iter(silent))}, that would read or make it {'get' if many else 'gets'} no "
        "integers with static ranges. Calibrate on samples in which it is not zero (states after the first step, loud "
        "recordings), or let ranges be found at run time with mode=dynamic."
    )


def nodes_touching(
    model: onnx.ModelProto, nodes: Collection[str], settings: PairSettings, silent: Collection[str]
) -> dict[str, str]:
    """Return those of the nodes whose Q/DQ pairs have the range of a silent tensor -> that tensor."""
    placement = place_pairs(model, nodes, settings)
    wanted, touched = set(nodes), {}
    for index, node in enumerate(model.graph.node):
        if node.name not in wanted:
            continue
        outputs = [placement.folded.get(tensor, tensor) for tensor in node.output]
        read = [
            t
            for place, t in enumerate(node.input)
            if t in placement.produced_int or (index, place) in placement.readers.get(t, ())
        ]
        touched[node.name] = [placement.grids[tensor] for tensor in (*read, *outputs) if tensor in placement.grids]
    return _first_silent(touched, silent)


def _first_silent(touched: Mapping[str, Collection[str]], silent: Collection[str]) -> dict[str, str]:
    found = {name: next((tensor for tensor in tensors if tensor in silent), None) for name, tensors in touched.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
