"""What the length of a time axis is a multiple of, whatever comes in.

Along a graph a length grows and shrinks by known numbers: by the padding of a Conv, the stride of a ConvTranspose, what a Slice
takes off. So it is factor * n + offset, with n the length of some tensor before, and a multiple of gcd(factor, offset).
"""

from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.layout.conv1d_to_conv2d import BINARY, UNARY


@dataclass(frozen=True)
class Length:
    """factor * n + offset, with n any number: the length of the last axis of a tensor."""

    factor: int = 1
    offset: int = 0

    @property
    def divisor(self) -> int:
        """A number that it is a multiple of."""
        return gcd(self.factor, self.offset)


class Lengths:
    """The lengths of the last axes of a graph, found as they are asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Length] = {}

    def of(self, tensor: str) -> Length:
        """Return the length of a tensor."""
        waiting = [tensor]
        while waiting:
            current = waiting[-1]
            shape = self._graph.shape(current)
            source = None if shape and isinstance(shape[-1], int) else self._source(current)
            if source is not None and source not in self._known:
                waiting.append(source)
                continue
            if shape and isinstance(shape[-1], int):
                self._known[current] = Length(0, shape[-1])
            else:
                self._known[current] = self._after(current, self._known[source]) if source is not None else Length()
            waiting.pop()
        return self._known[tensor]

    def _source(self, tensor: str) -> str | None:
        """Return the tensor from whose length that of another follows."""
        graph, node = self._graph, self._graph.producer(tensor)
        if node is None:
            return None
        if node.op_type in BINARY:
            rank = graph.rank(tensor)
            return next((one for one in node.input if graph.constant(one) is None and graph.rank(one) == rank), None)
        if node.op_type in ("Unsqueeze", "Squeeze"):
            axes = graph.constant(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
            rank = max(graph.rank(node.input[0]) or 0, graph.rank(tensor) or 0)
            return node.input[0] if axes is not None and all(0 <= axis < rank - 1 for axis in axes) else None
        if node.op_type == "Reshape":
            interleaved = phases_of(graph, node)
            return interleaved[0] if interleaved is not None else None
        follows = node.op_type in (*UNARY, "QuantizeLinear", "DequantizeLinear") or self._crop(node) is not None
        return node.input[0] if follows or _change(graph, node) is not None else None

    def _after(self, tensor: str, length: Length) -> Length:
        """Return the length of a tensor, from that of its source."""
        node = self._graph.producer(tensor)
        assert node is not None
        if node.op_type == "Reshape":
            interleaved = phases_of(self._graph, node)
            assert interleaved is not None
            return Length(length.factor * interleaved[1], length.offset * interleaved[1])
        if (crop := self._crop(node)) is not None:
            return replace(length, offset=length.offset - crop)
        if (change := _change(self._graph, node)) is not None:
            return Length(length.factor * change[0], length.offset * change[0] + change[1])
        return length

    def _crop(self, node: onnx.NodeProto) -> int | None:
        """Return how much a Slice takes off both ends of the last axis; None for any other node."""
        limits = [self._graph.constant(tensor) for tensor in node.input[1:]] if node.op_type == "Slice" else []
        if len(limits) != 3 or any(limit is None or limit.size != 1 for limit in limits):
            return None
        start, end, axis = (int(limit.reshape(())) for limit in limits if limit is not None)
        end = 0 if end == np.iinfo(np.int64).max else end
        return start - end if axis == (self._graph.rank(node.input[0]) or 0) - 1 and start >= 0 >= end else None


def phases_of(graph: Graph, node: onnx.NodeProto) -> tuple[str, int] | None:
    """Return what a Reshape interleaves along its last axis (`conv_transpose_to_conv.py`), and how many phases."""
    swapped = graph.producer(node.input[0], "Transpose") if node.op_type == "Reshape" else None
    split = graph.producer(swapped.input[0], "Reshape") if swapped is not None else None
    if swapped is None or split is None:
        return None
    before, after = graph.constant(split.input[1]), graph.constant(node.input[1])
    if before is None or after is None or len(before) != len(after) + 1 or [after[-1], before[-1]] != [-1, -1]:
        return None
    return (split.input[0], int(before[2])) if list(attribute(swapped, "perm", []))[-1:] == [2] and before[2] > 0 else None


def keeps_length(node: onnx.NodeProto, weights: Array) -> bool:
    """Return whether a Conv keeps the number of frames."""
    pads = _ints(node, "pads", [0] * 2 * (weights.ndim - 2))
    half = len(pads) // 2
    return not any([*pads[: half - 1], *pads[half:-1]]) and _change_of_conv(node, weights) == (1, 0)


def _change(graph: Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """Return by what the length of a Conv's or ConvTranspose's input is multiplied, and what is added then."""
    if node.op_type == "Conv" and (weights := _weights(graph, node)) is not None:
        return _change_of_conv(node, weights)
    weights = _weights(graph, node) if node.op_type == "ConvTranspose" else None
    if weights is None or attribute(node, "output_shape") or not _is_explicit(node):
        return None
    kernel = weights.shape[2:]
    pads, stride = _ints(node, "pads", [0] * 2 * len(kernel)), _ints(node, "strides", [1])[-1]
    reach = _ints(node, "dilations", [1])[-1] * (kernel[-1] - 1) + 1 + _ints(node, "output_padding", [0])[-1]
    return stride, reach - pads[len(kernel) - 1] - pads[-1] - stride


def _change_of_conv(node: onnx.NodeProto, weights: Array) -> tuple[int, int] | None:
    if set(_ints(node, "strides", [1])) != {1} or not _is_explicit(node):
        return None
    pads = _ints(node, "pads", [0] * 2 * (weights.ndim - 2))
    return 1, pads[len(pads) // 2 - 1] + pads[-1] - _ints(node, "dilations", [1])[-1] * (weights.shape[-1] - 1)


def _weights(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """Return a Conv's weights, also where they are quantized."""
    restored = graph.producer(node.input[1], "DequantizeLinear")
    return graph.constant(node.input[1] if restored is None else restored.input[0])


def _is_explicit(node: onnx.NodeProto) -> bool:
    return attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"")


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    return [int(number) for number in attribute(node, name, default)]
