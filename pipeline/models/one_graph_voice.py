"""What voices have in common whose one graph goes from tokens to audio: VITS, Kokoro."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import log_mel
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.model_files import ModelFiles
from pipeline.models.speech_model import Run
from pipeline.sample import Outputs, Sample


@dataclass
class OneGraphVoice(ModelFiles):
    """A voice that decides itself how long a sentence is.

    Attributes:
        asr_path: a CTC recogniser, `tokens.txt` beside it, for the round-trip word error rate; null: no round trip.
        keep_durations: what durations follow from stays in float, all that is upstream included: speech keeps its length.
        sample_rate_hz: of the speech; null: from the metadata.
        n_fft: FFT and window length of the mels that are compared.
        hop_length: samples per frame of these mels.
    """

    _: KW_ONLY
    asr_path: str | None = None
    keep_durations: bool = True
    sample_rate_hz: int | None = None
    n_fft: int = 1024
    hop_length: int = 256
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tts, EvaluationKind.tensors})
    reads_shipped_tokens: ClassVar[bool] = False

    @property
    def rate_hz(self) -> int:
        """The sample rate of the speech."""
        raise NotImplementedError

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"voice": self._file}

    @property
    def companions(self) -> dict[str, str]:
        """The recogniser."""
        return {} if self.asr_path is None else {"asr": self.asr_path}

    @property
    def keep_lengths(self) -> bool:
        """Whether what durations follow from stays in float."""
        return self.keep_durations

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return what the graph gives, and the audio (samples,)."""
        outputs = run("voice", sample)
        return {**outputs, "audio": self.audio(outputs)}

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the speech (samples,): the first output, as sherpa-onnx takes it; a second one holds durations."""
        return np.asarray(next(iter(outputs.values())), dtype=np.float32).reshape(-1)

    def mel(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (80, frames) of the speech."""
        speech = self.audio(outputs)
        return np.asarray(log_mel(speech, self.rate_hz, n_fft=self.n_fft, hop_length=self.hop_length), dtype=np.float32)

    def mel_depends_on(self, graph: str) -> bool:
        """Return True: there is one graph."""
        del graph
        return True

    def without_audio(self) -> Self:
        """Return the voice without the recogniser."""
        return replace(self, asr_path=None)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the speech that was synthesised."""
        del sample
        return float(self.audio(outputs).size / self.rate_hz)

    @property
    def _file(self) -> str:
        return self.named("voice", "*.onnx")
