"""Models: what the pipeline asks of one, and one adapter per kind.

An adapter is a dataclass whose fields are the settings of the model's YAML file (`conf/model/`), which names it as
`_target_`. It knows its graph, how an utterance becomes the inputs of that graph, and what the outputs mean.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluationKind
from pipeline.dataset import Utterance
from pipeline.samples import Sample

Array = npt.NDArray[np.generic]
Outputs = dict[str, Array]
"""Output name -> array, of one inference."""

ReadAudio = Callable[[Path, int], npt.NDArray[np.float32]]
"""(path, sample rate in Hz) -> mono audio (samples,) in [-1, 1]."""


class SpeechModel(Protocol):
    """What every adapter offers.

    Attributes:
        name: the model's name in paths and in the report.
        evaluations: the kinds of evaluation that make sense for it.
        calibration_path: the manifest of its own calibration data, if it has any.
        evaluation_path: the manifest of its own evaluation data, if it has any.
    """

    name: str
    calibration_path: str | None
    evaluation_path: str | None
    evaluations: ClassVar[frozenset[EvaluationKind]]

    @property
    def graphs(self) -> dict[str, str]:
        """The graphs that a mode applies to: name -> path as configured."""

    @property
    def companions(self) -> dict[str, str]:
        """The graphs that are only run, to hear or to score the result: name -> path as configured."""

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the inputs that the model's graph takes for an utterance.

        Raises:
            DataError: the utterance lacks what the model reads.
        """

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return how long the speech of one inference is; None where the model does not speak or hear."""


@runtime_checkable
class Speaks(Protocol):
    """A model whose outputs are audio."""

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return mono audio (samples,) in [-1, 1]."""


@runtime_checkable
class Transcribes(Protocol):
    """A model whose outputs are a transcript."""

    def transcript(self, outputs: Outputs) -> str:
        """Return the words that were recognised, greedily."""

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the log-probabilities (frames, classes) of the frames that are speech."""
