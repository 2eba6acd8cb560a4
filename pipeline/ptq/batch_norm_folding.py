"""Fold a BatchNormalization into the convolution before it.

Jacob et al. 2018 (arXiv:1712.05877), section 3.2: at inference, a batch normalization is one factor and one offset per
channel, which the weight and the bias of the convolution take over. ONNX Runtime does it for Conv when it loads a model, but
what is quantized must be the folded weight; it leaves out ConvTranspose, and does nothing with mode.preprocess=false.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.attributes import attribute, float_attribute, int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import Names, drop_unread, input_tensors
from pipeline.ptq.channel_groups import Side, spread
from pipeline.sample import Array, Float32Array


def fold_batch_normalization(model: onnx.ModelProto) -> list[str]:
    """Fold every BatchNormalization that directly follows a Conv or ConvTranspose, in place; return the names of those.

    One is left alone where the convolution's output has another reader or is an output of the graph, or where anything it
    needs is not a constant.
    """
    graph = model.graph
    readers = Counter(tensor for node in graph.node for tensor in input_tensors(node))
    readers.update(output.name for output in graph.output)
    makers = {node.output[0]: node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    folded: list[str] = []
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" and len(node.output) == 1 else None
        if maker is None or attribute(node, "training_mode", 0) or readers[node.input[0]] > 1 or not _fold(model, maker, node):
            kept.append(node)
        else:
            folded.append(node.name)
    if folded:
        names = set(initializers_of(model))
        del graph.node[:]
        graph.node.extend(kept)
        drop_unread(model.graph, names)
    return folded


def _fold(model: onnx.ModelProto, maker: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    constants = initializers_of(model)
    needed = [*maker.input[1:], *node.input[1:]]
    if any(name not in constants for name in needed):
        return False
    weight, *bias = (numpy_helper.to_array(constants[name]) for name in maker.input[1:])
    norm = [numpy_helper.to_array(constants[name]) for name in node.input[1:5]]
    # under new names: another node may share the constants
    every = Names(model.graph)
    names = [every.fresh(f"{node.name}_folded_weight"), every.fresh(f"{node.name}_folded_bias")]
    arrays = folded_constants(maker, weight, bias[0] if bias else None, node, norm)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in zip(names, arrays, strict=True))
    del maker.input[1:]
    maker.input.extend(names)
    maker.output[0] = node.output[0]
    return True


def folded_constants(
    layer: onnx.NodeProto, weight: Array, bias: Array | None, node: onnx.NodeProto, norm: Sequence[Array]
) -> tuple[Float32Array, Float32Array]:
    """Return the weight and the bias of a convolution that does the work of the batch normalization after it as well.

        g (w * x + b - m) / sqrt(v + e) + h = (w a) * x + (b - m) a + h,    a = g / sqrt(v + e), one number a channel

    Args:
        layer: a Conv or ConvTranspose.
        weight: its weight.
        bias: its bias (channels,); None: it has none.
        node: the BatchNormalization.
        norm: scale g, offset h, mean m and variance v of it, each (channels,).
    """
    scale, offset, mean, variance = (np.asarray(array, np.float64) for array in norm)
    factors = scale / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    transposed = layer.op_type == "ConvTranspose"
    side = Side(layer.input[1], 1 if transposed else 0, 1, int_attribute(layer, "group", 1) if transposed else 1)
    shift = (0.0 if bias is None else np.asarray(bias, np.float64)) - mean
    folded = np.asarray(weight, np.float64) * spread(factors, side, weight.shape)
    return folded.astype(np.float32), (shift * factors + offset).astype(np.float32)
