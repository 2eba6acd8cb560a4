"""Kokoro (StyleTTS 2, Li et al. 2023, with an iSTFTNet decoder) and KittenTTS: tokens, a style and a speed -> speech."""

import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import agreed, header_of, looked_up_rows, metadata_of, number_in
from pipeline.models.one_graph_voice import OneGraphVoice
from pipeline.models.speech_model import ReadAudio
from pipeline.models.text.phonemes import ids_of, spoken_symbols
from pipeline.models.text.tokens import read_tokens
from pipeline.models.voice_styles import read_styles
from pipeline.paths import resolve_path
from pipeline.sample import Float32Array, Sample
from pipeline.utterance import Utterance

VOICES = "voices.bin"
KITTEN = "kitten-tts"
LENGTHS = 510  # that a voice of Kokoro's has a style for


@dataclass
class Kokoro(OneGraphVoice):
    """Voices of one graph: tokens (1, length), style (1, 256), speed (1) -> audio; found by their place, whatever their names.

    Attributes:
        path: the ONNX file, with voices.bin and tokens.txt beside it.
        dir: a directory such as kokoro-multi-lang-v1_0: model.onnx, voices.bin, tokens.txt.
        voices_path: the styles of the voices; null: voices.bin beside the graph.
        voices: numbers of the voices that calibration and evaluation speak with, a sentence a voice; null: all of them.
        speed: above 1 is faster speech.
    """

    _: KW_ONLY
    voices_path: str | None = None
    voices: list[int] | None = None
    speed: float = 1.0

    @property
    def client_metadata(self) -> Mapping[str, str]:
        """What sherpa-onnx wants of a graph of others, which has no metadata."""
        if "sample_rate" in metadata_of(self._file):
            return {}
        count, rows, width = self._styles.shape
        return {
            "model_type": "kokoro", "language": "English", "has_espeak": "1", "sample_rate": str(self.rate_hz), "version": "1",
            "voice": "en-us", "style_dim": f"{rows},1,{width}", "n_speakers": str(count),
            "speaker_names": ",".join(self._held[1] or (str(number) for number in range(count))),
        }  # fmt: skip

    @property
    def side_files(self) -> list[Path]:
        """The token table and the styles."""
        return [*super().side_files, self._voices_path]

    @property
    def rate_hz(self) -> int:
        """The sample rate of the speech."""
        return agreed(
            self.sample_rate_hz,
            number_in(self._metadata, "sample_rate", self._file),
            24_000,
            "model.sample_rate_hz",
            self._file,
        )

    def check(self) -> None:
        """Check that graph, metadata, styles and token table fit each other.

        Raises:
            ModelError: they contradict each other, or the graph does not take tokens, a style and a speed.
            ConfigError: there is no such voice, or the graph takes whole speeds only.
        """
        count = len(self._styles)
        if bad := [number for number in self.voices or [] if not 0 <= number < count]:
            raise ConfigError(f"model.voices: {bad[0]}, but {self._voices_path} has the voices 0 to {count - 1}.")
        if self.voices == []:
            raise ConfigError("model.voices: empty; name at least one, or give null for all.")
        if not self.speed > 0:
            raise ConfigError(f"model.speed: {self.speed} is out of limits; allowed: above 0.")
        if dtype_of(self._inputs[2]).kind != "f" and self.speed != int(self.speed):
            raise ConfigError(f"model.speed: {self.speed}, but {self._file} takes whole numbers only.")
        table = self._tokens if self._tokens_path is not None else {}
        if table and self._rows is not None and max(table.values()) >= self._rows:
            raise ModelError(
                f"{self._tokens_path} has a token with the id {max(table.values())}, but the graph of {self._file} knows "
                f"{self._rows} tokens. They are of different models; give what the model was published with."
            )

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return tokens, the style that a voice has for a sentence of this length, and the speed.

        Which voice follows from the id of the utterance, so that calibration and evaluation hear all of them.

        Raises:
            DataError: the utterance has neither tokens nor text, its text cannot be spoken, or is too long.
        """
        del read_audio
        where = f"utterance {utterance.id!r}"
        tokens = list(utterance.tokens or ())
        if not tokens:
            if not utterance.text:
                raise DataError(f"{where} has no tokens and no text; {self.name} is fed with one of them.")
            tokens = self._read(utterance.text, where)
        if self._rows is not None and not 0 <= min(tokens) <= max(tokens) < self._rows:
            bad = next(token for token in tokens if not 0 <= token < self._rows)
            raise DataError(f"{where} has the token {bad}; {self.name} knows 0 to {self._rows - 1}.")
        chosen = self.voices or range(len(self._styles))
        voice = chosen[zlib.crc32(utterance.id.encode()) % len(chosen)]
        values = ([tokens], self._style(voice, len(tokens), where)[None], [self._speed_of(voice)])
        pairs = zip(self._inputs, values, strict=True)
        return Sample(utterance.id, {value.name: np.array(given, dtype_of(value)) for value, given in pairs})

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph, the styles, the token table.

        Raises:
            ConfigError: there is no token table, or the styles are not as sherpa-onnx reads them.
        """
        if self._tokens_path is None:
            raise ConfigError(f"package: {self._file} has no tokens.txt beside it, which sherpa-onnx needs.")
        if self._held[1]:
            raise ConfigError(f"package: sherpa-onnx reads raw float32 from {VOICES}, and {self._voices_path} is an .npz.")
        kind = "kitten" if self._is_kitten else "kokoro"
        files = (
            ClientFile(resolve_path(self._file).name, "model", f"{kind}-model", graph="voice"),
            ClientFile(VOICES, "voices", f"{kind}-voices", source=self._voices_path),
            ClientFile("tokens.txt", "tokens", f"{kind}-tokens", source=self._tokens_path),
        )
        loader = f"OfflineTts{kind.capitalize()}ModelConfig"
        return ClientLayout(Task.speak, kind, loader, files, (), {"length_scale": 1.0 / self.speed}, has_phonemes=True)

    def without_noise(self) -> "Kokoro":
        """Return the first voice alone, which a client speaks with that is told none; its noise is the graph's own."""
        return replace(self, voices=[0])

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the phonemes of the text."""
        where = f"utterance {utterance.id!r}"
        return "".join(self._symbols(utterance.text, where)) if utterance.text else None

    @property
    def _file(self) -> str:
        return self.named("voice", "model*.onnx", "kokoro*.onnx", "*.onnx")

    @cached_property
    def _metadata(self) -> dict[str, str]:
        return metadata_of(self._file)

    @property
    def _is_kitten(self) -> bool:
        return self._metadata.get("model_type") == KITTEN

    @cached_property
    def _inputs(self) -> list[onnx.ValueInfoProto]:
        """Tokens, style and speed: bound by their place, as sherpa-onnx does.

        Raises:
            ModelError: the graph takes something else.
        """
        model = header_of(self._file)
        constants = set() if model is None else {tensor.name for tensor in model.graph.initializer}
        inputs = [] if model is None else [value for value in model.graph.input if value.name not in constants]
        ranks = [len(dims_of(value) or []) for value in inputs]
        kinds = "".join(dtype_of(value).kind for value in inputs)
        if ranks != [2, 2, 1] or kinds not in ("iff", "ifi"):
            raise ModelError(
                f"model.path: {resolve_path(self._file)} takes {', '.join(value.name for value in inputs) or 'nothing'}; "
                "Kokoro takes token ids (1, length), a style (1, width) and a speed (1), in this order. Use model=onnx with "
                "arrays."
            )
        return inputs

    @cached_property
    def _rows(self) -> int | None:
        return looked_up_rows(self._file, self._inputs[0].name)

    @property
    def _voices_path(self) -> Path:
        if self.voices_path is not None:
            return resolve_path(self.voices_path)
        return self.beside(VOICES, self._file) or resolve_path(self._file).parent / VOICES

    @cached_property
    def _held(self) -> tuple[Float32Array, tuple[str, ...]]:
        """The styles, and the names of the voices.

        Raises:
            ModelError: the metadata has another shape than the graph, or the file holds something else.
        """
        width = (dims_of(self._inputs[1]) or [None, None])[1]
        shape = self._metadata.get("style_dim", f"{LENGTHS},1,{width or 256}")
        sizes = [int(size) for size in shape.split(",") if size.strip().isdigit()]
        if len(sizes) not in (2, 3) or sizes[-2] != 1 or width not in (None, sizes[-1]) or 0 in sizes:
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has style_dim={shape!r}, and its graph takes a style of {width} "
                "numbers; expected is '510,1,256' or '1,256'. Correct the metadata, or export the model again."
            )
        rows = sizes[0] if len(sizes) == 3 else 1
        return read_styles(self._voices_path, rows, sizes[-1], number_in(self._metadata, "n_speakers", self._file))

    @property
    def _styles(self) -> Float32Array:
        return self._held[0]

    def _style(self, voice: int, length: int, where: str) -> Float32Array:
        """Return the style (width,) of a voice for a sentence of so many tokens, of which the first and the last say nothing.

        Raises:
            DataError: the sentence is longer than any that has a style.
        """
        rows = self._styles.shape[1]
        row = max(length - 2, 0) if rows > 1 else 0
        if row >= rows:
            raise DataError(f"{where} has {length} tokens; {self.name} speaks {rows + 1} at once. Give shorter sentences.")
        style: Float32Array = self._styles[voice, row]
        return style

    def _speed_of(self, voice: int) -> float:
        """Return the speed of a voice: some of KittenTTS have one of their own, which goes on top."""
        own = self._metadata.get("speaker_speed_priors")
        if not own:
            return self.speed
        try:
            return self.speed * [float(part) for part in own.split(",")][voice]
        except (ValueError, IndexError):
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has speaker_speed_priors={own!r}, where a number for each of "
                f"{len(self._styles)} voices is expected."
            ) from None

    def _symbols(self, text: str, where: str) -> list[str]:
        """Return the phonemes of a text, but for marks on letters that no token stands for: no client reads those.

        Raises:
            DataError: the model does not read espeak-ng's phonemes.
        """
        if self._metadata.get("has_espeak", "1") != "1":
            raise DataError(f"{where} has no tokens, and {self.name} reads no phonemes of espeak-ng (metadata has_espeak).")
        symbols = spoken_symbols(text, self._metadata.get("voice", "en-us"), where, self.name)
        return [symbol for symbol in symbols if symbol in self._tokens or not unicodedata.category(symbol).startswith("M")]

    def _read(self, text: str, where: str) -> list[int]:
        """Return the token ids of a text, as sherpa-onnx's front ends do.

        Raises:
            DataError: there is nothing to say, or a phoneme is no token of the model.
        """
        symbols = self._symbols(text, where)
        if not symbols:
            raise DataError(f"{where}: its text {text!r} has nothing that can be spoken.")
        if self._is_kitten:  # its front end puts a space behind each full stop (sherpa-onnx 2.0.1)
            symbols = [each for symbol in symbols for each in ((symbol, " ") if symbol == "." else (symbol,))]
        begin, end = (number_in(self._metadata, key, self._file) or 0 for key in ("start_id", "end_id"))
        return [begin, *ids_of(symbols, self._tokens, text, where, self.name), end]

    @property
    def _tokens_path(self) -> Path | None:
        return self.beside("tokens.txt", self._file)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        path = self._tokens_path
        if path is None:
            raise DataError(f"{self._file} has no tokens.txt beside it, which is needed to convert text to tokens.")
        return read_tokens(path, "model.dir")
