"""Transcripts with their errors marked, word by word."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.evaluation_schema import SampleResult


@dataclass(frozen=True)
class Piece:
    """Some words of a transcript.

    Attributes:
        text: the words.
        kind: `same` as what was said, `added` (heard, but not said; also what replaced a word) or `lost` (said, not heard).
    """

    text: str
    kind: str


@dataclass(frozen=True)
class Transcript:
    """One utterance as both models heard it.

    Attributes:
        id: of the sample.
        said: the truth.
        baseline: what fp32 heard.
        quantized: what the quantized model heard.
        changed: whether the two differ.
    """

    id: str
    said: str
    baseline: list[Piece]
    quantized: list[Piece]
    changed: bool

    @property
    def faultless(self) -> bool:
        """Whether the quantized model heard what was said."""
        return all(piece.kind == "same" for piece in self.quantized)


def transcripts(samples: Sequence[SampleResult]) -> list[Transcript]:
    """Return the transcripts of an evaluation: first those that quantization changed, then those with other errors."""
    found = [
        Transcript(
            sample.id,
            text,
            marked(text, before),
            marked(text, after),
            before.split() != after.split(),
        )
        for sample in samples
        if (text := sample.text) is not None
        and (before := sample.baseline_transcript) is not None
        and (after := sample.quantized_transcript) is not None
    ]
    return sorted(found, key=lambda one: (not one.changed, one.faultless))


def marked(said: str, heard: str) -> list[Piece]:
    """Return what was heard, marked against what was said; the alignment is the one that the word error rate counts."""
    from jiwer import process_words

    truth, words = said.split(), heard.split()
    if not truth or not words:
        pieces = [Piece(" ".join(truth), "lost"), Piece(" ".join(words), "added")]
        return [piece for piece in pieces if piece.text]
    pieces = []
    for chunk in process_words(" ".join(truth), " ".join(words)).alignments[0]:
        was = " ".join(truth[chunk.ref_start_idx : chunk.ref_end_idx])
        became = " ".join(words[chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            pieces.append(Piece(became, "same"))
            continue
        if was:
            pieces.append(Piece(was, "lost"))
        if became:
            pieces.append(Piece(became, "added"))
    return pieces
