"""Groups of tensors whose channels can be rescaled together without changing what a graph computes.

Dividing channel c of a tensor by s[c] > 0 is exact where every node that writes it can divide (a row of a Conv's weight, the
scale of a LayerNormalization), and every node that reads it can multiply (a column of a weight) or passes the factor on:
Relu and LeakyRelu are positively homogeneous, Add needs the same factor on both sides, Transpose moves the axis. So the axes
of tensors are joined wherever factors have to be the same, and a group is free where nothing else touches it. One convs1 ->
LeakyRelu -> convs2 is a group of two tensors; the whole residual stream of a HiFi-GAN stage is another.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pipeline.graph.prepare import initializers_of
from pipeline.sample import FloatArray


class Axis(NamedTuple):
    """An axis of an activation."""

    tensor: str
    axis: int


class Side(NamedTuple):
    """An axis of a constant that takes up the factors of a group.

    Attributes:
        constant: its name.
        axis: which. Axis 1 of a grouped convolution's weight counts within a group.
        power: 1 where the constant is multiplied by the factors, -1 where it is divided.
        groups: of a grouped convolution.
    """

    constant: str
    axis: int
    power: int
    groups: int = 1


@dataclass(frozen=True)
class ChannelGroup:
    """Axes of tensors that share one factor per channel.

    Attributes:
        axes: of activations.
        sides: the constants that take the factors up.
        op_types: of the nodes that write the tensors and own a constant that is divided.
    """

    axes: tuple[Axis, ...]
    sides: tuple[Side, ...]
    op_types: frozenset[str]


def rescale(model: onnx.ModelProto, group: ChannelGroup, factors: FloatArray) -> None:
    """Divide the channels of a group's tensors by the factors, by changing constants in place."""
    constants = initializers_of(model)
    for side in group.sides:
        constant = constants[side.constant]
        changed = numpy_helper.to_array(constant) * spread(factors**side.power, side, tuple(constant.dims))
        constant.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), side.constant))


def spread(factors: FloatArray, side: Side, shape: tuple[int, ...]) -> FloatArray:
    """Return one factor per channel in a shape that broadcasts against a constant of the given shape."""
    if side.groups == 1:
        return factors.reshape([-1 if axis == side.axis else 1 for axis in range(len(shape))])
    # rows are ordered by group: (groups, channels of a group) -> (rows, channels of a group, 1, ...)
    rows = np.repeat(factors.reshape(side.groups, -1), shape[0] // side.groups, axis=0)
    return rows.reshape(*rows.shape, *[1] * (len(shape) - 2))


def rows_of_channel(constant: npt.NDArray[np.float32], side: Side) -> npt.NDArray[np.float32]:
    """Return all values of a constant that one channel takes part in: (channels, values)."""
    if side.groups == 1:
        return np.moveaxis(constant, side.axis, 0).reshape(constant.shape[side.axis], -1)
    split = constant.reshape(side.groups, constant.shape[0] // side.groups, constant.shape[1], -1)
    return split.transpose(0, 2, 1, 3).reshape(side.groups * constant.shape[1], -1)
