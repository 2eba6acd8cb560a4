"""Zeros around the input of a Conv, as padding of the Conv.

    conv(pad(x, p), q) = conv(x, p + q)    for zeros along the axes that the Conv goes over

PyTorch exports uneven padding as a Pad in front of the Conv. ONNX Runtime fuses the two itself (pad_fusion.cc), but not where
the Pad has an empty name for its value. The counterpart in onnxscript is `_fuse_pad_into_conv.py`.
"""

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome


def rewrite(graph: Graph) -> Outcome:
    """Drop every Pad that Convs alone read; return their number."""
    sites = 0
    for node in graph.nodes:
        widths = zero_widths(graph, node)
        consumers = graph.consumers(node.output[0]) if widths is not None else []
        if widths is None or not consumers or node.output[0] in graph.pinned or widths.reshape(2, -1)[:, :2].any():
            continue
        if all(_is_padded(consumer, node.output[0]) for consumer in consumers):
            graph.remove(node)
            for consumer in consumers:
                rank = len(widths) // 2
                around = np.array(attribute(consumer, "pads", [0] * 2 * (rank - 2))) + widths.reshape(2, -1)[:, 2:].reshape(-1)
                graph.replace_node(consumer, [node.input[0], *consumer.input[1:]], pads=around.tolist())
            sites += 1
    return outcome(sites, "no zeros in front of a Conv")


def zero_widths(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """Return how many zeros a node puts before and after each axis of a float tensor, (2 * axes,); None for anything else."""
    if node.op_type != "Pad" or graph.opset < 11 or attribute(node, "mode", b"constant") != b"constant":
        return None
    widths = graph.constant(node.input[1])
    if widths is None or not fills_with_zero(graph, node) or (len(node.input) > 3 and node.input[3]) or (widths < 0).any():
        return None
    return widths if graph.is_float(node.input[0]) else None


def fills_with_zero(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether the value of a Pad is zero."""
    return len(node.input) < 3 or not node.input[2] or graph.scalar(node.input[2]) == 0.0


def _is_padded(node: onnx.NodeProto, tensor: str) -> bool:
    return (
        node.op_type == "Conv" and tensor not in node.input[1:] and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"")
    )
