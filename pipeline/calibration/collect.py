"""Run a graph over a calibration set once, and measure its tensors as they pass.

The cost is kept near that of inference by three means. Tensors leave ONNX Runtime without a copy, and their values are
counted in one pass (`bins.py`). A graph with large tensors runs in segments (`segments.py`), so that memory holds those of
one segment of one sample. And tensors that follow from others are not measured (`derived_tensors.py`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pipeline.calibration.accumulator import TensorAccumulator, require_finite
from pipeline.calibration.derived_tensors import DerivedTensor, images, masked_tensors
from pipeline.calibration.numba_jit import note_if_slow
from pipeline.calibration.segments import DoesNotRunError, SegmentedGraph
from pipeline.calibration.statistics import Statistics
from pipeline.errors import DataError, ModelError, did_you_mean
from pipeline.sample import Array, Sample

SEGMENT_BYTES = 2 << 20  # of measured tensors: small enough to add little to the memory of inference


def collect(
    model: onnx.ModelProto | Path,
    samples: Sequence[Sample] | Callable[[], Iterator[Sample]],
    *,
    tensors: Collection[str],
    threads: int = 1,
    histograms: bool = True,
    channel_axes: Mapping[str, int] | None = None,
    channel_pairs: bool = False,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Statistics:
    """Return the statistics of a graph's tensors over a calibration set.

    Args:
        model: the graph, or its file.
        samples: the calibration set, or a function that yields it; samples may differ in shape. It is read once, and no
            more than one sample is held at a time.
        tensors: names of floating-point tensors of the top-level graph: inputs, outputs or between.
        threads: of ONNX Runtime.
        histograms: count values too; False where minmax and moving_average are all that is wanted.
        channel_axes: tensor -> axis along which its statistics are wanted as well.
        channel_pairs: whether these statistics are wanted of pairs of channels, too (`channel_pairs.reach_of`).
        seed: of the graph's random operators. (It is ONNX Runtime's, which is the same for the whole process.)
        on_sample: called with the number of samples done, after each.

    Raises:
        ModelError: a tensor does not exist, or does not hold floating-point numbers.
        DataError: there are no samples; one does not fit the graph; or a tensor has a value that is not finite: the message
            names the sample, the tensor and the position.
    """
    if histograms:
        note_if_slow()
    graph = onnx.load(model) if isinstance(model, Path) else model
    axes = dict(channel_axes or {})
    _check_tensors(graph, [*tensors, *axes])
    asked = set(tensors)
    constants = {initializer.name for initializer in graph.graph.initializer}
    found = images(graph)
    measured_anyway = axes.keys() | {tensor for tensor, image in found.items() if image.source in constants}
    follows = {tensor: image for tensor, image in found.items() if tensor in asked and tensor not in measured_anyway}
    wanted = dict.fromkeys([follows.get(tensor, DerivedTensor(tensor)).source for tensor in tensors] + list(axes))

    stream = iter(samples() if callable(samples) else samples)
    first = next(stream, None)
    if first is None:
        raise DataError("The calibration set is empty.")
    graph_inputs = {value.name for value in graph.graph.input}
    computed = [tensor for tensor in wanted if tensor not in graph_inputs]
    onnxruntime.set_seed(seed)
    budget = SEGMENT_BYTES if histograms else 2 * SEGMENT_BYTES  # counts take memory as well
    segmented = SegmentedGraph(graph, computed, first, threads, budget)

    def masks() -> Collection[str]:
        return masked(frozenset(seen_masks))

    ids: list[str] = []
    seen_masks: set[str] = set()
    masked = cache(partial(masked_tensors, graph))  # seldom asked for: it looks at every constant
    parts: dict[tuple[str, ...], TensorAccumulator] = {}  # of the graph's inputs and of each segment
    begun = partial(TensorAccumulator, histograms=histograms, masks=masks, axes=axes, pairs=channel_pairs)
    for sample in chain([first], stream):
        ids.append(sample.id)
        seen_masks.update(name for name, array in sample.inputs.items() if array.dtype.kind == "f" and (array == -np.inf).any())
        for name, array in sample.inputs.items():
            if name not in wanted and name not in seen_masks and array.dtype.kind == "f":
                require_finite(name, array, sample)
        while not _add(sample, wanted, segmented, parts, begun):
            parts.clear()  # the first sample, once or twice
        if on_sample is not None:
            on_sample(len(ids))
    del segmented  # its memory serves what follows
    measurements = {name: seen for tallies in parts.values() for name, seen in tallies.measurements()}
    return Statistics(tuple(ids), {tensor: measurements[tensor] for tensor in wanted}, follows)


def _add(
    sample: Sample,
    wanted: Collection[str],
    segmented: SegmentedGraph,
    parts: dict[tuple[str, ...], TensorAccumulator],
    new_tallies: Callable[[Mapping[str, Array]], TensorAccumulator],
) -> bool:
    """Measure one more sample; return False where the graph was cut again, and everything has to be measured again."""
    given = {name: array for name, array in sample.inputs.items() if name in wanted}
    try:
        for measured in chain([given], segmented.run(sample)):
            names = tuple(measured)
            if names and names not in parts:
                parts[names] = new_tallies(measured)
            if names:
                parts[names].add(measured, sample)
            del measured  # before the next segment runs
    except DoesNotRunError:
        if segmented.join():
            return False
        raise
    return not segmented.recut()


def _check_tensors(model: onnx.ModelProto, tensors: Collection[str]) -> None:
    """Raise a ModelError that names the first tensor that the top-level graph does not have."""
    known = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    for tensor in tensors:
        if tensor not in known:
            raise ModelError(f"The graph has no tensor {tensor!r} to calibrate.{did_you_mean(tensor, known)}")
