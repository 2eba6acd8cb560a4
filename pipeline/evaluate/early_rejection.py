"""Is a loss above a limit, though only some of the samples have been scored?

A search scores many models whose loss is far above what is allowed, and a few samples show it. Samples differ in what any model
loses on them; what one model loses on a sample relative to another differs much less. So a model that was scored on all samples
before serves as a measure: the ratio of both sums, over the samples that are done, times what that model loses on all of them
(the ratio estimator; Cochran 1977, "Sampling Techniques", chapter 6). Nothing is accepted early: a loss that is allowed is
measured on all samples.
"""

from collections.abc import Sequence

import numpy as np

ERRORS = 3.0  # standard errors by which the estimate must lie above the limit
FEW, MORE_ERRORS = 4, 4.0  # of fewer samples the error itself is hardly known
CLEARLY = 1.1  # times the limit, at least
FROM_ONE = 2.0  # times the limit, by which one sample alone tells, beside a measure
LEAST_WITHOUT = 8  # samples, without a measure


def surely_above(losses: Sequence[float], limit: float, measure: Sequence[float] = ()) -> bool:
    """Return whether a model loses more than a limit, on average over all samples.

    Args:
        losses: of the model, on the first samples.
        limit: of the average.
        measure: what another model loses, on all samples; empty: there is none. Each must be above zero.
    """
    count = len(losses)
    if not measure and count < LEAST_WITHOUT:
        return False
    estimate = estimated(losses, measure)
    if count == 1:
        return bool(estimate > FROM_ONE * limit > 0)
    weights = np.asarray(measure[:count] or [1.0] * count)
    scale = float(np.mean(measure)) if measure else 1.0
    rest = np.asarray(losses) - np.sum(losses) / weights.sum() * weights
    error = float(np.std(rest, ddof=1)) / np.sqrt(count) / weights.mean() * scale
    return bool(estimate > CLEARLY * limit and estimate - (MORE_ERRORS if count < FEW else ERRORS) * error > limit)


def estimated(losses: Sequence[float], measure: Sequence[float] = ()) -> float:
    """Return what a model loses on all samples, about; see `surely_above`."""
    if not measure:
        return float(np.mean(losses))
    return float(np.sum(losses) / np.sum(measure[: len(losses)]) * np.mean(measure))
