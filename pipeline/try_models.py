"""A past run's models at work: they speak a text (`say`) or write a recording down (`transcribe`), fp32 and quantized."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from pipeline.config.choices import SampleRateMismatch
from pipeline.config.compose import read_run_config
from pipeline.errors import ConfigError
from pipeline.evaluate.tts_scorer import listener_of
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.speech_model import Speaks, TextToSpeech, Transcribes
from pipeline.record.run_directory import past_config_file
from pipeline.record.run_log import RunLog
from pipeline.report.report_file import read_report
from pipeline.stages.load import load
from pipeline.utterance import Utterance

if TYPE_CHECKING:
    from pipeline.sample import Outputs, Sample

SPOKEN = "said"  # the folder in the run's directory
FP32 = "fp32"


@dataclass(frozen=True)
class Spoken:
    """What one model made of the input.

    Attributes:
        label: `fp32`, or the kind of the artifact, such as `int8`.
        text: the transcript, or what a recogniser hears in the speech; None: there is none.
        file: the speech; None for a transcript.
        seconds: of audio.
    """

    label: str
    text: str | None
    file: Path | None
    seconds: float


def speak(run: Path, text: str) -> list[Spoken]:
    """Let the models of a run speak a text, both with the same noise; the audio goes to `said/` in the run's directory.

    Args:
        run: the directory of a run of a text-to-speech model with a vocoder.
        text: a sentence in the language of the model.

    Raises:
        PipelineError: it is no such run, its files are gone, or the text cannot be spoken.
    """
    model, changed, seed = _models_of(run)
    adapter = model.adapter
    if not isinstance(adapter, TextToSpeech):
        raise ConfigError(f"say: {adapter.name}, the model of {run}, does not speak texts. With recordings: transcribe=<file>.")
    if adapter.mel_depends_on(adapter.entry) and "vocoder" not in model and not isinstance(adapter, Speaks):
        raise ConfigError(f"say: {adapter.name}, the model of {run}, has no vocoder that makes its mels audible.")
    sample = adapter.sample(Utterance("said", text=text), lambda path, rate: np.zeros(0, np.float32))
    folder = run / SPOKEN
    if folder.is_symlink():
        raise ConfigError(f"run: {folder} is a symbolic link, through which the speech would be written elsewhere.")
    folder.mkdir(exist_ok=True)
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    listener = listener_of(adapter, model.threads)
    found = []
    for label, outputs in _both(model, changed, sample, seed).items():
        audio = np.asarray(outputs["audio"], np.float32)
        file = folder / f"{stem}.{label}.wav"
        soundfile.write(file, np.clip(audio, -1.0, 1.0), adapter.rate_hz, subtype="PCM_16")
        heard = None if listener is None else listener.transcript(audio, adapter.rate_hz)
        found.append(Spoken(label, heard, file, len(audio) / adapter.rate_hz))
    return found


def transcribe(run: Path, recording: Path) -> list[Spoken]:
    """Let the recognisers of a run write a recording down.

    Args:
        run: the directory of a run of a recogniser.
        recording: a mono audio file of any sample rate.

    Raises:
        PipelineError: it is no such run, its files are gone, or the recording cannot be read.
    """
    from pipeline.data.datasets import audio_reader

    model, changed, seed = _models_of(run)
    adapter = model.adapter
    if not isinstance(adapter, Transcribes):
        raise ConfigError(f"transcribe: {adapter.name}, the model of {run}, writes nothing down. With texts: say=<text>.")
    reader = audio_reader(SampleRateMismatch.resample, RunLog(), adapter.resample)
    sample = adapter.sample(Utterance(recording.stem, audio=recording.absolute()), reader)
    seconds = soundfile.info(recording).duration
    outputs = _both(model, changed, sample, seed)
    return [Spoken(label, adapter.transcript(one), None, seconds) for label, one in outputs.items()]


def _models_of(run: Path) -> tuple[LoadedModel, Mapping[str, Path], int]:
    """Return the original of a run, its artifacts by graph, and its seed."""
    config, _ = read_run_config(past_config_file(str(run), "run"))
    report = read_report(run, "run")
    changed = {artifact.graph: run / artifact.file for artifact in report.artifacts or []}
    if away := [path for path in changed.values() if path.parent != run]:
        raise ConfigError(f"run: the report of {run} names {away[0]}, which does not lie in it. No run writes that.")
    if not changed:
        raise ConfigError(f"run: {run} has made no model: its status is {report.status}. Name a run with the stage quantize.")
    if missing := [path for path in changed.values() if not path.is_file()]:
        raise ConfigError(f"run: {missing[0]} is gone. Make it again: rerun={run}.")
    return load(config.model, config.runtime.threads), changed, config.seed


def _both(model: LoadedModel, changed: Mapping[str, Path], sample: "Sample", seed: int) -> dict[str, "Outputs"]:
    """Return what the original and the quantized model give for a sample, with the same noise."""
    quantized = ModelSessions(model, model.threads, changed)
    label = next(iter(changed.values())).suffixes[-2][1:]
    runs = {FP32: model.originals, (label if label != FP32 else "optimized"): quantized}
    return {name: model.adapter.infer(sample, sessions.runner([seed, 0])) for name, sessions in runs.items()}
