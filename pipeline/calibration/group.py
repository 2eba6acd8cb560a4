"""Tensors that are measured together: laid one after the other, so that one call of numpy serves them all.

Small tensors cost as much in calls as in values. A group has as many as fit the processor's cache, of about one size. Of each
sample, minimum and maximum are those of all values; of the values, those in the tails are counted without gaps, for that is
where ranges are decided, and of the others one in a number that grows with the number seen, with that weight. Where the
tails begin is read from what was counted, each time the number of samples has doubled.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import CELLS, LOWEST_EXPONENT, BinCounts, bins_of, codes_below, codes_of, exponents_of
from pipeline.errors import DataError, ModelError
from pipeline.samples import Sample

GROUP_VALUES = 1 << 18  # of one sample: 1 MiB, which stays in the cache while it is looked at again
GROUP_RATIO = 4  # the largest tensor to the smallest
STRIDES = np.array([1, 3, 5, 11, 23, 47, 97, 197, 397])  # odd, most of them prime: no channel is left out
BODY_VALUES = 1 << 12  # of each doubling of the number of values seen, about half of so many are counted between the tails
TAIL = 0.01  # the share of values at each end that is counted without gaps
LARGE_VALUES = 1 << 11  # of a tensor: to lay it beside others for its extremes takes longer than to look at it alone
FEW = 4  # times fewer values than bins are counted one by one: it takes longer for each, but no time for empty bins

Array = npt.NDArray[np.generic]
Values = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chosen:
    """Values of one sample that wait to be counted, tensor by tensor.

    Attributes:
        codes: as `codes_of` returns them.
        sizes: how many belong to each tensor, int64 (tensors,).
    """

    codes: Codes
    sizes: Ints


class Group:
    """What has been seen so far of tensors that are measured together.

    Attributes:
        tensors: their names.
        masks: those of them that may have infinities, with which the graph masks; they are not counted.
        samples: how many were measured.
        counts: values of each tensor, int64 (tensors,).
        bins: the counts of each tensor's values, as `BinCounts` has them; None where only extremes are wanted.
        waiting_bytes: of the values that wait to be counted.
    """

    def __init__(self, tensors: Sequence[str], histograms: bool, masks: Collection[str] = ()) -> None:
        self.tensors = tuple(tensors)
        self.masks = frozenset(masks)
        self.samples = 0
        self._lows, self._highs = bytearray(), bytearray()  # many small arrays would lie scattered, and pin what is freed
        self.counts = np.zeros(len(self.tensors), np.int64)
        self.exponents = np.full(len(self.tensors), LOWEST_EXPONENT)
        self.bins = np.zeros((len(self.tensors), *CELLS), np.int64) if histograms else None
        self.waiting_bytes = 0
        self._magnitudes = np.zeros(len(self.tensors), np.float32)
        self._stride = 1
        self._tails: list[tuple[Values, Values]] = []  # where they begin, as arrays of no dimension: numpy's fastest scalars
        self._waiting: list[Chosen] = []
        self._waiting_body: list[Chosen] = []

    def add(self, arrays: Sequence[Array], sample: Sample) -> None:
        """Measure one sample's tensors, floating-point numbers of any shape.

        Raises:
            DataError: a value is NaN, or infinite where the graph does not mean it.
        """
        self.samples += 1
        values, starts, low, high = self._looked_at(arrays)
        self._lows += low.tobytes()
        self._highs += high.tobytes()
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = [self._finite_part(name, array, sample) for name, array in zip(self.tensors, arrays, strict=True)]
            values, starts, low, high = self._looked_at(finite)
        self.counts += starts[1:] - starts[:-1]
        if self.bins is None:
            return
        np.maximum(self._magnitudes, np.maximum(-low, high), out=self._magnitudes)
        if self.samples & (self.samples - 1) == 0:  # 1, 2, 4, ...
            self._choose_anew(values, starts)
        if len(self.tensors) > 1:
            self._choose(values, starts)
        else:
            for start in range(0, values.size, GROUP_VALUES):
                part = values[start : start + GROUP_VALUES]
                self._choose(part, np.array([0, part.size]))
            self.count()  # there is nothing to gain from waiting

    def count(self) -> None:
        """Count the values that wait."""
        for waiting, weight in ((self._waiting, 1), (self._waiting_body, self._stride)):
            if waiting:
                self._count(np.concatenate([chosen.codes for chosen in waiting]), [chosen.sizes for chosen in waiting], weight)
            waiting.clear()
        self.waiting_bytes = 0

    def extremes(self) -> tuple[Values, Values]:
        """Return minimum and maximum of each tensor in each sample, (tensors, samples)."""
        low, high = (
            np.frombuffer(bytes(part), np.float32).reshape(-1, len(self.tensors)) for part in (self._lows, self._highs)
        )
        return low.T.copy(), high.T.copy()

    def tallies(self) -> Iterator[tuple[str, BinCounts | None]]:
        """Yield each tensor with the counts of its values."""
        for index, tensor in enumerate(self.tensors):
            bins = None if self.bins is None else BinCounts(int(self.exponents[index]), self.bins[index])
            yield tensor, bins

    def _looked_at(self, arrays: Sequence[Array]) -> tuple[Values, Ints, Values, Values]:
        """Return the values, laid out if they are to be counted, where each tensor begins, its minimum and its maximum."""
        starts = np.array([0, *accumulate(array.size for array in arrays)])
        if self.bins is None and starts[-1] >= LARGE_VALUES * len(arrays):
            least, most = np.minimum.reduce, np.maximum.reduce
            extremes = [(least(array, axis=None), most(array, axis=None)) if array.size else (0, 0) for array in arrays]
            low, high = np.array(extremes).astype(np.float32).T
            return np.empty(0, np.float32), starts, low, high
        values = _laid_out(arrays)
        return values, starts, *_extremes(values, starts)

    def _count(self, codes: Codes, sizes: Sequence[Ints], weight: int) -> None:
        assert self.bins is not None
        self._make_room()
        below = codes_below(self.exponents)
        if len(self.tensors) == 1:
            places: npt.NDArray[np.integer] = bins_of(codes, below[0])
        else:
            counts = np.concatenate(sizes)
            offsets = np.arange(len(self.tensors)) * self.bins[0].size
            places = np.repeat(np.tile(offsets, len(sizes)), counts)
            places += bins_of(codes, np.repeat(np.tile(below, len(sizes)), counts))
        if len(codes) < self.bins.size // FEW:
            np.add.at(self.bins.reshape(-1), places, weight)
        else:
            counted: npt.NDArray[np.int64] = np.bincount(places, minlength=self.bins.size).reshape(self.bins.shape)
            self.bins += counted if weight == 1 else weight * counted

    def _make_room(self) -> None:
        """Raise the exponents of the counts to what has been seen."""
        assert self.bins is not None
        exponents = np.maximum(self.exponents, exponents_of(codes_of(self._magnitudes)))
        for index in np.flatnonzero(exponents > self.exponents):
            raised = BinCounts(int(self.exponents[index]), self.bins[index])
            raised.raise_to(int(exponents[index]))
            self.bins[index] = raised.counts
        self.exponents = exponents

    def _choose_anew(self, values: Values, starts: Ints) -> None:
        """Decide which values are counted from now on, by what was seen so far; `values` are those of this sample."""
        assert self.bins is not None
        self.count()
        room = int(self.counts.min()) // BODY_VALUES
        self._stride = int(STRIDES[max(int(np.searchsorted(STRIDES, room, side="right")) - 1, 0)])
        if self._stride == 1:
            return
        if self.samples > 1:
            tails = [bins.tails(TAIL) for _, bins in self.tallies() if bins is not None]
        else:
            tails = [_tails(values[a : b : self._stride]) for a, b in pairwise(starts)]
        self._tails = [(np.asarray(lower), np.asarray(upper)) for lower, upper in tails]

    def _choose(self, values: Values, starts: Ints) -> None:
        """Set aside those of a sample's values that are to be counted."""
        codes = codes_of(values)
        if self._stride == 1:
            self._wait(self._waiting, Chosen(codes.copy(), np.diff(starts)))
            return
        tail, above = np.empty(values.size, bool), np.empty(values.size, bool)
        for (start, end), (lower, upper) in zip(pairwise(starts.tolist()), self._tails, strict=True):
            part = values[start:end]
            np.less(part, lower, out=tail[start:end])
            np.greater(part, upper, out=above[start:end])
        np.logical_or(tail, above, out=tail)
        taken = np.flatnonzero(tail)
        self._wait(self._waiting, Chosen(codes[taken], np.diff(np.searchsorted(taken, starts))))
        every = slice(self.samples % self._stride, None, self._stride)
        body = np.flatnonzero(~tail[every]) * self._stride + every.start
        self._wait(self._waiting_body, Chosen(codes[body], np.diff(np.searchsorted(body, starts))))

    def _wait(self, waiting: list[Chosen], chosen: Chosen) -> None:
        waiting.append(chosen)
        self.waiting_bytes += chosen.codes.nbytes

    def _finite_part(self, tensor: str, array: Array, sample: Sample) -> Array:
        """Return the finite values of a tensor, which may have infinities where the graph masks with them."""
        if tensor not in self.masks or np.isnan(array).any():
            require_finite(tensor, array, sample)
        return array[np.isfinite(array)]


def require_finite(tensor: str, array: Array, sample: Sample) -> None:
    """Raise a DataError that names the first value that is not finite, if there is one."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        position = tuple(int(index) for index in wrong[0])
        raise DataError(
            f"Sample {sample.id!r}: tensor {tensor!r} is {array[position]} at {list(position)}, one of {len(wrong)} values "
            "that are not finite. Remove the sample, or look for the operator that overflows."
        )


def groups_of(arrays: Mapping[str, Array], histograms: bool, masks: Collection[str]) -> Iterator[Group]:
    """Yield groups of the tensors of one sample, the small ones first.

    Raises:
        ModelError: a tensor holds no floating-point numbers.
    """
    names: list[str] = []
    values = 0
    for name, array in sorted(arrays.items(), key=lambda item: item[1].size):
        if array.dtype.kind != "f":
            raise ModelError(f"Tensor {name!r} holds {array.dtype}, no floating-point numbers, and has no range.")
        smallest = arrays[names[0]].size if names else array.size
        if histograms:
            full = values + array.size > GROUP_VALUES or array.size > GROUP_RATIO * smallest
        else:  # nothing is laid out but what is small
            full = (array.size < LARGE_VALUES) != (smallest < LARGE_VALUES)
        if names and full:
            yield Group(names, histograms, masks)
            names, values = [], 0
        names.append(name)
        values += array.size
    if names:
        yield Group(names, histograms, masks)


def _tails(values: Values) -> tuple[np.float32, np.float32]:
    """Return two values; the tails lie below the first, and above the second."""
    if not values.size:
        return np.float32(0), np.float32(0)
    outside = int(TAIL * values.size)
    ordered = np.partition(values, (outside, -outside - 1))
    return ordered[outside], ordered[-outside - 1]


def _laid_out(arrays: Sequence[Array]) -> Values:
    """Return the values of all arrays, one after the other."""
    flat = [array.reshape(-1) for array in arrays]
    if len(flat) == 1:
        return np.ascontiguousarray(flat[0], np.float32)
    return np.concatenate(flat, dtype=np.float32, casting="same_kind")


def _extremes(values: Values, starts: Ints) -> tuple[Values, Values]:
    """Return minimum and maximum of each tensor; 0 where it is empty."""
    firsts = starts[:-1]
    filled = starts[1:] > firsts
    if filled.all():
        return np.minimum.reduceat(values, firsts), np.maximum.reduceat(values, firsts)
    low, high = (np.zeros(len(filled), np.float32) for _ in range(2))
    if filled.any():
        low[filled] = np.minimum.reduceat(values, firsts[filled])
        high[filled] = np.maximum.reduceat(values, firsts[filled])
    return low, high
