"""Fold a BatchNormalization into the convolution in front of it.

Jacob et al. 2018 (arXiv:1712.05877), section 3.2: at inference, a batch normalization is one factor and one offset per
channel, which the weight and the bias of the convolution take over. ONNX Runtime does it for Conv when it loads a model, but
what is quantized must be the folded weight; it leaves out ConvTranspose, and does nothing with mode.preprocess=false.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import drop_unread
from pipeline.ptq.channel_groups import Side, spread


def fold_batch_normalization(model: onnx.ModelProto) -> list[str]:
    """Fold every BatchNormalization that directly follows a Conv or ConvTranspose, in place; return the names of those.

    One is left alone where the convolution's output has another reader or is an output of the graph, or where anything it
    needs is no constant.
    """
    graph = model.graph
    readers = Counter(tensor for node in graph.node for tensor in node.input)
    readers.update(output.name for output in graph.output)
    makers = {node.output[0]: node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    folded: list[str] = []
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" and len(node.output) == 1 else None
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if maker is None or training or readers[node.input[0]] > 1 or not _fold(model, maker, node):
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
    scale, offset, mean, variance = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:5])
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    groups = next((attribute.i for attribute in maker.attribute if attribute.name == "group"), 1)
    factors = scale / np.sqrt(variance + epsilon)
    weight = numpy_helper.to_array(constants[maker.input[1]])
    transposed = maker.op_type == "ConvTranspose"
    side = Side(maker.input[1], 1 if transposed else 0, 1, groups if transposed else 1)
    bias = numpy_helper.to_array(constants[maker.input[2]]) if len(maker.input) > 2 else np.zeros_like(mean)
    # under new names: another node may share the constants
    names = [f"{node.name}_folded_weight", f"{node.name}_folded_bias"]
    arrays = [weight * spread(factors, side, weight.shape), (bias - mean) * factors + offset]
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in zip(names, arrays, strict=True)
    )
    del maker.input[1:]
    maker.input.extend(names)
    maker.output[0] = node.output[0]
    return True
