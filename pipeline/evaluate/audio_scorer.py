"""`evaluation=audio`: the audio of a vocoder, or of any model whose first output is audio."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import Mel, log_mel
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.sample_scores import OfFp32, SampleScores
from pipeline.metrics.audio_metrics import log_mel_l1, mcd_db, mr_stft
from pipeline.metrics.enhancement_metrics import pause_floor_db, si_sdr_db
from pipeline.models.speech_model import Denoises, ReadAudio, Speaks
from pipeline.sample import Outputs

Audio = npt.NDArray[np.float32]


class AudioScorer:
    """Compares audio with fp32's and, where there is one, with the recording."""

    def __init__(
        self, model: Speaks, sample_rate_hz: int, read_audio: ReadAudio, only: str | None = None, *, again: bool = False
    ) -> None:
        """Take what turns outputs into numbers.

        Args:
            model: turns outputs into audio.
            sample_rate_hz: of the audio.
            read_audio: reads recordings.
            only: the metric, if one alone is asked for.
            again: the same samples will be scored again and again.
        """
        self._only, self._fp32 = only, OfFp32(keep=again)
        self._model = model
        self._sample_rate_hz = sample_rate_hz
        self._read_audio = read_audio

    def restart(self) -> None:
        """Forget nothing: every metric is a mean."""

    def score(self, item: EvaluationSample, baseline: Outputs, quantized: Outputs) -> SampleScores:
        """Score one sample; its audio is left in the notes for `listen`."""
        before = self._fp32.get(baseline, "audio", lambda: self._model.audio(baseline))
        after = self._model.audio(quantized)
        scores = SampleScores(notes={"audio": (before, after)})
        if self._asks_for("log_mel_l1", "mcd_db"):
            mels = self._fp32.get(baseline, "mel", lambda: self._mel(before)), self._mel(after)
            distances = {"log_mel_l1": log_mel_l1, "mcd_db": mcd_db}
            scores.fidelity = {name: measure(*mels) for name, measure in distances.items() if self._asks_for(name)}
        if self._asks_for("mr_stft"):
            scores.fidelity["mr_stft"] = mr_stft(before, after)
        if isinstance(self._model, Denoises):
            self._score_enhanced(self._model, item, baseline, after, scores)
            return scores
        if not self._asks_for("truth_log_mel_l1", "truth_mr_stft"):
            return scores
        recording = self._fp32.get(baseline, "recording", lambda: self._recording(item))
        if recording is None:
            return scores
        from_truth: dict[str, Callable[[Audio], float]] = {
            "truth_log_mel_l1": partial(self._mel_distance, baseline, recording),
            "truth_mr_stft": partial(_spectral_distance, recording),
        }
        for name, distance in from_truth.items():
            if self._asks_for(name):
                scores.truth[name] = (self._fp32.get(baseline, name, partial(distance, before)), distance(after))
        return scores

    def _mel(self, audio: Audio) -> Mel:
        return log_mel(audio, self._sample_rate_hz)

    def _score_enhanced(
        self, model: Denoises, item: EvaluationSample, baseline: Outputs, after: Audio, scores: SampleScores
    ) -> None:
        """Compare what a denoiser gives with the clean speech of its track, where that is known."""
        utterance = item.utterance
        if utterance is None or not self._asks_for("si_sdr_db", "pause_floor_db"):
            return
        clean = self._fp32.get(baseline, "clean", lambda: model.track(utterance, self._read_audio).clean)
        if clean is None:
            return
        scores.notes["said"] = clean
        measures: dict[str, Callable[[Audio, Audio], float | None]] = {
            "si_sdr_db": _distortion,
            "pause_floor_db": partial(_floor, self._sample_rate_hz),
        }
        before: Audio = scores.notes["audio"][0]
        for name, measure in measures.items():
            if self._asks_for(name):
                pair = self._fp32.get(baseline, name, partial(measure, clean, before)), measure(clean, after)
                if pair[0] is not None and pair[1] is not None:
                    scores.truth[name] = pair[0], pair[1]

    def _asks_for(self, *metrics: str) -> bool:
        return self._only is None or self._only in metrics

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return nothing: every metric is a mean."""
        return {}

    def _recording(self, item: EvaluationSample) -> Audio | None:
        if item.utterance is None or item.utterance.audio is None:
            return None
        return self._read_audio(item.utterance.audio, self._sample_rate_hz)

    def _mel_distance(self, baseline: Outputs, recording: Audio, audio: Audio) -> float:
        shared, part = _common(recording, audio)
        mel = self._fp32.get(baseline, f"mel of the recording, {len(shared)} samples", lambda: self._mel(shared))
        return log_mel_l1(mel, self._mel(part))


def _distortion(clean: Audio, audio: Audio) -> float | None:
    return si_sdr_db(*_common(clean, audio)) if np.any(clean) else None


def _floor(sample_rate_hz: int, clean: Audio, audio: Audio) -> float | None:
    return pause_floor_db(clean, audio, sample_rate_hz)


def _spectral_distance(recording: Audio, audio: Audio) -> float:
    return mr_stft(*_common(recording, audio))


def _common(recording: Audio, audio: Audio) -> tuple[Audio, Audio]:
    """Return what both have: audio is a whole number of frames, up to one shorter or longer than the recording it came from.

    Sample n is sample n in both. Spectra are taken after the cut, so that the last frames of both end in the same way.
    """
    length = min(len(recording), len(audio))
    return recording[:length], audio[:length]
