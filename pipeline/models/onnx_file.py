"""Any ONNX file: its inputs are arrays, its outputs are compared as tensors, or as audio.

A streaming model is run over whole sequences, each step with the states that the step before has left: see `state_loop.py`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.errors import DataError, ModelError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.states import states_of
from pipeline.models.loop_settings import check_states, loop_of, step_seconds
from pipeline.models.speech_model import ReadAudio
from pipeline.models.state_loop import Cut, StateLoop
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.sample import Outputs, Sample
from pipeline.utterance import Utterance


@dataclass
class OnnxFile(StepwiseModel):
    """A model that the pipeline knows nothing about.

    Attributes:
        path: the ONNX file.
        calibration_path: none; set calibration.path.
        evaluation_path: none; set evaluation.path.
        fixed_inputs: inputs of one element that are always the same, such as a sampling rate, and their values. What they
            decide is decided before quantization; the graph that comes out takes them still, and ignores them.
        states: of a streaming model, outputs that are fed back, and the input that each becomes at the next step: {new_h: h};
            null: those that are found by name and shape; {}: none. See docs/streaming.md.
        initial_states: an .npz of what states start from, its arrays named as the inputs; null: zeros.
        chunk: positions of `chunk_input` that a step takes (samples or frames); null: as many as the graph declares.
        hop: positions from one step to the next; null: chunk.
        chunk_input: the input that is cut into chunks; null: the first one that is no state.
        chunk_axis: the axis that is cut; null: the one along which a sequence is longer than a step.
        step_ms: audio that a step takes, in milliseconds, for the real-time factor; null: what hop says, at the sample rate of
            the metadata or of a fixed input sr, where it is known.
    """

    fixed_inputs: dict[str, float] | None = None
    states: dict[str, str] | None = None
    initial_states: str | None = None
    chunk: int | None = None
    hop: int | None = None
    chunk_input: str | None = None
    chunk_axis: int | None = None
    step_ms: float | None = None

    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tensors, EvaluationKind.audio})

    def __post_init__(self) -> None:
        """Know no graph yet."""
        self._loop: StateLoop | None = None
        self._step_seconds: float | None = None if self.step_ms is None else self.step_ms / 1000.0

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"model": self.named("model", "*.onnx")}

    def with_graphs(self, graphs: Mapping[str, SourceGraph]) -> Self:
        """Return the model that knows how its graph is run step by step.

        Raises:
            ModelError: a setting does not fit the graph.
            DataError: `initial_states` does not.
        """
        if self.step_ms is not None and self.step_ms <= 0:
            raise ModelError(f"model.step_ms: {self.step_ms} is out of limits; allowed: null or above 0.")
        [(name, source)] = graphs.items()
        known = copy.copy(self)
        cut = Cut(self.chunk_input or "", self.chunk, self.hop, self.chunk_axis)
        known._loop = loop_of(name, source, self.states, self.initial_states, cut)
        if known._step_seconds is None:
            known._step_seconds = step_seconds(source.model, known._loop, self.fixed_inputs or {})
        return known

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the outputs that become inputs of the next call: those of the setting, or those that are found."""
        return states_of(graph) if self.states is None else check_states(graph, self.states)

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

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the first output, flattened, as audio (samples,): for `evaluation=audio`.

        Raises:
            DataError: steps overlap in it.
        """
        if self._loop is not None and (hop := self._loop.cut.hop) is not None and outputs:
            given = next(iter(outputs.values()))
            if given.ndim > 1 and given.shape[-1] > hop:
                raise DataError(
                    f"evaluation=audio: each step gives {given.shape[-1]} samples and goes on by model.hop={hop}; how they are "
                    "put together is not known. Compare them as they are: evaluation=tensors."
                )
        return np.asarray(next(iter(outputs.values())), dtype=np.float32).reshape(-1)
