"""Cross-layer equalization: move the differences between channels out of activations, into weights.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721), section 4.1.
A tensor has one scale for all channels, so that one channel of large values leaves few levels to the others. Between two
convolutions with Relu or LeakyRelu between them, channel c can be divided by s[c] in the first one's weights and multiplied
in the second one's, exactly. The paper levels the ranges of the weights on both sides; here weights have a scale per
channel already, and it pays to level the measured maxima of the activations, which are what is rounded coarsely. The
paper's pairs become groups (`channel_groups.py`): all tensors of a residual stream can be rescaled together.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.calibration.collect import collect
from pipeline.graph.op_sets import RESCALABLE
from pipeline.graph.prepare import initializers_of
from pipeline.ptq.channel_groups import ChannelGroup, rescale, rows_of_channel
from pipeline.ptq.channel_search import channel_groups
from pipeline.quantize.plan import Plan, Precision
from pipeline.sample import FloatArray, Sample

FLOOR = 1 / 64  # of a channel's maximum relative to the largest: a dead channel need not be raised to full range


def equalize(
    model: onnx.ModelProto, plan: Plan, samples: Sequence[Sample], *, strength: float = 1.0, threads: int = 1
) -> onnx.ModelProto:
    """Return an equal float graph whose activations between linear operators have channels of similar range.

    Args:
        model: the prepared float graph, its shapes inferred; it is not changed.
        plan: which node becomes what: only tensors that it rounds matter.
        samples: calibration data, read once.
        strength: 1: activations get equal maxima; 0: the weights that read them do.
        threads: of ONNX Runtime.
    """
    groups = [group for group in channel_groups(model) if group.op_types <= RESCALABLE]
    return level_channels(model, groups, rounded_tensors(model, plan), samples, strength=strength, threads=threads)


def rounded_tensors(model: onnx.ModelProto, plan: Plan) -> set[str]:
    """Return the activations that the plan rounds to integers."""
    static, dynamic = set(plan.nodes(Precision.static_int8)), set(plan.nodes(Precision.dynamic_int8))
    constants = initializers_of(model)
    found = {tensor for node in model.graph.node if node.name in static for tensor in (*node.input, *node.output)}
    found |= {node.input[0] for node in model.graph.node if node.name in dynamic}
    return found - constants.keys()


def level_channels(
    model: onnx.ModelProto,
    groups: Collection[ChannelGroup],
    tensors: Collection[str],
    samples: Sequence[Sample],
    *,
    strength: float,
    threads: int,
) -> onnx.ModelProto:
    """Return the graph with groups rescaled by s[c] = maximum of activations ** strength / of weights ** (1 - strength)."""
    axes = {axis.tensor: axis.axis for group in groups for axis in group.axes if axis.tensor in tensors}
    leveled = onnx.ModelProto()
    leveled.CopyFrom(model)
    if not axes:
        return leveled
    seen = collect(model, samples, tensors=list(axes), channel_axes=axes, histograms=False, threads=threads)
    maxima: dict[str, FloatArray] = {}
    for tensor in axes:
        channels = seen[tensor].channels
        assert channels is not None
        maxima[tensor] = np.maximum(np.abs(channels.low), np.abs(channels.high)).astype(np.float64)
    for group in groups:
        activations = [maxima[axis.tensor] for axis in group.axes if axis.tensor in maxima]
        if activations:
            rescale(leveled, group, factors_of(activations, _weight_maxima(model, group), strength))
    return leveled


def factors_of(activations: Sequence[FloatArray], weights: FloatArray, strength: float) -> FloatArray:
    """Return one factor per channel, of geometric mean 1.

    Args:
        activations: the largest magnitude of each channel (channels,), one array per tensor of a group. Tensors of a stream
            may differ in size, so that each counts relative to its own largest channel.
        weights: the largest magnitude by which each channel is multiplied (channels,).
        strength: 1: by activations alone; 0: by weights alone.
    """
    tiny = np.finfo(np.float32).tiny
    shares = [np.log(np.maximum(maxima / max(maxima.max(), tiny), FLOOR)) for maxima in activations]
    shares_of_weights = np.log(np.maximum(weights / max(weights.max(), tiny), FLOOR))
    exponents = strength * np.mean(shares, axis=0) - (1 - strength) * shares_of_weights
    factors: FloatArray = np.exp(exponents - exponents.mean())
    return factors


def _weight_maxima(model: onnx.ModelProto, group: ChannelGroup) -> FloatArray:
    constants = initializers_of(model)
    read = [side for side in group.sides if side.power > 0]
    rows = [rows_of_channel(numpy_helper.to_array(constants[side.constant]), side) for side in read]
    maxima = [np.abs(np.where(np.isfinite(values), values, 0)).max(axis=1) for values in rows]  # NaN stays where it is
    return np.asarray(np.max(maxima, axis=0), np.float64)
