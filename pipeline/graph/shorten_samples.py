"""Shorter samples, where a graph takes inputs of any length: part of a sample gives nearly the same answer as all of it.

A search runs a model hundreds of times, and a vocoder spends half a second on a sentence. Only where one axis of each input has
a free length can a graph be given less of it without knowing what it means.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from pipeline.graph.session import infer, open_session
from pipeline.outside_errors import unless_memory_is_used_up
from pipeline.sample import Sample

RUN_SECONDS = 0.025  # long enough for activations that leave the caches, short enough for dozens of pairs
LEAST = 32  # of what is along the axis: frames, or samples


def shorten(model: onnx.ModelProto, probe: Sequence[Sample], threads: int = 1) -> list[Sample]:
    """Return the beginning of each sample, so long that one inference takes about 25 ms; or the samples as they are.

    For the choice among rewrites: which kernel is faster, and whether a change is numerically equivalent, shows on a part.
    Only a graph with one input is given less of it. Lengths are powers of two, so that a slower run of the machine seldom
    means another choice.
    """
    axes = free_axes(model, probe)
    if axes is None or len(axes) != 1:
        return list(probe)
    session = open_session(model, threads)
    middle = sorted(probe, key=lambda sample: length_along(sample, axes) or 0)[len(probe) // 2]
    infer(session, middle)
    start = time.perf_counter()
    infer(session, middle)
    share = RUN_SECONDS / (time.perf_counter() - start)
    length = 1 << int(max(np.log2(LEAST), np.round(np.log2(share * (length_along(middle, axes) or 0)))))
    return [part_of(sample, axes, 0, length) for sample in probe]


def cropped(model: onnx.ModelProto, samples: Sequence[Sample], share: float, least: int, threads: int = 1) -> list[Sample]:
    """Return the middle of each sample; the samples as they are where they cannot be cut.

    They can be where the inputs of a sample are equally long along their free axes, and the graph runs on the result.

    Args:
        model: the graph that takes the samples.
        samples: its inputs.
        share: what is kept of the sample of median length; all are cut to that length.
        least: positions that are kept at least.
        threads: intra-op threads to run the graph with.
    """
    axes = free_axes(model, samples)
    lengths = [None if axes is None else length_along(sample, axes) for sample in samples]
    known = [length for length in lengths if length is not None]
    if axes is None or len(known) < len(samples):
        return list(samples)
    kept = max(round(share * float(np.median(known))), least)
    cut = [part_of(sample, axes, max((length - kept) // 2, 0), kept) for sample, length in zip(samples, known, strict=True)]
    try:
        infer(open_session(model, threads), cut[0])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class; a graph may want a certain length
        unless_memory_is_used_up(error)
        return list(samples)
    return cut


def free_axes(model: onnx.ModelProto, samples: Sequence[Sample]) -> dict[str, int] | None:
    """Return the one axis of each input that has no fixed length and is longer than 1 in some sample.

    None where an input has no such axis or several, or is not float: lengths and tokens would have to follow.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not samples or any(sample.inputs.keys() != {value.name for value in inputs} for sample in samples):
        return None
    axes: dict[str, int] = {}
    for value in inputs:
        kind = value.type.tensor_type
        free = [
            place
            for place, axis in enumerate(kind.shape.dim)
            if not axis.dim_value and any(sample.inputs[value.name].shape[place] > 1 for sample in samples)
        ]
        if kind.elem_type != onnx.TensorProto.FLOAT or len(free) != 1:
            return None
        axes[value.name] = free[0]
    return axes or None


def length_along(sample: Sample, axes: Mapping[str, int]) -> int | None:
    """Return how long all inputs of a sample are along their free axes; None where they differ."""
    lengths = {array.shape[axes[name]] for name, array in sample.inputs.items()}
    return lengths.pop() if len(lengths) == 1 else None


def part_of(sample: Sample, axes: Mapping[str, int], start: int, length: int) -> Sample:
    """Return so many positions of a sample along the free axes of its inputs."""
    inputs = {
        name: np.ascontiguousarray(array[(slice(None),) * axes[name] + (slice(start, start + length),)])
        for name, array in sample.inputs.items()
    }
    return Sample(sample.id, inputs)
