"""Symbolic dimensions that have two names in a graph and are one.

ONNX's shape inference gives a new name to every dimension that it cannot follow: the output of a Conv whose padding keeps the
length, the result of a broadcast, the axes that a Slice does not cut. Each rule here says which dimensions are equal whatever
the inputs are; a dimension that equals a number is that number.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.sample import Sample

Dim = int | str | None
Shape = tuple[Dim, ...]
Constant = Callable[[str], npt.NDArray[Any] | None]

BROADCAST = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Sum", "Max", "Min", "PRelu", "Where", "And", "Or", "Xor",
     "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"}
)  # fmt: skip


def equal_dims(nodes: Sequence[onnx.NodeProto], shapes: dict[str, Shape], constant: Constant) -> dict[str, Dim]:
    """Return the names that stand for the same length as another name, or as a number -> that one.

    Args:
        nodes: in topological order.
        shapes: of the tensors, as far as they are known.
        constant: returns the value of a constant tensor, None for any other.
    """
    same: dict[str, Dim] = {}

    def first(dim: Dim) -> Dim:
        while isinstance(dim, str) and dim in same:
            dim = same[dim]
        return dim

    for node in nodes:
        for one, other in _equal(node, shapes, constant, first):
            names = sorted((first(one), first(other)), key=lambda dim: isinstance(dim, str))
            if names[0] != names[1] and isinstance(names[1], str) and names[0] is not None:
                # The name that comes first in the graph is kept.
                kept, replaced = (first(one), first(other)) if isinstance(names[0], str) else (names[0], names[1])
                same[replaced] = kept  # type: ignore[index]
    return {name: first(name) for name in same}


def drop_contradicted_names(graph: onnx.GraphProto, samples: Iterable[Sample]) -> None:
    """Remove the names of axes that are of different lengths in one sample, in place.

    Some exporters give one name to all axes of free length. ONNX Runtime takes two tensors of such axes for equally large,
    and lets them share memory.
    """
    declared = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    wrong: set[str] = set()
    for sample in samples:
        lengths: dict[str, int] = {}
        for name, array in sample.inputs.items():
            for dim, length in zip(declared.get(name, []), array.shape, strict=False):
                if dim and lengths.setdefault(dim, length) != length:
                    wrong.add(dim)
    if not wrong:
        return
    for value in (value for scope in graphs_of(graph) for value in (*scope.input, *scope.output, *scope.value_info)):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in wrong:
                axis.ClearField("dim_param")


def _equal(
    node: onnx.NodeProto, shapes: dict[str, Shape], constant: Constant, first: Callable[[Dim], Dim]
) -> list[tuple[Dim, Dim]]:
    """Return pairs of dimensions that a node makes equal: one of an input, and one of its output."""
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


def _broadcast(before: Sequence[Shape], after: Shape, first: Callable[[Dim], Dim]) -> list[tuple[Dim, Dim]]:
    pairs: list[tuple[Dim, Dim]] = []
    for place, dim in enumerate(reversed(after), 1):
        read = {first(shape[-place]) for shape in before if len(shape) >= place} - {1}
        if len(read) == 1:
            pairs.append((read.pop(), dim))
    return pairs


def _kept_axes(settings: dict[str, Any], kernel: Sequence[int] | None) -> list[int]:
    """Return the spatial axes whose length a Conv keeps."""
    if kernel is None or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return []
    count = len(kernel)
    strides, dilations = settings.get("strides", [1] * count), settings.get("dilations", [1] * count)
    pads = np.reshape(settings.get("pads", [0] * 2 * count), (2, count)).sum(axis=0)
    return [a for a in range(count) if strides[a] == 1 and pads[a] == dilations[a] * (kernel[a] - 1)]
