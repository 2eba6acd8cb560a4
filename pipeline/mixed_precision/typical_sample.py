"""The samples that a search times graphs on.

Which of two graphs is the faster shows on a part of an utterance, which takes a part of the time. How fast it is depends on the
length by some percents (HiFi-GAN V2, 160 frames for 400: 1.87 for 1.83 times fp32's speed), so what is told is of a whole one.
"""

from collections.abc import Sequence

import onnx

from pipeline.graph.shorten_samples import cropped
from pipeline.measure.timing_place import Place
from pipeline.sample import Sample

LONG_SECONDS = 0.1  # of one inference
LEAST = 32  # of what is along the axis that a sample is cut on
A_FEW = 3


def typical(samples: Sequence[Sample], model: onnx.ModelProto, threads: int, place: Place) -> tuple[list[Sample], float]:
    """Return what graphs are timed on, again and again, and on what the best of them are: the sample of median size.

    Where that takes long, it is a shorter sample, or a part of one that may be cut for all but the best.

    Args:
        samples: inputs of the graph.
        model: the graph.
        threads: intra-op threads.
        place: where graphs will be timed.

    Returns:
        The two samples, which may be the same, and about how many seconds one inference takes on the first.
    """
    ordered = sorted(samples, key=lambda sample: sample.size)
    middle = ordered[len(ordered) // 2]
    if (seconds := place.inference_s(model, middle, threads)) < LONG_SECONDS:
        return [middle, middle], seconds
    short = rather_short(ordered)[0]
    seconds = place.inference_s(model, short, threads)
    if seconds < LONG_SECONDS:
        return [short, short], seconds
    [part] = cropped(model, [short], LONG_SECONDS / seconds, LEAST, threads)
    return [part, short], place.inference_s(model, part, threads)


def rather_short(samples: Sequence[Sample]) -> list[Sample]:
    """Return a few samples to try rewrites on, which takes many runs: the shortest that are half as long as usual at least."""
    ordered = sorted(samples, key=lambda sample: sample.size)
    usual = ordered[len(ordered) // 2].size
    return [sample for sample in ordered if 2 * sample.size >= usual][:A_FEW]
