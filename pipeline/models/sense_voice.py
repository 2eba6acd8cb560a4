"""SenseVoice as sherpa-onnx runs it: stacked features, and inputs that ask for a language and for how numbers are written."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.errors import ConfigError, ModelError, did_you_mean
from pipeline.graph.value_info import dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.ctc import Ctc
from pipeline.models.model_files import header_of, metadata_of
from pipeline.models.recogniser_families import FAMILIES, Family
from pipeline.paths import resolve_path
from pipeline.sample import Sample

LANGUAGES = ("auto", "zh", "en", "ja", "ko", "yue")
READ = ("vocab_size", "lfr_window_size", "lfr_window_shift", "normalize_samples", "with_itn", "without_itn")
"""Of the metadata: what the client ends its process without, beside the number of each language."""


@dataclass
class SenseVoice(Ctc):
    """SenseVoice: x (1, frames, 560), x_length, language and text_norm (1,) -> logits (1, 4 + frames, tokens).

    Attributes:
        path: model.onnx.
        dir: a directory such as sherpa-onnx-sense-voice-zh-en-ja-ko-yue-2024-07-17: model.onnx and tokens.txt.
        features: sense_voice, or null: no others fit.
        language: of the recordings: zh, en, ja, ko, yue; null: the model tells, as with auto.
        use_itn: numbers as figures, and punctuation.
    """

    _: KW_ONLY
    language: str | None = None
    use_itn: bool = False

    def check(self) -> None:
        """Check metadata, settings, inputs and token table.

        Raises:
            ModelError: something is missing, or does not fit.
            ConfigError: the model knows no such language.
        """
        path, metadata = resolve_path(self.encoder), self._metadata
        if self.features not in (None, "sense_voice"):
            raise ConfigError(f"model.features: {self.features!r}; SenseVoice has those of sense_voice. Leave the setting out.")
        for key in (*READ, *(f"lang_{language}" for language in LANGUAGES)):
            if key not in metadata:
                raise ModelError(f"{path}: its metadata has no {key}, which sherpa-onnx reads. Export it for sherpa-onnx.")
            self._number(key, 0)
        if self.language is not None and self.language not in LANGUAGES:
            raise ConfigError(
                f"model.language: the model knows no language {self.language!r}.{did_you_mean(self.language, LANGUAGES)}"
            )
        names = tuple(value.name for value in self._inputs)
        if names != self.family.inputs:
            raise ModelError(
                f"{path} takes {', '.join(names)}; sherpa-onnx gives {', '.join(self.family.inputs)}, in this order. Another "
                "one is quantized as any ONNX file: model=onnx calibration=arrays."
            )
        count = self._number("vocab_size", 0)
        if count != len(self.tokens):
            raise ModelError(
                f"model.tokens_path: {self.token_table} has {len(self.tokens)} tokens; the metadata of {path} has "
                f"vocab_size={count}. They are of different models."
            )
        self.check_classes(self.encoder, "logits")

    @cached_property
    def family(self) -> Family:
        """Stacked features of FunASR; the first four tokens are no words."""
        return FAMILIES["sense_voice"]

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        sample = super().sample_of_audio(name, audio)
        asked = {
            "language": self._number(f"lang_{self.language or 'auto'}", 0),
            "text_norm": self._number("with_itn" if self.use_itn else "without_itn", 15),
        }
        types = {value.name: dtype_of(value) for value in self._inputs}
        given = {key: np.array([value], types[key]) for key, value in asked.items() if key in types}
        return Sample(name, {**sample.inputs, **given})

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph, the token table, and what is asked for."""
        loader, argument, flag, kotlin = self.family.loader
        files = (ClientFile("model.onnx", argument, flag, graph="encoder"), self._tokens_for_client)
        options: dict[str, float | str] = {"language": self.language or "auto", "use_itn": self.use_itn}
        return ClientLayout(Task.listen, loader, kotlin, files, options=options)

    @property
    def _metadata(self) -> Mapping[str, str]:
        return metadata_of(self.encoder)

    @property
    def _inputs(self) -> list[onnx.ValueInfoProto]:
        model = header_of(self.encoder)
        constants = set() if model is None else {tensor.name for tensor in model.graph.initializer}
        return [] if model is None else [value for value in model.graph.input if value.name not in constants]
