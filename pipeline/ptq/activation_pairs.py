"""Finer weights on processors that add two products in 16 bits: what calibration says of two activations together.

Without it, both activations of a pair may be 255, and a large pair of weights makes the scale of its channel coarse
(`pipeline.quantize.paired_sums`). Neighbouring channels are seldom at their largest at the same time, and many are never near
the largest of the tensor. So the sums stay exact for all that calibration has seen, and some way beyond (`HEADROOM`), with
weights that are nearly as fine as those of 8 bits.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.calibration.channel_pairs import Reach
from pipeline.calibration.collect import collect
from pipeline.config.choices import Format, IntegerType
from pipeline.config.mode_settings import StaticConfig
from pipeline.graph.attributes import int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.quantize.operators import keeps_values
from pipeline.quantize.paired_sums import Pairing, PairLimits, corners_of, pairing_of
from pipeline.quantize.qdq_writer import activation_qparams
from pipeline.quantize.qparams import QuantParams, qparams_of_weights
from pipeline.quantize.static import Ranges, pair_settings
from pipeline.quantize.weight_storage import output_axis
from pipeline.sample import Sample

CHANNEL_AXIS = 1  # of what a Conv reads
SAME_RANGE = frozenset({"Identity", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})


def looks_at_pairs(mode: StaticConfig) -> bool:
    """Return whether weights depend on activations: on targets that add in 16 bits, unless numbers are learned later."""
    settings = pair_settings(mode)
    eight_bits = settings.weights is IntegerType.int8 and settings.activations in (IntegerType.int8, IntegerType.uint8)
    return settings.in_16_bits and eight_bits and mode.format is Format.qdq and not mode.reconstruct


def reaches_of(
    model: onnx.ModelProto, nodes: Collection[str], samples: Sequence[Sample], *, threads: int, seed: int
) -> dict[str, Reach]:
    """Return how far neighbouring channels go together of what nodes read: tensor -> (pairs, directions).

    Args:
        model: the prepared graph.
        nodes: names; Convs with an even number of channels per group count, and their weights must be constants.
        samples: the calibration set, which the graph runs over once.
        threads: intra-op threads.
        seed: of the graph's own noise.
    """
    read = {node.input[0] for node, _ in _paired_convs(model, nodes)}
    axes = {tensor: CHANNEL_AXIS for tensor in read - initializers_of(model).keys()}
    if not axes:
        return {}
    seen = collect(
        model, samples, tensors=list(axes), channel_axes=axes, channel_pairs=True, histograms=False, threads=threads, seed=seed
    )
    found = {tensor: seen[tensor].channels for tensor in axes}
    return {tensor: channels.reach for tensor, channels in found.items() if channels is not None and channels.reach is not None}


def weight_grids(
    model: onnx.ModelProto, nodes: Collection[str], mode: StaticConfig, ranges: Ranges, reaches: Mapping[str, Reach]
) -> dict[str, QuantParams]:
    """Return the grids of weights whose sums fit 16 bits on calibration data: node -> grid.

    Args:
        model: the graph whose weights they are, before these are rounded.
        nodes: names.
        mode: types.
        ranges: of activations.
        reaches: as `reaches_of` returns them.
    """
    settings, constants = pair_settings(mode), initializers_of(model)
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    found: dict[str, QuantParams] = {}
    for node, groups in _paired_convs(model, nodes):
        reach = reaches.get(node.input[0])
        source = node.input[0]
        while source not in ranges and source in makers and makers[source].op_type in SAME_RANGE:
            if not keeps_values(makers[source], constants):
                break
            source = makers[source].input[0]
        if reach is None or source not in ranges:
            continue
        activation = activation_qparams(source, {}, settings, ranges)
        zero_point = int(activation.zero_point) + (128 if settings.activations is IntegerType.int8 else 0)
        limits = PairLimits(Pairing.conv, corners_of(reach, float(activation.scale), zero_point, groups))
        weight = np.asarray(numpy_helper.to_array(constants[node.input[1]]), np.float32)
        axis = output_axis(node, weight.ndim) if mode.per_channel else None
        found[node.name] = qparams_of_weights(weight, settings.weights, axis=axis, reduced=False, pairs=limits)
    return found


def _paired_convs(model: onnx.ModelProto, nodes: Collection[str]) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Yield the named Convs whose pairs are always of the same two channels, with their groups."""
    constants, wanted = initializers_of(model), set(nodes)
    for node in model.graph.node:
        if node.name not in wanted or node.op_type != "Conv" or node.input[1] not in constants:
            continue
        shape = tuple(constants[node.input[1]].dims)
        if pairing_of(node, shape) is Pairing.conv and shape[1] % 2 == 0:
            yield node, int_attribute(node, "group", 1)
