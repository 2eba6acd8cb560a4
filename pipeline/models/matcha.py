"""Matcha-TTS as icefall exports it: tokens become a mel spectrogram, whose length the model predicts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluationKind
from pipeline.dataset import Utterance
from pipeline.errors import DataError
from pipeline.models import Outputs, ReadAudio
from pipeline.samples import Sample


@dataclass
class Matcha:
    """The acoustic model of Matcha-TTS (Mehta et al. 2024), with its Euler steps unrolled in one graph.

    Attributes:
        name: the model's name in paths and in the report.
        path: the ONNX file: x, x_length, noise_scale, length_scale -> mel (1, 80, frames).
        calibration_path: manifest of sentences with tokens.
        evaluation_path: manifest of sentences with tokens and text.
        vocoder_path: an ONNX vocoder that makes the mels audible; null: no audio, no round trip.
        asr_path: a CTC recogniser, `tokens.txt` beside it, that hears what was said; null: no round trip.
        noise_scale: temperature of the noise that the flow starts from.
        length_scale: above 1 is slower speech.
        sample_rate_hz: of the speech.
        hop_length: samples per frame of the mel.
    """

    name: str
    path: str
    calibration_path: str | None = None
    evaluation_path: str | None = None
    vocoder_path: str | None = None
    asr_path: str | None = None
    noise_scale: float = 0.667
    length_scale: float = 1.0
    sample_rate_hz: int = 22_050
    hop_length: int = 256
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tts, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The acoustic model."""
        return {"acoustic": self.path}

    @property
    def companions(self) -> dict[str, str]:
        """The vocoder and the recogniser, where they are set."""
        paths = {"vocoder": self.vocoder_path, "asr": self.asr_path}
        return {name: path for name, path in paths.items() if path is not None}

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return tokens (1, length), their number, and the two scales.

        Raises:
            DataError: the utterance has no tokens.
        """
        del read_audio
        if not utterance.tokens:
            raise DataError(f"utterance {utterance.id!r} has no tokens; {self.name} is fed with token ids.")
        return Sample(
            utterance.id,
            {
                "x": np.array([utterance.tokens], dtype=np.int64),
                "x_length": np.array([len(utterance.tokens)], dtype=np.int64),
                "noise_scale": np.array([self.noise_scale], dtype=np.float32),
                "length_scale": np.array([self.length_scale], dtype=np.float32),
            },
        )

    def mel(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (80, frames)."""
        return np.asarray(outputs["mel"][0], dtype=np.float32)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the speech that was synthesised."""
        del sample
        return float(outputs["mel"].shape[-1] * self.hop_length / self.sample_rate_hz)
