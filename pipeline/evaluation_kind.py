"""What quality means for a model."""

from enum import Enum


class EvaluationKind(Enum):
    """What quality means for a model: its output tensors, its audio, its speech, or its transcripts."""

    tensors = "tensors"
    audio = "audio"
    tts = "tts"
    asr = "asr"
