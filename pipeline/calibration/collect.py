"""Run a graph over a calibration set once, and measure its tensors as they pass.

The cost is kept near that of inference by five means. Tensors leave ONNX Runtime without a copy. A graph with large tensors
runs in segments (`segments.py`), so that memory holds those of one segment of one sample. Tensors that follow from others
are not measured (`tensors.py`). Large tensors are counted in part: every value of the tails, where ranges are decided, and
one in a number of the others, with that weight; where the tails begin is seen in the first sample, and seen again each time
the number of values has doubled. And minimum and maximum, which are always those of all values, are looked for in the tails.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from pipeline.calibration.histogram import BinCounts
from pipeline.calibration.segments import Segment, cut, measure_sizes, open_segment, run_session
from pipeline.calibration.statistics import ChannelStatistics, Measurement, Statistics
from pipeline.calibration.tensors import Image, images
from pipeline.errors import DataError, ModelError, did_you_mean
from pipeline.samples import Sample

STRIDES = (11, 23, 47, 97, 197, 397)  # primes that few numbers of channels are multiples of: no channel is left out
BODY_VALUES = 1 << 14  # between the tails, counted of one sample; of the n-th, an n-th of this is enough
TAIL = 0.01  # the share of values at each end that is counted without gaps
WHOLE_BELOW = 4096  # values: smaller tensors are always counted whole
SEGMENT_BYTES = 32 << 20
INFINITY = float("inf")
PENDING_BYTES = 16 << 20  # values that wait to be counted, so that many small tensors are counted in one go

Array = npt.NDArray[np.generic]
Values = npt.NDArray[np.float32]


def collect(
    model: onnx.ModelProto | Path,
    samples: Sequence[Sample] | Callable[[], Iterator[Sample]],
    *,
    tensors: Collection[str],
    threads: int = 1,
    histograms: bool = True,
    channel_axes: Mapping[str, int] | None = None,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Statistics:
    """Return the statistics of a graph's tensors over a calibration set.

    Args:
        model: the graph, or its file, below 2 GB.
        samples: the calibration set, or a function that yields it; samples may differ in shape. It is read once, and no
            more than one sample is held at a time.
        tensors: names of floating-point tensors of the top-level graph: inputs, outputs or between.
        threads: of ONNX Runtime.
        histograms: count values too; False where minmax and moving_average are all that is wanted.
        channel_axes: tensor -> axis along which its statistics are wanted as well.
        seed: of the graph's random operators. (It is ONNX Runtime's, which is the same for the whole process.)
        on_sample: called with the number of samples done, after each.

    Raises:
        ModelError: a tensor does not exist, or holds no floating-point numbers.
        DataError: there are no samples; one does not fit the graph; or a tensor has a value that is not finite: the message
            names the sample, the tensor and the position.
    """
    graph = onnx.load(model) if isinstance(model, Path) else model
    axes = dict(channel_axes or {})
    _check_tensors(graph, [*tensors, *axes])
    follows = {tensor: image for tensor, image in images(graph).items() if tensor in tensors and tensor not in axes}
    wanted = dict.fromkeys([follows.get(tensor, Image(tensor)).source for tensor in tensors] + list(axes))
    tallies = {tensor: _Tally(tensor, histograms, axes.get(tensor)) for tensor in wanted}

    stream = iter(samples() if callable(samples) else samples)
    first = next(stream, None)
    if first is None:
        raise DataError("There is no calibration sample.")
    graph_inputs = {value.name for value in graph.graph.input}
    computed = [tensor for tensor in wanted if tensor not in graph_inputs]
    onnxruntime.set_seed(seed)
    segments = cut(graph, measure_sizes(graph, computed, first, threads), SEGMENT_BYTES)
    sessions = [open_segment(segment.model, threads) for segment in segments]

    ids: list[str] = []
    pending = _Pending()
    for sample in chain([first], stream):
        ids.append(sample.id)
        for name, array in sample.inputs.items():
            if name in tallies:
                pending.add(tallies[name], array, sample)
            elif array.dtype.kind == "f":
                _require_finite(name, array, sample)
        for name, array in _run(segments, sessions, sample):
            pending.add(tallies[name], array, sample)
        if on_sample is not None:
            on_sample(len(ids))
    pending.count()
    return Statistics(tuple(ids), {tensor: tally.measurement() for tensor, tally in tallies.items()}, follows)


class _Pending:
    """Values that wait to be counted, over all tensors."""

    def __init__(self) -> None:
        self.tallies: dict[str, _Tally] = {}
        self.size_bytes = 0

    def add(self, tally: "_Tally", array: Array, sample: Sample) -> None:
        """Measure one tensor of one sample, and count what waits when that has become too much."""
        self.size_bytes += tally.add(array, sample)
        self.tallies[tally.tensor] = tally
        if self.size_bytes > PENDING_BYTES:
            self.count()

    def count(self) -> None:
        """Count everything that waits."""
        for tally in self.tallies.values():
            tally.count_pending()
        self.tallies.clear()
        self.size_bytes = 0


class _Tally:
    """What has been seen of one tensor so far."""

    def __init__(self, tensor: str, histogram: bool, axis: int | None) -> None:
        self.tensor = tensor
        self.axis = axis
        self.lows: list[np.float32] = []
        self.highs: list[np.float32] = []
        self.count = 0
        self.bins = BinCounts() if histogram else None
        self.channels: ChannelStatistics | None = None
        self.stride = STRIDES[0]
        self.tails: tuple[np.float32, np.float32] | None = None
        self.tails_seen_at = 0  # values
        self.pending: dict[int, list[Values]] = {}  # weight -> values that wait to be counted as often

    def add(self, array: Array, sample: Sample) -> int:
        """Measure one sample's tensor, and return how many bytes of it wait to be counted."""
        if array.dtype.kind != "f":
            raise ModelError(f"Tensor {self.tensor!r} holds {array.dtype}, no floating-point numbers, and has no range.")
        values: Values = np.asarray(array, np.float32).reshape(-1)
        low, high, waiting = self._take(values) if values.size else (np.float32(0), np.float32(0), 0)
        if not -INFINITY < low <= high < INFINITY:  # false where either is NaN
            _require_finite(self.tensor, array, sample)
        self.lows.append(low)
        self.highs.append(high)
        self.count += values.size
        if self.axis is not None:
            seen = _along(np.asarray(array, np.float32), self.axis)
            self.channels = seen if self.channels is None else self.channels.merge(seen)
        return waiting

    def _take(self, values: Values) -> tuple[np.float32, np.float32, int]:
        """Return minimum and maximum of some values, and how many bytes of them were set aside to be counted."""
        if self.bins is None:
            return np.minimum.reduce(values), np.maximum.reduce(values), 0
        if values.size < WHOLE_BELOW:
            self._set_aside(values, 1)
            return np.minimum.reduce(values), np.maximum.reduce(values), values.nbytes
        samples = len(self.lows)
        while values.size // self.stride * (samples + 1) > BODY_VALUES and self.stride < STRIDES[-1]:
            self.stride = STRIDES[STRIDES.index(self.stride) + 1]
        body = values[samples % self.stride :: self.stride].copy()
        if self.tails is None:
            outside = max(1, int(TAIL * body.size))
            ordered = np.partition(body, (outside, -outside - 1))
            self.tails, self.tails_seen_at = (ordered[outside], ordered[-outside - 1]), values.size
        lower, upper = self.tails
        tail = values[~((values >= lower) & (values <= upper))]  # NaN is in no range, and so is found here
        self._set_aside(tail, 1)
        self._set_aside(body, self.stride)
        low, high = np.minimum.reduce(tail, initial=upper), np.maximum.reduce(tail, initial=lower)
        if low >= lower:  # no value lies below the tails' inner ends
            low = np.minimum.reduce(values)
        if high <= upper:
            high = np.maximum.reduce(values)
        return low, high, tail.nbytes + body.nbytes

    def _set_aside(self, values: Values, weight: int) -> None:
        self.pending.setdefault(weight, []).append(values)

    def count_pending(self) -> None:
        """Count the values that wait, and look again where the tails begin when their number has doubled."""
        if self.bins is None:
            return
        for weight, waiting in self.pending.items():
            values = np.concatenate(waiting)
            if weight > 1 and self.tails is not None:  # the tails are counted already
                lower, upper = self.tails
                values = values[(values >= lower) & (values <= upper)]
            self.bins.add(values, weight)
        self.pending.clear()
        if self.tails is not None and self.count >= 2 * self.tails_seen_at:
            self.tails, self.tails_seen_at = self.bins.tails(TAIL), self.count

    def measurement(self) -> Measurement:
        """Return all of it."""
        lows, highs = np.array(self.lows, np.float32), np.array(self.highs, np.float32)
        return Measurement(lows, highs, self.count, self.bins, self.channels)


def _run(
    segments: Sequence[Segment], sessions: Sequence[onnxruntime.InferenceSession], sample: Sample
) -> Iterable[tuple[str, Array]]:
    """Yield the measured tensors of one sample, in the order of the graph."""
    tensors: dict[str, Array] = dict(sample.inputs)
    for index, (segment, session) in enumerate(zip(segments, sessions, strict=True)):
        feeds = {name: tensors[name] for name in segment.inputs if name in tensors}
        arrays = run_session(session, segment.outputs, feeds, sample)
        tensors.update((name, array) for name, array in zip(segment.outputs, arrays, strict=True) if name in segment.carried)
        for name in segment.measured:
            yield name, arrays.pop(0)
        needed = {name for later in segments[index + 1 :] for name in later.inputs}
        tensors = {name: array for name, array in tensors.items() if name in needed}


def _along(array: Values, axis: int) -> ChannelStatistics:
    """Return the statistics of one array along an axis."""
    channels = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return ChannelStatistics(
        axis, channels.min(axis=1), channels.max(axis=1), channels.mean(axis=1, dtype=np.float64), channels.shape[1]
    )


def _check_tensors(model: onnx.ModelProto, tensors: Collection[str]) -> None:
    """Raise a ModelError that names the first tensor that the top-level graph does not have."""
    known = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    for tensor in tensors:
        if tensor not in known:
            raise ModelError(f"The graph has no tensor {tensor!r} to calibrate.{did_you_mean(tensor, known)}")


def _require_finite(tensor: str, array: Array, sample: Sample) -> None:
    """Raise a DataError that names the first value that is not finite, if there is one."""
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        position = tuple(int(index) for index in wrong[0])
        raise DataError(
            f"Sample {sample.id!r}: tensor {tensor!r} is {array[position]} at {list(position)}, one of {len(wrong)} values "
            "that are not finite. Remove the sample, or look for the operator that overflows."
        )
