"""Any ONNX file: its inputs are arrays, its outputs are compared as tensors, or as audio."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.model_files import ModelFiles
from pipeline.models.speech_model import ReadAudio, Run
from pipeline.sample import Outputs, Sample
from pipeline.utterance import Utterance


@dataclass
class OnnxFile(ModelFiles):
    """A model that the pipeline knows nothing about.

    Attributes:
        path: the ONNX file.
        calibration_path: none; set calibration.path.
        evaluation_path: none; set evaluation.path.
        fixed_inputs: inputs of one element that are always the same, such as a sampling rate, and their values. What they
            decide is decided before quantization; the graph that comes out takes them still, and ignores them.
    """

    fixed_inputs: dict[str, float] | None = None

    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tensors, EvaluationKind.audio})

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"model": self.named("model", "*.onnx")}

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the one graph."""
        return run("model", sample)

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Refuse: how an utterance becomes this model's inputs is not known.

        Raises:
            DataError: always.
        """
        del read_audio
        raise DataError(
            f"utterance {utterance.id!r}: how a manifest's utterance becomes the inputs of {self.path} is not known. Give "
            "arrays: calibration.path=<npz> evaluation.path=<npz>, named <sample>/<input name>. Or is it a vocoder "
            "(model=vocoder, model=hifigan), a recogniser (model=zipformer_ctc) or a text-to-speech model (model=matcha)?"
        )

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return None: whether this is speech is not known."""
        del sample, outputs
        return None

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the first output, flattened, as audio (samples,): for `evaluation=audio`."""
        return np.asarray(next(iter(outputs.values())), dtype=np.float32).reshape(-1)
