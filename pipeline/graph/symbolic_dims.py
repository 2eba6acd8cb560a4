"""Lengths that have two names in a graph and are one.

ONNX's shape inference gives what it cannot follow a new name: the output of a Conv whose padding keeps the length, the result
of two tensors that are broadcast, the axes that a Slice leaves alone. Each rule here says which lengths are equal whatever the
inputs are; a length that is equal to a number is that number.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Length = int | str | None
Shape = tuple[Length, ...]
Constant = Callable[[str], npt.NDArray[Any] | None]

BROADCAST = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Sum", "Max", "Min", "PRelu", "Where", "And", "Or", "Xor",
     "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"}
)  # fmt: skip


def equal_lengths(nodes: Sequence[onnx.NodeProto], shapes: dict[str, Shape], constant: Constant) -> dict[str, Length]:
    """Return the names that stand for the same length as another name, or as a number -> that one.

    Args:
        nodes: in order.
        shapes: of the tensors, as far as they are known.
        constant: returns the value of a tensor that is always the same.
    """
    same: dict[str, Length] = {}

    def first(length: Length) -> Length:
        while isinstance(length, str) and length in same:
            length = same[length]
        return length

    for node in nodes:
        for one, other in _equal(node, shapes, constant, first):
            names = sorted((first(one), first(other)), key=lambda length: isinstance(length, str))
            if names[0] != names[1] and isinstance(names[1], str) and names[0] is not None:
                # The name that the graph has first is kept.
                kept, gone = (first(one), first(other)) if isinstance(names[0], str) else (names[0], names[1])
                same[gone] = kept  # type: ignore[index]
    return {name: first(name) for name in same}


def _equal(
    node: onnx.NodeProto, shapes: dict[str, Shape], constant: Constant, first: Callable[[Length], Length]
) -> list[tuple[Length, Length]]:
    """Return pairs of lengths that a node makes equal: one that it reads, and one that it makes."""
    after = shapes.get(node.output[0]) if node.output else None
    before = [shapes.get(tensor) for tensor in node.input if tensor]
    if after is None or not before or before[0] is None:
        return []
    if node.op_type in BROADCAST:
        return _broadcast([shape for shape in before if shape is not None], after, first) if None not in before else []
    if node.op_type == "MatMul" and None not in before and all(len(shape or ()) >= 2 for shape in before):
        left, right = before
        stacks = _broadcast([left[:-2], right[:-2]], after[:-2], first)  # type: ignore[index]
        return [*stacks, (left[-2], after[-2]), (right[-1], after[-1])]  # type: ignore[index]
    settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type == "Conv":
        weights = constant(node.input[1])
        kernel = settings.get("kernel_shape") or (weights.shape[2:] if weights is not None else None)
        return [(before[0][axis + 2], after[axis + 2]) for axis in _kept_axes(settings, kernel)]
    if node.op_type == "Slice" and len(node.input) > 3 and len(before[0]) == len(after):
        axes = constant(node.input[3])
        cut = range(len(after)) if axes is None else [int(axis) % len(after) for axis in axes]
        return [pair for axis, pair in enumerate(zip(before[0], after, strict=True)) if axis not in cut]
    return []


def _broadcast(before: Sequence[Shape], after: Shape, first: Callable[[Length], Length]) -> list[tuple[Length, Length]]:
    pairs: list[tuple[Length, Length]] = []
    for place, length in enumerate(reversed(after), 1):
        read = {first(shape[-place]) for shape in before if len(shape) >= place} - {1}
        if len(read) == 1:
            pairs.append((read.pop(), length))
    return pairs


def _kept_axes(settings: dict[str, Any], kernel: Sequence[int] | None) -> list[int]:
    """Return the spatial axes that a Conv leaves as long as they were."""
    if kernel is None or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return []
    count = len(kernel)
    strides, dilations = settings.get("strides", [1] * count), settings.get("dilations", [1] * count)
    pads = np.reshape(settings.get("pads", [0] * 2 * count), (2, count)).sum(axis=0)
    return [a for a in range(count) if strides[a] == 1 and pads[a] == dilations[a] * (kernel[a] - 1)]
