"""Which limits the quality of a model is held to, and where its measured losses lie: what the verdict is made of.

Without a limit of the user's these are the default limits of a search (`metric_registry.py`), one for each kind of evaluation:
the limit that decides. A metric against the truth that users know (a word error rate) can only break the verdict, where its
whole interval is beyond its limit: over few utterances its interval is mostly wider than the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.settings import EvaluationConfig
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics.metric_registry import METRICS, Source, default_metric, leading_metrics, metrics_of
from pipeline.models.speech_model import Denoises, Detects, SpeechModel, TextToSpeech
from pipeline.record.results import LimitCheck, MeasuredLoss, Outcome

LENGTH_CHANGE = "length_change"
MAX_LENGTH_CHANGE = 0.02  # of a sentence: the default of mode.max_length_change
SPEAKS = (EvaluationKind.audio, EvaluationKind.tts)
ON_NOISE = "the evaluation set is seeded noise, since evaluation.path is not set"


@dataclass(frozen=True)
class Limit:
    """A limit of quality.

    Attributes:
        metric: what the loss is measured in, or `length_change`.
        value: how much worse than fp32 the model may be.
        asked: whether the user gave it.
        decides: whether the verdict waits for it.
    """

    metric: str
    value: float
    asked: bool = False
    decides: bool = True


def limits_of(
    config: EvaluationConfig,
    model: SpeechModel,
    graphs: Mapping[str, Mapping[str, Any] | None],
    asked: Mapping[str, float | None],
) -> list[Limit]:
    """Return the limits that the quantized graphs of a model are held to, each metric once.

    Args:
        config: the evaluation.
        model: the original.
        graphs: quantized graph -> the search that made it, as the report has it; None: no search.
        asked: graph -> the limit of its search that the user gave; None: the usual one.
    """
    found: dict[str, Limit] = {}
    kind = config.kind
    for graph, search in graphs.items():
        budget = {} if search is None else search["budget"]
        if search is not None and budget.get("max_loss") is not None:
            metric = search["metric"]
            _add(found, Limit(metric, budget["max_loss"], asked=asked.get(graph) is not None))
        else:
            behind_mel = isinstance(model, TextToSpeech) and not model.mel_depends_on(graph)
            metric = default_metric(kind, labels=config.labels is not None, audio_only=behind_mel, source=source_for(model))
            limit = METRICS[metric].default_limit
            assert limit is not None, f"{metric} is a default metric without a limit"
            _add(found, Limit(metric, limit))
        if kind in SPEAKS:
            _add(found, Limit(LENGTH_CHANGE, budget.get("max_length_change", MAX_LENGTH_CHANGE)))
    if not any(limit.asked for limit in found.values()):
        known = metrics_of(kind)
        enhanced = source_for(model) is Source.enhanced
        truths = [name for name in leading_metrics() if name in known and METRICS[name].against_truth and name not in found]
        truth = next((name for name in truths if (METRICS[name].source is Source.enhanced) == enhanced), None)
        if truth is not None and (limit := METRICS[truth].default_limit) is not None:
            found[truth] = Limit(truth, limit, decides=False)
    return list(found.values())


def source_for(model: SpeechModel) -> Source | None:
    """Return what a model is judged by, where that is not what the kind of evaluation says."""
    if isinstance(model, Denoises):
        return Source.enhanced if model.track_s is not None else None
    return Source.decisions if isinstance(model, Detects) else None


def check_limit(limit: Limit, loss: MeasuredLoss | None, why_not: str = "") -> LimitCheck:
    """Return where a loss lies beside its limit.

    Args:
        limit: the limit.
        loss: what was measured; None: nothing.
        why_not: why nothing was.
    """
    check = LimitCheck(
        limit.metric, unit_of(limit.metric), limit.value, limit.asked, Outcome.unmeasured.value, decides=limit.decides
    )
    if loss is None:
        return replace(check, why=why_not or f"{limit.metric} cannot be computed on this evaluation set")
    low, high = loss.low, loss.high
    if loss.value is None or low is None or high is None:  # one sample has no interval, lengths that differ no number
        outcome = Outcome.within if loss.value is not None and loss.value <= limit.value else Outcome.beyond
        if not limit.decides:
            outcome = Outcome.undecided
    else:
        outcome = Outcome.beyond if low > limit.value else Outcome.within if high <= limit.value else Outcome.undecided
    return replace(check, outcome=outcome.value, loss=loss.value, low=low, high=high)


def outcome_of(checks: list[LimitCheck]) -> Outcome:
    """Return what follows from all limits: one that is broken breaks the verdict; else the weakest of those that decide."""
    outcomes = [Outcome(check.outcome) for check in checks if check.decides or check.outcome == Outcome.beyond]
    for outcome in (Outcome.beyond, Outcome.undecided, Outcome.unmeasured):
        if outcome in outcomes:
            return outcome
    return Outcome.within if outcomes else Outcome.unmeasured


def unit_of(metric: str) -> str:
    """Return the unit of a metric; a change of length is a share."""
    return METRICS[metric].unit if metric in METRICS else ""


def _add(found: dict[str, Limit], limit: Limit) -> None:
    """Keep the stricter of two limits of a metric: two searched graphs of one model are scored together."""
    known = found.get(limit.metric)
    if known is None or limit.value < known.value:
        found[limit.metric] = limit
