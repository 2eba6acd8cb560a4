"""How much worse than fp32 a model is in one metric, with an interval."""

from collections.abc import Sequence

from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import SampleScores, per_sample_entry, summarize
from pipeline.evaluate.uncertainty import loss_interval
from pipeline.record.results import MeasuredLoss


def measured_loss(
    metric: str,
    scored: Sequence[SampleScores],
    totals: dict[str, tuple[float, float]],
    items: Sequence[EvaluationSample],
    *,
    with_interval: bool = True,
) -> MeasuredLoss | None:
    """Return the loss in a metric; None where it cannot be computed on these samples.

    Args:
        metric: its name.
        scored: the scores of each sample.
        totals: metrics that are not a mean over samples: name -> (fp32's, the quantized model's).
        items: the samples that were scored.
        with_interval: draw the bootstrap, which takes time; else the ends are None.
    """
    found = summarize([metric], list(scored), totals).get(metric)
    if found is None:
        return None
    worse = found["baseline"] - found["quantized"] if found["higher_is_better"] else found["quantized"] - found["baseline"]
    interval = None
    if with_interval:
        entries = [per_sample_entry(item, scores) for item, scores in zip(items, scored, strict=True)]
        interval = loss_interval(entries, metric)
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return MeasuredLoss(metric, float(worse), low, high, len(scored))
