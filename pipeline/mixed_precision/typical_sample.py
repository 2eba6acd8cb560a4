"""The sample that a search times graphs on."""

from collections.abc import Sequence

import onnx

from pipeline.measure.timing_place import Place
from pipeline.sample import Sample

LONG_SECONDS = 0.5  # of one inference


def typical(samples: Sequence[Sample], model: onnx.ModelProto, threads: int, place: Place) -> tuple[Sample, float]:
    """Return the sample of median size, or the smallest where that takes long, as it is run a thousand times; and its time.

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
    return ordered[0], place.inference_s(model, ordered[0], threads)
