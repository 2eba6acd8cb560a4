"""From what was seen of a tensor to the range it is quantized over."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from pipeline.calibration.derived_tensors import DerivedTensor
from pipeline.calibration.histogram import Histogram
from pipeline.calibration.statistics import Statistics, TensorStatistics
from pipeline.errors import ConfigError, DataError


@dataclass(frozen=True)
class Range:
    """The values that a tensor is quantized over: low <= 0 <= high."""

    low: float
    high: float


@dataclass(frozen=True)
class MinMax:
    """All that was seen."""


@dataclass(frozen=True)
class MovingAverage:
    """An exponential moving average of each sample's extremes (Jacob et al. 2018, arXiv:1712.05877, section 3.1).

    Attributes:
        momentum: the weight of the past, 0 (the last sample alone) to below 1.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum: {self.momentum} is not from 0 to below 1.")


@dataclass(frozen=True)
class Percentile:
    """The narrowest range that leaves out an equal share of the values at each end.

    Attributes:
        percentile: the share of values within the range, in percent. A symmetric range leaves out the largest magnitudes.
    """

    percentile: float = 99.999

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"percentile: {self.percentile} is not above 50, and at most 100.")


@dataclass(frozen=True)
class Entropy:
    """The range whose quantized distribution loses the least information: `entropy.py`."""


@dataclass(frozen=True)
class MeanSquaredError:
    """The range with the least expected squared error of quantization: `mse.py`."""


Method = MinMax | MovingAverage | Percentile | Entropy | MeanSquaredError


def tensor_ranges(
    statistics: Statistics, tensors: Collection[str], method: Method, *, levels: int = 256, symmetric: bool = False
) -> dict[str, Range]:
    """Return the ranges of tensors; they always include zero.

    Tensors that hold the same values, moved, are looked at once.

    Args:
        statistics: what calibration has seen.
        tensors: whose ranges.
        method: how the ranges follow.
        levels: of the integer type: 256 for 8 bits, 65,536 for 16.
        symmetric: a range is [-t, t], and the lowest level stays unused (int8: -127 to 127).

    Raises:
        DataError: nothing was collected of a tensor, no histogram where the method needs one, or the graph itself puts
            infinities there.
    """
    sources = {tensor: statistics.source(tensor) for tensor in tensors}
    names = {source: tensor for tensor, source in sources.items()}
    ranges: dict[DerivedTensor, Range] = {}
    for source, tensor in names.items():
        lowest, highest = _ends(statistics[tensor], tensor, method, levels, symmetric)
        low, high = min(lowest, 0.0), max(highest, 0.0)
        if symmetric:
            high = max(-low, high)
            low = -high
        ranges[source] = Range(low, high)
    return {tensor: ranges[source] for tensor, source in sources.items()}


def _ends(seen: TensorStatistics, tensor: str, method: Method, levels: int, symmetric: bool) -> tuple[float, float]:
    for extreme in (seen.low, seen.high):
        if np.isinf(extreme):
            raise DataError(
                f"Tensor {tensor!r} holds {extreme}, with which the graph masks: no range has room for it. Keep the nodes "
                "that read or write it in float (mode.nodes_to_exclude)."
            )
    match method:
        case MinMax():
            return seen.low, seen.high
        case MovingAverage(momentum):
            return _moving_average(seen.sample_low, momentum), _moving_average(seen.sample_high, momentum)
        case Percentile(percentile):
            return _percentile(_histogram(seen, tensor), percentile / 100, symmetric)
        case Entropy():
            from pipeline.calibration.entropy import entropy_range

            return entropy_range(_histogram(seen, tensor), levels, symmetric)
        case MeanSquaredError():
            from pipeline.calibration.mse import mse_range

            return mse_range(_histogram(seen, tensor), levels, symmetric)
        case _:
            assert_never(method)


def _moving_average(extremes: npt.NDArray[np.float32], momentum: float) -> float:
    average = float(extremes[0])
    for extreme in extremes[1:]:
        average = momentum * average + (1 - momentum) * float(extreme)
    return average


def _percentile(seen: Histogram, share: float, symmetric: bool) -> tuple[float, float]:
    if symmetric:
        return 0.0, seen.magnitudes().quantile(share)
    outside = (1 - share) / 2
    return seen.quantile(outside), seen.quantile(1 - outside)


def _histogram(seen: TensorStatistics, tensor: str) -> Histogram:
    if seen.histogram is None:
        raise DataError(f"Only the extremes of tensor {tensor!r} were collected: collect with histograms=True.")
    return seen.histogram
