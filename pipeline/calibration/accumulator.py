"""What has been seen so far of tensors that leave ONNX Runtime together."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import cast

import numpy as np

from pipeline.calibration.bins import CELLS, LOWEST_EXPONENT, BinCounts, Counts32, Values, measure
from pipeline.calibration.statistics import ChannelStatistics, Measurement
from pipeline.errors import DataError, ModelError
from pipeline.sample import Array, Sample

LARGEST_COUNT = 2**32 - 1


class TensorAccumulator:
    """Extremes and counts of tensors, to which one sample after the other is added.

    Attributes:
        tensors: their names.
        masks: returns tensors that may have infinities, which the graph masks with; these are not counted.
        axes: tensor -> axis along which its statistics are wanted as well.
        pairs: whether those are wanted of pairs of channels, too.
        sizes: values of each tensor, int64 (tensors,).
        channels: tensor -> its statistics along that axis.
    """

    def __init__(
        self,
        tensors: Mapping[str, Array],
        histograms: bool,
        masks: Callable[[], Collection[str]] = frozenset,
        axes: Mapping[str, int] | None = None,
        *,
        pairs: bool = False,
    ) -> None:
        """Begin with the tensors of some sample, which is not added.

        Raises:
            ModelError: a tensor does not hold floating-point numbers.
        """
        for name, array in tensors.items():
            if array.dtype.kind != "f":
                raise ModelError(f"Tensor {name!r} holds {array.dtype}, not floating-point numbers, so it has no range.")
        self.tensors = tuple(tensors)
        self.masks = masks
        self.axes = {name: axis for name, axis in (axes or {}).items() if name in tensors}
        self.pairs = pairs
        self.sizes = np.zeros(len(self.tensors), np.int64)
        self.channels: dict[str, ChannelStatistics] = {}
        self._lows, self._highs = bytearray(), bytearray()  # many small arrays would lie scattered, and pin what is freed
        self._exponents = np.full(len(self.tensors), LOWEST_EXPONENT)
        self._earlier: list[BinCounts] = []  # counted before `_counts`
        self._unsaved = np.zeros_like(self.sizes)  # values in `_counts`
        self._counts: Counts32 = np.zeros((len(self.tensors) if histograms else 0, *CELLS), np.uint32)

    def add(self, tensors: Mapping[str, Array], sample: Sample) -> None:
        """Measure the tensors of one more sample, of any shape.

        Raises:
            DataError: a value is NaN, or infinite where the graph does not mask with it.
        """
        arrays = [tensors[name] for name in self.tensors]
        sizes = np.array([array.size for array in arrays])
        self.sizes += sizes
        self._unsaved += sizes
        if self._unsaved.max() > LARGEST_COUNT:
            self._earlier, self._unsaved = self.bins(), sizes
            self._counts = np.zeros_like(self._counts)
        low, high = (np.empty(len(arrays), np.float32) for _ in range(2))
        for index, array in enumerate(arrays):
            if not measure(_values(array), index, low, high, self._exponents, self._counts):
                finite = self._finite_part(self.tensors[index], array, sample)
                measure(finite, index, low.copy(), high.copy(), self._exponents, self._counts)
        self._lows += low.tobytes()
        self._highs += high.tobytes()
        for name, axis in self.axes.items():
            if not tensors[name].size:
                continue
            seen = ChannelStatistics.of(np.asarray(tensors[name], np.float32), axis, pairs=self.pairs)
            self.channels[name] = self.channels[name].merge(seen) if name in self.channels else seen

    def bins(self) -> list[BinCounts]:
        """Return the counts of each tensor's values; nothing where only extremes are wanted."""
        counted = [BinCounts(int(exponent), counts) for exponent, counts in zip(self._exponents, self._counts, strict=False)]
        return [bins.merge(other) for bins, other in zip(counted, self._earlier, strict=True)] if self._earlier else counted

    def measurements(self) -> Iterator[tuple[str, Measurement]]:
        """Yield each tensor with what was seen of it."""
        low, high = (
            np.frombuffer(part, np.float32).reshape(-1, len(self.tensors)).T.copy() for part in (self._lows, self._highs)
        )
        bins = self.bins()
        for index, name in enumerate(self.tensors):
            counted = bins[index] if bins else None
            yield name, Measurement(low[index], high[index], int(self.sizes[index]), counted, self.channels.get(name))

    def _finite_part(self, tensor: str, array: Array, sample: Sample) -> Values:
        """Return the finite values of a tensor, which may have infinities where the graph masks with them."""
        if tensor not in self.masks() or np.isnan(array).any():
            require_finite(tensor, array, sample)
        return _values(array[np.isfinite(array)])


def require_finite(tensor: str, array: Array, sample: Sample) -> None:
    """Raise a DataError that names the first value that is not finite, if there is one."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        position = tuple(int(index) for index in wrong[0])
        raise DataError(
            f"Sample {sample.id!r}: tensor {tensor!r} is {array[position]} at {list(position)}, one of {len(wrong)} values "
            "that are not finite. Remove the sample, or look for the operator that overflows."
        )


def _values(array: Array) -> Values:
    """Return the values of a tensor one after the other, without a copy where they are."""
    values = cast(Values, array)
    if array.dtype != np.float32 or not array.flags.carray:
        values = np.require(array, np.float32, ["C", "A"])  # is slow even where nothing has to be done
    return values.reshape(-1)
