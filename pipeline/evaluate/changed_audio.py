"""Audio to listen to: of the samples that quantization changed most, before and after, and the recording where there is one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError
from pipeline.metrics.metric_registry import sample_metrics
from pipeline.record.run_directory import SAMPLES, RunDirectory
from pipeline.record.run_log import RunLog

Audio = npt.NDArray[np.float32]

BASELINE, RECORDING = "fp32", "recording"  # labels in the names of files; the quantized model's is that of its artifact


@dataclass(frozen=True)
class _Heard:
    item: EvaluationSample
    change: float
    before: Audio
    after: Audio
    said: Audio | None


class ChangedAudio:
    """Keeps the audio of the samples that changed most, so that no more than is written is held in memory."""

    def __init__(self, count: int) -> None:
        """Take how many samples are kept."""
        self._count = count
        self._kept: list[_Heard] = []

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._kept)

    def add(
        self, item: EvaluationSample, fidelity: Mapping[str, float], before: Audio, after: Audio, said: Audio | None = None
    ) -> None:
        """Take a sample's audio (samples,) of both models, its metrics against fp32, and what stands for the recording."""
        change = next((fidelity[name] for name in sample_metrics() if name in fidelity), None)
        heard = _Heard(item, _distance(before, after) if change is None else change, before, after, said)
        self._kept = sorted([*self._kept, heard], key=lambda one: -one.change)[: self._count]

    def write(self, directory: RunDirectory, suffix: str, sample_rate_hz: int, run_log: RunLog) -> None:
        """Write samples/<id>.fp32.wav, <id>.<suffix>.wav and, of a sample that has one, <id>.recording.wav.

        A recording that cannot be read is left out, with a warning: no metric needs it here.
        """
        for heard in self._kept:
            audio = {BASELINE: heard.before, suffix: heard.after}
            recording = _recording(heard.item, sample_rate_hz, run_log) if heard.said is None else heard.said
            if recording is not None:
                audio[RECORDING] = recording
            folder = directory.path / SAMPLES
            folder.mkdir(exist_ok=True)
            for label, wave in audio.items():
                file = folder / f"{file_stem(heard.item.sample.id)}.{label}.wav"
                file.unlink(missing_ok=True)  # never through a link
                soundfile.write(file, np.clip(wave, -1.0, 1.0), sample_rate_hz, subtype="PCM_16")


def _recording(item: EvaluationSample, sample_rate_hz: int, run_log: RunLog) -> Audio | None:
    if item.utterance is None or item.utterance.audio is None:
        return None
    try:
        return read_audio(item.utterance.audio, sample_rate_hz, SampleRateMismatch.resample, [])
    except DataError as error:
        run_log.warn(f"samples/: the recording of {item.sample.id!r} is not beside its audio. {error}")
        return None


def file_stem(sample_id: str) -> str:
    """Return what the names of a sample's files begin with: an id may hold a slash."""
    return sample_id.replace("/", "_")


def _distance(before: Audio, after: Audio) -> float:
    """Return how far the audio has moved, where no metric tells it: the mean absolute difference of what both have."""
    length = min(len(before), len(after))
    return float(np.abs(before[:length] - after[:length]).mean()) if length else 0.0
