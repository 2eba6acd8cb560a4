"""What a search keeps to where the user names no metric or no limit: one for each kind of evaluation."""

from pipeline.config.mode_settings import AutoConfig
from pipeline.config.settings import EvaluationConfig
from pipeline.errors import ConfigError
from pipeline.evaluate.loss import check_metric
from pipeline.evaluate.quality_limits import source_for
from pipeline.metrics.metric_registry import METRICS, default_metric
from pipeline.mixed_precision.candidates import Budget
from pipeline.models.speech_model import SpeechModel, TextToSpeech


def budget_of(mode: AutoConfig, evaluation: EvaluationConfig, model: SpeechModel, graph: str) -> Budget:
    """Return what a search must keep to.

    Args:
        mode: what the user asks for.
        evaluation: what can be measured.
        model: the model.
        graph: the one of its graphs that is searched.

    Raises:
        ConfigError: the metric cannot limit a loss, or has no default limit and none is given.
    """
    behind_mel = isinstance(model, TextToSpeech) and not model.mel_depends_on(graph)
    usual = default_metric(
        evaluation.kind, labels=evaluation.labels is not None, audio_only=behind_mel, source=source_for(model)
    )
    metric = mode.metric or usual
    check_metric(metric, evaluation.kind, "mode.metric")
    limit = mode.max_loss
    if limit is None and mode.min_speedup is None and mode.max_bytes is None:
        limit = METRICS[metric].default_limit
        if limit is None:
            raise ConfigError(
                f"mode.max_loss: not set, and {metric} has no default limit. Say how much worse than fp32 the model may be in "
                "it, or give mode.min_speedup or mode.max_bytes."
            )
    given = ("max_loss", "min_speedup", "max_bytes", "max_length_change")
    asked = tuple(name for name in given if getattr(mode, name) != getattr(AutoConfig, name))
    return Budget(metric, limit, mode.min_speedup, mode.max_bytes, mode.max_length_change, mode.size_weight, asked)
