"""Statistics that were collected once, found again by what they depend on: see pipeline/cache/."""

import io
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from pipeline.cache.cache_key import key_of
from pipeline.cache.current_cache import current
from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import STATISTICS
from pipeline.cache.recall import Form, keep, recalled
from pipeline.calibration import collect as engine
from pipeline.calibration.derived_tensors import around_layers, quantizable_tensors
from pipeline.calibration.statistics import Statistics
from pipeline.graph.model_digest import digest_of
from pipeline.sample import Sample, digests_of


def cached_statistics(
    model: onnx.ModelProto | Path,
    samples: Sequence[Sample] | Callable[[], Iterator[Sample]],
    *,
    needed: Collection[str] | None = None,
    without: Collection[str] = (),
    threads: int = 1,
    channel_axes: Mapping[str, int] | None = None,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Statistics:
    """Return the statistics of a graph's tensors over a calibration set, from the cache where it has them.

    Args:
        model: as `collect` takes it.
        samples: the calibration set, or a function that yields it; it is read once for its hash, and once more where the
            statistics have to be collected.
        needed: tensors whose statistics are wanted at least; None: every tensor that any mode may quantize. Where those that
            layers read and make suffice, all of these and nothing else are measured, so that any method, type or selection
            of layers finds what it needs in the same entry; all that any mode may quantize is measured otherwise, once.
        without: tensors that are not measured: those that hold NaN or infinity (`infinite_tensors`).
        threads: of ONNX Runtime.
        channel_axes: tensor -> axis along which its statistics are wanted as well.
        seed: of the graph's random operators.
        on_sample: called with the number of samples done, after each; not called where the cache has the statistics.

    Raises:
        ModelError, DataError: as `collect`.
    """
    graph = onnx.load(model) if isinstance(model, Path) else model
    axes = dict(channel_axes or {})
    measurable = [tensor for tensor in quantizable_tensors(graph) if tensor not in without]
    layers = around_layers(graph, measurable)
    choices = [measurable] if needed is None or not set(needed) <= set(layers) else [measurable, layers]
    keys: list[str] = []
    if current().store is not None:
        content = (digest_of(graph), digests_of(samples() if callable(samples) else samples), axes, threads, seed)
        keys = [key_of(STATISTICS, *content, sorted(tensors)) for tensors in choices]
    for key in keys:  # the larger set serves as well, where it is there already
        if (found := recalled(STATISTICS, key, FORM)) is not None:
            return found
    start = time.perf_counter()
    statistics = engine.collect(
        graph, samples, tensors=choices[-1], threads=threads, channel_axes=axes, seed=seed, on_sample=on_sample
    )
    if keys:
        keep(STATISTICS, keys[-1], FORM, statistics, seconds=time.perf_counter() - start)
    return statistics


def _entry_of(statistics: Statistics) -> Entry:
    stream = io.BytesIO()
    statistics.save(stream)
    return Entry(arrays={"npz": np.frombuffer(stream.getbuffer(), np.uint8)})


def _statistics_of(entry: Entry) -> Statistics:
    return Statistics.load(io.BytesIO(entry.arrays["npz"].tobytes()))


FORM = Form(_entry_of, _statistics_of)
