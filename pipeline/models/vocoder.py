"""Vocoders: a mel spectrogram becomes audio, inside the graph (HiFi-GAN) or by an inverse STFT of its outputs (Vocos)."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import log_mel
from pipeline.audio.stft import istft
from pipeline.errors import DataError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.model_files import ModelFiles, agreed, header_of, metadata_of, number_in
from pipeline.models.speech_model import ReadAudio, Run
from pipeline.sample import Outputs, Sample
from pipeline.utterance import Utterance

VOCOS_OUTPUTS = ("mag", "x", "y")


@dataclass
class Vocoder(ModelFiles):
    """A vocoder on log-mel spectrograms.

    Attributes:
        path: the ONNX file; outputs `mag`, `x`, `y` (Vocos), or one output that is audio (HiFi-GAN).
        input_name: of the mel (1, bands, frames); null: its name in the graph.
        sample_rate_hz: of the audio; null: from the metadata.
        n_fft: FFT and window length of the mel, and of Vocos' inverse STFT; null: from the metadata.
        hop_length: samples per frame; null: from the metadata.
    """

    input_name: str | None = None
    _: KW_ONLY
    sample_rate_hz: int | None = None
    n_fft: int | None = None
    hop_length: int | None = None
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.audio, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"vocoder": self._file}

    @property
    def rate_hz(self) -> int:
        """The sample rate of the audio."""
        return self._number(self.sample_rate_hz, "sample_rate", "sample_rate_hz", 22_050)

    def check(self) -> None:
        """Check that the settings and the metadata agree.

        Raises:
            ModelError: they contradict each other.
        """
        _ = self.rate_hz, self._fft

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the one graph."""
        return run("vocoder", sample)

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the log-mel spectrogram (1, 80, frames) of a recording.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with mels of recordings.")
        recording = read_audio(utterance.audio, self.rate_hz)
        return self.sample_of_mel(utterance.id, self.mel(recording))

    def sample_of_mel(self, name: str, mel: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for a mel (bands, frames)."""
        return Sample(name, {self._input: np.ascontiguousarray(mel, dtype=np.float32)[None]})

    def mel(self, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (80, frames) of audio (samples,), as the model was trained on."""
        n_fft, hop = self._fft
        mel = log_mel(audio, self.rate_hz, n_fft=n_fft, hop_length=hop)
        return np.asarray(mel, dtype=np.float32)

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return mono audio (samples,)."""
        if set(VOCOS_OUTPUTS) <= set(outputs):
            mag, x, y = (outputs[name] for name in VOCOS_OUTPUTS)
            n_fft, hop = self._fft
            return np.asarray(istft(mag, x, y, n_fft=n_fft, hop_length=hop), dtype=np.float32)
        return np.asarray(next(iter(outputs.values())), dtype=np.float32).reshape(-1)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the audio that comes out: frames times the hop."""
        del outputs
        return float(sample.inputs[self._input].shape[-1] * self._fft[1] / self.rate_hz)

    @property
    def _file(self) -> str:
        return self.named("vocoder", "vocos*.onnx", "hifigan*.onnx", "*.onnx")

    @cached_property
    def _input(self) -> str:
        model = header_of(self._file)
        return self.input_name or (model.graph.input[0].name if model is not None else "mels")

    @cached_property
    def _fft(self) -> tuple[int, int]:
        """FFT length and hop in samples."""
        return self._number(self.n_fft, "n_fft", "n_fft", 1024), self._number(self.hop_length, "hop_length", "hop_length", 256)

    def _number(self, setting: int | None, in_metadata: str, key: str, default: int) -> int:
        return agreed(setting, number_in(metadata_of(self._file), in_metadata, self._file), default, f"model.{key}", self._file)
