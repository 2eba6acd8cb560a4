"""Tensors that decide shapes: durations, lengths, masks, and the nodes that do nothing but compute them.

A rounding error in such a tensor is no noise but another shape: a predicted duration that falls on the other side of an
integer, a mask that is 0.998 instead of 1, a length that no longer matches. Quantized, a graph then dies in a Concat, or
speaks at another pace. Two sets of nodes must therefore stay as they are:

- *deciding*: every path from the node ends in a decision. A decision is an operator that makes a number discrete (Ceil,
  Round, a comparison, a Cast to an integer) and whose result then is a shape (of Reshape, Expand, Range, ...) or meets
  continuous data as a mask. The duration predictor of a text-to-speech model is such a part; an encoder that also feeds
  the decoder is not, and neither is a classifier that ends in an ArgMax.
- *decided*: the node touches a tensor that was computed from nothing but decisions: masks, alignment paths, positions.
  So are whole numbers that a model is given (characters, samples as int16) and waves of positions (sines and cosines, which
  attention knows its distances by). But a layer that multiplies any of them with its weight makes ordinary data of it. What
  sums whole numbers (a running sum as a product with ones) or multiplies each position with frequencies (which sums nothing)
  is no such layer.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.scopes import captured, reads

# op type -> inputs that are shapes, positions or counts
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Slice": (1, 2, 3, 4),
    "Pad": (1,), "Resize": (1, 2, 3), "Split": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "TopK": (1,), "Trilu": (1,),
    "CumSum": (1,), "Loop": (0, 1), "If": (0,),
}  # fmt: skip
# op type -> inputs that select values, and so are no data either
INDEX_INPUTS: dict[str, tuple[int, ...]] = {
    "Gather": (1,), "GatherElements": (1,), "GatherND": (1,), "ScatterND": (1,), "ScatterElements": (1,), "OneHot": (0,),
}  # fmt: skip
DISCRETE_OPS = frozenset(
    {"Ceil", "Floor", "Round", "Sign", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not", "And", "Or",
     "NonZero", "ArgMax", "ArgMin", "Shape", "Size", "Range", "ConstantOfShape", "OneHot", "EyeLike"}
)  # fmt: skip
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
IN_BODY = -1  # in place of the number of an input: read by the body of an If, Loop or Scan
FLOAT_TYPES = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
INTEGER_TYPES = frozenset(
    {onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
     onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64,
     onnx.TensorProto.BOOL}
)  # fmt: skip


def shape_deciding_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that decide shapes, or touch what was decided; they are never quantized."""
    discrete, touched, _ = _decided(graph)
    return touched | _deciding(graph, discrete)


def decided_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that are computed from nothing but decisions and constants, and that no layer reads.

    No node that reads one is quantized.
    """
    discrete, _, for_layers = _decided(graph)
    return discrete - for_layers


def _makes_discrete(node: onnx.NodeProto) -> bool:
    if node.op_type == "Cast":
        return any(attribute.name == "to" and attribute.i in INTEGER_TYPES for attribute in node.attribute)
    return node.op_type in DISCRETE_OPS


def _data_inputs(node: onnx.NodeProto) -> Iterator[str]:
    aside = (*SHAPE_INPUTS.get(node.op_type, ()), *INDEX_INPUTS.get(node.op_type, ()))
    return (tensor for index, tensor in enumerate(node.input) if tensor and index not in aside)


def _decided(graph: onnx.GraphProto) -> tuple[set[str], set[str], set[str]]:
    """Return the tensors computed from decisions and constants alone, the nodes that read one as data, and what layers read."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constant = set(weights)
    discrete = {value.name for value in graph.input if value.type.tensor_type.elem_type in INTEGER_TYPES} - constant
    touched: set[str] = set()
    for_layers: set[str] = set()
    for node in graph.node:
        if constant.issuperset(reads(node)):
            constant.update(node.output)
            continue
        data = [tensor for tensor in _data_inputs(node) if tensor not in constant]
        if node.op_type in PRODUCTS and not discrete.isdisjoint(data) and _is_layer(node, weights):
            for_layers.update(data)
            continue  # what it makes is ordinary data
        if _makes_discrete(node) or (data and all(tensor in discrete for tensor in data)):
            discrete.update(node.output)
            touched.add(node.name)
        elif any(tensor in discrete for tensor in data):
            touched.add(node.name)
    return discrete, touched, for_layers


def _is_layer(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Say whether a product sums several inputs, weighted by other than whole numbers."""
    weight = weights.get(node.input[1])
    if weight is None or len(weight.dims) < 2 or weight.data_type not in FLOAT_TYPES:
        return False
    transposed = node.op_type == "Gemm" and any(entry.name == "transB" and entry.i for entry in node.attribute)
    summed = weight.dims[1:] if node.op_type == "Conv" else weight.dims[-1:] if transposed else weight.dims[-2:-1]
    if np.prod(summed) < 2:
        return False
    values = numpy_helper.to_array(weight).astype(np.float32)
    return bool(np.any(values != np.rint(values)))


def _deciding(graph: onnx.GraphProto, discrete: set[str]) -> set[str]:
    """Return the nodes whose every path ends in a decision, going through the graph from its end."""
    consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            consumers[tensor].append((node, index))
        for tensor in captured(node):
            consumers[tensor].append((node, IN_BODY))
    outputs = {output.name for output in graph.output}
    deciding: set[str] = set()
    consequential: set[str] = set()  # nodes whose discrete output becomes a shape or a mask

    def is_shape(consumer: onnx.NodeProto, index: int) -> bool:
        return index in SHAPE_INPUTS.get(consumer.op_type, ())

    def is_mask(consumer: onnx.NodeProto, index: int) -> bool:
        if index in INDEX_INPUTS.get(consumer.op_type, ()):
            return False
        return consumer.name in consequential or discrete.isdisjoint(consumer.output)

    for node in reversed(graph.node):
        uses = [use for tensor in node.output for use in consumers[tensor]]
        if not discrete.isdisjoint(node.output) and any(is_shape(*use) or is_mask(*use) for use in uses):
            consequential.add(node.name)
        ends_in_decision = all(
            is_shape(consumer, index)
            or consumer.name in deciding
            or (_makes_discrete(consumer) and consumer.name in consequential)
            for consumer, index in uses
        )
        if uses and ends_in_decision and outputs.isdisjoint(node.output):
            deciding.add(node.name)
    return deciding
