"""The samples that a search times graphs on.

That a graph is far from the fastest shows on a part of an utterance, which takes a part of the time. Which one is the fastest
does not: what fits into the caches is another layout's (HiFi-GAN V2, 160 frames for 400: 1.98 for 1.80 times fp32's speed with
time turned to channels, 1.84 for 1.83 with wide images).
"""

from collections.abc import Sequence

import onnx

from pipeline.graph.shorten_samples import cropped
from pipeline.measure.timing_place import Place
from pipeline.sample import Sample

LONG_SECONDS = 0.1  # of one inference
VERY_LONG_SECONDS = 1.0  # then any sample will do: a hundred inferences of it take a third of a search's time
LEAST = 32  # of what is along the axis that a sample is cut on
A_FEW = 3


def typical(
    samples: Sequence[Sample], model: onnx.ModelProto, threads: int, place: Place
) -> tuple[list[Sample], Sample, float]:
    """Return the sample of median size, or a shorter one where that takes long, as it is run often; and a part of it.

    Half as long as usual where it takes 0.1 s or more; the shortest of all where that takes a second or more.

    There is a part where the sample takes 0.1 s or more and can be cut: so much that it takes about that.

    Args:
        samples: inputs of the graph.
        model: the graph.
        threads: intra-op threads.
        place: where graphs will be timed.

    Returns:
        The part, if there is one, the sample, and about how many seconds one inference takes on the first of them.
    """
    ordered = sorted(samples, key=lambda sample: sample.size)
    middle = ordered[len(ordered) // 2]
    if (seconds := place.inference_s(model, middle, threads)) < LONG_SECONDS:
        return [], middle, seconds
    short = rather_short(ordered)[0]
    seconds = place.inference_s(model, short, threads)
    if seconds >= VERY_LONG_SECONDS and short is not ordered[0]:
        short = ordered[0]
        seconds = place.inference_s(model, short, threads)
    if seconds < LONG_SECONDS:
        return [], short, seconds
    [part] = cropped(model, [short], LONG_SECONDS / seconds, LEAST, threads)
    return ([], short, seconds) if part.size == short.size else ([part], short, place.inference_s(model, part, threads))


def rather_short(samples: Sequence[Sample]) -> list[Sample]:
    """Return a few samples to try rewrites on, which takes many runs: the shortest that are half as long as usual at least."""
    ordered = sorted(samples, key=lambda sample: sample.size)
    usual = ordered[len(ordered) // 2].size
    return [sample for sample in ordered if 2 * sample.size >= usual][:A_FEW]
