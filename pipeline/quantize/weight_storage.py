"""Weights stored as int8, computation in float: a DequantizeLinear in front of each node."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.attributes import int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import Names, drop_unread
from pipeline.quantize.qparams import qparams_of_weights
from pipeline.sample import Array, Float32Array

SCALE_BYTES = 4


def store_weights(model: onnx.ModelProto, nodes: Collection[str]) -> None:
    """Store the weights of the named nodes as symmetric int8, one scale per output channel, in place.

    Nodes that share a weight share its int8 form. Needs an opset of 13.
    """
    weights = initializers_of(model)
    readers: dict[tuple[str, int], list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.name in nodes:
            readers.setdefault((node.input[1], output_axis(node, len(weights[node.input[1]].dims))), []).append(node)
    names = Names(model.graph)
    dequantizers: list[onnx.NodeProto] = []
    for (name, axis), users in readers.items():
        restored = names.fresh(f"{name}_dequantized_{axis}")
        dequantizers.append(_dequantizer(model.graph, weights[name], restored, axis, names))
        for node in users:
            node.input[1] = restored
    nodes_after = [*dequantizers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes_after)
    drop_unread(model.graph, {name for name, _ in readers})


def output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a node's weight that counts output channels."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if int_attribute(node, "transB", 0) else 1
        case _:
            return rank - 1


def bytes_as_int8(values: int, channels: int) -> int:
    """Return how many bytes a weight takes as int8, its scales included."""
    return values + SCALE_BYTES * channels


def quantize_symmetric(weight: Float32Array, axis: int) -> tuple[npt.NDArray[np.int8], Float32Array]:
    """Return int8 values of the weight's shape, and a scale per index of `axis`: weight ≈ values * scale."""
    grid = qparams_of_weights(weight, IntegerType.int8, axis=axis, reduced=False)
    return grid.quantize(weight).astype(np.int8, copy=False), grid.scale


def _dequantizer(graph: onnx.GraphProto, weight: onnx.TensorProto, output: str, axis: int, names: Names) -> onnx.NodeProto:
    values, scale = quantize_symmetric(numpy_helper.to_array(weight), axis)
    # Zero points may be left out, but ONNX Runtime then fails at the first run with session.x64quantprecision=1.
    constants: dict[str, Array] = {"int8": values, "scale": scale, "zero_point": np.zeros(scale.shape, np.int8)}
    inputs = [names.fresh(f"{output}_{suffix}") for suffix in constants]
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in zip(inputs, constants.values(), strict=True)
    )
    return helper.make_node("DequantizeLinear", inputs, [output], name=names.fresh(f"{output}_DequantizeLinear"), axis=axis)
