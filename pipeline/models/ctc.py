"""Recognisers of one graph as sherpa-onnx runs them: Kaldi features become log-probabilities of tokens."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.audio.ctc_decode import ctc_greedy
from pipeline.audio.kaldi_fbank import kaldi_fbank, stacked_frames
from pipeline.errors import ModelError
from pipeline.graph.value_info import dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import header_of, metadata_of, number_in
from pipeline.models.recogniser_families import Family, family_of
from pipeline.models.speech_model import Run
from pipeline.models.text.joined_units import joined_units
from pipeline.models.word_recogniser import WordRecogniser
from pipeline.paths import resolve_path
from pipeline.sample import Outputs, Sample


@dataclass
class Recogniser(WordRecogniser):
    """What recognisers of icefall, WeNet and FunASR share: recordings become Kaldi features.

    Attributes:
        features: how the client computes them: icefall, wenet, sense_voice, paraformer; null: what the metadata says.
        sample_rate_hz: of the recordings.
    """

    _: KW_ONLY
    features: str | None = None
    sample_rate_hz: int = 16_000

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        family = self.family
        features = kaldi_fbank(audio, self.sample_rate_hz, family.fbank)
        if family.stacked:
            features = stacked_frames(features, *self._stacking)
        names = self._inputs_of(self.encoder, family.inputs or ("x", "x_lens"))
        inputs: dict[str, npt.NDArray[np.generic]] = {(family.inputs or ("x",))[0]: features[None]}
        values = {"language": 0, "text_norm": self._number("without_itn", 15)}
        for place, (other, dtype) in enumerate(names.items()):
            if other not in inputs:
                value = values.get(other, len(features)) if place > 1 else len(features)
                inputs[other] = np.array([value], dtype=dtype)
        return Sample(name, inputs)

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what `sample_of_audio` takes."""
        return self.sample_rate_hz

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the recording: frames of 10 ms; None for a graph that is not given a recording."""
        del outputs
        name = (self.family.inputs or ("x",))[0]
        frames = sample.inputs[name].shape[1] if name in sample.inputs else None
        return None if frames is None else float(frames * 0.01 * (self._stacking[1] if self.family.stacked else 1))

    @cached_property
    def family(self) -> Family:
        """What the client does before and after the graph.

        Raises:
            ModelError: the setting or the metadata names none that is known.
        """
        return family_of(self.features, metadata_of(self.encoder), self.encoder)

    @cached_property
    def _stacking(self) -> tuple[int, int, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """How many frames are stacked, every how many, and what normalises them."""
        metadata, shapes = metadata_of(self.encoder), []
        for key in ("neg_mean", "inv_stddev"):
            if key not in metadata:
                raise ModelError(f"{resolve_path(self.encoder)}: its metadata has no {key}, which normalises the features.")
            shapes.append(np.array(metadata[key].replace(",", " ").split(), dtype=np.float32))
        return self._number("lfr_window_size", 7), self._number("lfr_window_shift", 6), shapes[0], shapes[1]

    def _number(self, key: str, default: int) -> int:
        found = number_in(metadata_of(self.encoder), key, self.encoder)
        return default if found is None else found

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
        known = self.family.inputs or ("x", "x_lens")
        if set(given) - set(known) or known[0] not in given:
            shown = ", ".join(given[:4]) + (", ..." if len(given) > 4 else "")
            raise ModelError(
                f"{resolve_path(self.encoder)} takes {shown}; a recogniser of whole recordings (model.features: "
                f"{self.family.name}) takes {' and '.join(known)}. A streaming model is quantized as any ONNX file: model=onnx "
                "calibration=arrays."
            )

    def _inputs_of(self, file: str, known: Sequence[str]) -> dict[str, np.dtype[np.generic]]:
        """Return the inputs that a graph takes, and their types; x_lens may be left out (icefall's --keep-x-lens 0)."""
        model = header_of(file)
        if model is None:
            return dict.fromkeys(known, np.dtype(np.int64))
        constants = {tensor.name for tensor in model.graph.initializer}
        return {value.name: dtype_of(value) for value in model.graph.input if value.name not in constants}


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
        self.check_classes(self.encoder, "logits" if self.family.stacked else "log_probs")

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph and the token table, by the loader of the family."""
        loader, argument, flag, kotlin = self.family.loader
        model = ClientFile("model.onnx", argument, flag, graph="encoder")
        return ClientLayout(Task.listen, loader, kotlin, (model, self._tokens_for_client))

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Run the encoder."""
        return run("encoder", sample)

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the log-probabilities (frames, tokens) of the frames that are speech."""
        if not self.family.stacked:
            length = int(outputs["log_probs_len"][0]) if "log_probs_len" in outputs else None
            return np.asarray(outputs["log_probs"][0, :length], dtype=np.float32)
        logits = np.asarray(next(iter(outputs.values()))[0], dtype=np.float32)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float32)

    def transcript(self, outputs: Outputs) -> str:
        """Return the words of the greedy path."""
        posteriors, family = self.posteriors(outputs), self.family
        if family.is_ctc:
            return self.words(ctc_greedy(posteriors, len(posteriors), blank_id=0)[family.skipped :])
        best = [self.tokens[index] for index in posteriors.argmax(axis=-1)]
        return joined_units(best[: best.index("</s>")] if "</s>" in best else best)
