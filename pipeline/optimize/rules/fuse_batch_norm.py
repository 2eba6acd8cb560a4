"""A batch norm after a linear layer, inside its weights.

    g (w * x + b - m) / sqrt(v + e) + h = (w a) * x + (b - m) a + h,    a = g / sqrt(v + e), one number a channel

In inference m and v are constants (Ioffe and Szegedy 2015, "Batch Normalization", section 3.1). ONNX Runtime does this after
a Conv (conv_bn_fusion.cc), not after a ConvTranspose. The counterpart in onnxscript is `_fuse_batchnorm.py`.
"""

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome
from pipeline.ptq.batch_norm_folding import folded_constants


def rewrite(graph: Graph) -> Outcome:
    """Fold every BatchNormalization into the Conv or ConvTranspose that alone feeds it."""
    sites = 0
    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0):
            continue
        layer = graph.producer(node.input[0], "Conv", "ConvTranspose")
        if layer is None or graph.only_consumer(node.input[0]) is None or not graph.is_float(layer.input[1]):
            continue
        constants = [graph.constant(tensor) for tensor in (*node.input[1:5], *layer.input[1:])]
        arrays = [array for array in constants if array is not None]
        if len(arrays) < len(constants) or any(node.output[1:]):
            continue
        norm, (weight, *bias) = arrays[:4], arrays[4:]
        scaled, shift = folded_constants(layer, weight, bias[0] if bias else None, node, norm)
        inputs = [layer.input[0], graph.add_initializer(scaled, f"{layer.input[1]}_normed")]
        inputs.append(graph.add_initializer(shift, f"{layer.input[1]}_normed_bias"))
        graph.remove(node)
        graph.replace_node(layer, inputs, node.output[0])
        sites += 1
    return outcome(sites, "no BatchNormalization after a Conv or ConvTranspose of its own")
