"""Shorter inputs for the choice among rewrites, where a graph takes inputs of any length.

A vocoder spends half a second on a sentence; which kernel is faster, and whether a change is exact, shows on a part of it.
Only a graph with one input, that has one axis of free length, can be given less of it without knowing what it means.
"""

import time
from collections.abc import Sequence

import numpy as np
import onnx

from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample

RUN_SECONDS = 0.025  # long enough for activations that leave the caches, short enough for dozens of pairs
LEAST = 32  # of what is along the axis: frames, or samples


def shorten(model: onnx.ModelProto, probe: Sequence[Sample], threads: int = 1) -> list[Sample]:
    """Return the beginning of each sample, so long that one inference takes about 25 ms; or the samples as they are.

    Lengths are powers of two, so that a slower run of the machine seldom means another choice.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in given]
    axis = _free_axis(inputs[0], probe) if len(inputs) == 1 and probe else None
    if axis is None:
        return list(probe)
    name, session = inputs[0].name, open_session(model, threads)
    middle = sorted(probe, key=lambda sample: sample.inputs[name].shape[axis])[len(probe) // 2]
    infer(session, middle)
    start = time.perf_counter()
    infer(session, middle)
    share = RUN_SECONDS / (time.perf_counter() - start)
    length = 1 << int(max(np.log2(LEAST), np.round(np.log2(share * middle.inputs[name].shape[axis]))))
    index = (slice(None),) * axis + (slice(length),)
    return [Sample(sample.id, {name: np.ascontiguousarray(sample.inputs[name][index])}) for sample in probe]


def _free_axis(value: onnx.ValueInfoProto, probe: Sequence[Sample]) -> int | None:
    """Return the axis that has no fixed length and is longer than 1 in the samples, where it is the only one."""
    axes = value.type.tensor_type.shape.dim
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or any(len(s.inputs) != 1 for s in probe):
        return None
    free = [
        place
        for place, axis in enumerate(axes)
        if not axis.HasField("dim_value") and any(sample.inputs[value.name].shape[place] > 1 for sample in probe)
    ]
    return free[0] if len(free) == 1 else None
