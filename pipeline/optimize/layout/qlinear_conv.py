"""A Conv between Q/DQ pairs, as the integer operator that ONNX Runtime fuses it into."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.layout.unroll_time import several_frames

RANKS = (3, 4)  # over time, over images


@dataclass(frozen=True)
class IntegerConv:
    """A Conv between integers.

    Attributes:
        node: the Conv of floats that stands for it.
        quantize: the QuantizeLinear of its output.
        source: the integers that it reads, (N, channels, ...), and their scale and zero point.
        weights: (out, in / groups, ...).
        scales: of the weights, (1,) or (out,).
        zeros: of the weights, like `scales`.
        biases: (out,), of the scale of the products; None: none.
        data_type: of its input and output, as ONNX numbers it.
        attributes: of the Conv.
    """

    node: onnx.NodeProto
    quantize: onnx.NodeProto
    source: tuple[str, str, str]
    weights: Array
    scales: Array
    zeros: Array
    biases: Array | None
    data_type: int
    attributes: dict[str, Any]

    @property
    def output(self) -> str:
        """Its quantized output."""
        return str(self.quantize.output[0])

    def in_order(self, order: Array) -> "IntegerConv":
        """Return the Conv with its output channels in another order."""
        scales, zeros = (array[order] if array.size > 1 else array for array in (self.scales, self.zeros))
        biases = None if self.biases is None else self.biases[order]
        return replace(self, weights=self.weights[order], scales=scales, zeros=zeros, biases=biases)

    def with_frames(self, frames: int) -> "IntegerConv":
        """Return the Conv over time that computes several frames at once (`unroll_time.py`)."""
        pad, dilation = self.attributes.get("pads", [0])[0], self.attributes.get("dilations", [1])[0]
        zeros = np.broadcast_to(self.zeros, len(self.weights)).astype(np.int16)
        weights, pads = several_frames(self.weights - zeros[:, None, None], frames, pad, dilation)
        weights = (weights + np.tile(zeros, frames)[:, None, None]).astype(self.weights.dtype)
        attributes = self.attributes | {"kernel_shape": [weights.shape[2]], "pads": pads, "dilations": [1]}
        scales, more_zeros = (np.tile(array, frames) if array.size > 1 else array for array in (self.scales, self.zeros))
        biases = None if self.biases is None else np.tile(self.biases, frames)
        return replace(self, weights=weights, scales=scales, zeros=more_zeros, biases=biases, attributes=attributes)

    def add_to(self, graph: Graph, source: str, output: str | None) -> str:
        """Add it as an operator with channels last, and return its output.

        Args:
            graph: that it becomes part of.
            source: its input, (N, ..., channels).
            output: (N, ..., out); None: a new tensor.
        """
        name = self.node.name
        inputs = [
            source,
            *self.source[1:],
            graph.add_initializer(self.weights, f"{name}_weight"),
            graph.add_initializer(self.scales, f"{name}_scale"),
        ]
        inputs += [graph.add_initializer(self.zeros, f"{name}_zero_point"), *self.quantize.input[1:]]
        inputs += [] if self.biases is None else [graph.add_initializer(self.biases, f"{name}_bias")]
        return graph.add_node(
            "QLinearConv", inputs, output, name=name, domain="com.microsoft", channels_last=1, **self.attributes
        )


def integer_conv(graph: Graph, node: onnx.NodeProto) -> IntegerConv | None:
    """Return the integer Conv that ONNX Runtime would fuse a node into, if any."""
    quantize = graph.only_consumer(node.output[0], "QuantizeLinear") if node.op_type == "Conv" else None
    restored = [graph.producer(tensor, "DequantizeLinear") for tensor in node.input if tensor]
    pairs = [pair for pair in (quantize, *restored) if pair is not None and len(pair.input) == 3]
    if quantize is None or len(pairs) <= len(restored) or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return None
    _, x, w, *b = pairs
    weights, scales, zeros = (graph.constant(tensor) for tensor in w.input)
    biases = graph.constant(b[0].input[0]) if b else None
    if weights is None or scales is None or zeros is None or (b and biases is None):
        return None
    before, after = graph.constant(x.input[2]), graph.constant(quantize.input[2])
    if before is None or after is None or {weights.dtype.itemsize, before.dtype.itemsize} != {1} or before.dtype != after.dtype:
        return None
    per_channel = scales.size == 1 or attribute(w, "axis", 1) == 0
    plain = weights.ndim in RANKS and per_channel and has_one_scale(graph, x, quantize) and graph.constant(x.input[0]) is None
    if not plain or (b and not _has_scale_of_products(graph, b[0], x, scales)):
        return None
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    attributes["kernel_shape"] = list(weights.shape[2:])
    source, kind = (x.input[0], x.input[1], x.input[2]), helper.np_dtype_to_tensor_dtype(before.dtype)
    return IntegerConv(node, quantize, source, weights, scales.reshape(-1), zeros.reshape(-1), biases, kind, attributes)


def _has_scale_of_products(graph: Graph, bias: onnx.NodeProto, x: onnx.NodeProto, scales: Array) -> bool:
    """Return whether a bias is counted in the scale of the products, as the integer operator requires."""
    found, factor = graph.constant(bias.input[1]), graph.scalar(x.input[1])
    return found is not None and factor is not None and np.allclose(found, factor * scales.reshape(-1), rtol=1e-5, atol=0.0)


def has_one_scale(graph: Graph, *conversions: onnx.NodeProto) -> bool:
    """Return whether conversions have one constant scale and zero point for all channels."""
    return all(graph.scalar(tensor) is not None for node in conversions for tensor in node.input[1:])
