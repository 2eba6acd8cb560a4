"""The choice of a search, checked on the whole selection part."""

import logging
from dataclasses import replace

from pipeline.evaluate.loss import LossEvaluator
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, holds, keeps_quality, worth
from pipeline.record.results import MeasuredLoss

log = logging.getLogger(__name__)

CONFIRMED = 4  # candidates at most that are checked on the whole evaluation set


def confirmed(
    best: Candidate, found: CandidateSearch, trials: TrialContext, evaluator: LossEvaluator, budget: Budget, *, met: bool
) -> tuple[Candidate, bool, MeasuredLoss]:
    """Return the best candidate that keeps to the budget on the whole selection part, and its loss there.

    Where none does, the one that was best on fewer samples, and False. It is the laid-out graph that is scored: what ONNX
    Runtime's optimizer makes of it is part of the answer. Candidates get the loss that they have here.
    """
    allowed = sorted((c for c in found.candidates if c.measured and holds(c, budget)), key=lambda c: -worth(c, budget))
    others = [c for c in allowed if c is not best and c.loss <= best.loss] if met else []
    first: tuple[Candidate, MeasuredLoss] | None = None
    for candidate in [best, *others][:CONFIRMED]:
        if first is not None and trials.limit.passed:
            break
        loss = evaluator.loss(trials.graph_of(candidate), with_interval=True)
        whole = replace(candidate, loss=loss.loss, length_change=loss.length_change)
        found.keep(whole)
        measured = loss.measured or MeasuredLoss(budget.metric, loss.loss, None, None, len(evaluator.items))
        log.info("%s: %s %.4g on %d samples", candidate.label, budget.metric, whole.loss, len(evaluator.items))
        if met and keeps_quality(whole, budget):
            return whole, True, measured
        first = first or (whole, measured)
    assert first is not None
    return first[0], False, first[1]
