"""What calibration has seen of each tensor: enough for every range method, kept in one file."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from pipeline.calibration.bins import ROWS, BinCounts
from pipeline.calibration.channel_pairs import Reach, reach_of
from pipeline.calibration.derived_tensors import DerivedTensor, MonotoneOp
from pipeline.calibration.histogram import Histogram
from pipeline.errors import DataError, did_you_mean


@dataclass(frozen=True)
class ChannelStatistics:
    """Statistics of a tensor along one axis.

    Attributes:
        axis: which.
        low: the minimum of each channel, float32 (channels,).
        high: the maximum of each channel, float32 (channels,).
        mean: the mean of each channel, float64 (channels,).
        count: values per channel.
        reach: how far channels 0 and 1, 2 and 3, ... go together, as `channel_pairs.reach_of` says; None: not asked for.
    """

    axis: int
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float64]
    count: int
    reach: Reach | None = None

    @classmethod
    def of(cls, array: npt.NDArray[np.float32], axis: int, *, pairs: bool = False) -> "ChannelStatistics":
        """Return the statistics of one array along an axis; of an even number of channels also in pairs, if asked to."""
        channels = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        mean = channels.mean(axis=1, dtype=np.float64)
        reach = reach_of(channels) if pairs and not len(channels) % 2 else None
        return cls(axis, channels.min(axis=1), channels.max(axis=1), mean, channels.shape[1], reach)

    def merge(self, other: "ChannelStatistics") -> "ChannelStatistics":
        """Return the statistics of both sets of samples."""
        count = self.count + other.count
        mean = self.mean + (other.mean - self.mean) * (other.count / max(count, 1))
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        reach = None if self.reach is None or other.reach is None else np.maximum(self.reach, other.reach)
        return replace(self, low=low, high=high, mean=mean, count=count, reach=reach)


@dataclass(frozen=True)
class TensorStatistics:
    """What was seen of one tensor.

    Attributes:
        sample_low: the minimum of each sample, float32 (samples,); 0 where the tensor was empty.
        sample_high: the maximum of each sample, float32 (samples,); 0 where the tensor was empty.
        count: how many values were seen.
        histogram: what was seen, None where only extremes were collected.
        channels: statistics along one axis, where they were asked for.
    """

    sample_low: npt.NDArray[np.float32]
    sample_high: npt.NDArray[np.float32]
    count: int
    histogram: Histogram | None = None
    channels: ChannelStatistics | None = None

    @property
    def low(self) -> float:
        """The smallest value seen."""
        return float(self.sample_low.min())

    @property
    def high(self) -> float:
        """The largest value seen."""
        return float(self.sample_high.max())

    def image(self, step: MonotoneOp) -> "TensorStatistics":
        """Return the statistics of the values after `step`; channels are not mapped."""
        histogram = None if self.histogram is None else self.histogram.image(step)
        return TensorStatistics(step(self.sample_low), step(self.sample_high), self.count, histogram)


@dataclass(frozen=True)
class Measurement:
    """What was measured of one tensor: like `TensorStatistics`, before its histogram is laid out."""

    sample_low: npt.NDArray[np.float32]
    sample_high: npt.NDArray[np.float32]
    count: int
    bins: BinCounts | None
    channels: ChannelStatistics | None

    def statistics(self) -> TensorStatistics:
        """Return it as range methods read it."""
        low, high = self.sample_low.min(), self.sample_high.max()
        histogram = None if self.bins is None else self.bins.histogram(float(low), float(high))
        return TensorStatistics(self.sample_low, self.sample_high, self.count, histogram, self.channels)


@dataclass(frozen=True)
class Statistics:
    """The statistics of a graph's tensors over a calibration set.

    Attributes:
        samples: ids of the samples, in the order of each tensor's `sample_low`.
        measured: tensor -> what was measured.
        images: tensors that were not measured, since they follow from one that was.
    """

    samples: tuple[str, ...]
    measured: dict[str, Measurement]
    images: dict[str, DerivedTensor] = field(default_factory=dict)

    def __getitem__(self, tensor: str) -> TensorStatistics:
        """Return the statistics of one tensor.

        Raises:
            DataError: it was not collected.
        """
        image = self.source(tensor)
        statistics = self.measured[image.source].statistics()
        for step in image.steps:
            statistics = statistics.image(step)
        return statistics

    def source(self, tensor: str) -> DerivedTensor:
        """Return the measured tensor that a tensor's statistics follow from, and how.

        Raises:
            DataError: it was not collected.
        """
        image = self.images.get(tensor, DerivedTensor(tensor))
        if image.source not in self.measured:
            known = (*self.measured, *self.images)
            raise DataError(f"No statistics were collected of tensor {tensor!r}.{did_you_mean(tensor, known)}")
        return image

    def __contains__(self, tensor: object) -> bool:
        return tensor in self.measured or tensor in self.images

    def save(self, file: Path | IO[bytes]) -> None:
        """Write everything but the reach of channels to one .npz, without pickles."""
        parts = self.measured.values()
        kept = {tensor: part.channels for tensor, part in self.measured.items() if part.channels}
        counted = {tensor: part.bins for tensor, part in self.measured.items() if part.bins}
        used = {tensor: np.flatnonzero(bins.counts) for tensor, bins in counted.items()}
        header = {
            "samples": self.samples,
            "measured": list(self.measured),
            "images": {
                tensor: [image.source, [[step.negative_slope, step.low, step.high] for step in image.steps]]
                for tensor, image in self.images.items()
            },
            "counts": [part.count for part in parts],
            "bins": {tensor: [bins.exponent, len(used[tensor])] for tensor, bins in counted.items()},
            "channels": {tensor: [part.axis, part.count, len(part.low)] for tensor, part in kept.items()},
        }
        np.savez(
            file,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            low=_joined([part.sample_low for part in parts], np.float32),
            high=_joined([part.sample_high for part in parts], np.float32),
            bin_index=_joined(list(used.values()), np.uint16),
            bin_count=_small(_joined([bins.counts.ravel()[used[tensor]] for tensor, bins in counted.items()], np.int64)),
            channel_low=_joined([part.low for part in kept.values()], np.float32),
            channel_high=_joined([part.high for part in kept.values()], np.float32),
            channel_mean=_joined([part.mean for part in kept.values()], np.float64),
        )

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> "Statistics":
        """Read what `save` has written."""
        with np.load(file, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        header = json.loads(stored["header"].tobytes())
        bins: dict[str, BinCounts] = {}
        start = 0
        for tensor, (exponent, size) in header["bins"].items():
            counts = np.zeros(2 * (1 + ROWS), np.int64)
            counts[stored["bin_index"][start : start + size]] = stored["bin_count"][start : start + size]
            bins[tensor] = BinCounts(exponent, counts.reshape(-1, 2))
            start += size
        channels: dict[str, ChannelStatistics] = {}
        start = 0
        for tensor, (axis, count, size) in header["channels"].items():
            low, high, mean = (stored[f"channel_{name}"][start : start + size] for name in ("low", "high", "mean"))
            channels[tensor] = ChannelStatistics(axis, low, high, mean, count)
            start += size
        lows, highs = (stored[name].reshape(-1, len(header["samples"])) for name in ("low", "high"))
        measured = {
            tensor: Measurement(low, high, count, bins.get(tensor), channels.get(tensor))
            for tensor, low, high, count in zip(header["measured"], lows, highs, header["counts"], strict=True)
        }
        images = {
            tensor: DerivedTensor(source, tuple(MonotoneOp(*step) for step in steps))
            for tensor, (source, steps) in header["images"].items()
        }
        return cls(tuple(header["samples"]), measured, images)


def _joined(arrays: list[npt.NDArray[np.generic]], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Return the arrays one after the other; an empty one where there is none."""
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype)


def _small(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return counts in the smallest type that holds them."""
    return counts.astype(np.min_scalar_type(counts.max(initial=0)))
