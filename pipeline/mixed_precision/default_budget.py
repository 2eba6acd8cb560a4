"""What a search keeps to where the user names no metric or no limit: one for each kind of evaluation."""

from pipeline.config.settings import AutoConfig, EvaluationConfig
from pipeline.errors import ConfigError
from pipeline.evaluate.loss import check_metric
from pipeline.evaluation_kind import EvaluationKind
from pipeline.mixed_precision.candidates import Budget
from pipeline.models.speech_model import SpeechModel, TextToSpeech

# Differences that are hard to hear or hardly change a result, by the fine metric of each kind. A limit in nats of the
# log-mel: noise of 0.1 nat on every band is 0.9 dB. Of posteriors: transcripts change from about 0.01 nat on.
DEFAULT_METRICS = {
    EvaluationKind.tensors: "relative_error",
    EvaluationKind.audio: "log_mel_l1",
    EvaluationKind.tts: "log_mel_l1",
    EvaluationKind.asr: "posterior_kl",
}
DEFAULT_LIMITS = {
    "relative_error": 0.05,
    "log_mel_l1": 0.1,
    "truth_log_mel_l1": 0.03,
    "mcd_db": 1.0,
    "mr_stft": 0.2,
    "truth_mr_stft": 0.1,
    "posterior_kl": 0.005,
    "wer_percent": 0.3,
    "cer_percent": 0.3,
    "roundtrip_wer_percent": 1.0,
    "accuracy_percent": 0.5,
    "cosine": 0.01,
    "duration_mae_frames": 1.0,
}


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
    usual = "accuracy_percent" if evaluation.labels is not None else DEFAULT_METRICS[evaluation.kind]
    behind_mel = isinstance(model, TextToSpeech) and not model.mel_depends_on(graph)
    metric = mode.metric or ("mr_stft" if behind_mel else usual)
    check_metric(metric, evaluation.kind, "mode.metric")
    limit = mode.max_loss
    if limit is None and mode.min_speedup is None and mode.max_bytes is None:
        if metric not in DEFAULT_LIMITS:
            raise ConfigError(
                f"mode.max_loss: not set, and {metric} has no default limit. Say how much worse than fp32 the model may be in "
                "it, or give mode.min_speedup or mode.max_bytes."
            )
        limit = DEFAULT_LIMITS[metric]
    return Budget(metric, limit, mode.min_speedup, mode.max_bytes, mode.max_length_change, mode.size_weight)
