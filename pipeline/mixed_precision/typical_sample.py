"""The samples that a search times graphs on."""

from collections.abc import Sequence

import onnx

from pipeline.measure.timing_place import Place
from pipeline.sample import Sample

LONG_SECONDS = 0.1  # of one inference
A_FEW = 3


def typical(samples: Sequence[Sample], model: onnx.ModelProto, threads: int, place: Place) -> tuple[Sample, float]:
    """Return the sample of median size, or a shorter one where that takes long, as it is run a thousand times; and its time.

    Args:
        samples: inputs of the graph.
        model: the graph.
        threads: intra-op threads.
        place: where graphs will be timed.

    Returns:
        The sample, and about how many seconds one inference takes there.
    """
    ordered = sorted(samples, key=lambda sample: sample.size)
    middle = ordered[len(ordered) // 2]
    if (seconds := place.inference_s(model, middle, threads)) < LONG_SECONDS:
        return middle, seconds
    short = rather_short(ordered)[0]
    return short, place.inference_s(model, short, threads)


def rather_short(samples: Sequence[Sample]) -> list[Sample]:
    """Return a few samples to try rewrites on, which takes many runs: the shortest that are half as long as usual at least."""
    ordered = sorted(samples, key=lambda sample: sample.size)
    usual = ordered[len(ordered) // 2].size
    return [sample for sample in ordered if 2 * sample.size >= usual][:A_FEW]
