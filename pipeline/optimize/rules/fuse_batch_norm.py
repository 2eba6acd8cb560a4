"""A batch norm after a linear layer, inside its weights.

    g (w * x + b - m) / sqrt(v + e) + h = (w a) * x + (b - m) a + h,    a = g / sqrt(v + e), one number a channel

In inference m and v are constants (Ioffe and Szegedy 2015, "Batch Normalization", section 3.1). ONNX Runtime does this after
a Conv (conv_bn_fusion.cc), not after a ConvTranspose. The counterpart in onnxscript is `_fuse_batchnorm.py`.
"""

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome


def rewrite(graph: Graph) -> Outcome:
    """Fold every BatchNormalization into the Conv or ConvTranspose that alone feeds it."""
    sites = 0
    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0):
            continue
        layer = graph.producer(node.input[0], "Conv", "ConvTranspose")
        if layer is None or graph.only_consumer(node.input[0]) is None or not graph.is_float(layer.input[1]):
            continue
        arrays = [graph.constant(tensor) for tensor in (*node.input[1:5], *layer.input[1:])]
        if any(array is None for array in arrays) or any(node.output[1:]):
            continue
        gamma, beta, mean, variance, weights, *bias = (np.asarray(array, np.float64) for array in arrays)
        epsilon = float(attribute(node, "epsilon", 1e-5))
        factor = gamma / np.sqrt(variance + epsilon)
        shift = ((bias[0] if bias else 0.0) - mean) * factor + beta
        scaled = (weights * _of_weights(layer, factor, weights.shape)).astype(np.float32)
        inputs = [layer.input[0], graph.add_initializer(scaled, f"{layer.input[1]}_normed")]
        inputs.append(graph.add_initializer(shift.astype(np.float32), f"{layer.input[1]}_normed_bias"))
        graph.remove(node)
        graph.replace_node(layer, inputs, node.output[0])
        sites += 1
    return outcome(sites, "no BatchNormalization after a Conv or ConvTranspose of its own")


def _of_weights(layer: onnx.NodeProto, factor: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the factor of each output channel in a shape that multiplies the layer's weights."""
    spatial = (1,) * (len(shape) - 2)
    if layer.op_type == "Conv":
        return factor.reshape(-1, 1, *spatial)
    groups = int(attribute(layer, "group", 1))
    rows = factor.reshape(groups, 1, shape[1]).repeat(shape[0] // groups, axis=1)
    return rows.reshape(shape[0], shape[1], *spatial)
