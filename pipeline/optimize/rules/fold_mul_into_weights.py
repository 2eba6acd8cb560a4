"""A constant factor, inside the weights of the linear layer next to it.

    (x W + b) c = x (W c) + b c,    (c x) W = x (c W),    leaky_relu(c x) = c leaky_relu(x) for c > 0

c is a number, or one number a channel where it follows the layer (the gamma of a ConvNeXt block, the 0.5 of a conformer's
feed-forward, the mean over residual blocks of a HiFi-GAN that its next layer can take). One pass over a tensor less each.
"""

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

LINEAR = ("MatMul", "Gemm", "Conv", "ConvTranspose")
HOMOGENEOUS = ("LeakyRelu", "Relu")
TINY = 1e-30  # a factor that near zero would take its weights out of float32's range


def rewrite(graph: Graph) -> Outcome:
    """Fold factors into the layer before them, or else into all that read them."""
    used: set[int] = set()
    sites = 0
    for node in graph.nodes:
        if node.op_type not in ("Mul", "Div") or not graph.is_float(node.output[0]):
            continue
        factor, data = factor_of(graph, node)
        if factor is None:
            continue
        sites += _into_before(graph, node, data, factor, used) or _into_after(graph, node, data, factor, used)
    return outcome(sites, "no constant factor next to a linear layer")


def factor_of(graph: Graph, node: onnx.NodeProto) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return the constant that a node multiplies by, and what it multiplies."""
    arrays = [graph.constant(tensor) for tensor in node.input]
    at = 1 if arrays[1] is not None else 0
    constant = arrays[at]
    if constant is None or arrays[1 - at] is not None or (node.op_type == "Div" and at == 0):
        return None, ""
    factor = constant.astype(np.float64)
    if not np.isfinite(factor).all() or (np.abs(factor) < TINY).any():
        return None, ""
    return 1.0 / factor if node.op_type == "Div" else factor, node.input[1 - at]


def _into_before(graph: Graph, node: onnx.NodeProto, data: str, factor: npt.NDArray[np.float64], used: set[int]) -> bool:
    last = graph.producer(data, "Add", *LINEAR)
    if last is None or graph.only_consumer(data) is not node:
        return False
    layer, bias = last, None
    if last.op_type == "Add":
        layers = [graph.producer(tensor, "MatMul") for tensor in last.input]
        biases = [tensor for tensor in last.input if (array := graph.constant(tensor)) is not None and array.ndim <= 1]
        found = next((producer for producer in layers if producer is not None), None)
        if found is None or len(biases) != 1 or graph.only_consumer(found.output[0]) is not last:
            return False
        layer, bias = found, biases[0]
    weights = graph.constant(layer.input[1])
    row = None if weights is None else _row(factor, layer, weights, graph.rank(data))
    if weights is None or row is None or {id(layer), id(last)} & used:
        return False
    inputs = [layer.input[0], _scaled(graph, layer.input[1], _along(row, layer, weights))]
    if len(layer.input) > 2:
        if graph.constant(layer.input[2]) is None or (layer.op_type == "Gemm" and graph.rank(layer.input[2]) != 1):
            return False
        inputs.append(_scaled(graph, layer.input[2], row))
    used |= {id(layer), id(last)}
    graph.remove(node)
    graph.replace_node(layer, inputs, node.output[0] if bias is None else None)
    if bias is not None:
        graph.replace_node(last, [layer.output[0], _scaled(graph, bias, row)], node.output[0])
    return True


def _into_after(graph: Graph, node: onnx.NodeProto, data: str, factor: npt.NDArray[np.float64], used: set[int]) -> bool:
    between = graph.only_consumer(node.output[0], *HOMOGENEOUS)
    end = node if between is None else between
    layers = graph.consumers(end.output[0])
    foldable = factor.size == 1 and (between is None or factor.item() > 0) and (graph.rank(data) or 0) >= factor.ndim
    if not foldable or not layers or end.output[0] in graph.pinned or id(node) in used or _of_gelu(graph, data):
        return False
    for layer in layers:
        inner = layer.op_type in LINEAR and layer.input[0] == end.output[0] and graph.constant(layer.input[1]) is not None
        if not inner or id(layer) in used or list(layer.input).count(end.output[0]) != 1:
            return False
    used |= {id(layer) for layer in layers}
    graph.remove(node)
    source = data if between is None else graph.replace_node(between, [data])
    for layer in layers:
        inputs = [source, _scaled(graph, layer.input[1], factor.reshape(())), *layer.input[2:]]
        graph.replace_node(layer, inputs)
    return True


def _of_gelu(graph: Graph, tensor: str) -> bool:
    """Return whether a tensor is x (1 + erf(x / sqrt 2)): ONNX Runtime fuses it with the factor of a half that follows."""
    product = graph.producer(tensor, "Mul")
    sums = [graph.producer(factor, "Add") for factor in product.input] if product is not None else []
    return any(graph.producer(term, "Erf") is not None for total in sums if total is not None for term in total.input)


def _row(
    factor: npt.NDArray[np.float64], layer: onnx.NodeProto, weights: Array, rank: int | None
) -> npt.NDArray[np.float64] | None:
    """Return the factor as one number for each output channel of a layer, or as one number; None where it is neither."""
    if rank is None or factor.ndim > rank:
        return None
    if factor.size == 1:
        return factor.reshape(())
    trailing = rank - 2 if layer.op_type.startswith("Conv") else 0
    channels = {
        "MatMul": weights.shape[-1],
        "Conv": weights.shape[0],
        "ConvTranspose": weights.shape[1] * attribute(layer, "group", 1),
        "Gemm": weights.shape[0 if attribute(layer, "transB", 0) else 1],
    }[layer.op_type]
    axes = (1,) * (rank - factor.ndim) + factor.shape
    place = rank - 1 - trailing
    fits = all(length == (channels if axis == place else 1) for axis, length in enumerate(axes))
    grouped = layer.op_type == "ConvTranspose" and attribute(layer, "group", 1) != 1
    return factor.reshape(-1) if fits and not grouped else None


def _along(row: npt.NDArray[np.float64], layer: onnx.NodeProto, weights: Array) -> npt.NDArray[np.float64]:
    """Return the row in a shape that multiplies the output channels of weights."""
    if row.ndim == 0:
        return row
    axis = {"MatMul": weights.ndim - 1, "Conv": 0, "ConvTranspose": 1, "Gemm": 0 if attribute(layer, "transB", 0) else 1}
    shape = [1] * weights.ndim
    shape[axis[layer.op_type]] = -1
    return row.reshape(shape)


def _scaled(graph: Graph, tensor: str, factor: npt.NDArray[np.float64]) -> str:
    weights = np.asarray(graph.constant(tensor), np.float64)
    return graph.add_initializer((weights * factor).astype(np.float32), f"{tensor}_scaled")
