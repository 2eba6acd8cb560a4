"""Candidates that the budget just excludes, reconstructed: what is learned of their numbers may make them good enough.

Reconstruction (`pipeline.ptq.reconstruction`) changes no node: a candidate stays as fast as it was. So one that is faster than
the choice of the search, and loses too much by no more than learning takes back, is worth the minutes. How much is taken back
is not known before the first trial; the second one is chosen by it. Where neither is good enough, the choice itself learns.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx

from pipeline.mixed_precision.candidate_search import CandidateSearch, Path
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, best_of, holds, keeps_quality, worth
from pipeline.mixed_precision.time_limit import OutOfTimeError
from pipeline.record.results import Reconstruction

log = logging.getLogger(__name__)

BEYOND = 1.6  # times what is allowed, that candidates may lose before they are reconstructed
TRIALS, SHARE = 2, 0.5  # each with half of the time that is left
FASTER = 1.02  # times what the choice is worth: less is the noise of a quick measurement

Learn = Callable[[onnx.ModelProto, onnx.ModelProto, onnx.ModelProto, float], Reconstruction]
"""(quantized graph, which is changed; the float graph that it was written from; the one whose outputs are right; the share of
the time that it may take) -> what has come of it."""


class BeyondBudget:
    """Reconstructs candidates until one keeps to the budget that is faster than the choice of the search.

    Attributes:
        learned: what has come of each reconstruction, by the label of its candidate.

    Args:
        found: the search, which has measured candidates along paths.
        trials: what they are measured with.
        budget: what is asked for.
        learn: reconstructs a graph.
    """

    def __init__(self, found: CandidateSearch, trials: TrialContext, budget: Budget, learn: Learn) -> None:
        self._found, self._trials, self._budget, self._learn = found, trials, budget, learn
        self.learned: dict[str, Reconstruction] = {}

    def run(self, paths: Sequence[Path]) -> None:
        """Add reconstructed candidates to those of the search.

        Args:
            paths: as the search has followed them; none where there was no time for it.
        """
        if self._budget.max_loss is not None and self._beyond(paths, self._budget.max_loss):
            return
        best, _ = best_of(self._found.candidates, self._budget)
        if best.choice and best.learned is None:
            self._reconstructed(best, 1.0)

    def _beyond(self, paths: Sequence[Path], max_loss: float) -> bool:
        """Reconstruct what is faster than the choice; return whether one keeps to the budget."""
        budget = self._budget
        if paths:
            try:
                self._found.run_within(replace(budget, max_loss=BEYOND * max_loss), paths)
            except OutOfTimeError:
                log.info("there was no time to follow the paths beyond the budget to their end")
        share, tried = 1.0 / BEYOND, set[str]()
        for _ in range(TRIALS):
            candidate = self._next(share, tried)
            if candidate is None:
                break
            tried.add(candidate.label)
            result = self._reconstructed(candidate, SHARE)
            if keeps_quality(result, budget):
                return True
            share = min(result.loss / candidate.loss, 1.0)
        return False

    def _next(self, share: float, tried: set[str]) -> Candidate | None:
        """Return the candidate that is worth most if so much of its loss were left; None where the choice is worth as much."""
        best, met = best_of(self._found.candidates, self._budget)
        least = FASTER * worth(best, self._budget) if met else 0.0
        beyond = [
            c for c in self._found.candidates
            if c.measured and c.choice and c.learned is None and c.label not in tried and worth(c, self._budget) > least
            and holds(replace(c, loss=share * c.loss), self._budget)
        ]  # fmt: skip
        return max(beyond, key=lambda c: worth(c, self._budget), default=None)

    def _reconstructed(self, candidate: Candidate, share: float) -> Candidate:
        """Reconstruct a candidate, and add the result: its kernels are the same, and so is its speed."""
        builder = self._trials.builder
        quantized = self._trials.built(candidate)
        fitted = builder.fitted(candidate.choice, rounding=candidate.rounded, bias_correction=candidate.bias_correction)
        label = f"{candidate.label}, reconstructed"
        self.learned[label] = self._learn(quantized, fitted, builder.model, share)
        verdict = self._trials.evaluator.loss(quantized)
        log.info("%s: %s %.4g instead of %.4g", label, self._budget.metric, verdict.loss, candidate.loss)
        result = replace(
            candidate, label=label, loss=verdict.loss, length_change=verdict.length_change, samples=verdict.samples,
            learned=quantized,
        )  # fmt: skip
        self._found.keep(result)
        return result
