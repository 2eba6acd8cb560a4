"""SenseVoice as sherpa-onnx runs it: stacked features, and inputs that ask for a language and for how numbers are written."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, did_you_mean
from pipeline.graph.value_info import dtype_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.funasr import STACKED, Funasr
from pipeline.sample import Sample

LANGUAGES = ("auto", "zh", "en", "ja", "ko", "yue")
READ = (*STACKED, "normalize_samples", "with_itn", "without_itn", *(f"lang_{language}" for language in LANGUAGES))
"""Of the metadata: what the client ends its process without."""


@dataclass
class SenseVoice(Funasr):
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

    family_name: ClassVar[str] = "sense_voice"
    called: ClassVar[str] = "SenseVoice"
    numbers: ClassVar[tuple[str, ...]] = READ

    def check(self) -> None:
        """Check metadata, settings, inputs and token table.

        Raises:
            ModelError: something is missing, or does not fit.
            ConfigError: the model knows no such language, or other features are asked for.
        """
        if self.language is not None and self.language not in LANGUAGES:
            raise ConfigError(
                f"model.language: the model knows no language {self.language!r}.{did_you_mean(self.language, LANGUAGES)}"
            )
        super().check()

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        sample = super().sample_of_audio(name, audio)
        asked = {
            "language": self._number(f"lang_{self.language or 'auto'}", 0),
            "text_norm": self._number("with_itn" if self.use_itn else "without_itn", 15),
        }
        types = {value.name: dtype_of(value) for value in self._given}
        given = {key: np.array([value], types[key]) for key, value in asked.items() if key in types}
        return Sample(name, {**sample.inputs, **given})

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph, the token table, and what is asked for."""
        loader, argument, flag, kotlin = self.family.loader
        files = (ClientFile("model.onnx", argument, flag, graph="encoder"), self._tokens_for_client)
        options: dict[str, float | str] = {"language": self.language or "auto", "use_itn": self.use_itn}
        return ClientLayout(Task.listen, loader, kotlin, files, options=options)
