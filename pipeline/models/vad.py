"""Detectors of speech: Silero VAD (4, 5 and later), TEN VAD and FSMN-VAD, step by step over recordings.

What a detector decides is what its client makes of its probabilities: speech begins where they rise above a threshold, and
ends where they have been below it for so long. Quality is whether those decisions stay.
"""

import copy
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.kaldi_fbank import FUNASR, kaldi_fbank, stacked_frames
from pipeline.audio.kaldi_resample import kaldi_resample
from pipeline.audio.noisy_track import Track, check_tracks, noisy_track
from pipeline.audio.vad_features import TEN_STATISTICS, kaldi_cmvn, ten_vad_features
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.value_info import dims_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.loop_settings import loop_of
from pipeline.models.model_files import header_of, metadata_of
from pipeline.models.speech_model import ReadAudio
from pipeline.models.state_loop import Cut
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.paths import resolve_path
from pipeline.sample import Array, FloatArray, Outputs, Sample
from pipeline.utterance import Utterance

RATE_HZ = 16_000
STATISTICS = "am.mvn"  # beside a detector of FunASR
BELOW = 0.15  # the threshold, as soon as speech has begun


@dataclass(frozen=True)
class Detector:
    """One family of detectors.

    Attributes:
        name: for people.
        takes: what the graph takes; empty: anything, as metadata or shapes tell.
        gives: what it gives, the probability first.
        states: their shapes: what the client gives first.
        windows: samples from one step to the next: those that the client allows, the usual one first.
        context: samples before them that a step is given once more.
        threshold: from which on a probability is speech.
        decided_every: samples from one probability to the next; None: from one step to the next.
        loader: the part of the client's `VadModelConfig`, and the class of its settings; None: the client runs no such model.
    """

    name: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    states: tuple[tuple[int, ...], ...]
    windows: tuple[int, ...]
    context: int = 0
    threshold: float = 0.5
    decided_every: int | None = None
    loader: tuple[str, str] | None = ("silero_vad", "SileroVadModelConfig")


V4_STATES, V4_WINDOWS = ((2, 1, 64), (2, 1, 64)), (512, 1024, 1536)
TEN = Detector("TEN VAD", (), (), ((1, 64),) * 4, (256, 160), loader=("ten_vad", "TenVadModelConfig"))
FSMN = Detector("FSMN-VAD", (), (), ((1, 128, 19, 1),) * 4, (3200,), threshold=0.8, decided_every=160, loader=None)
DETECTORS = (
    Detector("Silero VAD 5", ("input", "state", "sr"), ("output", "stateN"), ((2, 1, 128),), (512,), context=64),
    Detector("Silero VAD 4", ("input", "sr", "h", "c"), ("output", "hn", "cn"), V4_STATES, V4_WINDOWS),
    Detector("Silero VAD 4 of k2-fsa", ("x", "h", "c"), ("prob", "new_h", "new_c"), V4_STATES, V4_WINDOWS),
)
FSMN_FRAMES, FSMN_STACKED = 20, 5  # frames of a step, and neighbours in each


def detector_of(graph: onnx.GraphProto, metadata: Mapping[str, str]) -> Detector | None:
    """Return the family of a detector, by metadata, names and shapes; None where a graph is none that is known."""
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    takes, gives = tuple(value.name for value in given), tuple(value.name for value in graph.output)
    for one in DETECTORS:
        if (takes, gives) == (one.takes, one.gives):
            return one
    if metadata.get("model_type") == "ten-vad":
        return TEN
    if len(takes) != len(gives) or len(takes) != 5:
        return None
    if (dims_of(given[0]) or [])[1:] == [3, 41]:
        return TEN
    caches = [f"in_cache{number}" for number in range(4)]
    return FSMN if takes == ("speech", *caches) else None


@dataclass
class Vad(StepwiseModel):
    """A detector of speech: one graph, whose states go from step to step.

    Attributes:
        path: the ONNX file: of Silero as it is published, of TEN VAD with the metadata of sherpa-onnx, of FunASR with am.mvn
            beside it.
        threshold: from which on a probability is speech; null: 0.5, of FSMN-VAD 0.8.
        min_speech_s: shorter speech is none.
        min_silence_s: speech ends where it is silent for so long.
        window: samples from one step to the next; null: 512, of TEN VAD 256.
        track_s: recordings are repeated between pauses, in noise, until they are so many seconds long; null: they are heard as
            they are.
        snr_db: lowest and highest signal to noise of these tracks.
    """

    _: KW_ONLY
    threshold: float | None = None
    min_speech_s: float = 0.25
    min_silence_s: float = 0.5
    window: int | None = None
    track_s: float | None = 10.0
    snr_db: list[float] = field(default_factory=lambda: [0.0, 30.0])
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"vad": self._file}

    @property
    def fixed_inputs(self) -> Mapping[str, float] | None:
        """The sample rate, which decides an If: the client hears 16 kHz."""
        return {"sr": RATE_HZ} if "sr" in self.detector.takes else None

    @property
    def side_files(self) -> list[Path]:
        """Statistics of features, where they lie beside the graph."""
        return [self._cmvn_file] if self.detector is FSMN else []

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what is heard."""
        return RATE_HZ

    @cached_property
    def detector(self) -> Detector:
        """The family.

        Raises:
            ModelError: it is none that is known.
        """
        model = header_of(self._file)
        found = None if model is None else detector_of(model.graph, metadata_of(self._file))
        if model is not None and found is None:
            constants = {tensor.name for tensor in model.graph.initializer}
            takes = ", ".join(value.name for value in model.graph.input if value.name not in constants)
            known = "; ".join(f"{one.name}: {', '.join(one.takes)} -> {', '.join(one.gives)}" for one in DETECTORS)
            raise ModelError(
                f"{resolve_path(self._file)} takes {takes} and gives {', '.join(value.name for value in model.graph.output)}; "
                f"names and order decide what sherpa-onnx gives a detector. Known are {known}; TEN VAD; FSMN-VAD of "
                "FunASR. Another one is quantized as any streaming model: model=onnx, see docs/streaming.md."
            )
        return found or DETECTORS[0]  # `load` reports a file that is none

    def check(self) -> None:
        """Check the settings, and that what normalises the features is there.

        Raises:
            ConfigError: a setting is out of limits.
            ModelError: a statistic is missing, or of another size.
        """
        family = self.detector
        if self.window is not None and self.window not in family.windows:
            allowed = ", ".join(map(str, sorted(family.windows)))
            raise ConfigError(f"model.window: {self.window}, but {family.name} takes {allowed} samples at a time.")
        if not 0 < self.speech_from < 1:
            raise ConfigError(f"model.threshold: {self.threshold} is out of limits; allowed: null or between 0 and 1.")
        for key, value in (("min_speech_s", self.min_speech_s), ("min_silence_s", self.min_silence_s)):
            if not 0 <= value <= 60:
                raise ConfigError(f"model.{key}: {value} is out of limits; allowed: 0 to 60.")
        check_tracks(self.track_s, self.snr_db)
        self._check_states()
        if family is TEN:
            _ = self._statistics
        if family is FSMN:
            _ = self._cmvn

    def _check_states(self) -> None:
        model = header_of(self._file)
        if model is None:
            return
        inputs = {value.name: value for value in model.graph.input}
        for name, shape in zip(self.fed_back(model.graph).values(), self.detector.states, strict=True):
            dims = dims_of(inputs[name])
            if dims is not None and (len(dims), [d or s for d, s in zip(dims, shape, strict=False)]) != (len(shape), [*shape]):
                raise ModelError(
                    f"{resolve_path(self._file)}: its input {name!r} is of shape {dims}; the client of {self.detector.name} "
                    f"gives it {list(shape)}."
                )

    def with_graphs(self, graphs: Mapping[str, SourceGraph]) -> Self:
        """Return the model that knows how its graph is run step by step."""
        [(name, source)] = graphs.items()
        known, family = copy.copy(self), self.detector
        heard = source.model.graph.input[0].name
        cut = Cut(heard)
        if family is FSMN:
            cut = Cut(heard, FSMN_FRAMES, axis=1)
        elif family is not TEN:
            cut = Cut(heard, self.hop + family.context, self.hop, axis=1)
        known._loop = loop_of(name, source, self.fed_back(source.model.graph), None, cut)
        known._step_seconds = self.hop / RATE_HZ
        return known

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the states: by their place, as the client binds them."""
        constants = {tensor.name for tensor in graph.initializer}
        takes = [value.name for value in graph.input if value.name not in constants and value.name != "sr"]
        return dict(zip((value.name for value in list(graph.output)[1:]), takes[1:], strict=False))

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the steps of a track of a recording.

        Raises:
            DataError: the utterance has no audio.
        """
        return self.sample_of_audio(utterance.id, self.track(utterance, read_audio).audio)

    def track(self, utterance: Utterance, read_audio: ReadAudio) -> Track:
        """Return what is heard of an utterance.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        recording = read_audio(utterance.audio, RATE_HZ)
        if self.track_s is None:
            return Track(recording, None)
        return noisy_track(utterance.id, recording, RATE_HZ, self.track_s, self.snr_db)

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the steps of mono audio (samples,) in [-1, 1] at 16 kHz."""
        model, family = header_of(self._file), self.detector
        heard = "input" if model is None else model.graph.input[0].name
        if len(audio) < self.hop + family.context:
            raise DataError(f"{name}: {len(audio)} samples, fewer than one step takes ({self.hop + family.context}).")
        features: Array
        if family is TEN:
            features = ten_vad_features(audio, self.hop, self._statistics)
        elif family is FSMN:
            shift, scale = self._cmvn
            features = stacked_frames(kaldi_fbank(audio, RATE_HZ, FUNASR), FSMN_STACKED, 1, shift, scale)[None]
        else:
            features = audio[None].astype(np.float32)
        return Sample(name, {heard: features})

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Resample a recording as clients do."""
        return kaldi_resample(audio, from_hz, to_hz)

    def probabilities(self, outputs: Outputs) -> FloatArray:
        """Return the probabilities of speech (steps,); of FSMN-VAD, of every 10 ms: what is not its class of silence."""
        first = np.asarray(next(iter(outputs.values())), np.float64)
        return 1.0 - first.reshape(-1, first.shape[-1])[:, 0] if self.detector is FSMN else first.reshape(-1)

    @property
    def speech_from(self) -> float:
        """From which probability on it is speech."""
        return self.detector.threshold if self.threshold is None else self.threshold

    def speech(self, probabilities: FloatArray) -> npt.NDArray[np.bool_]:
        """Return where the client says that somebody speaks (steps,): the rule of sherpa-onnx 2.0.1 for each step."""
        every = self.detector.decided_every or self.hop
        high, low = self.speech_from, max(self.speech_from - BELOW, 0.01)
        longest_pause, shortest = (int(RATE_HZ * seconds) for seconds in (self.min_silence_s, self.min_speech_s))
        begun, quiet, speaking = 0, 0, False  # in samples; 0: not yet
        found = np.zeros(len(probabilities), np.bool_)
        for step, value in enumerate(probabilities):
            now = (step + 1) * every
            if value > high:
                quiet = 0
                if not begun:
                    begun = now
                elif not speaking:
                    speaking = now - begun >= shortest
            elif not speaking:
                begun = begun if value == high else 0
            elif value <= low:
                quiet = quiet or now
                if now - quiet >= longest_pause:
                    begun, quiet, speaking = 0, 0, False
            found[step] = speaking
        return found

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph, and the settings that its decisions follow from.

        Raises:
            ConfigError: it does not run such a detector.
        """
        family = self.detector
        if family.loader is None:
            raise ConfigError(f"package: sherpa-onnx does not run {family.name}; take package=onnx.")
        part, settings = family.loader
        options = {
            "threshold": self.speech_from, "min_silence_duration": self.min_silence_s,
            "min_speech_duration": self.min_speech_s, "window_size": self.hop,
        }  # fmt: skip
        name = f"{part}.onnx"
        file = ClientFile(name, "model", f"{part.replace('_', '-')}-model", graph="vad")
        return ClientLayout(Task.detect, part, settings, (file,), options=options)

    def without_noise(self) -> Self:
        """Return the model: it draws none."""
        return self

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the path of the recording."""
        return None if utterance.audio is None else str(utterance.audio)

    @property
    def hop(self) -> int:
        """Samples from one step to the next."""
        return self.window or self.detector.windows[0]

    @property
    def _file(self) -> str:
        return self.named("detector", "*vad*.onnx", "*.onnx")

    @cached_property
    def _statistics(self) -> dict[str, npt.NDArray[np.float32]]:
        metadata, found = metadata_of(self._file), {}
        for key, count in TEN_STATISTICS.items():
            try:
                found[key] = np.array(metadata.get(key, "").replace(",", " ").split(), np.float32)
            except ValueError:
                found[key] = np.zeros(0, np.float32)
            if found[key].shape != (count,):
                raise ModelError(
                    f"{resolve_path(self._file)}: sherpa-onnx reads {count} numbers `{key}` of its metadata to compute the "
                    f"features, and it has {len(found[key])}. Take the ten-vad.onnx that sherpa-onnx publishes: it has them."
                )
        return found

    @property
    def _cmvn_file(self) -> Path:
        return self.beside(STATISTICS, self._file) or resolve_path(self._file).parent / STATISTICS

    @cached_property
    def _cmvn(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return kaldi_cmvn(self._cmvn_file)
