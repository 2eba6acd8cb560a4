"""What a search that is interrupted can give: the best that was measured, or the first graph in integers, measured or not.

The first graph is held from the moment it is built. To calibrate takes most of what it takes to make a file that can be used;
whoever ends the run just then gets that file, and is told what was not measured of it.
"""

import math
from collections.abc import Sequence

from pipeline.graph.large_models import byte_size
from pipeline.graph.prepare import without_shapes
from pipeline.mixed_precision.candidate_builder import Builder, most_integer
from pipeline.mixed_precision.candidates import Budget, Candidate, best_of, keeps_quality, least_short
from pipeline.record.results import MeasuredLoss

ALL_INTEGER = "all int8"


def first_candidate(builder: Builder, original_bytes: int) -> Candidate | None:
    """Build the graph with integers wherever they can be, and return it as a candidate of which nothing was measured.

    Args:
        builder: makes graphs; it has calibrated.
        original_bytes: the size of the file as the user gave it.

    Returns:
        None where nothing can be an integer.
    """
    if not (choice := most_integer(builder.groups)):
        return None
    size = byte_size(without_shapes(builder.build(choice, rounding=False)))
    return Candidate(
        ALL_INTEGER, choice, math.inf, math.inf, size, size / original_bytes, rounded=False, scored=False
    )  # fmt: skip


def best_so_far(candidates: Sequence[Candidate], budget: Budget, samples: int) -> tuple[Candidate, bool | None, MeasuredLoss]:
    """Return the best candidate of a search that was interrupted, whether it meets the budget, and its loss.

    One whose speed is known, where a quantized one is among them; else, of those whose loss is known, the one that misses the
    budget by the least, and of these the smallest; else the one that was built. Whether the budget is met is None where that
    is not known.

    Args:
        candidates: a quantized one at least.
        budget: what is asked for.
        samples: that losses were measured on.
    """
    if any(c.measured and c.choice for c in candidates):
        best, met = best_of(candidates, budget)
        return best, met, MeasuredLoss(budget.metric, best.loss, None, None, samples)
    built = [c for c in candidates if c.choice]
    best = least_short([c for c in built if c.scored] or built, budget)
    if not best.scored:
        return best, None, MeasuredLoss(budget.metric, None, None, None, 0)
    small = budget.max_bytes is None or best.bytes <= budget.max_bytes
    possible = small and keeps_quality(best, budget)
    return best, None if possible else False, MeasuredLoss(budget.metric, best.loss, None, None, samples)


def taken(best: Candidate, candidates: Sequence[Candidate]) -> str:
    """Return what a search that ended early gives, in words: what was measured of it, and what not."""
    if best.measured:
        return f"the best of {sum(c.measured for c in candidates)} measured candidates is taken"
    return f"{best.label!r} is taken: its {'speed was' if best.scored else 'loss and its speed were'} not measured"
