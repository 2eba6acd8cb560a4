"""`evaluation=audio`: the audio of a vocoder, or of any model whose first output is audio."""

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import log_mel
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import SampleScores
from pipeline.metrics.audio_metrics import log_mel_l1, mcd_db, mr_stft
from pipeline.metrics.enhancement_metrics import pause_floor_db, si_sdr_db
from pipeline.models.speech_model import Denoises, ReadAudio, Speaks
from pipeline.sample import Outputs

Audio = npt.NDArray[np.float32]


class AudioScorer:
    """Compares audio with fp32's and, where there is one, with the recording."""

    def __init__(self, model: Speaks, sample_rate_hz: int, read_audio: ReadAudio, only: str | None = None) -> None:
        """Take the model that turns outputs into audio, a way to read recordings, and the metric, if one alone is asked for."""
        self._only = only
        self._model = model
        self._sample_rate_hz = sample_rate_hz
        self._read_audio = read_audio

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Score one sample; its audio is left in the notes for `listen`."""
        before, after = self._model.audio(baseline), self._model.audio(quantized)
        scores = SampleScores(notes={"audio": (before, after)})
        if self._asks_for("log_mel_l1", "mcd_db"):
            mels = [log_mel(audio, self._sample_rate_hz) for audio in (before, after)]
            scores.fidelity = {"log_mel_l1": log_mel_l1(*mels), "mcd_db": mcd_db(*mels)}
        if self._asks_for("mr_stft"):
            scores.fidelity["mr_stft"] = mr_stft(before, after)
        if isinstance(self._model, Denoises):
            self._score_enhanced(self._model, item, before, after, scores)
            return scores
        recording = self._recording(item) if self._asks_for("truth_log_mel_l1", "truth_mr_stft") else None
        if recording is not None and self._asks_for("truth_log_mel_l1"):
            scores.truth["truth_log_mel_l1"] = (self._mel_distance(recording, before), self._mel_distance(recording, after))
        if recording is not None and self._asks_for("truth_mr_stft"):
            scores.truth["truth_mr_stft"] = (mr_stft(*_common(recording, before)), mr_stft(*_common(recording, after)))
        return scores

    def _score_enhanced(
        self, model: Denoises, item: EvaluationSample, before: Audio, after: Audio, scores: SampleScores
    ) -> None:
        """Compare what a denoiser gives with the clean speech of its track, where that is known."""
        if not self._asks_for("si_sdr_db", "pause_floor_db") or item.utterance is None:
            return
        clean = model.track(item.utterance, self._read_audio).clean
        if clean is None:
            return
        scores.notes["said"] = clean
        if np.any(clean):
            scores.truth["si_sdr_db"] = (si_sdr_db(*_common(clean, before)), si_sdr_db(*_common(clean, after)))
        floors = [pause_floor_db(clean, audio, self._sample_rate_hz) for audio in (before, after)]
        if floors[0] is not None and floors[1] is not None:
            scores.truth["pause_floor_db"] = (floors[0], floors[1])

    def _asks_for(self, *metrics: str) -> bool:
        return self._only is None or self._only in metrics

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return nothing: every metric is a mean."""
        return {}

    def _recording(self, item: EvaluationSample) -> Audio | None:
        if item.utterance is None or item.utterance.audio is None:
            return None
        return self._read_audio(item.utterance.audio, self._sample_rate_hz)

    def _mel_distance(self, recording: Audio, audio: Audio) -> float:
        return log_mel_l1(*(log_mel(part, self._sample_rate_hz) for part in _common(recording, audio)))


def _common(recording: Audio, audio: Audio) -> tuple[Audio, Audio]:
    """Return what both have: audio is a whole number of frames, up to one shorter or longer than the recording it came from.

    Sample n is sample n in both. Spectra are taken after the cut, so that the last frames of both end in the same way.
    """
    length = min(len(recording), len(audio))
    return recording[:length], audio[:length]
