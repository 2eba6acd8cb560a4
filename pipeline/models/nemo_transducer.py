"""Transducers of NeMo as sherpa-onnx runs them: Parakeet (RNNT and TDT), FastConformer, GigaAM.

The decoder is an LSTM that is given the last token and its own states. The search is greedy, as the client's
(`OfflineTransducerGreedySearchNeMoDecoder` of sherpa-onnx 2.0.1). A token-and-duration transducer (Xu et al., Efficient
Sequence Transduction by Jointly Predicting Tokens and Durations, ICML 2023) also says how many frames to skip.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.kaldi_fbank import GIGAAM, NEMO, NEMO_LOG_GUARD, Fbank, kaldi_fbank, normalised_bands
from pipeline.errors import ModelError
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import header_of, metadata_of, number_in, text_in
from pipeline.models.speech_model import Run
from pipeline.models.word_recogniser import WordRecogniser
from pipeline.paths import resolve_path
from pipeline.sample import Array, Outputs, Sample

PARTS = ("encoder", "decoder", "joiner")
PORTS = {
    "encoder": (("features", "their number"), ("frames", "their number")),
    "decoder": (("last token", "1", "two states of an LSTM"), ("output", "its length", "the states")),
    "joiner": (("frame of the encoder", "output of the decoder"), ("scores",)),
}
COUNTS = {"encoder": (2, 2), "decoder": (4, 4), "joiner": (2, 1)}
"""Inputs that each graph takes, and outputs that it gives at least."""
SAMPLE_RATE_HZ = 16_000
TOKENS_PER_FRAME = 10
"""That the client lets a frame say at most: some models never say blank to a frame."""
TOKENS_PER_FRAME_TDT = 5
NORMALIZE_TYPES = ("per_feature", "NA", "")
BLANK = "<blk>"


@dataclass
class NemoTransducer(WordRecogniser):
    """Encoder, decoder and joiner of a NeMo transducer, as sherpa-onnx's export scripts write them.

    encoder: audio_signal (1, bands, frames), length (1,) -> outputs (1, dim, frames'), encoded_lengths (1,);
    decoder: targets (1, 1), target_length (1,), two states (layers, 1, hidden) -> outputs (1, hidden, 1), its length, both
    states; joiner: (1, dim, 1), (1, hidden, 1) -> (1, 1, 1, tokens), of TDT (1, 1, 1, tokens + durations). Inputs and outputs
    are bound by position.

    Attributes:
        dir: a directory with encoder.onnx, decoder.onnx, joiner.onnx and tokens.txt, whose last token is `<blk>`.
    """

    @property
    def graphs(self) -> dict[str, str]:
        """The three graphs.

        Raises:
            ModelError: model.dir is not set, or lacks one of them.
        """
        if self.dir is None:
            raise ModelError("model.dir: not set: name the directory that holds encoder.onnx, decoder.onnx, joiner.onnx.")
        return {part: self.named(part, f"{part}.onnx", f"{part}-*.onnx", f"*{part}*.onnx") for part in PARTS}

    @property
    def encoder(self) -> str:
        """The encoder's file."""
        return self.graphs["encoder"]

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what `sample_of_audio` takes."""
        return SAMPLE_RATE_HZ

    def check(self) -> None:
        """Check metadata, the interfaces of the graphs, and the token table.

        Raises:
            ModelError: something is missing, or does not fit.
        """
        for part in PARTS:
            self.ports(part)
        self._number("subsampling_factor")
        if (kind := self._text("normalize_type")) not in NORMALIZE_TYPES:
            raise ModelError(
                f"{resolve_path(self.encoder)}: its metadata has normalize_type={kind!r}; sherpa-onnx runs per_feature and NA."
            )
        self._check_sizes()
        count = self.classes
        if len(self.tokens) != count or self.tokens[-1] != BLANK:
            raise ModelError(
                f"model.tokens_path: {self.token_table} has {len(self.tokens)} tokens, the last one {self.tokens[-1]!r}; the "
                f"encoder's metadata has vocab_size={count - 1}, so that {count} are needed, the last one {BLANK!r}."
            )

    def _check_sizes(self) -> None:
        """Check bands, states and classes where the graphs declare them."""
        classes, count = (dims_of(self.ports("joiner")[1][0]) or [None])[-1], self.classes
        path = resolve_path(self.graphs["joiner"])
        if classes is None:
            raise ModelError(f"{path}: the last size of its output is not declared; sherpa-onnx reads the classes from it.")
        if (classes <= count) if self.is_tdt else (classes != count):
            wanted = "more, one for each duration" if self.is_tdt else "as many"
            told = "has 'tdt' in it" if self.is_tdt else "has no 'tdt' in it"
            raise ModelError(
                f"{path} gives {classes} classes. The encoder's metadata has vocab_size={count - 1}, which makes {count} "
                f"with {BLANK!r}, and its url {told}, so that sherpa-onnx expects {wanted}. Export it for sherpa-onnx again."
            )
        sizes: list[tuple[str, onnx.ValueInfoProto, tuple[int | None, ...]]]
        sizes = [("encoder", self.ports("encoder")[0][0], (1, self.fbank.bands, None))]
        sizes += [("decoder", value, self.state_shape) for value in self.ports("decoder")[0][2:]]
        for part, value, expected in sizes:
            dims = dims_of(value)
            if dims is not None and (
                len(dims) != 3 or any(None not in pair and pair[0] != pair[1] for pair in zip(dims, expected, strict=True))
            ):
                shown, wanted = (", ".join("?" if size is None else str(size) for size in one) for one in (dims, expected))
                raise ModelError(
                    f"{resolve_path(self.graphs[part])}: its input {value.name!r} is of shape ({shown}); by the metadata of "
                    f"the encoder sherpa-onnx gives it ({wanted})."
                )

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the states of the decoder, which are bound by position."""
        constants = {tensor.name for tensor in graph.initializer}
        takes, gives = [value.name for value in graph.input if value.name not in constants], graph.output
        if (len(takes), len(gives)) != COUNTS["decoder"]:
            return {}
        return dict(zip((value.name for value in gives[2:]), takes[2:], strict=True))

    @cached_property
    def is_tdt(self) -> bool:
        """Whether the joiner also says how many frames to skip: the client reads it from the url in the metadata."""
        return "tdt" in metadata_of(self.encoder).get("url", "")

    @property
    def classes(self) -> int:
        """Tokens, the blank included, which is the last one."""
        return self._number("vocab_size") + 1

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Of each of the two states of the decoder."""
        return self._number("pred_rnn_layers"), 1, self._number("pred_hidden")

    @cached_property
    def fbank(self) -> Fbank:
        """The features, before they are normalised."""
        bands = self._number("feat_dim", -1)
        found = GIGAAM if self._number("is_giga_am", 0) else replace(NEMO, bands=bands) if bands > 0 else NEMO
        return replace(found, log_guard=NEMO_LOG_GUARD) if self.is_normalised else found

    @property
    def is_normalised(self) -> bool:
        """Whether each band is made to have mean 0 and deviation 1."""
        return self._text("normalize_type") == "per_feature"

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1] at 16 kHz: features (1, bands, frames), and their number."""
        features = kaldi_fbank(audio, SAMPLE_RATE_HZ, self.fbank)
        if self.is_normalised:
            features = normalised_bands(features)
        signal, length = self.ports("encoder")[0]
        inputs: dict[str, Array] = {
            signal.name: np.ascontiguousarray(features.T[None]).astype(dtype_of(signal)),
            length.name: np.array([len(features)], dtype_of(length)),
        }
        return Sample(name, inputs)

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the three graphs and the token table."""
        graphs = [ClientFile(f"{part}.onnx", part, part, graph=part) for part in PARTS]
        files = (*graphs, self._tokens_for_client)
        return ClientLayout(Task.listen, "from_transducer", "OfflineTransducerModelConfig", files, model_type="nemo_transducer")

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return the encoder's outputs, and what a greedy search makes of them.

        That is the tokens (count,), the path (calls, 2), which is the token and the skip that each call of the joiner says, and
        the logits (calls, classes) that they were chosen by, those of durations last.
        """
        outputs = run("encoder", sample)
        return outputs | self._searched(sample.id, outputs, run)

    def given_decisions(self, sample: Sample, run: Run, decided: Outputs) -> Outputs:
        """Return the logits (calls, classes) where each call says what it says in other outputs, whatever it would have."""
        return {"logits": self._searched(sample.id, run("encoder", sample), run, decided["path"])["logits"]}

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the logits (calls, tokens) of each call of the joiner, without those of durations."""
        return np.asarray(outputs["logits"], np.float32)[:, : self.classes]

    def _searched(self, name: str, outputs: Outputs, run: Run, decided: Array | None = None) -> dict[str, Array]:
        names = [value.name for value in self.ports("encoder")[1]]
        count = int(outputs[names[1]][0])
        frames = np.asarray(outputs[names[0]], dtype=np.float32)[:, :, :count]
        search = _Search(self, name, run, frames, decided)
        found = list(search.with_durations() if self.is_tdt else search.frame_by_frame())
        return {"tokens": np.array(found, dtype=np.int64), **search.record()}

    def transcript(self, outputs: Outputs) -> str:
        """Return the words that the search found."""
        return self.words([int(token) for token in outputs["tokens"]])

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the recording: frames of 10 ms; None for a graph that is not given a recording."""
        del outputs
        name = self.ports("encoder")[0][0].name
        return sample.inputs[name].shape[2] * 0.01 if name in sample.inputs else None

    def ports(self, part: str) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        """Return what a graph takes and gives.

        Raises:
            ModelError: it is not as many as in a NeMo transducer.
        """
        path = self.graphs[part]
        model = header_of(path)
        if model is None:
            raise ModelError(f"model.dir: {path} is not an ONNX model.")
        constants = {tensor.name for tensor in model.graph.initializer}
        takes, gives = [value for value in model.graph.input if value.name not in constants], list(model.graph.output)
        if len(takes) != COUNTS[part][0] or len(gives) < COUNTS[part][1]:
            shown = [", ".join(value.name for value in values[:6]) for values in (takes, gives)]
            expected = [", ".join(words) for words in PORTS[part]]
            raise ModelError(
                f"{resolve_path(path)} takes {shown[0]} and gives {shown[1]}; the {part} of a NeMo transducer as sherpa-onnx "
                f"runs it takes {expected[0]}, in this order, and gives {expected[1]}. Another one, such as a streaming "
                "model, is quantized as any ONNX file: model=onnx calibration=arrays."
            )
        return takes, gives

    def _text(self, key: str) -> str:
        return text_in(metadata_of(self.encoder), key, self.encoder)

    def _number(self, key: str, default: int | None = None) -> int:
        if default is None:
            self._text(key)
        found = number_in(metadata_of(self.encoder), key, self.encoder)
        return found if found is not None else default or 0


class _Search:
    """A greedy search over the frames of one recording."""

    def __init__(
        self, model: NemoTransducer, name: str, run: Run, frames: npt.NDArray[np.float32], decided: Array | None = None
    ) -> None:
        """Take frames (1, dim, count), and what each call says (calls, 2); the decoder is given the blank and zeros first."""
        self._decided = decided
        self._path: list[tuple[int, int]] = []
        self._rows: list[npt.NDArray[np.float32]] = []
        self._name, self._run, self._frames = name, run, frames
        self._takes = {part: model.ports(part)[0] for part in ("decoder", "joiner")}
        self._gives = {part: [value.name for value in model.ports(part)[1]] for part in ("decoder", "joiner")}
        self._classes, self._blank = model.classes, model.classes - 1
        self._said = 0
        self._states: list[Array] = [np.zeros(model.state_shape, dtype_of(value)) for value in self._takes["decoder"][2:]]
        self._say(self._blank)

    def frame_by_frame(self) -> Iterator[int]:
        """Give tokens: of each frame those before the blank."""
        for number in range(self._frames.shape[2]):
            for _ in range(TOKENS_PER_FRAME):
                token, _ = self._decision(number)
                if token == self._blank:
                    break
                yield token
                self._say(token)

    def with_durations(self) -> Iterator[int]:
        """Give tokens, and skip as many frames as each call of the joiner says."""
        number = here = 0
        while number < self._frames.shape[2]:
            token, skip = self._decision(number)
            if token != self._blank:
                yield token
                self._say(token)
                here += 1
            if skip == 0 and (token == self._blank or here >= TOKENS_PER_FRAME_TDT):
                skip = 1
            here = 0 if skip else here
            number += skip

    def _say(self, token: int) -> None:
        """Give the decoder a token and its states."""
        values = [np.array([[token]]), np.array([1]), *self._states]
        outputs = self._call("decoder", self._said, values)
        self._output, _, *self._states = (outputs[name] for name in self._gives["decoder"][:4])
        self._said += 1

    def record(self) -> dict[str, Array]:
        """Return what each call of the joiner has said: the path (calls, 2) and the logits (calls, classes)."""
        logits = np.stack(self._rows) if self._rows else np.zeros((0, self._classes), np.float32)
        return {"path": np.array(self._path, np.int64).reshape(-1, 2), "logits": logits}

    def _decision(self, number: int) -> tuple[int, int]:
        """Return the token of a frame after what has been said, and how many frames to skip; 0 without durations."""
        given = [self._frames[:, :, number : number + 1], self._output]
        outputs = self._call("joiner", len(self._rows), given)
        scores = np.asarray(outputs[self._gives["joiner"][0]], np.float32).reshape(-1)
        if self._decided is not None:
            token, skip = (int(value) for value in self._decided[len(self._rows)])
        else:
            durations = scores[self._classes :]
            token, skip = int(scores[: self._classes].argmax()), int(durations.argmax()) if len(durations) else 0
        self._rows.append(scores)
        self._path.append((token, skip))
        return token, skip

    def _call(self, part: str, number: int, values: list[Array]) -> Outputs:
        typed = {value.name: given.astype(dtype_of(value)) for value, given in zip(self._takes[part], values, strict=True)}
        return self._run(part, Sample(f"{self._name}.{number}", typed))
