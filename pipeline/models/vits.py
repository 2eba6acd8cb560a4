"""VITS (Kim et al. 2021) as Piper, Coqui, icefall and Melo export it: tokens -> speech; durations and noise are inside."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.model_files import agreed, header_of, looked_up_rows, metadata_of, number_in
from pipeline.models.one_graph_voice import OneGraphVoice
from pipeline.models.piper_voice import BEGIN, END, PAD, PiperVoice, piper_voice
from pipeline.models.speech_model import ReadAudio
from pipeline.models.text.lexicon import Lexicon, read_lexicon
from pipeline.models.text.phonemes import ids_of, spoken_symbols
from pipeline.models.text.tokens import read_tokens, with_blanks
from pipeline.paths import resolve_path
from pipeline.sample import Array, Sample
from pipeline.utterance import Utterance

NOISE_SCALE, LENGTH_SCALE, NOISE_SCALE_W = 0.667, 1.0, 0.8  # what the authors speak with
SCALES = "scales"  # Piper and Coqui: the three of them in one input
NOISES_W = ("noise_scale_w", "noise_scale_dur", "noise_w")
FRONT_ENDS = "metadata with has_espeak=1 or frontend=characters, Piper's <voice>.onnx.json, or lexicon.txt with tokens.txt"


@dataclass
class Vits(OneGraphVoice):
    """A voice: one graph from tokens to audio.

    Attributes:
        path: the ONNX file, whose metadata `comment` says whose it is: piper, coqui, melo, or another; as Piper publishes it,
            without metadata, with `<voice>.onnx.json` beside it.
        dir: a directory such as vits-piper-en_US-amy-low: the ONNX file and tokens.txt, or Piper's `.onnx.json`.
        noise_scale: temperature of the noise that the speech is made from; null: the voice's own, else 0.667.
        length_scale: above 1 is slower speech; null: the voice's own, else 1.
        noise_scale_w: temperature of the noise in the durations while ranges are calibrated; null: the voice's own, else 0.8.
            Comparison and timing speak without it, so that a sentence is always equally long.
        speaker: of a voice of several.
    """

    _: KW_ONLY
    noise_scale: float | None = None
    length_scale: float | None = None
    noise_scale_w: float | None = None
    speaker: int = 0

    @property
    def client_metadata(self) -> Mapping[str, str]:
        """Of a voice as Piper publishes it: what its `.onnx.json` says."""
        return {} if self._piper is None else self._piper.client_metadata

    @property
    def client_files(self) -> Mapping[str, str]:
        """The token table of a voice as Piper publishes it."""
        return {} if self._piper is None else {"tokens.txt": self._piper.token_table}

    @property
    def side_files(self) -> list[Path]:
        """The token table and the lexicon, or what Piper keeps beside a voice."""
        return [*super().side_files, *([] if self._piper is None else [self._piper.path])]

    @property
    def rate_hz(self) -> int:
        """The sample rate of the speech.

        Raises:
            ModelError: nothing tells it.
        """
        found = number_in(self._metadata, "sample_rate", self._file)
        if found is None and self.sample_rate_hz is None:
            raise ModelError(
                f"model.path: {resolve_path(self._file)} has no metadata (sample_rate, comment) and no "
                f"{Path(self._file).name}.json of Piper's beside it. Put that file there, or set model.sample_rate_hz."
            )
        return agreed(self.sample_rate_hz, found, 22_050, "model.sample_rate_hz", self._file)

    def check(self) -> None:
        """Check that metadata, token table and graph fit each other.

        Raises:
            ModelError: they contradict each other, or the graph has an input that no VITS is known to have.
            ConfigError: the voice has no such speaker.
        """
        _ = self.rate_hz
        ids = self._given([0], None, "")
        joined = any(name == SCALES for name in ids)
        if joined != self._in_one and self._metadata.get("comment"):
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has comment={self._metadata['comment']!r}, so that sherpa-onnx "
                f"gives it {'one input of three scales' if self._in_one else 'three inputs of one scale'}, but it takes "
                f"{', '.join(ids)}. Correct the metadata, or export the model again."
            )
        speakers = number_in(self._metadata, "n_speakers", self._file)
        if not 0 <= self.speaker < max(speakers or 0, 1):
            raise ConfigError(f"model.speaker: {self.speaker}, but {self._file} has speakers 0 to {max(speakers or 0, 1) - 1}.")
        table = {} if not self._has_tokens else self._tokens
        if table and self._rows is not None and max(table.values()) >= self._rows:
            raise ModelError(
                f"{self._tokens_path} has a token with the id {max(table.values())}, but the graph of {self._file} knows "
                f"{self._rows} tokens. They are of different models; give what the voice was published with."
            )

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return tokens (1, length), their number, and the scales.

        Raises:
            DataError: the utterance has neither tokens nor text, or its text cannot be spoken.
        """
        del read_audio
        where, tones = f"utterance {utterance.id!r}", None
        tokens = list(utterance.tokens or ())
        if not tokens:
            if not utterance.text:
                raise DataError(f"{where} has no tokens and no text; {self.name} is fed with one of them.")
            tokens, tones = self._read(utterance.text, where)
        rows = self._rows
        if rows is not None and not 0 <= min(tokens) <= max(tokens) < rows:
            bad = next(token for token in tokens if not 0 <= token < rows)
            raise DataError(f"{where} has the token {bad}; {self.name} knows 0 to {rows - 1}.")
        return Sample(utterance.id, self._given(tokens, tones, where))

    def for_comparison(self, sample: Sample) -> Sample:
        """Return the sample without noise in its durations."""
        inputs = {
            name: np.array([*values[:2], 0], values.dtype) if name == SCALES else 0 * values if name in NOISES_W else values
            for name, values in sample.inputs.items()
        }
        return Sample(sample.id, inputs)

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph, the token table and, where there is one, the lexicon.

        Raises:
            ConfigError: there is no token table.
        """
        tokens, lexicon = (self.beside(name, self._file) for name in ("tokens.txt", "lexicon.txt"))
        made = self.client_files.get("tokens.txt")
        if tokens is None and made is None:
            raise ConfigError(f"package: {self._file} has no tokens.txt beside it, which sherpa-onnx needs.")
        table = ClientFile("tokens.txt", "tokens", "vits-tokens", source=None if made else tokens, text=made)
        files = [ClientFile(resolve_path(self._file).name, "model", "vits-model", graph="voice"), table]
        if self._lexicon is not None:
            files.append(ClientFile("lexicon.txt", "lexicon", "vits-lexicon", source=lexicon))
        options = {
            "noise_scale": self._scale(self.noise_scale, "noise_scale", NOISE_SCALE),
            "length_scale": self._scale(self.length_scale, "length_scale", LENGTH_SCALE),
            "noise_scale_w": self._scale(self.noise_scale_w, "noise_w", NOISE_SCALE_W),
        }
        has_phonemes = self._metadata.get("has_espeak") == "1" and self._lexicon is None
        return ClientLayout(Task.speak, "vits", "OfflineTtsVitsModelConfig", tuple(files), (), options, has_phonemes)

    def without_noise(self) -> "Vits":
        """Return the voice that says the same each time."""
        return replace(self, noise_scale=0.0, noise_scale_w=0.0)

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the phonemes of the text, or None where the client reads it itself."""
        if self._lexicon is not None or self._metadata.get("has_espeak") != "1" or not utterance.text:
            return None
        where = f"utterance {utterance.id!r}"
        return "".join(spoken_symbols(utterance.text, self._metadata.get("voice", "en-us"), where, self.name))

    @cached_property
    def _piper(self) -> PiperVoice | None:
        """What Piper keeps beside a voice, where its file has no metadata."""
        return None if "sample_rate" in metadata_of(self._file) else piper_voice(resolve_path(self._file))

    @cached_property
    def _metadata(self) -> dict[str, str]:
        return {**self.client_metadata, **metadata_of(self._file)}

    @property
    def _comment(self) -> str:
        return self._metadata.get("comment", "").lower()

    @property
    def _in_one(self) -> bool:
        return any(maker in self._comment for maker in ("piper", "coqui"))

    @cached_property
    def _rows(self) -> int | None:
        model = header_of(self._file)
        return None if model is None else looked_up_rows(self._file, model.graph.input[0].name)

    def _scale(self, setting: float | None, name: str, default: float) -> float:
        return setting if setting is not None else (self._piper.scales if self._piper else {}).get(name, default)

    def _given(self, tokens: list[int], tones: list[int] | None, where: str) -> dict[str, Array]:
        """Return the inputs of the graph: the first two by their position, as sherpa-onnx does, the others by their names.

        Raises:
            ModelError: the graph has an input that is not known, or fewer than two.
            DataError: it wants tones, which only a lexicon gives.
        """
        noise = self._scale(self.noise_scale, "noise_scale", NOISE_SCALE)
        length = self._scale(self.length_scale, "length_scale", LENGTH_SCALE)
        noise_w = self._scale(self.noise_scale_w, "noise_w", NOISE_SCALE_W)
        known: dict[str, tuple[float, ...]] = {
            SCALES: (noise, length, noise_w), "noise_scale": (noise,), "length_scale": (length,),
            **dict.fromkeys(NOISES_W, (noise_w,)), **dict.fromkeys(("sid", "speaker"), (self._speaker_id,)),
            **dict.fromkeys(("langid", "emotion_id"), (0,)),
        }  # fmt: skip
        model = header_of(self._file)
        constants = set() if model is None else {tensor.name for tensor in model.graph.initializer}
        inputs = [] if model is None else [value for value in model.graph.input if value.name not in constants]
        if len(inputs) < 2:
            raise ModelError(
                f"model.path: {resolve_path(self._file)} has fewer than two inputs; VITS takes tokens and their number."
            )
        first, second, *others = inputs
        given: dict[str, Array] = {
            first.name: np.array([tokens], dtype_of(first)), second.name: np.array([len(tokens)], dtype_of(second))
        }  # fmt: skip
        for value in others:
            if value.name == "tones":
                if tones is None and where:
                    raise DataError(f"{where}: {self.name} reads tones beside tokens; only text with a lexicon.txt gives them.")
                given["tones"] = np.array([tones or [0]], dtype_of(value))
            elif value.name in known:
                rank = len(dims_of(value) or [1])
                given[value.name] = np.array(known[value.name], dtype_of(value)).reshape([-1] * rank)
            else:
                raise ModelError(
                    f"model.path: {resolve_path(self._file)} has the input {value.name!r}; of a VITS model these are known: "
                    f"{', '.join(['tones', *known])}. Use model=onnx with arrays."
                )
        return given

    @property
    def _speaker_id(self) -> int:
        """The speaker as the graph counts: a Melo voice has one, whose number the metadata holds."""
        own = number_in(self._metadata, "speaker_id", self._file)
        return own if own is not None and "melo" in self._comment else self.speaker

    def _read(self, text: str, where: str) -> tuple[list[int], list[int] | None]:
        """Return the token ids of a text and, of a voice that reads them, their tones, as sherpa-onnx's front ends do."""
        if self._lexicon is not None:
            ids, tones = self._lexicon.ids(text), self._lexicon.tones(text)
            blanks = self._metadata.get("add_blank") == "1"
            spread = (lambda values: with_blanks(values, 0)) if blanks else list
            ids, tones = spread(ids), None if tones is None else spread(tones)
        elif self._metadata.get("has_espeak") == "1":
            symbols = spoken_symbols(text, self._metadata.get("voice", "en-us"), where, self.name)
            ids, tones = self._framed(symbols, text, where), None
        elif self._metadata.get("frontend") == "characters":
            ids, tones = self._framed(list(text.strip().lower()), text, where), None
        else:
            raise DataError(f"{where} has no tokens, and how text becomes tokens is not known: {self.name} lacks {FRONT_ENDS}.")
        return ids, tones

    def _framed(self, symbols: list[str], text: str, where: str) -> list[int]:
        """Return ids with blanks between them, and what begins and ends a sentence.

        Raises:
            DataError: there is nothing to say, or a symbol is no token of the voice.
        """
        if not symbols:
            raise DataError(f"{where}: its text {text!r} has nothing that can be spoken.")
        coqui = "coqui" in self._comment
        if not coqui and self._metadata.get("frontend") != "characters":
            # Piper, icefall: ^ _ p _ p _ $
            begin, pad, end = ids_of([BEGIN, PAD, END], self._tokens, text, where, self.name)
            return [begin, *with_blanks(ids_of(symbols, self._tokens, text, where, self.name), pad), end]
        numbers = {key: number_in(self._metadata, key, self._file) or 0 for key in ("bos_id", "eos_id", "blank_id")}
        ids = ids_of(symbols, self._tokens, text, where, self.name)
        if self._metadata.get("add_blank") == "1":
            ids = with_blanks(ids, numbers["blank_id"])
        if coqui and self._metadata.get("has_espeak") == "1":
            ids += ids_of([","], self._tokens, text, where, self.name)
        return [numbers["bos_id"], *ids, numbers["eos_id"]] if self._metadata.get("use_eos_bos") == "1" else ids

    @property
    def _tokens_path(self) -> Path | None:
        return self.beside("tokens.txt", self._file) if self._piper is None else self._piper.path

    @property
    def _has_tokens(self) -> bool:
        return self._tokens_path is not None

    @cached_property
    def _tokens(self) -> Mapping[str, int]:
        if self._piper is not None:
            return self._piper.tokens
        path = self._tokens_path
        if path is None:
            raise DataError(f"{self._file} has no tokens.txt beside it, which is needed to convert text to tokens.")
        return read_tokens(path, "model.dir")

    @cached_property
    def _lexicon(self) -> Lexicon | None:
        lexicon, tokens = (self.beside(name, self._file) for name in ("lexicon.txt", "tokens.txt"))
        if self._piper is not None or lexicon is None or tokens is None:
            return None
        return read_lexicon(lexicon, tokens, toned="melo" in self._comment)
