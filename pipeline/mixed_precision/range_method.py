"""How ranges follow from calibration data in a search: by the method that the user names, or by the one that loses least."""

import logging

import numpy as np

from pipeline.config.choices import RangeMethod
from pipeline.config.mode_settings import AutoConfig
from pipeline.evaluate.loss import Allowed, LossEvaluator
from pipeline.mixed_precision.candidate_builder import Builder, most_integer
from pipeline.own_time import own_time

log = logging.getLogger(__name__)

# Tried where the user names no method: a vocoder's hiss asks for narrower ranges than a recogniser's outliers.
METHODS = (
    (RangeMethod.minmax, 100.0), (RangeMethod.percentile, 99.99), (RangeMethod.percentile, 99.9), (RangeMethod.mse, 100.0),
)  # fmt: skip


def use_first_method(builder: Builder, mode: AutoConfig) -> None:
    """Let ranges follow by the method that the user names, or by the first that is tried."""
    builder.use(*((mode.method, mode.percentile) if mode.method is not None else METHODS[0]))


def use_best_method(builder: Builder, evaluator: LossEvaluator, *, until: float) -> None:
    """Let ranges follow by the method that loses least with every node quantized.

    Those that have not been tried by then are left out; the first is tried in any case.
    """
    everything = most_integer(builder.groups)
    losses: list[float] = []
    for method, percentile in METHODS:
        if losses and own_time() >= until:
            break
        builder.use(method, percentile)
        allowed = Allowed(min(losses, default=None))
        losses.append(evaluator.loss(builder.build(everything, rounding=False), allowed=allowed).loss)
        log.info("ranges by %s %g: %.4g with every node quantized", method.name, percentile, losses[-1])
    builder.use(*METHODS[int(np.argmin(losses))])
