"""`evaluation=asr`: transcripts against the truth, posteriors against fp32's."""

from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.metrics.text_metrics import (
    cer_percent,
    first_difference,
    next_token_percent,
    posterior_kl,
    same_until_percent,
    spoken_words,
    wer_percent,
)
from pipeline.models.speech_model import GoesOnFromItself, HasPosteriors, Transcribes
from pipeline.sample import Outputs


class AsrScorer:
    """Collects transcripts and the divergence of posteriors, which change long before a word does."""

    def __init__(self, model: Transcribes) -> None:
        """Take the model that turns outputs into words."""
        self._model = model
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
        before, after = (spoken_words(self._model.transcript(outputs)) for outputs in (baseline, quantized))
        text = spoken_words(item.utterance.text)
        self._texts.append(text)
        self._transcripts[0].append(before)
        self._transcripts[1].append(after)
        scores = SampleScores(
            fidelity=self._divergence(baseline, quantized),
            notes={"text": text, "baseline_transcript": before, "quantized_transcript": after},
        )
        if isinstance(self._model, GoesOnFromItself):
            self._add_steps(scores, baseline, quantized)
        return scores

    def _divergence(self, baseline: Outputs, quantized: Outputs) -> dict[str, float]:
        if not isinstance(self._model, HasPosteriors):  # those of a transducer depend on its output so far
            return {}
        return {"posterior_kl": posterior_kl(self._model.posteriors(baseline), self._model.posteriors(quantized))}

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
        """Return the error rates over all utterances."""
        before, after = self._transcripts
        return {
            "wer_percent": (wer_percent(self._texts, before), wer_percent(self._texts, after)),
            "cer_percent": (cer_percent(self._texts, before), cer_percent(self._texts, after)),
        }
