"""`evaluation=asr`: transcripts against the truth, posteriors against fp32's."""

from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.metrics.text_metrics import cer_percent, posterior_kl, spoken_words, wer_percent
from pipeline.models.speech_model import HasPosteriors, Transcribes
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
        return SampleScores(
            fidelity=self._divergence(baseline, quantized),
            notes={"text": text, "baseline_transcript": before, "quantized_transcript": after},
        )

    def _divergence(self, baseline: Outputs, quantized: Outputs) -> dict[str, float]:
        if not isinstance(self._model, HasPosteriors):  # those of a transducer depend on its output so far
            return {}
        return {"posterior_kl": posterior_kl(self._model.posteriors(baseline), self._model.posteriors(quantized))}

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the error rates over all utterances."""
        before, after = self._transcripts
        return {
            "wer_percent": (wer_percent(self._texts, before), wer_percent(self._texts, after)),
            "cer_percent": (cer_percent(self._texts, before), cer_percent(self._texts, after)),
        }
