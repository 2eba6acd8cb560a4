"""Metrics of a detector that gives one probability a step: whether it still decides as fp32 does.

The error of a probability says little of a detector: next to 0 or 1 it changes nothing, and near the threshold it turns a
decision. fp32's decisions are taken for the truth.
"""

import numpy as np
import numpy.typing as npt

from pipeline.sample import Array, FloatArray

THRESHOLD = 0.5  # of a probability, from which on a step is active: what clients of voice activity detectors start from
OVERLAP = 0.5  # intersection over union, from which on two segments are the same one
FEWEST = 10  # steps: of fewer, a curve or segments say nothing

Active = npt.NDArray[np.bool_]


def probabilities_of(output: Array) -> FloatArray | None:
    """Return the probabilities (steps,) that an output holds; None where it is anything else.

    It holds them where it has one value a step, along its first axis, or along its second one behind a batch of one, and all
    values are between 0 and 1.
    """
    steps = max(output.shape[:2], default=0)
    if output.dtype.kind != "f" or output.size != steps or steps < FEWEST:
        return None
    values = np.asarray(output, np.float64).reshape(-1)
    return values if bool(np.all((values >= 0) & (values <= 1))) else None


def decision_auc(reference: FloatArray, test: FloatArray, threshold: float = THRESHOLD) -> float | None:
    """Area under the ROC curve of probabilities (steps,) against fp32's decisions: the Mann-Whitney statistic.

    It is the chance that an active step has a higher probability than one that is not; equal ones count half. 1 for the same
    probabilities; None where fp32 decides alike at all steps.
    """
    active = reference >= threshold
    positives, negatives = int(active.sum()), int((~active).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(test, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1; equal values share the mean of their ranks
    return float((ranks[active].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def segment_f1(reference: FloatArray, test: FloatArray) -> float:
    """F1 score of the segments that are active, against fp32's: two are the same where at least half of their union is in both.

    1 for the same decisions, and where neither has a segment.
    """
    return f1_of_decisions(reference >= THRESHOLD, test >= THRESHOLD)


def f1_of_decisions(reference: Active, test: Active) -> float:
    """Return the F1 score of segments, of decisions (steps,) that were taken already."""
    wanted, found = segments(reference), segments(test)
    if not wanted and not found:
        return 1.0
    left, same = list(found), 0
    for start, end in wanted:
        match = next((one for one in left if _overlap((start, end), one) >= OVERLAP), None)
        if match is not None:
            left.remove(match)
            same += 1
    return 2.0 * same / (len(wanted) + len(found))


def segments(active: Active) -> list[tuple[int, int]]:
    """Return where steps are active: first step, and the one behind the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    both = min(one[1], other[1]) - max(one[0], other[0])
    return both / (max(one[1], other[1]) - min(one[0], other[0])) if both > 0 else 0.0
