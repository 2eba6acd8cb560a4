"""Streaming Zipformers of icefall as sherpa-onnx's online recogniser runs them, chunk by chunk: transducers, and CTC.

The encoder hears T frames of 10 ms and goes on by `decode_chunk_len` of them; what it leaves in its caches is what it is given
next. The search is greedy and says one token a frame at most, as `OnlineTransducerGreedySearchDecoder` of sherpa-onnx 2.0.1.
A keyword spotter is made of the same three files.
"""

import copy
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.ctc_decode import ctc_greedy
from pipeline.audio.kaldi_fbank import ICEFALL, kaldi_fbank
from pipeline.errors import ConfigError, ModelError
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.loop_settings import loop_of
from pipeline.models.model_files import find_in, header_of, metadata_of, number_in, text_in
from pipeline.models.speech_model import Run
from pipeline.models.state_loop import Cut
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.models.word_recogniser import WordRecogniser
from pipeline.paths import resolve_path
from pipeline.sample import Outputs, Sample

PARTS = ("encoder", "decoder", "joiner")
SAMPLE_RATE_HZ = 16_000
FRAME_S = 0.01
BLANK = 0
NOTHING = -1
"""What stands before the first blank: the decoder sees no token there."""
UNKNOWN = "<unk>"
"""A token that the client passes over as it does the blank."""
MODEL_TYPE = "zipformer2"
PER_STACK = (
    "encoder_dims", "query_head_dims", "value_head_dims", "num_heads", "num_encoder_layers", "cnn_module_kernels",
    "left_context_len",
)  # fmt: skip
LONGEST_TAIL_S = 10.0
FLOAT_DECODER = "it runs once a token and is small, so that integers save nothing, and its errors become other tokens"
"""icefall#2003: 6.2 % of the words wrong in float, 8.5 % with this graph alone in int8; the `zipformer` package leaves it."""


@dataclass
class StreamingZipformer(StepwiseModel, WordRecogniser):
    """A causal Zipformer, as `zipformer/export-onnx-streaming.py` and `zipformer/export-onnx-streaming-ctc.py` write it.

    encoder: x (1, T, 80), for each layer six caches, embed_states (1, 128, 3, 19), processed_lens (1,) -> encoder_out
    (1, frames, dim), or log_probs (1, frames, tokens) of CTC, and the same states anew; decoder: y (1, context) ->
    decoder_out (1, dim); joiner: encoder_out (1, dim), decoder_out (1, dim) -> logit (1, tokens).

    Attributes:
        dir: a directory with encoder-*.onnx, decoder-*.onnx, joiner-*.onnx and tokens.txt; of CTC, with one graph.
        path: the encoder of a transducer, with the other two beside it; or the graph of a CTC model.
        tail_s: silence behind each recording, as clients add it: what has not been said at its end is said then.
        batch: 1: the graphs that are written take one recording at a time, as in an app, and what follows from that is computed
            already; null: any number, as a server that decodes several streams in one call needs it.
    """

    _: KW_ONLY
    tail_s: float = 0.66
    batch: int | None = None

    @cached_property
    def graphs(self) -> dict[str, str]:
        """The three graphs; of CTC, the encoder. Beside an encoder that `path` names lie the other two.

        Raises:
            ModelError: neither model.dir nor model.path is set, or the directory lacks one of them.
        """
        if self.dir is None and self.path is None:
            raise ModelError(
                "model.dir: not set: name the directory that holds encoder-*.onnx, decoder-*.onnx, joiner-*.onnx, or the graph "
                "of a CTC model."
            )
        folder = resolve_path(self.dir) if self.dir is not None else resolve_path(str(self.path)).parent
        is_search = {part: any(folder.glob(f"*{part}*.onnx")) for part in PARTS}
        if self.dir is None and (
            "encoder" not in Path(str(self.path)).name or not (is_search["decoder"] or is_search["joiner"])
        ):
            return {"encoder": str(self.path)}
        if not any(is_search.values()):
            return {"encoder": self.named("streaming CTC model", "ctc-*.onnx", "model*.onnx", "*.onnx")}
        found = {part: find_in(folder, part, f"{part}-*.onnx", f"{part}.onnx", f"*{part}*.onnx") for part in PARTS}
        return {part: str(path) for part, path in found.items()} | ({} if self.dir is not None else {"encoder": str(self.path)})

    @property
    def encoder(self) -> str:
        """The encoder's file."""
        return self.graphs["encoder"]

    @property
    def stays_float(self) -> Mapping[str, str]:
        """The decoder."""
        return {"decoder": FLOAT_DECODER} if self._has_search else {}

    @property
    def fixed_sizes(self) -> Mapping[str, int]:
        """The batch, where it is set: the first axis of what each graph takes."""
        if self.batch is None:
            return {}
        models = [header_of(path) for path in self.graphs.values()]
        firsts = [_inputs_of(model.graph)[0].type.tensor_type.shape.dim for model in models if model is not None]
        return {axes[0].dim_param: self.batch for axes in firsts if axes and axes[0].dim_param}

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what `sample_of_audio` takes."""
        return SAMPLE_RATE_HZ

    @property
    def chunk(self) -> int:
        """Frames that a step takes."""
        return self._number("T")

    @property
    def hop(self) -> int:
        """Frames from one step to the next."""
        return self._number("decode_chunk_len")

    @cached_property
    def context_size(self) -> int:
        """How many tokens the decoder looks back at.

        Raises:
            ModelError: the metadata does not have it.
        """
        path = self.graphs["decoder"]
        size = number_in(metadata_of(path), "context_size", path)
        if not size:
            raise ModelError(
                f"{resolve_path(path)}: its metadata has no context_size, the number of tokens that the decoder looks at."
            )
        return size

    def check(self) -> None:
        """Check settings, metadata, the shapes of the states, and that graphs and token table fit each other.

        Raises:
            ConfigError: a setting is out of limits.
            ModelError: something is missing, or does not fit.
        """
        if not 0 <= self.tail_s <= LONGEST_TAIL_S:
            raise ConfigError(f"model.tail_s: {self.tail_s} is out of limits; allowed: 0 to {LONGEST_TAIL_S:g}.")
        if self.batch not in (None, 1):
            raise ConfigError(f"model.batch: {self.batch} is out of limits; allowed: null or 1.")
        path = resolve_path(self.encoder)
        if (kind := metadata_of(self.encoder).get("model_type")) != MODEL_TYPE:
            raise ModelError(
                f"{path}: its metadata has model_type={kind!r}; this adapter runs {MODEL_TYPE}. Another streaming model is "
                "quantized as any ONNX file: model=onnx calibration=arrays, see docs/streaming.md."
            )
        if not 0 < self.hop < self.chunk:
            raise ModelError(
                f"{path}: its metadata has T={self.chunk} and decode_chunk_len={self.hop}; a chunk overlaps with the next one."
            )
        self._check_states()
        if self._has_search:
            _ = self.context_size
        self._check_tokens()

    def _check_states(self) -> None:
        """Check that the encoder takes what the client makes of the metadata: by place, of these sizes."""
        model = header_of(self.encoder)
        if model is None:
            return
        path, takes = resolve_path(self.encoder), _inputs_of(model.graph)
        expected = [[1, self.chunk, ICEFALL.bands], *self._state_shapes()]
        if len(takes) != len(expected) or len(model.graph.output) != len(expected):
            raise ModelError(
                f"{path} takes {len(takes)} inputs and gives {len(model.graph.output)} outputs; by its metadata a client gives "
                f"it {len(expected)} (x, six caches of each layer, embed_states, processed_lens), and wants as many."
            )
        for value, shape in zip(takes, expected, strict=True):
            dims = dims_of(value)
            if dims is not None and (len(dims) != len(shape) or [d or s for d, s in zip(dims, shape, strict=True)] != shape):
                shown = ", ".join("?" if size is None else str(size) for size in dims)
                raise ModelError(
                    f"{path}: its input {value.name!r} is of shape ({shown}); by its metadata a client gives it {tuple(shape)}."
                )

    def _state_shapes(self) -> list[list[int]]:
        """Return the shapes of all states, in the order in which the client gives them, for one stream."""
        stacks = {key: self._numbers(key) for key in PER_STACK}
        if len({len(sizes) for sizes in stacks.values()}) != 1:
            shown = ", ".join(f"{key}={','.join(map(str, sizes))}" for key, sizes in stacks.items())
            raise ModelError(
                f"{resolve_path(self.encoder)}: its metadata has {shown}, which are of different numbers of stacks."
            )
        shapes: list[list[int]] = []
        for dim, query, value, heads, layers, kernel, left in zip(*stacks.values(), strict=True):
            sizes = [
                [left, 1, query * heads], [1, 1, left, 3 * dim // 4], [left, 1, value * heads], [left, 1, value * heads],
                [1, dim, kernel // 2], [1, dim, kernel // 2],
            ]  # fmt: skip
            shapes += sizes * layers
        return [*shapes, [1, 128, 3, 19], [1]]

    def _check_tokens(self) -> None:
        """Check that what chooses a token has one class per token."""
        chooser = self.graphs.get("joiner", self.encoder)
        model = header_of(chooser)
        classes = (dims_of(model.graph.output[0]) or [None])[-1] if model is not None else None
        told = (
            number_in(metadata_of(self.graphs["decoder"]), "vocab_size", self.graphs["decoder"]) if self._has_search else None
        )
        for file, count in ((chooser, classes), (self.graphs.get("decoder", chooser), told)):
            if count is not None and count != len(self.tokens):
                raise ModelError(
                    f"{resolve_path(file)} has {count} classes, but its tokens.txt has {len(self.tokens)} tokens. They are of "
                    "different models; name the right table with model.tokens_path."
                )

    def with_graphs(self, graphs: Mapping[str, SourceGraph]) -> Self:
        """Return the model that knows how its encoder is run chunk by chunk."""
        known, source = copy.copy(self), graphs["encoder"]
        heard = _inputs_of(source.model.graph)[0].name
        cut = Cut(heard, self.chunk, self.hop, axis=1)
        known._loop = loop_of("encoder", source, self.fed_back(source.model.graph), None, cut)
        known._step_seconds = self.hop * FRAME_S
        return known

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the states of the encoder, by their place, as the client binds them; decoder and joiner have none."""
        takes = [value.name for value in _inputs_of(graph)]
        if len(takes) != len(graph.output) or len(takes) < 3:
            return {}
        return dict(zip((value.name for value in list(graph.output)[1:]), takes[1:], strict=True))

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the frames (1, frames, 80) of mono audio (samples,) in [-1, 1] at 16 kHz, and of the silence behind it.

        Of so many frames the client decodes one fewer: it waits until there are more than a chunk takes.
        """
        tail = np.zeros(int(self.tail_s * SAMPLE_RATE_HZ), np.float32)
        features = kaldi_fbank(np.concatenate([audio.astype(np.float32), tail]), SAMPLE_RATE_HZ, ICEFALL)[:-1]
        model = header_of(self.encoder)
        value = None if model is None else _inputs_of(model.graph)[0]
        dtype = np.dtype(np.float32) if value is None else dtype_of(value)
        return Sample(name, {"x" if value is None else value.name: features[None].astype(dtype)})

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graphs and the token table."""
        if not self._has_search:
            model = ClientFile("model.onnx", "model", "zipformer2-ctc-model", graph="encoder")
            kotlin = "OnlineZipformer2CtcModelConfig"
            return ClientLayout(
                Task.follow, "from_zipformer2_ctc", kotlin, (model, self._tokens_for_client), tail_s=self.tail_s
            )
        graphs = [ClientFile(f"{part}.onnx", part, part, graph=part) for part in PARTS]
        files = (*graphs, self._tokens_for_client)
        return ClientLayout(Task.follow, "from_transducer", "OnlineTransducerModelConfig", files, tail_s=self.tail_s)

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return the outputs of the encoder, its steps on a new first axis, and what a greedy search makes of them.

        That is the tokens (count,), the path (frames,), which is what each frame says, or the blank, and the logits (frames,
        tokens) that it was chosen by. What is no sequence is what one call of the encoder takes: its outputs.
        """
        outputs = super().infer(sample, run)
        if self.steps(sample) is None:
            return outputs
        frames = _frames_of(outputs)
        if not self._has_search:
            tokens = ctc_greedy(frames, len(frames), blank_id=BLANK)
            return {**outputs, "tokens": np.array(tokens, dtype=np.int64), "logits": frames}
        path, logits = self._searched(sample.id, frames, run)
        return {**outputs, "tokens": path[path != BLANK], "path": path, "logits": logits}

    def given_decisions(self, sample: Sample, run: Run, decided: Outputs) -> Outputs:
        """Return the logits (frames, tokens) where each frame says what it says in other outputs, whatever it would have."""
        frames = _frames_of(super().infer(sample, run))
        return {"logits": self._searched(sample.id, frames, run, decided["path"])[1] if self._has_search else frames}

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the logits (frames, tokens) of each frame."""
        return np.asarray(outputs["logits"], np.float32)

    def _searched(
        self, name: str, frames: npt.NDArray[np.float32], run: Run, decided: npt.NDArray[np.generic] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return what each frame (count, dim) says in a greedy search, or was decided to say, and the logits of each."""
        decoder, joiner = (self._names_of(part) for part in PARTS[1:])
        context, skipped = self.context_size, {BLANK, *self._unknown}
        found = [*[NOTHING] * (context - 1), BLANK]

        def look_back() -> npt.NDArray[np.generic]:
            y = np.array([found[-context:]], dtype=np.int64)
            outputs = run("decoder", Sample(f"{name}.{len(found) - context}", {decoder[0]: y}))
            return next(iter(outputs.values()))

        past, path, rows = look_back(), np.full(len(frames), BLANK, np.int64), []
        for number, frame in enumerate(frames):
            given = Sample(f"{name}.{number}", {joiner[0]: frame[None], joiner[1]: past})
            rows.append(np.asarray(next(iter(run("joiner", given).values())), np.float32).reshape(-1))
            token = int(rows[-1].argmax() if decided is None else decided[number])
            if token not in skipped:
                path[number] = token
                found.append(token)
                past = look_back()
        return path, np.stack(rows)

    def transcript(self, outputs: Outputs) -> str:
        """Return the words that the search found."""
        return self.words([int(token) for token in outputs["tokens"]])

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return how much audio a step of the encoder takes; None for decoder and joiner, which are given none."""
        del outputs
        heard = None if self._loop is None else self._loop.cut.input
        return self._step_seconds if heard in sample.inputs else None

    @property
    def _has_search(self) -> bool:
        return "joiner" in self.graphs

    @property
    def _unknown(self) -> list[int]:
        return [index for index, token in enumerate(self.tokens) if token == UNKNOWN]

    def _names_of(self, part: str) -> list[str]:
        model = header_of(self.graphs[part])
        if model is None:
            raise ModelError(f"model.dir: {self.graphs[part]} is not an ONNX model.")
        return [value.name for value in _inputs_of(model.graph)]

    def _text(self, key: str) -> str:
        return text_in(metadata_of(self.encoder), key, self.encoder)

    def _number(self, key: str) -> int:
        self._text(key)
        found = number_in(metadata_of(self.encoder), key, self.encoder)
        assert found is not None
        return found

    def _numbers(self, key: str) -> list[int]:
        try:
            return [int(number) for number in self._text(key).split(",")]
        except ValueError:
            raise ModelError(
                f"{resolve_path(self.encoder)}: its metadata has {key}={self._text(key)!r}, which are no numbers."
            ) from None


def _frames_of(outputs: Outputs) -> npt.NDArray[np.float32]:
    """Return the frames (count, dim) that the encoder gave at all steps: (steps, 1, frames, dim)."""
    heard = np.asarray(next(iter(outputs.values())), np.float32)
    return heard.reshape(-1, heard.shape[-1])


def _inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]
