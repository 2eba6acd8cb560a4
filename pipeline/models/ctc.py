"""CTC recognisers as sherpa-onnx runs them: Kaldi features become log-probabilities of tokens."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.audio.ctc_decode import ctc_greedy
from pipeline.audio.kaldi_fbank import kaldi_fbank
from pipeline.errors import DataError, ModelError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.model_files import ModelFiles, header_of
from pipeline.models.speech_model import ReadAudio, Run
from pipeline.models.text.tokens import read_tokens
from pipeline.paths import resolve_path
from pipeline.sample import Outputs, Sample
from pipeline.utterance import Utterance

WORD_START = "\u2581"  # how sentencepiece writes the space before a word


@dataclass
class Recogniser(ModelFiles):
    """What recognisers share: recordings become Kaldi features, and token ids become words.

    Attributes:
        tokens_path: a line `<token> <id>` each; null: tokens.txt in `dir` or beside the model.
        sample_rate_hz: of the recordings.
    """

    tokens_path: str | None = None
    _: KW_ONLY
    sample_rate_hz: int = 16_000
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.asr, EvaluationKind.tensors})

    @property
    def encoder(self) -> str:
        """The encoder's file."""
        raise NotImplementedError

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the features (1, frames, 80) of a recording, and their number.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        return self.sample_of_audio(utterance.id, read_audio(utterance.audio, self.sample_rate_hz))

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        features = kaldi_fbank(audio, self.sample_rate_hz)[None]
        inputs: dict[str, npt.NDArray[np.generic]] = {"x": features}
        length = self._length_type
        if length is not None:
            inputs["x_lens"] = np.array([features.shape[1]], dtype=length)
        return Sample(name, inputs)

    def words(self, ids: npt.NDArray[np.integer] | list[int]) -> str:
        """Return the words that token ids spell."""
        return "".join(self.tokens[index] for index in ids).replace(WORD_START, " ").strip()

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the recording: frames of 10 ms; None for a graph that is not given a recording."""
        del outputs
        return float(sample.inputs["x"].shape[1] * 0.01) if "x" in sample.inputs else None

    @cached_property
    def tokens(self) -> list[str]:
        """The token table, by id.

        Raises:
            DataError: the file is missing, or a line is not `<token> <id>`, or ids are left out.
        """
        beside = self.beside("tokens.txt", self.encoder)
        path = (
            resolve_path(self.tokens_path) if self.tokens_path else beside or resolve_path(self.encoder).parent / "tokens.txt"
        )
        table = read_tokens(path, "model.tokens_path")
        by_id = {index: token for token, index in table.items()}
        for index in range(len(by_id)):
            if index not in by_id:
                raise DataError(f"model.tokens_path: {path}: no token has the id {index}, but there are {len(by_id)} tokens.")
        return [by_id[index] for index in range(len(by_id))]

    def check_classes(self, file: str, output: str) -> None:
        """Check that a graph has one class per token.

        Raises:
            ModelError: it has more, or fewer.
        """
        model = header_of(file)
        if model is None:
            return
        dims = next((value.type.tensor_type.shape.dim for value in model.graph.output if value.name == output), ())
        classes = dims[-1].dim_value if dims else 0
        if classes and classes != len(self.tokens):
            raise ModelError(
                f"{resolve_path(file)} has {classes} classes, but its tokens.txt has {len(self.tokens)} tokens. They are of "
                "different models; name the right table with model.tokens_path."
            )

    def check_inputs(self) -> None:
        """Check that the encoder takes a whole recording.

        Raises:
            ModelError: it takes anything else, such as the states of a streaming model.
        """
        model = header_of(self.encoder)
        if model is None:
            return
        constants = {tensor.name for tensor in model.graph.initializer}
        given = [value.name for value in model.graph.input if value.name not in constants]
        if set(given) - {"x", "x_lens"} or "x" not in given:
            raise ModelError(
                f"{resolve_path(self.encoder)} takes {', '.join(given[:4])}{', ...' if len(given) > 4 else ''}; a recogniser "
                "of whole recordings takes x and x_lens. A streaming model is quantized as any ONNX file: model=onnx "
                "calibration=arrays."
            )

    @cached_property
    def _length_type(self) -> np.dtype[np.generic] | None:
        """The type of `x_lens`; None where the graph takes none (icefall's --keep-x-lens 0)."""
        import onnx

        model = header_of(self.encoder)
        if model is None:
            return np.dtype(np.int64)
        types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(types["x_lens"])) if "x_lens" in types else None


@dataclass
class Ctc(Recogniser):
    """A CTC encoder: x (1, frames, 80), x_lens (1,) -> log_probs (1, frames', tokens), log_probs_len (1,)."""

    @property
    def graphs(self) -> dict[str, str]:
        """The encoder."""
        return {"encoder": self.encoder}

    @property
    def encoder(self) -> str:
        """The one file."""
        return self.named("CTC model", "model.onnx", "ctc-*.onnx", "model*.onnx", "*.onnx")

    def check(self) -> None:
        """Check that graph and token table fit each other.

        Raises:
            ModelError: they do not.
        """
        self.check_inputs()
        self.check_classes(self.encoder, "log_probs")

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the encoder."""
        return run("encoder", sample)

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the log-probabilities (frames, tokens) of the frames that are speech."""
        length = int(outputs["log_probs_len"][0]) if "log_probs_len" in outputs else None
        return np.asarray(outputs["log_probs"][0, :length], dtype=np.float32)

    def transcript(self, outputs: Outputs) -> str:
        """Return the words of the greedy path."""
        posteriors = self.posteriors(outputs)
        return self.words(ctc_greedy(posteriors, len(posteriors), blank_id=0))
