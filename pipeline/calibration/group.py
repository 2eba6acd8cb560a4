"""Tensors that are measured together: laid one after the other, so that one call of numpy serves them all.

Small tensors cost as much in calls as in values. A group has as many as fit the processor's cache. Of each sample, minimum
and maximum are those of all values; of the values, those in the tails are counted without gaps, for that is where ranges
are decided, and of the others ever fewer: of the n-th sample, an n-th of `BODY_VALUES`, each with the weight of those that
it stands for. Where the tails begin is read from what was counted, each time the number of values has doubled.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.calibration.histogram import BinCounts, codes_of
from pipeline.errors import DataError
from pipeline.samples import Sample

GROUP_VALUES = 1 << 17  # of one sample: 512 KiB, which stay in the second-level cache while they are looked at again
STRIDES = np.array([1, 3, 5, 11, 23, 47, 97, 197, 397])  # odd, most of them prime: no channel is left out
BODY_VALUES = 1 << 13
TAIL = 0.01  # the share of values at each end that is counted without gaps
EVERYTHING = np.float32(np.inf)  # a lower tail that begins here has every value

Array = npt.NDArray[np.generic]
Values = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chosen:
    """The values of one sample that wait to be counted.

    Attributes:
        ends: int64 (tensors + 1,): those of tensor t lie from ends[t] to ends[t + 1].
        codes: uint16, as `codes_of` returns them.
        weights: uint16, how many values each stands for; None: one.
    """

    ends: Ints
    codes: npt.NDArray[np.uint16]
    weights: npt.NDArray[np.uint16] | None


class Group:
    """What has been seen so far of tensors that are measured together.

    Attributes:
        tensors: their names.
        lows: float32 (tensors,) for each sample.
        highs: float32 (tensors,) for each sample.
        counts: values of each tensor, int64 (tensors,).
        bins: of each tensor; None where only extremes are wanted.
        waiting_bytes: of the values that wait to be counted.
    """

    def __init__(self, tensors: Sequence[str], histograms: bool, masks: Collection[str] = ()) -> None:
        self.tensors = tuple(tensors)
        self.masks = frozenset(masks)
        self.lows: list[Values] = []
        self.highs: list[Values] = []
        number = len(self.tensors)
        self.counts = np.zeros(number, np.int64)
        self.bins = [BinCounts() for _ in self.tensors] if histograms else None
        self.waiting_bytes = 0
        self._waiting: list[Chosen] = []
        self._magnitudes = np.zeros(number, np.float32)
        self._lower = np.full(number, EVERYTHING)
        self._upper = np.full(number, EVERYTHING)
        self._tails_seen_at = np.zeros(number, np.int64)  # values

    def add(self, arrays: Sequence[Array], sample: Sample) -> None:
        """Measure one sample's tensors, floating-point numbers of any shape.

        Raises:
            DataError: a value is NaN, or infinite where the graph does not mean it.
        """
        values, starts = _laid_out(arrays)
        low, high = _extremes(values, starts)
        self.lows.append(low)
        self.highs.append(high)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = [self._finite_part(name, array, sample) for name, array in zip(self.tensors, arrays, strict=True)]
            values, starts = _laid_out(finite)
            low, high = _extremes(values, starts)
        self.counts += np.diff(starts)
        if self.bins is None:
            return
        np.maximum(self._magnitudes, np.maximum(-low, high), out=self._magnitudes)
        strides = self._strides(np.diff(starts))
        if strides.max(initial=1) > 1:
            self._look_for_tails(values, starts, strides)
        if len(self.tensors) > 1:
            self._choose(values, starts, strides)
            return
        for start in range(0, values.size, GROUP_VALUES):
            part = values[start : start + GROUP_VALUES]
            self._choose(part, np.array([0, part.size]), strides)

    def count(self) -> None:
        """Count the values that wait."""
        if self.bins is None or not self._waiting:
            return
        weighted = any(chosen.weights is not None for chosen in self._waiting)
        top = codes_of(self._magnitudes)
        for index, bins in enumerate(self.bins):
            spans = [slice(chosen.ends[index], chosen.ends[index + 1]) for chosen in self._waiting]
            pieces = [chosen.codes[span] for chosen, span in zip(self._waiting, spans, strict=True)]
            codes = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            weights = None
            if weighted:
                weights = np.concatenate(
                    [
                        np.ones(len(piece), np.uint16) if chosen.weights is None else chosen.weights[span]
                        for chosen, piece, span in zip(self._waiting, pieces, spans, strict=True)
                    ]
                )
            bins.add_codes(codes, int(top[index]), weights)
        self._waiting.clear()
        self.waiting_bytes = 0

    def _strides(self, sizes: Ints) -> Ints:
        """Return of how many values between the tails one is counted, for each tensor; 1 where all are."""
        strides: Ints = STRIDES[np.searchsorted(STRIDES, sizes * len(self.lows) // BODY_VALUES, side="right").clip(1) - 1]
        return strides

    def _choose(self, values: Values, starts: Ints, strides: Ints) -> None:
        """Set aside those of a sample's values that are to be counted."""
        codes = codes_of(values)
        if strides.max(initial=1) == 1:
            chosen = Chosen(starts, codes.copy(), None)
        else:
            tail, above, body = (np.zeros(values.size, bool) for _ in range(3))
            phase = len(self.lows)
            for start, end, stride, lower, upper in zip(
                starts.tolist(), starts[1:].tolist(), strides.tolist(), self._lower, self._upper, strict=False
            ):
                if stride == 1:
                    tail[start:end] = True
                    continue
                np.less(values[start:end], lower, out=tail[start:end])
                np.greater(values[start:end], upper, out=above[start:end])
                body[start + phase % stride : end : stride] = True
            np.logical_or(tail, above, out=tail)
            np.logical_or(tail, body, out=body)
            taken = np.flatnonzero(body)
            ends = np.searchsorted(taken, starts)
            weights = np.where(tail[taken], 1, np.repeat(strides, np.diff(ends))).astype(np.uint16)
            chosen = Chosen(ends, codes[taken], weights)
        self._waiting.append(chosen)
        self.waiting_bytes += 2 * chosen.codes.nbytes

    def _look_for_tails(self, values: Values, starts: Ints, strides: Ints) -> None:
        """Find out where the tails begin of those tensors whose number of values has doubled since it was last seen."""
        assert self.bins is not None
        due = np.flatnonzero((strides > 1) & (self.counts >= 2 * self._tails_seen_at) & (np.diff(starts) > 0))
        if not len(due):
            return
        self.count()
        for index in due:
            if self._tails_seen_at[index] == 0 and not self.bins[index].counts.any():  # the first sample
                seen = values[starts[index] : starts[index + 1] : strides[index]]
                outside = max(1, int(TAIL * seen.size))
                ordered = np.partition(seen, (outside - 1, -outside))
                self._lower[index], self._upper[index] = ordered[outside - 1], ordered[-outside]
            else:
                self._lower[index], self._upper[index] = self.bins[index].tails(TAIL)
            self._tails_seen_at[index] = self.counts[index]

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


def _laid_out(arrays: Sequence[Array]) -> tuple[Values, Ints]:
    """Return the values of all arrays, one after the other, and where each begins, and the last one ends."""
    flat = [array.reshape(-1) for array in arrays]
    values = np.asarray(flat[0], np.float32) if len(flat) == 1 else np.concatenate(flat, dtype=np.float32, casting="same_kind")
    return values, np.cumsum([0, *(array.size for array in flat)])


def _extremes(values: Values, starts: Ints) -> tuple[Values, Values]:
    """Return minimum and maximum of each tensor; 0 where it is empty."""
    filled = np.diff(starts) > 0
    low, high = (np.zeros(len(filled), np.float32) for _ in range(2))
    if filled.any():
        low[filled] = np.minimum.reduceat(values, starts[:-1][filled])
        high[filled] = np.maximum.reduceat(values, starts[:-1][filled])
    return low, high
