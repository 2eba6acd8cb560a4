"""From calibration samples to ranges: the range engine measures, the mode's method decides."""

from collections.abc import Callable, Collection, Sequence
from typing import assert_never

import onnx

from pipeline.calibration.range_selection import (
    Entropy,
    MeanSquaredError,
    Method,
    MinMax,
    MovingAverage,
    Percentile,
    tensor_ranges,
)
from pipeline.calibration.statistics import Statistics
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import IntegerType, RangeMethod
from pipeline.config.mode_settings import StaticConfig
from pipeline.quantize.static import Ranges
from pipeline.quantize.target import activation_type_of
from pipeline.sample import Sample

SIGNED = (IntegerType.int8, IntegerType.int16)


def measured_ranges(
    model: onnx.ModelProto,
    samples: Sequence[Sample],
    tensors: Sequence[str],
    mode: StaticConfig,
    *,
    without: Collection[str] = (),
    threads: int,
    seed: int,
    on_sample: Callable[[int], None],
) -> Ranges:
    """Return the range of each tensor.

    All that layers read and make is measured at once and kept, so that another method, type or choice of layers does not run
    the model again; where the mode quantizes more than layers, so is all that any mode may quantize.

    Args:
        model: the prepared graph.
        samples: the calibration set.
        tensors: whose ranges are wanted.
        mode: how a range follows from what was seen.
        without: tensors that are not measured: they have no range.
        threads: intra-op threads.
        seed: of the graph's own noise.
        on_sample: called with the number of samples done.

    Raises:
        DataError: a sample does not fit the graph, or leads to NaN or Inf.
    """
    statistics = cached_statistics(
        model, samples, needed=tensors, without=without, threads=threads, seed=seed, on_sample=on_sample
    )
    return ranges_from(statistics, tensors, mode)


def ranges_from(statistics: Statistics, tensors: Sequence[str], mode: StaticConfig) -> Ranges:
    """Return the range of each tensor that follows from what calibration has seen."""
    activations = activation_type_of(mode.activation_type, mode.target)
    levels = 1 << (16 if activations in (IntegerType.int16, IntegerType.uint16) else 8)
    symmetric = mode.symmetric and activations in SIGNED
    method = method_of(mode)
    found = tensor_ranges(statistics, tensors, method, levels=levels, symmetric=symmetric)
    return Ranges((tensor, (span.low, span.high)) for tensor, span in found.items())


def method_of(mode: StaticConfig) -> Method:
    """Return the range method that the settings mean."""
    match mode.method:
        case RangeMethod.minmax:
            return MinMax()
        case RangeMethod.moving_average:
            return MovingAverage(mode.momentum)
        case RangeMethod.percentile:
            return Percentile(mode.percentile)
        case RangeMethod.entropy:
            return Entropy()
        case RangeMethod.mse:
            return MeanSquaredError()
        case _:
            assert_never(mode.method)
