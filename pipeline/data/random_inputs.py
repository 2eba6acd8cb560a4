"""Seeded noise in place of data."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.errors import DataError
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.limits import MEGABYTE, limits
from pipeline.sample import Sample


def random_samples(inputs: Sequence[onnx.ValueInfoProto], count: int, length: int, seed: int) -> list[Sample]:
    """Return seeded noise shaped by a graph's inputs.

    Floats are standard normal, integers are drawn from 1 to 7 (small enough for any token table), and an integer input
    whose name speaks of a length gets the length itself. An axis whose size the graph leaves open gets 1 if it is the
    first, else `length`.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for value in inputs:
            dtype, dims = dtype_of(value), dims_of(value)
            if dims is None:
                raise DataError(
                    f"calibration=random: the graph declares no shape for the input {value.name!r}. Give real samples with "
                    "calibration=arrays."
                )
            shape = [size or (1 if axis == 0 else length) for axis, size in enumerate(dims)]
            if (needed := math.prod(shape) * dtype.itemsize) > limits().sample_mb * MEGABYTE:
                raise DataError(
                    f"limits.sample_mb: {limits().sample_mb}, but noise for the input {value.name!r} of shape {shape} has "
                    f"{needed // MEGABYTE} MB. Correct what the graph declares, or raise the limit."
                )
            if np.issubdtype(dtype, np.floating):
                arrays[value.name] = rng.standard_normal(shape).astype(dtype)
            elif np.issubdtype(dtype, np.integer) and "len" in value.name.lower():
                arrays[value.name] = np.full(shape, length, dtype=dtype)
            elif np.issubdtype(dtype, np.integer):
                arrays[value.name] = rng.integers(1, 8, shape).astype(dtype)
            elif dtype == np.bool_:
                arrays[value.name] = np.ones(shape, dtype=np.bool_)
            else:
                raise DataError(
                    f"calibration=random: the input {value.name!r} is of type {dtype}, for which there is no noise. "
                    "Give real samples with calibration=arrays."
                )
        samples.append(Sample(f"random_{number}", arrays))
    return samples
