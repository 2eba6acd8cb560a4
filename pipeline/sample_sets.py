"""Which samples a run calibrates and evaluates on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.config import CalibrationConfig, CalibrationKind, EvaluationConfig, SampleRateMismatch
from pipeline.dataset import Utterance, check_samples, find, random_samples, read_arrays, read_audio, read_manifest
from pipeline.errors import ConfigError, DataError
from pipeline.journal import Journal
from pipeline.load import SourceGraph
from pipeline.models import ReadAudio, SpeechModel
from pipeline.samples import Sample

RANDOM_WARNING = (
    "calibration=random: the ranges come from noise, not from speech. What the model then does to speech is not known; the "
    "quality below is what it cost. Calibrate on real data: calibration=real or calibration=arrays."
)


@dataclass(frozen=True)
class EvaluationSample:
    """One sample of an evaluation set, with what is known about it."""

    sample: Sample
    utterance: Utterance | None = None


def calibration_samples(
    model: SpeechModel, source: SourceGraph, config: CalibrationConfig, seed: int, journal: Journal
) -> list[Sample]:
    """Return the samples that ranges are measured on.

    Raises:
        ConfigError: the data is not named.
        DataError: it cannot be used.
    """
    inputs = graph_inputs(source)
    match config.kind:
        case CalibrationKind.random:
            journal.warn(RANDOM_WARNING)
            return random_samples(inputs, config.samples, config.length, seed)
        case CalibrationKind.arrays:
            if config.path is None:
                raise ConfigError(
                    "calibration.path: not set; calibration=arrays needs an .npz whose arrays are named <sample>/<input name>."
                )
            samples = read_arrays(find(config.path), "calibration.path", config.samples)
            journal.read(find(config.path))
        case CalibrationKind.real:
            path = config.path or model.calibration_path
            if path is None:
                raise ConfigError(
                    f"calibration.path: not set, and the model {model.name} has no data of its own. Give a manifest.jsonl, or "
                    "arrays with calibration=arrays."
                )
            pairs = _from_manifest(model, find(path), "calibration.path", config.samples, config.on_sample_rate, journal)
            samples = [pair.sample for pair in pairs]
    check_samples(samples, inputs, "calibration.path")
    return samples


def evaluation_samples(
    model: SpeechModel, source: SourceGraph, config: EvaluationConfig, seed: int, journal: Journal
) -> list[EvaluationSample]:
    """Return the samples that quality and speed are measured on.

    A model without data gets seeded noise, and a warning: its quality is then not known.

    Raises:
        DataError: the data cannot be used.
    """
    path = config.path or model.evaluation_path
    inputs = graph_inputs(source)
    if path is None:
        journal.warn(
            "evaluation.path: not set, so outputs are compared on seeded noise. How the model does on real data is not known; "
            "give an .npz with evaluation.path."
        )
        return [EvaluationSample(sample) for sample in random_samples(inputs, min(config.samples, 8), 128, seed + 1)]
    file = find(path)
    if file.suffix == ".npz":
        pairs = [EvaluationSample(sample) for sample in read_arrays(file, "evaluation.path", config.samples)]
        journal.read(file)
    else:
        pairs = _from_manifest(model, file, "evaluation.path", config.samples, config.on_sample_rate, journal)
    check_samples([pair.sample for pair in pairs], inputs, "evaluation.path")
    return pairs


def graph_inputs(source: SourceGraph) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller must give: those that no constant of the graph has a default for."""
    constants = {tensor.name for tensor in source.model.graph.initializer}
    return [value for value in source.model.graph.input if value.name not in constants]


def audio_reader(mismatch: SampleRateMismatch, journal: Journal) -> ReadAudio:
    """Return a function that reads recordings as the settings say, and notes each in the journal."""

    def read(path: Path, sample_rate_hz: int) -> npt.NDArray[np.float32]:
        warnings: list[str] = []
        audio = read_audio(path, sample_rate_hz, mismatch, warnings)
        for warning in warnings:
            journal.warn(warning)
        journal.read(path)
        return audio

    return read


def _from_manifest(
    model: SpeechModel, path: Path, key: str, limit: int, mismatch: SampleRateMismatch, journal: Journal
) -> list[EvaluationSample]:
    utterances = read_manifest(path, key, limit)
    journal.read(path)
    read = audio_reader(mismatch, journal)
    pairs = []
    for utterance in utterances:
        try:
            pairs.append(EvaluationSample(model.sample(utterance, read), utterance))
        except DataError as error:
            raise DataError(f"{key}: {error}") from error
    return pairs
