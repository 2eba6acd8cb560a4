"""Shorter samples: a search runs a model hundreds of times, and part of a sample says much the same as all of it."""

from collections.abc import Sequence

import numpy as np
import onnx

from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample


def cropped(model: onnx.ModelProto, samples: Sequence[Sample], share: float, least: int) -> list[Sample]:
    """Return the middle of each sample along the one axis whose length a graph leaves open; the samples where it cannot be cut.

    A sample can be cut where all inputs are float (no lengths or tokens that would have to follow), one axis of each but the
    first is open, these are equally long, and the graph runs on the result.

    Args:
        model: the graph that takes the samples.
        samples: its inputs.
        share: what is kept of the sample of median length; all are cut to that length.
        least: positions that are kept at least.
    """
    axes = _open_axes(model)
    if axes is None or not samples:
        return list(samples)
    lengths = [_length(sample, axes) for sample in samples]
    if None in lengths:
        return list(samples)
    known = [length for length in lengths if length is not None]
    kept = max(round(share * float(np.median(known))), least)
    cut = [_middle(sample, axes, kept) for sample in samples]
    try:
        infer(open_session(model), cut[0])
    except Exception:  # ONNX Runtime's exceptions share no public base class; a graph may want a certain length
        return list(samples)
    return cut


def _open_axes(model: onnx.ModelProto) -> dict[str, int] | None:
    constants = {tensor.name for tensor in model.graph.initializer}
    axes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        free = [at for at, dim in enumerate(kind.shape.dim) if at > 0 and not dim.dim_value]
        if kind.elem_type != onnx.TensorProto.FLOAT or len(free) != 1:
            return None
        axes[value.name] = free[0]
    return axes or None


def _length(sample: Sample, axes: dict[str, int]) -> int | None:
    lengths = {array.shape[axes[name]] for name, array in sample.inputs.items()}
    return lengths.pop() if len(lengths) == 1 else None


def _middle(sample: Sample, axes: dict[str, int], kept: int) -> Sample:
    inputs = {}
    for name, array in sample.inputs.items():
        start = max((array.shape[axes[name]] - kept) // 2, 0)
        window = [slice(None)] * array.ndim
        window[axes[name]] = slice(start, start + kept)
        inputs[name] = np.ascontiguousarray(array[tuple(window)])
    return Sample(sample.id, inputs)
