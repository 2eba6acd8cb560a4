"""Metrics of recognised text, of posteriors and of predicted lengths, and greedy CTC decoding."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.metrics.audio_metrics import align_by_dtw
from pipeline.sample import FloatArray


def spoken_words(text: str) -> str:
    """Return what is heard of a text: words in lower case, one space between, no punctuation but the apostrophe of a word.

    What references and transcripts go through before they are compared: a full stop is not heard.
    """
    kept = (c if c == "'" or not unicodedata.category(c).startswith("P") else " " for c in text.casefold())
    return " ".join("".join(kept).split())


def wer_percent(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate of a set of utterances: errors of all over words of all, in percent; may exceed 100.

    Case and punctuation count: normalise both sides first, the same way.

    Raises:
        DataError: the numbers of texts differ, there is none, or a reference holds no word.
    """
    from jiwer import wer

    _check_texts(references, hypotheses)
    return 100.0 * float(wer(list(references), list(hypotheses)))


def cer_percent(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character error rate of a set of utterances, spaces counted, in percent; may exceed 100.

    Raises:
        DataError: as for `wer_percent`.
    """
    from jiwer import cer

    _check_texts(references, hypotheses)
    return 100.0 * float(cer(list(references), list(hypotheses)))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return the word errors of one utterance and the words of its reference: what `bootstrap.ratio_interval` takes."""
    from jiwer import process_words

    _check_texts([reference], [hypothesis])
    found = process_words(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, found.hits + found.substitutions + found.deletions


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return the character errors of one utterance, spaces counted, and the characters of its reference."""
    from jiwer import process_characters

    _check_texts([reference], [hypothesis])
    found = process_characters(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, found.hits + found.substitutions + found.deletions


def word_deletions(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return how many words of one utterance are left out, in an alignment with the fewest errors, and how many there are."""
    from jiwer import process_words

    _check_texts([reference], [hypothesis])
    found = process_words(reference, hypothesis)
    return found.deletions, found.hits + found.substitutions + found.deletions


def deletion_percent(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Words that are left out of a set of utterances, over words of all, in percent.

    Raises:
        DataError: as for `wer_percent`.
    """
    _check_texts(references, hypotheses)
    left_out, words = np.sum([word_deletions(*pair) for pair in zip(references, hypotheses, strict=True)], axis=0)
    return float(100.0 * left_out / words)


def posterior_kl(reference_log_probs: npt.ArrayLike, test_log_probs: npt.ArrayLike) -> float:
    """Mean over frames of KL(reference || test), in nats.

    Both sides are normalised once more, so logits serve too, and a quantized softmax that does not sum to 1 cannot make
    the divergence negative.

    Args:
        reference_log_probs: (..., frames, vocabulary), valid frames only.
        test_log_probs: of the same shape.

    Raises:
        DataError: the shapes differ, or a value is NaN.
    """
    reference, test = (np.asarray(scores, dtype=np.float64) for scores in (reference_log_probs, test_log_probs))
    if reference.shape != test.shape or not reference.size:
        raise DataError(f"Cannot compare posteriors of shapes {reference.shape} and {test.shape}.")
    if np.isnan(reference).any() or np.isnan(test).any():
        raise DataError("Cannot compare posteriors that hold NaN.")
    p, q = _log_softmax(reference), _log_softmax(test)
    possible = p > -np.inf  # a token of probability zero adds nothing, whatever the other side says
    gap = np.subtract(p, q, out=np.zeros_like(p), where=possible)
    return float(np.mean(np.sum(np.exp(p) * gap, axis=-1)))


def posterior_kl_of_tokens(reference: npt.NDArray[np.floating], test: npt.NDArray[np.floating]) -> float | None:
    """`posterior_kl` of two models that may have heard another number of tokens, in nats; None where neither heard any.

    Their probabilities are then aligned by dynamic time warping, as mels of other lengths are; where one side has no token at
    all, it has heard nothing, and each token is as likely as any other.

    Args:
        reference: log-probabilities (tokens, vocabulary).
        test: (other tokens, vocabulary).

    Raises:
        DataError: the vocabularies differ, or a value is NaN.
    """
    if len(reference) == len(test):
        return posterior_kl(reference, test) if len(reference) else None
    if not len(reference) or not len(test):
        nothing = np.zeros((max(len(reference), len(test)), reference.shape[1]), reference.dtype)
        return posterior_kl(reference, nothing) if len(reference) else posterior_kl(nothing, test)
    i, j = align_by_dtw(np.exp(reference).T, np.exp(test).T)
    return posterior_kl(reference[i], test[j])


def next_token_percent(reference_logits: npt.NDArray[np.floating], test_logits: npt.NDArray[np.floating]) -> float:
    """Share of steps at which the same token is the most likely one, of logits (steps, vocabulary) after the same tokens."""
    if reference_logits.shape != test_logits.shape or not reference_logits.size:
        raise DataError(f"Cannot compare logits of shapes {reference_logits.shape} and {test_logits.shape}.")
    return 100.0 * float(np.mean(reference_logits.argmax(axis=-1) == test_logits.argmax(axis=-1)))


def same_until_percent(reference: Sequence[int], test: Sequence[int]) -> float:
    """Share of the reference's tokens before the first one that differs; of no tokens, whether there are none on both sides."""
    place = first_difference(reference, test)
    if place is None:
        return 100.0
    return 100.0 * (place - 1) / len(reference) if len(reference) else 0.0


def first_difference(reference: Sequence[int], test: Sequence[int]) -> int | None:
    """Number of the first token that differs, from 1; None where there is none. The end of the shorter sequence differs too."""
    place = next((k for k, (a, b) in enumerate(zip(reference, test, strict=False), start=1) if a != b), None)
    if place is not None or len(reference) == len(test):
        return place
    return min(len(reference), len(test)) + 1


def duration_mae_frames(reference_lengths: npt.ArrayLike, test_lengths: npt.ArrayLike) -> float:
    """Mean absolute difference of predicted lengths, in frames: of utterances, or of the tokens of one utterance."""
    reference, test = (np.asarray(lengths, dtype=np.float64) for lengths in (reference_lengths, test_lengths))
    if reference.shape != test.shape or not reference.size:
        raise DataError(f"Cannot compare lengths of shapes {reference.shape} and {test.shape}.")
    return float(np.mean(np.abs(reference - test)))


def _log_softmax(scores: FloatArray) -> FloatArray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return normalised


def _check_texts(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise DataError("Error rates take lists of texts, one per utterance, not a single text.")
    if len(references) != len(hypotheses) or not references:
        raise DataError(f"Error rates need as many hypotheses as references: {len(hypotheses)} and {len(references)}.")
    for index, reference in enumerate(references):
        if not reference.strip():
            raise DataError(f"Reference {index} holds no word: its error rate is undefined.")
