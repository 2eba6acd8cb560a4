"""How a client that runs speech models is handed one: which files under which names, and by which of its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

from pipeline.audio.noisy_track import Track
from pipeline.models.speech_model import ReadAudio, SpeechModel
from pipeline.utterance import Utterance


class Task(Enum):
    """What a client does with a model."""

    listen = "listen"
    follow = "follow"  # listen while somebody speaks
    speak = "speak"
    detect = "detect"
    denoise = "denoise"


@dataclass(frozen=True)
class ClientFile:
    """One file that the client is given.

    Attributes:
        name: in the client's directory; of a graph, what its float form is called.
        argument: of the loader, as Python names it; Kotlin writes it in camel case.
        flag: of the client's command.
        graph: the role of the graph that it holds; None: a file that is copied as it is.
        source: where such a file is.
        text: what a file holds that is nowhere yet.
    """

    name: str
    argument: str
    flag: str
    graph: str | None = None
    source: Path | None = None
    text: str | None = None


@dataclass(frozen=True)
class ClientLayout:
    """What sherpa-onnx is given for a model.

    Attributes:
        task: what it does.
        loader: for `listen` and `follow`, a method of `sherpa_onnx.OfflineRecognizer` and `OnlineRecognizer`; else the field
            of `OfflineTtsModelConfig`, `VadModelConfig` or `OfflineSpeechDenoiserModelConfig`.
        kotlin: the class of the model's settings in Kotlin; but for `listen` and `follow` also in Python.
        files: what it is given.
        copied: files and directories that lie beside these and are found by none of its settings, such as test recordings.
        options: further settings: argument -> value.
        has_phonemes: the client's version 2 takes phonemes from outside, since it has no espeak-ng.
        model_type: what the client must be told where the loader is that of several families.
        tail_s: for `follow`, silence that is given behind a recording.
    """

    task: Task
    loader: str
    kotlin: str
    files: tuple[ClientFile, ...]
    copied: tuple[Path, ...] = ()
    options: Mapping[str, float | str] = field(default_factory=dict)
    has_phonemes: bool = False
    model_type: str | None = None
    tail_s: float = 0.0


@runtime_checkable
class HearsTracks(Protocol):
    """A model that is tried on tracks which are made of recordings."""

    @property
    def rate_of_audio_hz(self) -> int:
        """Their sample rate."""

    def track(self, utterance: Utterance, read_audio: ReadAudio) -> Track:
        """Return what is heard of an utterance."""


@runtime_checkable
class RunsInSherpaOnnx(Protocol):
    """A model that sherpa-onnx can run."""

    def client_layout(self) -> ClientLayout:
        """Return how sherpa-onnx is given the model.

        Raises:
            ConfigError: a file is missing without which it cannot be run, such as a vocoder.
        """

    def without_noise(self) -> SpeechModel:
        """Return the model so that it says the same each time, where it draws noise."""

    def client_input(self, utterance: Utterance) -> str | None:
        """Return what the client is given for an utterance: the path of a recording, or phonemes; None: its text."""
