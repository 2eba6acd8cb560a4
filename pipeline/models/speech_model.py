"""What the pipeline asks of a model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.noisy_track import Track
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.collected_steps import Collected
from pipeline.sample import FloatArray, Outputs, Sample
from pipeline.utterance import Utterance

if TYPE_CHECKING:  # adapters are known before anything that opens a graph is imported
    from pipeline.graph.source_graph import SourceGraph

ReadAudio = Callable[[Path, int], npt.NDArray[np.float32]]
"""(path, sample rate in Hz) -> mono audio (samples,) in [-1, 1]."""

Run = Callable[[str, Sample], Outputs]
"""(graph, its inputs) -> its outputs."""


class SpeechModel(Protocol):
    """What every adapter offers.

    Attributes:
        name: the model's name in paths and in the report.
        evaluations: the kinds of evaluation that make sense for it.
        reads_shipped_tokens: whether the token ids in the sentences that ship may be its own.
        path: the ONNX file, where the model is one.
        dir: the directory that the model's files are found in.
        url: where they are downloaded from; `sha256` is what they must be.
        calibration_path: the set of its own calibration data, if it has any.
        evaluation_path: the set of its own evaluation data, if it has any.
        fixed_inputs: inputs that are always the same, and their values.
    """

    name: str
    path: str | None
    dir: str | None
    url: str | None
    sha256: str | None
    calibration_path: str | None
    evaluation_path: str | None
    evaluations: ClassVar[frozenset[EvaluationKind]]
    reads_shipped_tokens: ClassVar[bool]

    @property
    def keep_lengths(self) -> bool:
        """Whether what decides the length of the outputs stays in float, everything upstream included."""

    @property
    def client_metadata(self) -> Mapping[str, str]:
        """Metadata that sherpa-onnx wants in every graph, and that the files may lack."""

    @property
    def client_files(self) -> Mapping[str, str]:
        """What sherpa-onnx reads beside a graph, and what does not lie beside it: name -> text."""

    @property
    def fixed_inputs(self) -> Mapping[str, float] | None:
        """Inputs of one element that are always the same, and their values; None for a model without such a setting."""

    @property
    def stays_float(self) -> Mapping[str, str]:
        """Graphs that a mode without a search leaves as they are, unless they have a mode of their own, and why."""

    @property
    def fixed_sizes(self) -> Mapping[str, int]:
        """Sizes of axes that the files leave open and that are always the same: name of the axis -> size."""

    @property
    def side_files(self) -> list[Path]:
        """The files beside the graphs that decide what inputs and outputs mean, such as tokens.txt; some may be missing."""

    def found_at(self, place: Path) -> Self:
        """Return the model with its files at a place: a directory, or one ONNX file."""

    @property
    def graphs(self) -> dict[str, str]:
        """The graphs that a mode applies to: name -> path as configured."""

    @property
    def companions(self) -> dict[str, str]:
        """The graphs that are only run, to synthesise or to score the result: name -> path as configured."""

    @property
    def entry(self) -> str:
        """The graph that an utterance enters."""

    def check(self) -> None:
        """Check that the files of the model fit each other.

        Raises:
            ModelError: metadata, token table and graphs contradict each other.
        """

    def with_graphs(self, graphs: Mapping[str, "SourceGraph"]) -> Self:
        """Return the model that knows its graphs, once they have been read.

        Raises:
            ModelError: a setting does not fit them.
        """

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the outputs of a graph that become inputs of its next call, and those inputs."""

    def steps(self, sample: Sample) -> int | None:
        """Return over how many steps the entry is run for a sample, each with the states of the step before.

        None where a sample is what one call of the entry takes.

        Raises:
            DataError: the sample does not fit the graph.
        """

    def first_call(self, sample: Sample) -> Sample:
        """Return what the entry is given first for a sample."""

    def of_noise(self, sample: Sample, seed: Sequence[int]) -> Sample:
        """Return what stands for data where there is none: a call of noise, or a sequence of it."""

    def collector(self, sample: Sample) -> Collected:
        """Return what collects the outputs of the steps of a sample as `infer` does."""

    def shortened(self, sample: Sample, steps: int) -> Sample:
        """Return the beginning of a sample that has steps: so many at most."""

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the inputs that the first graph takes for an utterance.

        Raises:
            DataError: the utterance lacks what the model reads.
        """

    def for_comparison(self, sample: Sample) -> Sample:
        """Return a sample as two graphs are compared and timed on: of the same length, whatever noise they draw."""

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Return a recording (samples,) at another sample rate, as whoever runs the model does."""

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the whole model on inputs of its first graph; return the outputs that it is judged by."""

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return how long the speech of one inference of one graph is; None where it neither reads nor produces audio."""


@runtime_checkable
class TextToSpeech(Protocol):
    """A text-to-speech model: it predicts a mel spectrogram and, where it has a vocoder, audio.

    Attributes:
        asr_path: a CTC recogniser for the round trip; None: no round trip.
    """

    asr_path: str | None

    @property
    def rate_hz(self) -> int:
        """The sample rate of the speech."""

    def mel(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (bands, frames)."""

    def mel_depends_on(self, graph: str) -> bool:
        """Return whether the mel depends on a graph of the model, or only what follows does."""

    def without_audio(self) -> SpeechModel:
        """Return the model without vocoder and recogniser: audio that no metric needs is not synthesised."""


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


@runtime_checkable
class GoesOnFromItself(Protocol):
    """A model that is given its own decisions: after the first one that differs, outputs of two models are not comparable."""

    def given_decisions(self, sample: Sample, run: Run, decided: Outputs) -> Outputs:
        """Return the outputs that depend on decisions, after the decisions in other outputs: those of fp32."""


@runtime_checkable
class HearsAudio(Protocol):
    """A model that takes any recording."""

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate that it is given."""

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""


@runtime_checkable
class Detects(Protocol):
    """A detector of speech: what its client makes of its probabilities is what counts."""

    @property
    def speech_from(self) -> float:
        """From which probability on it is speech."""

    def probabilities(self, outputs: Outputs) -> FloatArray:
        """Return the probabilities of speech (steps,)."""

    def speech(self, probabilities: FloatArray) -> npt.NDArray[np.bool_]:
        """Return where the client says that somebody speaks (steps,)."""


@runtime_checkable
class Denoises(Protocol):
    """A model whose outputs are what it heard, without noise.

    Attributes:
        track_s: length of the tracks that noise is added to; None: what is heard is noisy already.
    """

    track_s: float | None

    def track(self, utterance: Utterance, read_audio: ReadAudio) -> Track:
        """Return what is heard of an utterance, and what was said."""

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return mono audio (samples,) in [-1, 1]."""


@runtime_checkable
class HasPosteriors(Protocol):
    """A recogniser that gives posteriors, frame by frame, or token by token where it `GoesOnFromItself`."""

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the log-probabilities (frames, classes) of the frames that are speech, up to a constant for each frame."""
