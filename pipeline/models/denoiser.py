"""Denoisers that sherpa-onnx runs: GTCRN and DPDFNet, frame by frame over the spectrum of a recording."""

import copy
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.kaldi_resample import kaldi_resample
from pipeline.audio.noisy_track import Track, check_tracks, noisy_track
from pipeline.audio.stft import hann_window, overlap_added, root_hann_window, spectrum_of, vorbis_window
from pipeline.errors import DataError, ModelError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.value_info import dims_of
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.loop_settings import loop_of
from pipeline.models.model_files import header_of, metadata_of, number_in
from pipeline.models.speech_model import ReadAudio
from pipeline.models.state_loop import Cut
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.paths import resolve_path
from pipeline.sample import Array, Float32Array, FloatArray, Outputs, Sample
from pipeline.utterance import Utterance

GTCRN, DPDFNET = "gtcrn", "dpdfnet"
CACHES = ("conv_cache", "tra_cache", "inter_cache")
OF_GTCRN = {  # what the authors' code computes, and sherpa-onnx reads from the metadata
    "model_type": GTCRN, "version": "1", "sample_rate": "16000", "n_fft": "512", "hop_length": "256", "window_length": "512",
    "window_type": "hann_sqrt",
}  # fmt: skip
NORMS = ("erb_norm_init", "spec_norm_init")  # of DPDFNet: what the beginning of its state starts from
CENTRED = {"center": "1", "pad_mode": "reflect"}  # frames, and what stands before the first sample
WINDOWS = {"hann": hann_window, "hann_sqrt": root_hann_window}


def denoiser_of(graph: onnx.GraphProto, metadata: Mapping[str, str]) -> str | None:
    """Return the family of a denoiser, by metadata or names; None where a graph is none that is known."""
    if metadata.get("model_type") in (GTCRN, DPDFNET):
        return metadata["model_type"]
    constants = {tensor.name for tensor in graph.initializer}
    takes = [value.name for value in graph.input if value.name not in constants]
    return GTCRN if takes == ["mix", *CACHES] else None


@dataclass
class Denoiser(StepwiseModel):
    """A denoiser: one graph from a frame of the noisy spectrum to one without noise, whose states go from frame to frame.

    Attributes:
        path: the ONNX file: GTCRN as its authors or sherpa-onnx publish it, DPDFNet as sherpa-onnx does.
        track_s: recordings, which are taken for clean speech, are repeated between pauses, in noise, until they are so many
            seconds long; null: they are the noise and the speech, and there is no clean speech to compare with.
        snr_db: lowest and highest signal to noise of these tracks.
    """

    _: KW_ONLY
    track_s: float | None = 5.0
    snr_db: list[float] = field(default_factory=lambda: [0.0, 20.0])
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.audio, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The one graph."""
        return {"denoiser": self._file}

    @property
    def client_metadata(self) -> Mapping[str, str]:
        """Of a GTCRN as its authors publish it: what sherpa-onnx reads, and the shapes of its caches."""
        model = header_of(self._file)
        if model is None or self.family != GTCRN or "model_type" in metadata_of(self._file):
            return {}
        shapes = [dims_of(value) or [] for value in model.graph.input if value.name in CACHES]
        caches = {f"{name}_shape": ",".join(map(str, shape)) for name, shape in zip(CACHES, shapes, strict=True)}
        return {**OF_GTCRN, **caches}

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what is heard."""
        return self._number("sample_rate")

    @property
    def rate_hz(self) -> int:
        """The sample rate of what is given."""
        return self._number("sample_rate")

    @cached_property
    def family(self) -> str:
        """The family: gtcrn or dpdfnet.

        Raises:
            ModelError: it is none that is known.
        """
        model = header_of(self._file)
        found = None if model is None else denoiser_of(model.graph, metadata_of(self._file))
        if model is not None and found is None:
            constants = {tensor.name for tensor in model.graph.initializer}
            takes = ", ".join(value.name for value in model.graph.input if value.name not in constants)
            raise ModelError(
                f"{resolve_path(self._file)} takes {takes}, and its metadata names no denoiser (model_type={GTCRN} or "
                f"{DPDFNET}). Another one is quantized as any streaming model: model=onnx, see docs/streaming.md."
            )
        return found or GTCRN

    def check(self) -> None:
        """Check settings, metadata and shapes.

        Raises:
            ConfigError: a setting is out of limits.
            ModelError: something is missing, or does not fit.
        """
        check_tracks(self.track_s, self.snr_db)
        bins, hop = self._number("n_fft") // 2 + 1, self._number("hop_length")
        if (
            min(bins - 1, hop, self._number("sample_rate")) < 1
            or self._number("n_fft") % hop
            or len(self._window) != 2 * bins - 2
        ):
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has n_fft={self._number('n_fft')}, hop_length={hop}, "
                f"window_length={self._number('window_length')}; frames are run whose window is as long as the transform, "
                "and a multiple of the hop."
            )
        model = header_of(self._file)
        if model is None:
            return
        expected = self._shape(bins)
        dims = dims_of(model.graph.input[0]) or []
        if [size or wanted for size, wanted in zip(dims, expected, strict=False)] != expected or len(dims) != len(expected):
            raise ModelError(
                f"{resolve_path(self._file)}: its first input is of shape {dims}; by the metadata the client gives it "
                f"{expected}."
            )
        if self.family == DPDFNET:
            _ = self._first_state
            told = {key: self._metadata.get(key, usual) for key, usual in CENTRED.items()}
            if told != CENTRED:
                raise ModelError(f"{resolve_path(self._file)}: its metadata has {told}; frames are run with {CENTRED}.")

    def with_graphs(self, graphs: Mapping[str, SourceGraph]) -> Self:
        """Return the model that knows how its graph is run frame by frame."""
        [(name, source)] = graphs.items()
        known = copy.copy(self)
        states = self.fed_back(source.model.graph)
        loop = loop_of(name, source, states, None, Cut(source.model.graph.input[0].name))
        initial: dict[str, Array] = {next(iter(states.values())): self._first_state} if self.family == DPDFNET else {}
        known._loop = replace(loop, initial=initial)
        known._step_seconds = self._number("hop_length") / self._number("sample_rate")
        return known

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the states: by their place, as the client binds them."""
        constants = {tensor.name for tensor in graph.initializer}
        takes = [value.name for value in graph.input if value.name not in constants]
        return dict(zip((value.name for value in list(graph.output)[1:]), takes[1:], strict=False))

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the frames of a track of a recording.

        Raises:
            DataError: the utterance has no audio.
        """
        return self.sample_of_audio(utterance.id, self.track(utterance, read_audio).audio)

    def track(self, utterance: Utterance, read_audio: ReadAudio) -> Track:
        """Return what is heard of an utterance, and what was said.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        rate = self.rate_of_audio_hz
        recording = read_audio(utterance.audio, rate)
        if self.track_s is None:
            return Track(recording, None)
        return noisy_track(utterance.id, recording, rate, self.track_s, self.snr_db)

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the frames of mono audio (samples,) in [-1, 1], each of real and imaginary part: (frames, ...)."""
        if len(audio) <= len(self._window) // 2:
            raise DataError(f"{name}: {len(audio)} samples, fewer than a frame takes ({len(self._window)}).")
        spectrum = spectrum_of(audio.astype(np.float64), self._window, self._number("hop_length")).T * self._scale
        frames = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
        model = header_of(self._file)
        heard = "mix" if model is None else model.graph.input[0].name
        return Sample(name, {heard: frames.reshape(-1, *self._shape(frames.shape[1]))})

    def audio(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the audio (samples,) of the frames that were given, as the client puts them together."""
        frames = np.asarray(next(iter(outputs.values())), np.float64)
        parts = frames.reshape(len(frames), -1, 2)
        spectrum = np.asarray(parts[..., 0] + 1j * parts[..., 1], np.complex128).T / self._scale
        audio = overlap_added(spectrum, self._window, self._number("hop_length"))
        late = 2 * len(self._window) if self.family == DPDFNET else 0  # samples: it answers so much later
        return np.concatenate([audio[late:], np.zeros(min(late, len(audio)), np.float32)])

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Resample a recording as the client does."""
        return kaldi_resample(audio, from_hz, to_hz)

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the graph."""
        part = {GTCRN: "Gtcrn", DPDFNET: "DpdfNet"}[self.family]
        file = ClientFile(f"{self.family}.onnx", "model", f"speech-denoiser-{self.family}-model", graph="denoiser")
        return ClientLayout(Task.denoise, self.family, f"OfflineSpeechDenoiser{part}ModelConfig", (file,))

    def without_noise(self) -> Self:
        """Return the model: it draws none."""
        return self

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the path of the recording."""
        return None if utterance.audio is None else str(utterance.audio)

    def _shape(self, bins: int) -> list[int]:
        return [1, bins, 1, 2] if self.family == GTCRN else [1, 1, bins, 2]

    @property
    def _file(self) -> str:
        return self.named("denoiser", "*gtcrn*.onnx", "*dpdfnet*.onnx", "*.onnx")

    @cached_property
    def _metadata(self) -> dict[str, str]:
        return {**self.client_metadata, **metadata_of(self._file)}

    def _number(self, key: str) -> int:
        found = number_in(self._metadata, key, self._file)
        if found is None:
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has no {key}, which sherpa-onnx reads. Export it for sherpa-onnx."
            )
        return found

    @cached_property
    def _window(self) -> FloatArray:
        kind, length = self._metadata.get("window_type", ""), self._number("window_length")
        if self.family == DPDFNET:
            return vorbis_window(length)  # whatever the metadata says: the client reads the name and makes this one
        if kind not in WINDOWS:
            raise ModelError(
                f"{resolve_path(self._file)}: its metadata has window_type={kind!r}; known are {', '.join(WINDOWS)}."
            )
        return WINDOWS[kind](length)

    @property
    def _scale(self) -> float:
        """Of the spectrum: one, or as a unitary transform has it."""
        unitary = self._metadata.get("normalized", "0") == "1"
        return 1.0 / self._number("n_fft") ** 0.5 if unitary and self.family == DPDFNET else 1.0

    @cached_property
    def _first_state(self) -> Float32Array:
        """Of DPDFNet: what its norms start from, and zeros.

        Raises:
            ModelError: the metadata has other numbers than it says.
        """
        state = np.zeros(self._number("state_size"), np.float32)
        place = 0
        for key in NORMS:
            size = self._number(key.replace("init", "state_size"))
            try:
                values = np.array(self._metadata.get(key, "").replace(",", " ").split(), np.float32)
            except ValueError:
                values = np.zeros(0, np.float32)
            if len(values) != size or place + size > len(state):
                raise ModelError(
                    f"{resolve_path(self._file)}: its metadata has {len(values)} numbers `{key}`, and says that there are "
                    f"{size}, of a state of {len(state)}."
                )
            state[place : place + size] = values
            place += size
        return state
