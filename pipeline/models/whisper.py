"""Whisper as sherpa-onnx runs it: an encoder, and a decoder that writes token by token and keeps keys and values in a cache.

The decoder is given one token a step, a cache of fixed size, and how many of its places are filled. The search is greedy, as
the client's (`OfflineWhisperGreedySearchDecoder` of sherpa-onnx 2.0.1), and ends where it does: at the end-of-text token, after
six tokens for each second of the recording, or after half of the places for text.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.kaldi_resample import kaldi_resample
from pipeline.audio.whisper_mel import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, client_log_mel, recorded_frames
from pipeline.errors import DataError, ModelError, did_you_mean
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import ModelFiles, find_in, header_of, metadata_of, number_in
from pipeline.models.speech_model import ReadAudio, Run
from pipeline.models.text.tokens import read_tokens
from pipeline.paths import resolve_path
from pipeline.sample import Array, Outputs, Sample
from pipeline.utterance import Utterance

TOKENS_PER_SECOND = 6
"""That the client writes at most: speech has fewer."""
NUMBERS = ("n_mels", "n_text_layer", "n_text_ctx", "n_text_state", "n_vocab", "sot", "eot", "no_timestamps", "is_multilingual")
TASKS = ("transcribe", "translate")
TAKES = ("tokens", "keys so far", "values so far", "keys of the recording", "values of the recording", "filled places")
GIVES = ("logits", "keys", "values")
Step = Callable[[list[int]], npt.NDArray[np.float32]]


@dataclass
class Whisper(ModelFiles):
    """An encoder and a decoder of Whisper or Distil-Whisper, as sherpa-onnx's `scripts/whisper/export-onnx.py` writes them.

    encoder: mel (1, n_mels, frames) -> n_layer_cross_k, n_layer_cross_v (layers, 1, frames / 2, width);
    decoder: tokens (1, n), in_n_layer_self_k_cache, in_n_layer_self_v_cache (layers, 1, places, width), n_layer_cross_k,
    n_layer_cross_v, offset (1,) -> logits (1, n, tokens) and both caches. Inputs and outputs are bound by position.

    Attributes:
        dir: a directory with *encoder*.onnx, *decoder*.onnx and *tokens.txt.
        tokens_path: a line `<token in base64> <id>` each; null: *tokens.txt in `dir`.
        language: of the recordings, such as en; null: the model tells by itself, clip by clip. A model of English alone takes
            none.
        task: transcribe, or translate into English.
    """

    tokens_path: str | None = None
    _: KW_ONLY
    language: str | None = None
    task: str = "transcribe"
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.asr, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """Encoder and decoder.

        Raises:
            ModelError: model.dir is not set, or lacks one of them.
        """
        if self.dir is None:
            raise ModelError(
                "model.dir: not set: name the directory that holds *encoder*.onnx, *decoder*.onnx and *tokens.txt."
            )
        return {part: self.named(part, f"*{part}.onnx", f"*{part}*.onnx") for part in ("encoder", "decoder")}

    @property
    def side_files(self) -> list[Path]:
        """The token table; it may be missing."""
        return [self._tokens_file]

    def check(self) -> None:
        """Check metadata, the interfaces of both graphs, the token table and the settings.

        Raises:
            ModelError: something is missing, or does not fit.
        """
        for key in NUMBERS:
            self._number(key)
        _ = self._ports, self.tokens
        if self.task not in TASKS:
            raise ModelError(f"model.task: there is no task {self.task!r}.{did_you_mean(self.task, TASKS)}")
        if not self._number("is_multilingual"):
            if self.language not in (None, "en") or self.task != "transcribe":
                raise ModelError(
                    f"model.language and model.task: {resolve_path(self.graphs['encoder'])} writes English alone "
                    "(is_multilingual=0 in its metadata), and has no others. Leave them out."
                )
        elif self.language is not None and self.language not in self._languages:
            raise ModelError(
                f"model.language: the model knows no language {self.language!r}.{did_you_mean(self.language, self._languages)}"
            )
        decoder, vocabulary = header_of(self.graphs["decoder"]), self._number("n_vocab")
        dims = dims_of(decoder.graph.output[0]) if decoder is not None and decoder.graph.output else None
        if dims and dims[-1] not in (None, vocabulary):
            raise ModelError(
                f"{resolve_path(self.graphs['decoder'])} has {dims[-1]} classes, but the encoder's metadata has "
                f"n_vocab={vocabulary}. They are of different models."
            )

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the spectrogram of a recording.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        return self.sample_of_audio(utterance.id, read_audio(utterance.audio, SAMPLE_RATE_HZ))

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1] at 16 kHz; a graph of fixed length gets zeros behind it."""
        mel = client_log_mel(audio, self._number("n_mels"))
        value = self._encoder_input
        fixed = (dims_of(value) or (None,))[-1]
        if fixed is not None:
            mel = np.pad(mel[:, :fixed], ((0, 0), (0, max(fixed - mel.shape[1], 0))))
        return Sample(name, {value.name: mel[None].astype(dtype_of(value))})

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: both graphs, the token table, and of a multilingual model language and task."""
        graphs = [ClientFile(f"{part}.onnx", part, f"whisper-{part}", graph=part) for part in ("encoder", "decoder")]
        tokens = ClientFile("tokens.txt", "tokens", "tokens", source=self._tokens_file)
        options = {"language": self.language or "", "task": self.task} if self._number("is_multilingual") else {}
        return ClientLayout(Task.listen, "from_whisper", "OfflineWhisperModelConfig", (*graphs, tokens), options=options)

    def without_noise(self) -> Self:
        """Return the model: it draws none."""
        return self

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the path of the recording."""
        return None if utterance.audio is None else str(utterance.audio)

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what `sample_of_audio` takes."""
        return SAMPLE_RATE_HZ

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Resample audio (samples,) as the client of a recogniser does."""
        return kaldi_resample(audio, from_hz, to_hz)

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return the tokens (count,) of a greedy search, and the logits (count + 1, vocabulary) that they were chosen by.

        Where the model tells the language, its token `language` (1,) is there as well.
        """
        mel = next(iter(sample.inputs.values()))
        limit = int(recorded_frames(mel.astype(np.float32)) / FRAMES_PER_SECOND * TOKENS_PER_SECOND)
        limit = min(limit, self._number("n_text_ctx") // 2)
        step, prompt, told = self._steps(sample, run)
        tokens: list[int] = []
        rows = [step(prompt)]
        while len(tokens) < limit and (token := int(rows[-1].argmax())) != self._number("eot"):
            tokens.append(token)
            rows.append(step([token]))
        return {"tokens": np.array(tokens, dtype=np.int64), "logits": np.stack(rows), **told}

    def given_decisions(self, sample: Sample, run: Run, decided: Outputs) -> Outputs:
        """Return the logits (count + 1, vocabulary) after each token of other outputs, whatever it would have chosen."""
        language = int(decided["language"][0]) if "language" in decided else None
        step, prompt, _ = self._steps(sample, run, language)
        rows = [step(prompt), *(step([int(token)]) for token in decided["tokens"])]
        return {"logits": np.stack(rows)}

    def transcript(self, outputs: Outputs) -> str:
        """Return the text that the tokens spell; they are pieces of UTF-8."""
        known = self.tokens
        return b"".join(known.get(int(token), b"") for token in outputs["tokens"]).decode("utf-8", errors="replace").strip()

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the logits (steps, vocabulary) of each step."""
        return np.asarray(outputs["logits"], dtype=np.float32)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the recording; None for a step of the decoder."""
        del outputs
        mel = sample.inputs.get(self._encoder_input.name)
        return None if mel is None else recorded_frames(mel.astype(np.float32)) / FRAMES_PER_SECOND

    @cached_property
    def tokens(self) -> dict[int, bytes]:
        """The bytes of each token that is text.

        Raises:
            DataError: the file is missing, or a line is not `<token in base64> <id>`.
        """
        table, found = read_tokens(self._tokens_file, "model.tokens_path"), {}
        for token, index in table.items():
            try:
                found[index] = base64.b64decode(token, validate=True)
            except binascii.Error as error:
                raise DataError(
                    f"model.tokens_path: {self._tokens_file}: the token {token!r} (id {index}) is not base64, in which "
                    "tokens of Whisper are written."
                ) from error
        return found

    def _steps(self, sample: Sample, run: Run, language: int | None = None) -> tuple[Step, list[int], Outputs]:
        """Run the encoder; return a function that takes the next tokens and gives the last logits, and the first tokens.

        Third comes the language, where the model had to tell it.
        """
        crossed = list(run("encoder", sample).values())
        (takes, types), gives = self._ports
        shape = tuple(self._number(key) for key in ("n_text_layer", "n_text_ctx", "n_text_state"))
        empty: list[Array] = [np.zeros((shape[0], 1, *shape[1:]), dtype=types[place]) for place in (1, 2)]
        caches, offset, calls = empty, 0, 0

        def step(tokens: list[int]) -> npt.NDArray[np.float32]:
            nonlocal caches, offset, calls
            values = [np.array([tokens], types[0]), *caches, *crossed, np.array([offset], types[5])]
            given = Sample(f"{sample.id}.{calls}", dict(zip(takes, values, strict=True)), step=calls)
            outputs = run("decoder", given)
            logits, *caches = (outputs[name] for name in gives)
            offset, calls = offset + len(tokens), calls + 1
            return np.asarray(logits[0, -1], dtype=np.float32)

        prompt, told = [int(token) for token in self._text("sot_sequence").split(",")], Outputs()
        if self._number("is_multilingual"):
            if language is None and self.language is not None:
                language = self._languages[self.language]
            if language is None:
                scores, known = step([self._number("sot")]), list(self._languages.values())
                language = known[int(scores[known].argmax())]
                caches, offset = empty, 0
                told = {"language": np.array([language])}
            prompt[1:3] = [language, self._number(self.task)]
        return step, [*prompt, self._number("no_timestamps")], told

    @property
    def _tokens_file(self) -> Path:
        if self.tokens_path:
            return resolve_path(self.tokens_path)
        return find_in(resolve_path(self.dir or "."), "token table", "*tokens.txt")

    @cached_property
    def _encoder_input(self) -> onnx.ValueInfoProto:
        model = header_of(self.graphs["encoder"])
        if model is None:
            raise ModelError(f"model.dir: {self.graphs['encoder']} is not an ONNX model.")
        value: onnx.ValueInfoProto = model.graph.input[0]
        return value

    @cached_property
    def _ports(self) -> tuple[tuple[list[str], list[np.dtype[np.generic]]], list[str]]:
        """The names and types of what the decoder takes, and the names of what it gives.

        Raises:
            ModelError: it takes or gives something else.
        """
        path = self.graphs["decoder"]
        model = header_of(path)
        if model is None:
            raise ModelError(f"model.dir: {path} is not an ONNX model.")
        constants = {tensor.name for tensor in model.graph.initializer}
        given = [value for value in model.graph.input if value.name not in constants]
        gives = [value.name for value in model.graph.output]
        if len(given) != len(TAKES) or len(gives) < len(GIVES):
            raise ModelError(
                f"{resolve_path(path)} takes {', '.join(value.name for value in given)} and gives {', '.join(gives)}; a "
                f"decoder as sherpa-onnx runs it takes {', '.join(TAKES)}, in this order, and gives {', '.join(GIVES)}. "
                "Another one is quantized as any ONNX file: model=onnx calibration=arrays."
            )
        return ([value.name for value in given], [dtype_of(value) for value in given]), gives[: len(GIVES)]

    @cached_property
    def _languages(self) -> dict[str, int]:
        codes, ids = self._text("all_language_codes").split(","), self._text("all_language_tokens").split(",")
        return {code: int(index) for code, index in zip(codes, ids, strict=True)}

    def _text(self, key: str) -> str:
        path = self.graphs["encoder"]
        found = metadata_of(path).get(key)
        if found is None:
            raise ModelError(
                f"{resolve_path(path)}: its metadata has no {key}, which sherpa-onnx reads. Export it for sherpa-onnx."
            )
        return found

    def _number(self, key: str) -> int:
        self._text(key)
        found = number_in(metadata_of(self.graphs["encoder"]), key, self.graphs["encoder"])
        assert found is not None
        return found
