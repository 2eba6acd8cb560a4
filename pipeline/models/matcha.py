"""Matcha-TTS as icefall exports it: tokens -> mel spectrogram, whose length the model predicts -> speech."""

from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, DataError, ModelError, did_you_mean
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import ModelFiles, agreed, looked_up_rows, metadata_of, number_in
from pipeline.models.speech_model import ReadAudio, Run
from pipeline.models.text.lexicon import Lexicon, read_lexicon
from pipeline.models.text.phonemes import ids_of, spoken_symbols
from pipeline.models.text.tokens import read_tokens, with_blanks
from pipeline.models.vocoder import Vocoder
from pipeline.paths import resolve_path
from pipeline.sample import Outputs, Sample
from pipeline.utterance import Utterance

PARTS = ("acoustic", "vocoder")
FRONT_ENDS = "tokens.txt with lexicon.txt, or metadata with has_espeak=1"


@dataclass
class Matcha(ModelFiles):
    """The acoustic model of Matcha-TTS (Mehta et al. 2024), with its Euler steps unrolled in one graph, and its vocoder.

    Attributes:
        path: the ONNX file: x, x_length, noise_scale, length_scale -> mel (1, 80, frames).
        dir: a directory such as matcha-icefall-en_US-ljspeech: model-steps-N.onnx, tokens.txt and, for Chinese, lexicon.txt.
        quantize: the parts that the mode applies to: acoustic, vocoder, or both; the others stay as they are.
        vocoder_path: an ONNX vocoder for the mels; null: no audio, no round trip.
        asr_path: a CTC recogniser, `tokens.txt` beside it, for the round-trip word error rate; null: no round trip.
        noise_scale: temperature of the noise that the flow starts from.
        length_scale: above 1 is slower speech.
        sample_rate_hz: of the speech; null: from the metadata.
        hop_length: samples per frame of the mel.
    """

    _: KW_ONLY
    quantize: list[str] = field(default_factory=lambda: ["acoustic"])
    vocoder_path: str | None = None
    asr_path: str | None = None
    noise_scale: float = 0.667
    length_scale: float = 1.0
    sample_rate_hz: int | None = None
    hop_length: int = 256
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tts, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The parts that are quantized."""
        for part in self.quantize:
            if part not in PARTS:
                raise ConfigError(f"model.quantize: no part {part!r}.{did_you_mean(part, PARTS)}")
        if not self.quantize:
            raise ConfigError(f"model.quantize: empty; name at least one of {', '.join(PARTS)}.")
        if "vocoder" in self.quantize and self.vocoder_path is None:
            raise ConfigError("model.quantize: vocoder, but model.vocoder_path is not set; name its ONNX file.")
        return {part: path for part, path in self._parts.items() if part in self.quantize}

    @property
    def companions(self) -> dict[str, str]:
        """The parts that stay as they are, and the recogniser."""
        rest = {part: path for part, path in self._parts.items() if part not in self.quantize}
        return rest if self.asr_path is None else {**rest, "asr": self.asr_path}

    @property
    def entry(self) -> str:
        """The acoustic model."""
        return "acoustic"

    @property
    def acoustic_path(self) -> str:
        """The acoustic model, as named or as found."""
        return self.named("acoustic model", "model-steps-*.onnx", "model*.onnx", "*.onnx")

    @property
    def rate_hz(self) -> int:
        """The sample rate of the speech."""
        found = number_in(metadata_of(self.acoustic_path), "sample_rate", self.acoustic_path)
        return agreed(self.sample_rate_hz, found, 22_050, "model.sample_rate_hz", self.acoustic_path)

    @cached_property
    def vocoder(self) -> Vocoder | None:
        """The vocoder, if there is one."""
        if self.vocoder_path is None:
            return None
        return Vocoder("vocoder", self.vocoder_path, hop_length=self.hop_length)

    def check(self) -> None:
        """Check that tokens, acoustic model and vocoder fit each other.

        Raises:
            ModelError: tokens.txt has tokens that the graph does not know, or the vocoder has another sample rate.
        """
        rate, rows = self.rate_hz, self._token_rows
        tokens = self.beside("tokens.txt", self.acoustic_path)
        if tokens is not None and rows is not None:
            highest = max(read_tokens(tokens, "model.dir").values())
            if highest >= rows:
                raise ModelError(
                    f"{tokens} has a token with the id {highest}, but the graph of {self.acoustic_path} knows {rows} tokens. "
                    "They are of different models; give the tokens.txt that the model was exported with."
                )
        if self.vocoder is not None:
            self.vocoder.check()
            if self.vocoder.rate_hz != rate:
                raise ModelError(
                    f"model.vocoder_path: {self.vocoder_path} makes audio of {self.vocoder.rate_hz} Hz, but "
                    f"{self.acoustic_path} speaks at {rate} Hz. Name a vocoder of the same sample rate."
                )

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return tokens (1, length), their number, and the two scales.

        Raises:
            DataError: the utterance has neither tokens nor text, or its text is not in the tokens of the model.
        """
        del read_audio
        tokens = utterance.tokens or self._tokens_of(utterance)
        rows = self._token_rows
        if rows is not None and not 0 <= min(tokens) <= max(tokens) < rows:
            bad = next(token for token in tokens if not 0 <= token < rows)
            raise DataError(f"utterance {utterance.id!r} has the token {bad}; {self.name} knows 0 to {rows - 1}.")
        return Sample(
            utterance.id,
            {
                "x": np.array([tokens], dtype=np.int64),
                "x_length": np.array([len(tokens)], dtype=np.int64),
                "noise_scale": np.array([self.noise_scale], dtype=np.float32),
                "length_scale": np.array([self.length_scale], dtype=np.float32),
            },
        )

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: acoustic model, vocoder, token table and, for Chinese, lexicon.

        Raises:
            ConfigError: there is no vocoder, or no token table.
        """
        if self.vocoder_path is None:
            raise ConfigError(
                "package: sherpa-onnx speaks with a vocoder only, and model.vocoder_path is not set; name its ONNX file, or "
                "take package=onnx."
            )
        tokens, lexicon = (self.beside(name, self.acoustic_path) for name in ("tokens.txt", "lexicon.txt"))
        if tokens is None:
            raise ConfigError(f"package: {self.acoustic_path} has no tokens.txt beside it, which sherpa-onnx needs.")
        files = [
            ClientFile(resolve_path(self.acoustic_path).name, "acoustic_model", "matcha-acoustic-model", graph="acoustic"),
            ClientFile(resolve_path(self.vocoder_path).name, "vocoder", "matcha-vocoder", graph="vocoder"),
            ClientFile("tokens.txt", "tokens", "matcha-tokens", source=tokens),
        ]
        if lexicon is not None:
            files.append(ClientFile("lexicon.txt", "lexicon", "matcha-lexicon", source=lexicon))
        return ClientLayout(
            Task.speak, "matcha", "OfflineTtsMatchaModelConfig", tuple(files),
            options={"noise_scale": self.noise_scale, "length_scale": self.length_scale}, has_phonemes=lexicon is None,
        )  # fmt: skip

    def without_noise(self) -> "Matcha":
        """Return the model with a flow that starts from nothing."""
        return replace(self, noise_scale=0.0)

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the phonemes of the text, or None where the client looks words up itself."""
        from pipeline.models.text.espeak import symbols_of

        if self._lexicon is not None or not utterance.text:
            return None
        return "".join(symbols_of(utterance.text, metadata_of(self.acoustic_path).get("voice", "en-us")))

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return the mel and, where there is a vocoder, the audio (samples,)."""
        outputs = run("acoustic", sample)
        if self.vocoder is None:
            return outputs
        spoken = run("vocoder", self.vocoder.sample_of_mel(sample.id, self.mel(outputs)))
        return {**outputs, "audio": self.vocoder.audio(spoken)}

    def mel(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the natural-log mel (80, frames)."""
        return np.asarray(outputs["mel"][0], dtype=np.float32)

    def mel_depends_on(self, graph: str) -> bool:
        """Return whether the graph is the acoustic model: the vocoder comes after the mel."""
        return graph == self.entry

    def without_audio(self) -> "Matcha":
        """Return the acoustic model alone."""
        return replace(self, vocoder_path=None, asr_path=None)

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the speech that was synthesised."""
        if "mel" not in outputs:
            return None if self.vocoder is None else self.vocoder.audio_seconds(sample, outputs)
        return float(outputs["mel"].shape[-1] * self.hop_length / self.rate_hz)

    @property
    def _parts(self) -> dict[str, str]:
        parts = {"acoustic": self.acoustic_path}
        return parts if self.vocoder_path is None else {**parts, "vocoder": self.vocoder_path}

    @cached_property
    def _token_rows(self) -> int | None:
        """How many tokens the graph knows: the rows of the table that it looks `x` up in; None where it is not known."""
        return looked_up_rows(self.acoustic_path, "x")

    def _tokens_of(self, utterance: Utterance) -> tuple[int, ...]:
        if not utterance.text:
            raise DataError(f"utterance {utterance.id!r} has no tokens and no text; {self.name} is fed with one of them.")
        metadata = metadata_of(self.acoustic_path)
        where = f"utterance {utterance.id!r}"
        if self._lexicon is not None:
            ids = self._lexicon.ids(utterance.text)
        elif metadata.get("has_espeak") == "1":
            ids = self._ids_by_espeak(utterance.text, metadata, where)
        else:
            raise DataError(f"{where} has no tokens, and how text becomes tokens is not known: {self.name} lacks {FRONT_ENDS}.")
        if not ids:
            raise DataError(f"{where}: its text {utterance.text!r} has nothing that can be spoken.")
        return tuple(with_blanks(ids, number_in(metadata, "pad_id", self.acoustic_path) or 0))

    def _ids_by_espeak(self, text: str, metadata: dict[str, str], where: str) -> list[int]:
        symbols = spoken_symbols(text, metadata.get("voice", "en-us"), where, self.name)
        if metadata.get("use_eos_bos") == "1":
            symbols = ["^", *symbols, "$"]
        return ids_of(symbols, self._tokens, text, where, self.name)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        path = self.beside("tokens.txt", self.acoustic_path)
        if path is None:
            raise DataError(f"{self.acoustic_path} has no tokens.txt beside it, which is needed to convert text to tokens.")
        return read_tokens(path, "model.dir")

    @cached_property
    def _lexicon(self) -> Lexicon | None:
        lexicon, tokens = (self.beside(name, self.acoustic_path) for name in ("lexicon.txt", "tokens.txt"))
        return None if lexicon is None or tokens is None else read_lexicon(lexicon, tokens)
