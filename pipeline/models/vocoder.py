"""Vocoders: a mel spectrogram becomes audio, inside the graph (HiFi-GAN) or by an inverse STFT of its outputs (Vocos)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluationKind
from pipeline.dataset import Utterance
from pipeline.errors import DataError
from pipeline.metrics.audio import istft, log_mel
from pipeline.models import Outputs, ReadAudio
from pipeline.samples import Sample

VOCOS_OUTPUTS = ("mag", "x", "y")


@dataclass
class Vocoder:
    """A vocoder on log-mel spectrograms.

    Attributes:
        name: the model's name in paths and in the report.
        path: the ONNX file; outputs `mag`, `x`, `y` (Vocos), or one output that is audio (HiFi-GAN).
        input_name: of the mel (1, bands, frames); null: `mels` for Vocos, `mel` else.
        calibration_path: manifest of recordings whose mels calibrate it.
        evaluation_path: manifest of recordings that it is to reproduce.
        sample_rate_hz: of the audio.
        n_fft: FFT and window length of the mel, and of Vocos' inverse STFT.
        hop_length: samples per frame.
    """

    name: str
    path: str
    input_name: str = "mels"
    calibration_path: str | None = None
    evaluation_path: str | None = None
    sample_rate_hz: int = 22_050
    n_fft: int = 1024
    hop_length: int = 256
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.audio, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"vocoder": self.path}

    @property
    def companions(self) -> dict[str, str]:
        """None."""
        return {}

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the log-mel spectrogram (1, 80, frames) of a recording.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with mels of recordings.")
        recording = read_audio(utterance.audio, self.sample_rate_hz)
        return self.sample_of_mel(utterance.id, self.mel(recording))

    def sample_of_mel(self, name: str, mel: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for a mel (bands, frames)."""
        return Sample(name, {self.input_name: np.ascontiguousarray(mel, dtype=np.float32)[None]})

    def mel(self, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (80, frames) of audio (samples,), as the model was trained on."""
        mel = log_mel(audio, self.sample_rate_hz, n_fft=self.n_fft, hop_length=self.hop_length)
        return np.asarray(mel, dtype=np.float32)

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return mono audio (samples,)."""
        if set(VOCOS_OUTPUTS) <= set(outputs):
            mag, x, y = (outputs[name] for name in VOCOS_OUTPUTS)
            return np.asarray(istft(mag, x, y, n_fft=self.n_fft, hop_length=self.hop_length), dtype=np.float32)
        return np.asarray(next(iter(outputs.values())), dtype=np.float32).reshape(-1)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the audio that comes out: frames times the hop."""
        del outputs
        return float(sample.inputs[self.input_name].shape[-1] * self.hop_length / self.sample_rate_hz)
