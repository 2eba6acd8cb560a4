"""Rows of attention that are masked entirely, which real probes seldom have: padding of a batch, a chunk without its past.

A graph that masks scores with minus infinity makes such a row NaN in its Softmax, and selects zeros in its place later. A
rewrite that computes with the NaN instead of selecting passes every probe without such a row, and fails on the first batch.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.calibration.derived_tensors import constants_of
from pipeline.graph.subgraph_scopes import Names, graphs_of, replace_nodes

REARRANGING = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Identity")


def masks_with_infinity(model: onnx.ModelProto) -> dict[str, bool]:
    """Return the boolean tensors that decide where a graph puts minus infinity, and which of their values does.

    They are followed up to where they are computed, or given: two masks made of one tensor are that one tensor.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    infinite = {name for name, tensor in constants_of(model) if _is_infinite(tensor)}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Where" and not infinite.isdisjoint(node.input[1:]):
            mask, value = node.input[0], node.input[1] in infinite
            while (producer := producers.get(mask)) is not None and producer.op_type in (*REARRANGING, "Not"):
                mask, value = producer.input[0], value != (producer.op_type == "Not")
            if producer is None or producer.op_type != "Constant":
                found[mask] = value
    constants = {tensor.name for tensor in model.graph.initializer}
    return {mask: value for mask, value in found.items() if mask not in constants}


def with_all_masked(model: onnx.ModelProto, masks: dict[str, bool]) -> onnx.ModelProto:
    """Return the graph with these tensors set to one value throughout, whatever they would be; shapes stay.

    Args:
        model: is not changed.
        masks: boolean tensors of its top-level graph, and the value of each.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = Names(changed.graph)
    forced = {mask: names.fresh(f"{mask}/masked") for mask in masks}
    for scope in graphs_of(changed.graph):
        for node in scope.node:
            for index, tensor in enumerate(node.input):
                if tensor in forced:
                    node.input[index] = forced[tensor]
    nodes = {}
    for mask, value in masks.items():
        constant = names.fresh(f"{mask}/value")
        changed.graph.initializer.append(numpy_helper.from_array(np.array(value), constant))
        nodes[mask] = helper.make_node("Or" if value else "And", [mask, constant], [forced[mask]], name=forced[mask])
    given = [nodes[value.name] for value in changed.graph.input if value.name in nodes]
    replace_nodes(
        changed.graph,
        [*given, *(each for node in changed.graph.node for each in (node, *(nodes[t] for t in node.output if t in nodes)))],
    )
    return changed


def tensors_of(model: onnx.ModelProto) -> Collection[str]:
    """Return the tensors of the top-level graph that are given or computed."""
    return {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}


def _is_infinite(tensor: onnx.TensorProto) -> bool:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return tensor.data_type in floats and bool(np.isneginf(numpy_helper.to_array(tensor)).any())
