"""What has been seen so far of tensors that leave ONNX Runtime together."""

from collections.abc import Collection, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from pipeline.calibration.bins import CELLS, LOWEST_EXPONENT, BinCounts, Counts32, Values, measure
from pipeline.errors import DataError, ModelError
from pipeline.samples import Sample

LARGEST_COUNT = 2**32 - 1

Array = npt.NDArray[np.generic]


class Tallies:
    """Extremes and counts of tensors, to which one sample after the other is added.

    Attributes:
        tensors: their names.
        masks: those of them that may have infinities, with which the graph masks; they are not counted.
        sizes: values of each tensor, int64 (tensors,).
    """

    def __init__(self, tensors: Sequence[str], histograms: bool, masks: Collection[str] = ()) -> None:
        self.tensors = tuple(tensors)
        self.masks = frozenset(masks)
        self.sizes = np.zeros(len(self.tensors), np.int64)
        self._lows, self._highs = bytearray(), bytearray()  # many small arrays would lie scattered, and pin what is freed
        self._exponents = np.full(len(self.tensors), LOWEST_EXPONENT)
        self._earlier: list[BinCounts] = []  # counted before `_counts`
        self._unsaved = np.zeros_like(self.sizes)  # values in `_counts`
        self._counts: Counts32 = np.zeros((len(self.tensors) if histograms else 0, *CELLS), np.uint32)

    def add(self, arrays: Sequence[Array], sample: Sample) -> None:
        """Measure one sample's tensors, floating-point numbers of any shape.

        Raises:
            DataError: a value is NaN, or infinite where the graph does not mean it.
        """
        low, high = (np.empty(len(arrays), np.float32) for _ in range(2))
        sizes = np.array([array.size for array in arrays])
        self.sizes += sizes
        self._unsaved += sizes
        if self._unsaved.max() > LARGEST_COUNT:
            self._earlier, self._unsaved = self.bins(), sizes
            self._counts = np.zeros_like(self._counts)
        for index, array in enumerate(arrays):
            if not measure(_values(array), index, low, high, self._exponents, self._counts):
                finite = self._finite_part(self.tensors[index], array, sample)
                measure(finite, index, low.copy(), high.copy(), self._exponents, self._counts)
        self._lows += low.tobytes()
        self._highs += high.tobytes()

    def extremes(self) -> tuple[Values, Values]:
        """Return minimum and maximum of each tensor in each sample, (tensors, samples)."""
        low, high = (
            np.frombuffer(bytes(part), np.float32).reshape(-1, len(self.tensors)) for part in (self._lows, self._highs)
        )
        return low.T.copy(), high.T.copy()

    def bins(self) -> list[BinCounts]:
        """Return the counts of each tensor's values; nothing where only extremes are wanted."""
        counted = [BinCounts(int(exponent), counts) for exponent, counts in zip(self._exponents, self._counts, strict=False)]
        return [bins.merge(other) for bins, other in zip(counted, self._earlier, strict=True)] if self._earlier else counted

    def _finite_part(self, tensor: str, array: Array, sample: Sample) -> Values:
        """Return the finite values of a tensor, which may have infinities where the graph masks with them."""
        if tensor not in self.masks or np.isnan(array).any():
            require_finite(tensor, array, sample)
        return _values(array[np.isfinite(array)])


def require_floats(tensor: str, array: Array) -> None:
    """Raise a ModelError if a tensor holds no floating-point numbers."""
    if array.dtype.kind != "f":
        raise ModelError(f"Tensor {tensor!r} holds {array.dtype}, no floating-point numbers, and has no range.")


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
        values = np.require(array, np.float32, ["C", "A"])  # takes long to see that nothing is to be done
    return values.reshape(-1)
