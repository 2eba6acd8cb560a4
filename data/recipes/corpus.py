"""Who gets which sentence: one place that keeps training, calibration and evaluation apart.

The sentences for calibration and evaluation are drawn first, and no training sentence may have the same words.
They are short (at most eight words), so that the clips that ship stay small.
"""

import functools
from dataclasses import dataclass

from data.recipes.sentences import grammar_sentences, random_sentences, words_of

ASR_GRAMMAR_TRAINING = 9_000
ASR_RANDOM_TRAINING = 5_000
TTS_GRAMMAR_TRAINING = 3_000
TTS_RANDOM_TRAINING = 400


@dataclass(frozen=True)
class Corpus:
    """Sentences with punctuation; no two of the lists share a sentence, but for the two kinds of training."""

    tts_calibration: list[str]  # 48
    tts_evaluation: list[str]  # 100
    asr_calibration: list[str]  # 24 of the grammar, 24 random
    asr_evaluation_grammar: list[str]  # 120
    asr_evaluation_random: list[str]  # 120
    asr_training: list[str]
    tts_training: list[str]


@functools.cache
def corpus() -> Corpus:
    """Draws every list; always the same."""
    grammar = grammar_sentences(292, seed=11, max_words=8)
    random_order = random_sentences(144, seed=12, low=3, high=5)
    held = {words_of(text) for text in grammar + random_order}

    def training(sentences: list[str], count: int) -> list[str]:
        return [text for text in sentences if words_of(text) not in held][:count]

    asr_grammar = training(grammar_sentences(10_000, seed=21), ASR_GRAMMAR_TRAINING)
    asr_random = training(random_sentences(5_200, seed=22), ASR_RANDOM_TRAINING)
    tts_grammar = training(grammar_sentences(4_000, seed=31), TTS_GRAMMAR_TRAINING)
    tts_random = training(random_sentences(500, seed=32), TTS_RANDOM_TRAINING)
    return Corpus(
        tts_calibration=grammar[:48],
        tts_evaluation=grammar[48:148],
        asr_calibration=grammar[148:172] + random_order[:24],
        asr_evaluation_grammar=grammar[172:292],
        asr_evaluation_random=random_order[24:144],
        asr_training=asr_grammar + asr_random,
        tts_training=tts_grammar + tts_random,
    )
