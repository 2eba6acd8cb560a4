"""`evaluation=tts`: mel spectrograms and lengths against fp32's, and the transcript of the speech by a recogniser.

A quantized acoustic model predicts other durations in some sentences. Their mels are aligned before they are compared, and
the difference in length is a metric of its own; nothing is cut off.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

from pipeline.audio.mel import Mel
from pipeline.audio.resample import resample
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate import broken_speech
from pipeline.evaluate.sample_scores import OfFp32, SampleScores, comparable
from pipeline.graph.session import infer, open_session
from pipeline.metrics.audio_metrics import log_mel_l1, mcd_db, mr_stft
from pipeline.metrics.metric_registry import METRICS
from pipeline.metrics.text_metrics import duration_mae_frames, spoken_words, wer_percent
from pipeline.models.ctc import Ctc
from pipeline.models.speech_model import TextToSpeech
from pipeline.paths import resolve_path
from pipeline.sample import Outputs

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Listener:
    """A recogniser of synthesised speech."""

    model: Ctc
    session: onnxruntime.InferenceSession

    def transcript(self, audio: Audio, sample_rate_hz: int) -> str:
        """Return the words in mono audio (samples,).

        A tenth of a second of silence goes before and after, as in a recording; the level is set to a usual one.
        """
        silence = np.zeros(sample_rate_hz // 10, dtype=np.float32)
        speech = resample(np.concatenate([silence, audio, silence]), sample_rate_hz, self.model.sample_rate_hz)
        loud = 0.6 * speech / max(float(np.abs(speech).max()), 1e-3)
        # Digital silence is outside of what the recogniser was trained on: a floor of -80 dB, the same every time.
        floor = 1e-4 * np.random.default_rng(0).standard_normal(len(loud), dtype=np.float32)
        sample = self.model.sample_of_audio("speech", (loud + floor).astype(np.float32))
        return self.model.transcript(infer(self.session, sample))


def listener_of(model: TextToSpeech, threads: int) -> Listener | None:
    """Return the recogniser that the settings of a text-to-speech model name; None where they name none."""
    if model.asr_path is None:
        return None
    recogniser = Ctc("asr", model.asr_path)
    recogniser.check()
    return Listener(recogniser, open_session(resolve_path(model.asr_path), threads))


class TtsScorer:
    """Compares mels and lengths; has the speech transcribed where the model's settings name a vocoder and a recogniser."""

    def __init__(self, model: TextToSpeech, threads: int, only: str | None = None, *, again: bool = False) -> None:
        """Open the recogniser that the model's settings name.

        Args:
            model: the original.
            threads: of the recogniser.
            only: the metric, if one alone is asked for.
            again: the same samples will be scored again and again.
        """
        self._model, self._only, self._fp32 = model, only, OfFp32(keep=again)
        self._listener = listener_of(model, threads) if only is None or METRICS[only].is_error_rate else None
        self.restart()

    def restart(self) -> None:
        """Forget what was scored."""
        self._texts: list[str] = []
        self._transcripts: tuple[list[str], list[str]] = ([], [])

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Score one sentence; its audio is left in the notes for `listen`."""
        scores = self._of_mels(self._fp32.get(baseline, "mel", lambda: self._model.mel(baseline)), self._model.mel(quantized))
        if "audio" not in baseline:
            return scores
        speech = (np.asarray(baseline["audio"], np.float32), np.asarray(quantized["audio"], np.float32))
        scores.truth |= broken_speech.measured(*speech, self._asks_for)
        scores.notes["audio"] = speech
        same_length = len(speech[0]) == len(speech[1])  # samples of speech of another length do not correspond
        if self._asks_for("mr_stft") and same_length:
            scores.fidelity["mr_stft"] = mr_stft(*speech)
        if self._listener is not None and item.utterance is not None and item.utterance.text:
            hear, rate_hz = self._listener.transcript, self._model.rate_hz
            transcribed = [self._fp32.get(baseline, "heard", lambda: hear(speech[0], rate_hz)), hear(speech[1], rate_hz)]
            self._texts.append(spoken_words(item.utterance.text))
            for transcripts, transcript in zip(self._transcripts, transcribed, strict=True):
                transcripts.append(transcript)
            scores.notes |= {
                "text": spoken_words(item.utterance.text),
                "baseline_transcript": transcribed[0],
                "quantized_transcript": transcribed[1],
            }
        return scores

    def _of_mels(self, before: Mel, after: Mel) -> SampleScores:
        scores = SampleScores(notes={"baseline_frames": before.shape[1], "quantized_frames": after.shape[1]})
        if self._asks_for("duration_mae_frames"):
            scores.fidelity["duration_mae_frames"] = duration_mae_frames([before.shape[1]], [after.shape[1]])
        if self._asks_for("log_mel_l1", "mcd_db"):
            a, b = comparable("mel", before[None], after[None])
            mels = a.reshape(before.shape[0], -1), b.reshape(before.shape[0], -1)
            distances = {"log_mel_l1": log_mel_l1, "mcd_db": mcd_db}
            scores.fidelity |= {name: measure(*mels) for name, measure in distances.items() if self._asks_for(name)}
        return scores

    def _asks_for(self, *metrics: str) -> bool:
        return self._only is None or self._only in metrics

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return the error rate of the round trip over all sentences."""
        if not self._texts:
            return {}
        before, after = (wer_percent(self._texts, transcripts) for transcripts in self._transcripts)
        return {"roundtrip_wer_percent": (before, after)}
