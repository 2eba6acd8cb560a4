"""Which scorer each kind of evaluation has."""

from typing import assert_never

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import audio_reader
from pipeline.errors import ConfigError
from pipeline.evaluate import asr_scorer, audio_scorer, tensor_scorer, tts_scorer
from pipeline.evaluate.sample_scores import Scorer
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.models.speech_model import Detects, Speaks, SpeechModel, TextToSpeech, Transcribes
from pipeline.record.run_log import RunLog


def scorer_of(
    model: SpeechModel,
    source: SourceGraph,
    config: EvaluationConfig,
    run_log: RunLog,
    threads: int,
    only: str | None = None,
    *,
    again: bool = False,
) -> Scorer:
    """Return what scores samples of the configured kind.

    Args:
        model: the original.
        source: its first graph.
        config: the evaluation.
        run_log: notes what was read.
        threads: of what listens.
        only: one metric alone, where others take time.
        again: the same samples will be scored again and again: what follows from fp32 alone is computed once.
    """
    match config.kind:
        case EvaluationKind.tensors:
            return tensor_scorer.TensorScorer(model if isinstance(model, Detects) else None)
        case EvaluationKind.audio:
            assert isinstance(model, Speaks)
            reader = audio_reader(config.on_sample_rate, run_log)
            return audio_scorer.AudioScorer(model, sample_rate_of(model, source, config), reader, only, again=again)
        case EvaluationKind.asr:
            assert isinstance(model, Transcribes)
            return asr_scorer.AsrScorer(model, only, again=again)
        case EvaluationKind.tts:
            assert isinstance(model, TextToSpeech)
            return tts_scorer.TtsScorer(model, threads, only, again=again)
        case _:
            assert_never(config.kind)


def sample_rate_of(model: SpeechModel, source: SourceGraph, config: EvaluationConfig) -> int:
    """Return the sample rate in Hz of the audio that a model makes.

    Raises:
        ConfigError: neither the settings nor the model tell it.
    """
    rate = audio_rate_of(model, source, config)
    if rate is None:
        raise ConfigError("evaluation.sample_rate_hz: not set, and not in the model's metadata.")
    return rate


def audio_rate_of(model: SpeechModel, source: SourceGraph, config: EvaluationConfig) -> int | None:
    """Return the sample rate in Hz of the audio that a model makes; None: it is judged as something else, or nothing tells."""
    if config.kind not in (EvaluationKind.audio, EvaluationKind.tts):
        return None
    metadata = {entry.key: entry.value for entry in source.model.metadata_props}
    rate = config.sample_rate_hz or getattr(model, "rate_hz", None) or metadata.get("sample_rate")
    return None if rate is None else int(rate)
