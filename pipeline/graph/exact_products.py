"""Graphs whose sums of integer products are exact on every processor: int8 weights as uint8, 128 higher.

x86 processors without VNNI add two products of uint8 and int8 in 16 bits, which saturate; those of uint8 and uint8 they add in
32 bits, more slowly. With the zero point 128 higher too, the sums are the same integers as those of exact kernels for int8
weights. ONNX Runtime does this itself with `session.x64quantprecision=1`, but (1.32.0) not to com.microsoft's QLinearConv in
its channels-last form, and it fails to load a graph in which two nodes read one weight.
"""

from collections.abc import Callable, Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.graph.subgraph_scopes import Names

MIDDLE = 128
WEIGHTS_AT = {  # operator -> (its activations, its weights, their zero point), inputs
    "QLinearConv": ((0, 3, 5),), "QLinearMatMul": ((0, 3, 5),), "QGemm": ((0, 3, 5),), "MatMulInteger": ((0, 1, 3),),
    "MatMulIntegerToFloat": ((0, 1, 5),), "DynamicQuantizeMatMul": ((0, 1, 3),),
    "DynamicQuantizeLSTM": ((0, 1, 9), (0, 2, 11)),
}  # fmt: skip


def with_uint8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with uint8 weights where it has int8 ones beside uint8 activations.

    Args:
        model: is not changed. Bodies stay as they are, and so do nodes with int8 activations: they have no such kernel.
    """
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    graph, names = exact.graph, Names(exact.graph)
    int8 = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT8}
    signed = _signed_activations(graph, int8)
    made = {tensor: node for node in graph.node for tensor in node.output}
    moved: dict[str, str] = {}

    def moved_up(name: str) -> str:
        """Return the name of a constant that is 128 higher, as uint8; of none, of zero."""
        if name not in moved:
            values = numpy_helper.to_array(int8[name]).astype(np.int16) if name else np.zeros((), np.int16)
            moved[name] = names.fresh(f"{name or 'zero'}_uint8")
            graph.initializer.append(numpy_helper.from_array((values + MIDDLE).astype(np.uint8), moved[name]))
        return moved[name]

    for node in graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and len(node.input) > 1 and node.input[1] in made:
            weights, activations = made[node.input[1]], made.get(node.input[0])
            beside = activations is not None and activations.op_type == "DequantizeLinear" and activations.input[0] in signed
            if weights.op_type == "DequantizeLinear" and weights.input[0] in int8 and not beside:
                _move(weights, 0, 2, moved_up, int8)
        for activation, weight, zero_point in WEIGHTS_AT.get(node.op_type, ()):
            if node.input[weight] in int8 and node.input[activation] not in signed:
                _move(node, weight, zero_point, moved_up, int8)
    return exact


def _move(node: onnx.NodeProto, weight: int, zero_point: int, moved_up: Callable[[str], str], int8: Collection[str]) -> None:
    """Let a node read its weight and the weight's zero point 128 higher, where both are constants."""
    named = node.input[zero_point] if len(node.input) > zero_point else ""
    if named and named not in int8:
        return
    node.input.extend([""] * (zero_point + 1 - len(node.input)))
    node.input[weight], node.input[zero_point] = moved_up(node.input[weight]), moved_up(named)


def _signed_activations(graph: onnx.GraphProto, int8: Collection[str]) -> set[str]:
    """Return the tensors of int8 that nodes compute: their zero point tells."""
    found: set[str] = set()
    last = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8}
    for node in graph.node:
        place = last.get(node.op_type)
        if place is not None and len(node.input) > place and node.input[place] in int8:
            found.update(node.output)
        elif any(tensor in found for tensor in node.input) and node.op_type not in ("DequantizeLinear", *WEIGHTS_AT):
            found.update(node.output)  # it moves integers
    return found
