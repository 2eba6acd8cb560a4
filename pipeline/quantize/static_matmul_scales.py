"""Products of integers whose scale is known before they run.

    dequantize(quantize(x; s, z) W) with s and z from calibration, which were computed from each x (dynamic)

DynamicQuantizeLinear goes over its input once more than QuantizeLinear, for its extremes. The output stays float, as that of
`com.microsoft.MatMulIntegerToFloat`, to which ONNX Runtime itself fuses such products with a dynamic scale
(matmul_integer_to_float.cc). What is lost: values beyond what calibration has seen are clipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from pipeline.config.choices import IntegerType
from pipeline.graph.graph_editor import Graph
from pipeline.quantize.dynamic_ops import PRODUCT
from pipeline.quantize.qparams import qparams_of_range

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Product:
    """MatMulInteger, Cast and Mul by both scales, with the bias that follows.

    Attributes:
        nodes: what they are made of.
        weight_scale: of the integers of the weight.
        bias: a constant (columns,); empty: there is none.
    """

    nodes: tuple[onnx.NodeProto, ...]
    weight_scale: str
    bias: str = ""


def tensors_with_scales_at_run_time(model: onnx.ModelProto) -> list[str]:
    """Return the tensors that are quantized with a dynamic scale."""
    return [node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]


def nodes_with_fixed_scales(model: onnx.ModelProto) -> set[str]:
    """Return the names that the products had in the float graph whose scales `fix_scales` has made constants."""
    return {node.name.removesuffix(f"_{PRODUCT}") for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}


def fix_scales(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> onnx.ModelProto:
    """Return the graph with a fixed scale for each tensor that has a range and is read by products of matrices alone."""
    graph = Graph(model)
    described = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    for node in graph.nodes:
        if node.op_type != "DynamicQuantizeLinear" or node.input[0] not in ranges:
            continue
        products = [_product(graph, reader, node) for reader in graph.consumers(node.output[0])]
        found = [product for product in products if product is not None]
        if len(found) < len(products) or not found:
            continue
        grid = qparams_of_range(*ranges[node.input[0]], IntegerType.uint8, symmetric=False)
        scale = graph.add_initializer(np.asarray(grid.scale, np.float32), f"{node.input[0]}_scale_fixed")
        zero = graph.add_initializer(np.asarray(grid.zero_point, np.uint8), f"{node.input[0]}_zero_point_fixed")
        graph.remove(node)
        integers = graph.add_node("QuantizeLinear", [node.input[0], scale, zero], like=node.input[0])
        for product in found:
            first, last = product.nodes[0], product.nodes[-1]
            inputs = [integers, first.input[1], scale, product.weight_scale, zero, first.input[3], product.bias]
            shape = graph.shape(last.output[0])
            if shape is not None and last.output[0] not in described:  # ONNX's inference does not know the operator
                graph.add_value_info(last.output[0], TensorProto.FLOAT, shape)
            graph.remove(*product.nodes)
            inputs = inputs if product.bias else inputs[:-1]
            graph.add_node("MatMulIntegerToFloat", inputs, last.output[0], name=first.name, domain=DOMAIN)
    fixed = graph.finish()
    if all(entry.domain != DOMAIN for entry in fixed.opset_import):
        fixed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return fixed


def _product(graph: Graph, node: onnx.NodeProto, quantizer: onnx.NodeProto) -> _Product | None:
    """Return the product that a node begins, where it is one of what a quantizer makes."""
    if node.op_type != "MatMulInteger" or len(node.input) < 4 or node.input[0] != quantizer.output[0]:
        return None
    cast = graph.only_consumer(node.output[0], "Cast")
    scaled = None if cast is None else graph.only_consumer(cast.output[0], "Mul")
    if cast is None or scaled is None:
        return None
    scales = graph.producer(scaled.input[1], "Mul")
    if scales is None or scales.input[0] != quantizer.output[1] or graph.constant(scales.input[1]) is None:
        return None
    nodes = (node, cast, scaled)
    end = graph.only_consumer(scaled.output[0], "Add")
    bias = next((tensor for tensor in end.input if graph.constant(tensor) is not None), "") if end is not None else ""
    weights = graph.shape(node.input[1])
    if end is not None and bias and weights is not None and graph.shape(bias) == weights[-1:]:
        return _Product((*nodes, end), scales.input[1], bias)
    return _Product(nodes, scales.input[1])
