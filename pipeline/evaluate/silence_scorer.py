"""How often a recogniser writes words where nobody speaks, fp32 and quantized on the same clips.

Models that go on from their own words make text out of noise, and quantization moves the threshold at which they do (Koenecke
et al., Careless Whisper: Speech-to-Text Hallucination Harms, 2024). No set of speech shows that.
"""

import re
from collections.abc import Callable

from pipeline.audio.silent_clips import silent_clips
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics.text_metrics import spoken_words
from pipeline.models.speech_model import GoesOnFromItself, HearsAudio, SpeechModel, Transcribes
from pipeline.sample import Outputs, Sample

HALLUCINATIONS = "hallucination_percent"
CLIPS = 42
"""Six of each kind: where the setting is left open, of a model that is known to make text out of noise."""

ANNOTATION = re.compile(r"\[[^\]]*(\]|$)|\([^)]*(\)|$)|\*[^*]*(\*|$)|♪")
"""`[SILENCE]`, `(wind blowing)`, `*sighs*`: it says what is heard, and that nobody speaks; the last one may be cut short."""


def words_in(transcript: str) -> str:
    """Return the words that a transcript claims were spoken, without annotations."""
    return spoken_words(ANNOTATION.sub(" ", transcript))


def silent_clips_of(model: SpeechModel, config: EvaluationConfig) -> int:
    """Return how many clips of silence and noise an evaluation has."""
    if config.kind is not EvaluationKind.asr or not (isinstance(model, HearsAudio) and isinstance(model, Transcribes)):
        return 0
    if config.metrics and HALLUCINATIONS not in config.metrics:
        return 0
    if config.silent_clips is not None:
        return config.silent_clips
    return CLIPS if isinstance(model, GoesOnFromItself) else 0


def scored_silence(
    model: SpeechModel, count: int, seed: int, run: Callable[[int, Sample], tuple[Outputs, Outputs]]
) -> list[tuple[EvaluationSample, SampleScores]]:
    """Return clips in which nobody speaks, with what fp32 and the quantized model write.

    Args:
        model: turns audio into inputs, and outputs into words.
        count: of the clips.
        seed: of the clips.
        run: (number of the clip, inputs) -> the outputs of fp32 and of the quantized model.
    """
    if not count:
        return []
    assert isinstance(model, HearsAudio)
    assert isinstance(model, Transcribes)
    found = []
    for number, (name, audio) in enumerate(silent_clips(count, seed, model.rate_of_audio_hz)):
        sample = model.sample_of_audio(name, audio)
        before, after = (model.transcript(outputs) for outputs in run(number, sample))
        rates = (100.0 * bool(words_in(before)), 100.0 * bool(words_in(after)))
        notes = {"baseline_transcript": before, "quantized_transcript": after}
        found.append((EvaluationSample(sample), SampleScores(truth={HALLUCINATIONS: rates}, notes=notes)))
    return found
