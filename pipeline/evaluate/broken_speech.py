"""Speech that is none: a sentence at full scale or beside zero, where fp32's is not. NaN and infinity end the evaluation.

A range that explodes on one sentence in a hundred pins a whole sentence to a rail (k2-fsa/sherpa-onnx#3754), and no mean over
samples shows it. So each sample counts: one alone that is broken breaks the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.metrics import audio_metrics
from pipeline.metrics.metric_registry import METRICS, Source
from pipeline.record.results import LimitCheck, Outcome

MEASURES: dict[str, Callable[[npt.ArrayLike], float]] = {
    name: getattr(audio_metrics, name) for name, metric in METRICS.items() if metric.source is Source.fault
}
NAMED = 3  # samples in the warning

Audio = npt.NDArray[np.float32]


def measured(before: Audio, after: Audio, wanted: Callable[[str], bool]) -> dict[str, tuple[float, float]]:
    """Return what says whether speech (samples,) is broken: metric -> (fp32's, the quantized model's)."""
    return {name: (measure(before), measure(after)) for name, measure in MEASURES.items() if wanted(name)}


def broken_limits_of(samples: Sequence[Mapping[str, Any]]) -> tuple[list[LimitCheck], str]:
    """Return the limits that a sample of the quantized model breaks, with the worst of them, and the warning about it.

    Args:
        samples: the report's `evaluation.per_sample`.
    """
    checks: list[LimitCheck] = []
    broken: dict[str, str] = {}
    for name in MEASURES:
        limit = METRICS[name].default_limit
        assert limit is not None
        pairs = {one["id"]: one["truth"][name] for one in samples if name in one.get("truth", {})}
        worse = {sample: pair["quantized"] - pair["baseline"] for sample, pair in pairs.items()}
        beyond = {sample: loss for sample, loss in worse.items() if loss > limit}
        if beyond:
            unit = METRICS[name].unit
            checks.append(LimitCheck(name, unit, limit, False, Outcome.beyond.value, max(beyond.values()), decides=False))
            for sample in beyond:
                broken.setdefault(sample, _words(name, pairs[sample]))
    if not checks:
        return [], ""
    named = [f"{sample} ({words})" for sample, words in list(broken.items())[:NAMED]]
    more = f", and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return checks, (
        f"{len(broken)} of {len(samples)} sentences are no speech any more in the quantized model: {', '.join(named)}{more}. "
        "A number explodes there. Keep the nodes that it comes from in float (mode.nodes_to_exclude), or calibrate on more."
    )


def _words(name: str, pair: Mapping[str, float]) -> str:
    metric, unit = METRICS[name], f" {METRICS[name].unit}".rstrip()
    return f"{metric.description}: {pair['quantized']:.3g}{unit}, fp32's {pair['baseline']:.3g}{unit}"
