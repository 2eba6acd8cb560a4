"""Weights in blocks of 4 or 8 bits: MatMul becomes ONNX Runtime's MatMulNBits.

The integers are those of ONNX Runtime's quantizer (matmul_nbits_quantizer.py), whose kernels are called here. Its walk over the
graph is not used: it takes every MatMul, also those that are excluded and those in bodies, and writes a weight that two nodes
read twice under one name.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from pipeline.config.mode_settings import WeightOnlyConfig
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import Names, drop_unread, replace_nodes
from pipeline.quantize.qparams import tensor_of
from pipeline.quantize.weight_storage import SCALE_BYTES
from pipeline.sample import Array, Float32Array

DOMAIN = "com.microsoft"
KERNELS = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}


def bytes_in_blocks(rows: int, mode: WeightOnlyConfig) -> float:
    """Return how many bytes a column of so many rows takes in blocks, scales and zero points included."""
    blocks = -(-rows // mode.block_size)
    zero_point = 0.0 if mode.symmetric else mode.bits / 8
    return blocks * (mode.block_size * mode.bits / 8 + SCALE_BYTES + zero_point)


def quantize_in_blocks(model: onnx.ModelProto, nodes: Collection[str], mode: WeightOnlyConfig) -> None:
    """Give the named MatMul nodes weights in blocks of few bits, in place. Nodes that share a weight share its integers.

    Args:
        model: a graph whose nodes have names.
        nodes: MatMul nodes of the outermost graph whose weight is a constant of two axes.
        mode: bits, size of blocks, zero points.
    """
    graph = model.graph
    weights = initializers_of(model)
    names = Names(graph)
    stored: dict[str, list[str]] = {}
    new: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in nodes:
            new.append(node)
            continue
        weight = weights[node.input[1]]
        if weight.name not in stored:
            stored[weight.name] = _store(graph, weight, names, mode)
        rows, columns = weight.dims
        settings = {"K": rows, "N": columns, "bits": mode.bits, "block_size": mode.block_size}
        if mode.accuracy_level:  # few execution providers know the attribute
            settings["accuracy_level"] = mode.accuracy_level
        inputs = [node.input[0], *stored[weight.name]]
        name = names.fresh(f"{node.name}_Q{mode.bits}")
        new.append(helper.make_node("MatMulNBits", inputs, list(node.output), name=name, domain=DOMAIN, **settings))
    replace_nodes(graph, new)
    drop_unread(graph, set(stored))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _store(graph: onnx.GraphProto, weight: onnx.TensorProto, names: Names, mode: WeightOnlyConfig) -> list[str]:
    """Store a weight in blocks, and return the names of its integers, scales and, where there are any, zero points."""
    packed, scales, zero_points = _in_blocks(numpy_helper.to_array(weight), mode)
    tensors = {f"_Q{mode.bits}": packed, "_scales": scales} | ({} if mode.symmetric else {"_zero_points": zero_points})
    found = []
    for suffix, values in tensors.items():
        found.append(names.fresh(f"{weight.name}{suffix}"))
        graph.initializer.append(tensor_of(values, found[-1]))
    return found


def _in_blocks(weight: Float32Array, mode: WeightOnlyConfig) -> tuple[Array, Float32Array, Array]:
    """Return integers (columns, blocks, bytes of a block), scales (columns, blocks) and packed zero points of a weight."""
    rows, columns = weight.shape
    blocks = -(-rows // mode.block_size)
    padded = np.pad(weight, ((0, blocks * mode.block_size - rows), (0, 0)))
    in_byte = 8 // mode.bits
    packed = np.zeros((columns, blocks, mode.block_size // in_byte), np.uint8)
    zero_points = np.zeros((columns, -(-blocks // in_byte)), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    KERNELS[mode.bits](packed, padded, scales, zero_points, mode.block_size, columns, rows, mode.symmetric)
    return packed, scales, zero_points
