"""What the choice of a search leaves in float, stored as integers: a smaller file that is as fast.

ONNX Runtime restores such weights when it opens the file (`pipeline/quantize/weight_storage.py`), so that all kernels are those
of before. As int8 they may cost more than the budget leaves: then the largest that it does leave room for are int8, and the
others int16, whose rounding is 256 times as fine.
"""

import itertools
import logging
import math
from dataclasses import replace

from pipeline.evaluate.loss import Allowed
from pipeline.graph.large_models import byte_size
from pipeline.graph.prepare import initializers_of, without_shapes
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, keeps_quality
from pipeline.mixed_precision.precision_groups import Choice
from pipeline.mixed_precision.time_limit import OutOfTimeError
from pipeline.quantize.plan import FLOAT_BYTES, NODE_BYTES, Precision
from pipeline.quantize.weight_storage import bytes_as_integers

log = logging.getLogger(__name__)

WORTHWHILE = 0.02  # of the file, that is to be saved: less is not worth the loss
TRIED = 5  # numbers of weights that are int8, at most
WIDTHS = {Precision.weight_int8: 1, Precision.weight_int16: 2}


def smaller_file(best: Candidate, found: CandidateSearch, trials: TrialContext, budget: Budget) -> Candidate:
    """Return a choice with the weights of what it leaves in float stored; itself where that saves little.

    As int8, as far as the budget allows and there is time to measure it; else as int16, whose loss is taken for that of the
    choice: whoever takes it measures it.

    Args:
        best: the choice, which keeps to the budget.
        found: the search; it gets the new candidates.
        trials: what they are measured with.
        budget: what is asked for; without a limit on the loss, nothing is stored.
    """
    saved = {} if budget.max_loss is None else _bytes_saved(trials.builder, best.choice)
    names = sorted(saved, key=lambda name: -max(saved[name].values()))
    if sum(max(saved[name].values()) for name in names) < WORTHWHILE * best.bytes:
        return best

    def with_int8(count: int) -> Candidate:
        """Return the choice with so many of the largest weights as int8, and the others as int16."""
        fine = {name: Precision.weight_int16 for name in names[count:] if Precision.weight_int16 in saved[name]}
        choice = {**best.choice, **dict.fromkeys(names[:count], Precision.weight_int8), **fine}
        label = f"{best.label}, the weights of {count} float groups stored as int8 and of {len(fine)} as int16"
        size = byte_size(without_shapes(trials.builder.build(choice, rounding=best.rounded)))
        return replace(best, label=label, choice=choice, bytes=size, size_ratio=size / trials.original_bytes)

    def scored(candidate: Candidate) -> Candidate:
        limits = Allowed(budget.max_loss, budget.max_length_change)
        verdict = trials.evaluator.loss(trials.graph_of(candidate), allowed=limits)
        log.info("%s: %s %.4g, %.2f of the size", candidate.label, budget.metric, verdict.loss, candidate.size_ratio)
        return replace(candidate, loss=verdict.loss, length_change=verdict.length_change, samples=verdict.samples)

    smallest = with_int8(0)
    low, high, count = 0, len(names) + 1, len(names)
    for _ in range(TRIED):
        try:
            trials.limit.check()
            tried = scored(with_int8(count))
        except OutOfTimeError:
            break
        found.keep(tried)
        if keeps_quality(tried, budget):
            low, smallest = count, tried
        else:
            high = count
        if high - low <= 1:
            break
        count = _between(low, high, [saved[name] for name in names])
    if low == 0:
        found.keep(smallest)
    return smallest


def _between(low: int, high: int, saved: list[dict[Precision, int]]) -> int:
    """Return the count between two others that halves the bytes which int8 saves beyond int16."""
    more = [each[Precision.weight_int8] - each.get(Precision.weight_int16, 0) for each in saved]
    total = sum(more[low : high - 1])
    sums = itertools.accumulate(more[low : high - 1])
    return low + next((number for number, done in enumerate(sums, start=1) if 2 * done >= total), 1)


def _bytes_saved(builder: Builder, choice: Choice) -> dict[str, dict[Precision, int]]:
    """Return what each group that computes in float saves with its weight stored in either width, where that is anything.

    What lies in the bodies of If, Loop and Scan is left as it is.
    """
    constants = initializers_of(builder.model)
    found: dict[str, dict[Precision, int]] = {}
    for group in builder.groups:
        if group.name in choice or Precision.weight_int8 not in group.precisions or not group.weight:
            continue
        dims = constants[group.weight].dims
        values = math.prod(dims)
        saved = {
            precision: FLOAT_BYTES * values - bytes_as_integers(values, max(dims), width) - NODE_BYTES
            for precision, width in WIDTHS.items()
        }
        if saved[Precision.weight_int8] > 0:
            found[group.name] = {precision: count for precision, count in saved.items() if count > 0}
    return found
