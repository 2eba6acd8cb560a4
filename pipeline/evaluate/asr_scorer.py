"""`evaluation=asr`: transcripts against the truth, posteriors against fp32's."""

from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError
from pipeline.evaluate.sample_scores import OfFp32, SampleScores
from pipeline.metrics.metric_registry import METRICS
from pipeline.metrics.text_metrics import (
    cer_percent,
    deletion_percent,
    first_difference,
    next_token_percent,
    posterior_kl_of_tokens,
    same_until_percent,
    spoken_words,
    wer_percent,
)
from pipeline.models.speech_model import GoesOnFromItself, HasPosteriors, Transcribes
from pipeline.sample import Outputs


class AsrScorer:
    """Collects transcripts and the divergence of posteriors, which change long before a word does."""

    def __init__(self, model: Transcribes, only: str | None = None, *, again: bool = False) -> None:
        """Take the model that turns outputs into words, and the metric, if one alone is asked for.

        Args:
            model: the original.
            only: the metric; None: all.
            again: the same samples will be scored again and again.
        """
        self._model, self._only, self._fp32 = model, only, OfFp32(keep=again)
        self.restart()

    def restart(self) -> None:
        """Forget what was scored."""
        self._texts: list[str] = []
        self._transcripts: tuple[list[str], list[str]] = ([], [])

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Score one sample.

        Raises:
            DataError: the truth is not known.
        """
        if item.utterance is None or not item.utterance.text:  # arrays have no text
            raise DataError(
                f"evaluation.path: sample {item.sample.id!r} has no text to compare with. Give a manifest with text, or "
                "compare outputs only with evaluation=tensors."
            )
        before = self._fp32.get(baseline, "words", lambda: spoken_words(self._model.transcript(baseline)))
        after = spoken_words(self._model.transcript(quantized))
        text = spoken_words(item.utterance.text)
        self._texts.append(text)
        self._transcripts[0].append(before)
        self._transcripts[1].append(after)
        scores = SampleScores(notes={"text": text, "baseline_transcript": before, "quantized_transcript": after})
        if self._only is not None and METRICS[self._only].is_error_rate:
            return scores
        scores.fidelity = self._divergence(baseline, quantized)
        if isinstance(self._model, GoesOnFromItself):
            self._add_steps(scores, baseline, quantized)
        return scores

    def _divergence(self, baseline: Outputs, quantized: Outputs) -> dict[str, float]:
        if not isinstance(self._model, HasPosteriors):  # those of a transducer depend on its output so far
            return {}
        found = posterior_kl_of_tokens(self._model.posteriors(baseline), self._model.posteriors(quantized))
        return {} if found is None else {"posterior_kl": found}

    def _add_steps(self, scores: SampleScores, baseline: Outputs, quantized: Outputs) -> None:
        """Add how far the tokens are fp32's: each after fp32's, and until the first that differs, each after its own."""
        assert isinstance(self._model, HasPosteriors)
        logits = [self._model.posteriors(outputs) for outputs in (baseline, quantized)]
        tokens = [outputs["tokens"].tolist() for outputs in (baseline, quantized)]
        scores.fidelity |= {
            "next_token_percent": next_token_percent(*logits),
            "same_until_percent": same_until_percent(*tokens),
        }
        scores.notes["first_difference"] = first_difference(*tokens)

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the error rates over all utterances: of words, of characters, and of words that are left out."""
        before, after = self._transcripts
        return {
            "wer_percent": (wer_percent(self._texts, before), wer_percent(self._texts, after)),
            "cer_percent": (cer_percent(self._texts, before), cer_percent(self._texts, after)),
            "deletion_percent": (deletion_percent(self._texts, before), deletion_percent(self._texts, after)),
        }
