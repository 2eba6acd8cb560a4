"""Which samples a run calibrates and evaluates on."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.resample import resample
from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import SAMPLES
from pipeline.cache.recall import Form, remembered
from pipeline.config.choices import CalibrationKind, OnBadSample, SampleRateMismatch
from pipeline.config.settings import CalibrationConfig, EvaluationConfig
from pipeline.data.arrays import check_samples, check_sequence, read_arrays, read_labels
from pipeline.data.audio_files import Resample, read_audio
from pipeline.data.random_inputs import random_samples
from pipeline.data.utterance_sets import NEEDED, check_kind, files_of, utterances_in
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.symbolic_dims import drop_contradicted_names
from pipeline.models.speech_model import ReadAudio, SpeechModel
from pipeline.paths import hash_files, resolve_path, settings_with_places
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample
from pipeline.utterance import Utterance

RANDOM_WARNING = (
    "calibration=random: the ranges come from noise, not from speech. They may not fit speech; the quality below "
    "shows the effect. Calibrate on real data: calibration=real or calibration=arrays."
)

LISTED = 20  # names in a message, at most
LOOKED_AHEAD = 8  # samples after a bad one, to see whether it is the only one


@dataclass(frozen=True)
class EvaluationSample:
    """One sample of an evaluation set, with what is known about it.

    Attributes:
        sample: the inputs of the first graph of the model.
        utterance: its text and recording, where the set holds utterances.
        label: the right class, where the set has labels.
    """

    sample: Sample
    utterance: Utterance | None = None
    label: int | None = None


def identities(items: Sequence[EvaluationSample]) -> list[object]:
    """Return what a score of samples depends on: their inputs, texts, labels and recordings."""
    found: list[object] = []
    for item in items:
        audio = item.utterance.audio if item.utterance is not None else None
        heard = hash_files(audio)[1] if audio is not None and audio.is_file() else None
        found.append((item.sample.id, item.sample.digest, item.utterance, item.label, heard))
    return found


def calibration_samples(
    model: SpeechModel, source: SourceGraph, config: CalibrationConfig, seed: int, run_log: RunLog
) -> list[Sample]:
    """Return the samples that ranges are measured on.

    Args:
        model: how an utterance becomes a sample.
        source: the graph that an utterance enters; with noise, any graph.
        config: which data.
        seed: of the noise.
        run_log: notes what was read and what was skipped.

    Raises:
        ConfigError: the data is not named.
        DataError: it cannot be used.
    """
    wanted = _Wanted("calibration.path", config.samples, config.on_sample_rate, config.on_bad_sample, run_log)
    match config.kind:
        case CalibrationKind.random:
            run_log.warn(RANDOM_WARNING)
            return _noise(model, source, config.samples, config.length, seed)
        case CalibrationKind.arrays:
            if config.path is None:
                raise ConfigError(
                    "calibration.path: not set; calibration=arrays needs an .npz whose arrays are named <sample>/<input name>."
                )
            check_kind(resolve_path(config.path), config.kind)
            pairs = wanted.from_arrays(model, resolve_path(config.path), source)
        case _:
            path = config.path or (model.calibration_path if config.kind is CalibrationKind.real else None)
            if path is None and config.kind in NEEDED:
                raise ConfigError(f"calibration.path: not set; calibration={config.kind.name} needs {NEEDED[config.kind]}.")
            if path is None:
                raise ConfigError(
                    f"calibration.path: not set, and the model {model.name} has no data of its own. Give a manifest.jsonl, or "
                    "arrays with calibration=arrays."
                )
            check_kind(resolve_path(path), config.kind)
            pairs = wanted.from_utterances(model, resolve_path(path), source, own=config.path is None)
    return [pair.sample for pair in pairs]


def evaluation_samples(
    model: SpeechModel, source: SourceGraph, config: EvaluationConfig, seed: int, run_log: RunLog
) -> list[EvaluationSample]:
    """Return the samples that quality and speed are measured on.

    A model without data gets seeded noise, and a warning: its quality is then not known.

    Raises:
        DataError: the data cannot be used.
    """
    path = config.path or model.evaluation_path
    if path is None:
        run_log.warn(
            "evaluation.path: not set, so outputs are compared on seeded noise. The quality on real data is unknown; "
            "give an .npz with evaluation.path."
        )
        return [EvaluationSample(sample) for sample in _noise(model, source, min(config.samples, 8), 128, seed + 1)]
    wanted = _Wanted("evaluation.path", config.samples, config.on_sample_rate, config.on_bad_sample, run_log)
    file = resolve_path(path)
    if file.suffix == ".npz":
        labels = None
        if config.labels is not None:
            labels = read_labels(resolve_path(config.labels))
            run_log.read(resolve_path(config.labels))
        return wanted.from_arrays(model, file, source, labels)
    if config.labels is not None:
        raise ConfigError(f"evaluation.labels: there is one class per sample of an .npz, but evaluation.path is {path}.")
    needs_text = config.kind is EvaluationKind.asr
    found = wanted.from_utterances(model, file, source, own=config.path is None, needs_text=needs_text)
    return [dataclasses.replace(item, sample=model.for_comparison(item.sample)) for item in found]


def graph_inputs(source: SourceGraph) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller may give; the optional ones are in `source.defaults`."""
    return list(source.model.graph.input)


def audio_reader(mismatch: SampleRateMismatch, run_log: RunLog, resampled: Resample = resample) -> ReadAudio:
    """Return a function that reads recordings by the settings, and notes each in the log of the run.

    Args:
        mismatch: what happens to audio of another sample rate.
        run_log: notes what was read.
        resampled: how it gets the wanted one: for what a model is fed with, as its client does; for metrics, the default.
    """

    def read(path: Path, sample_rate_hz: int) -> npt.NDArray[np.float32]:
        notes: list[str] = []
        audio = read_audio(path, sample_rate_hz, mismatch, notes, resampled)
        for note in notes:
            run_log.note(note)
        run_log.read(path)
        return audio

    return read


def _free_inputs(source: SourceGraph) -> list[onnx.ValueInfoProto]:
    """Return the inputs that have no value of their own."""
    return [value for value in graph_inputs(source) if value.name not in source.fixed and value.name not in source.defaults]


def _noise(model: SpeechModel, source: SourceGraph, count: int, length: int, seed: int) -> list[Sample]:
    """Return samples of seeded noise."""
    calls = random_samples(_free_inputs(source), count, length, seed)
    if source.name == model.entry:
        calls = [model.of_noise(sample, [seed, number]) for number, sample in enumerate(calls)]
    return [_completed(sample, source) for sample in calls]


def _completed(sample: Sample, source: SourceGraph) -> Sample:
    """Return a sample with the inputs that are always the same, and with the defaults of those that it leaves out.

    Raises:
        DataError: it has another value for one that is fixed.
    """
    for name, value in source.fixed.items():
        given = sample.inputs.get(name)
        if given is not None and not np.array_equal(given, value):
            raise DataError(f"sample {sample.id!r}, input {name!r}: {given}, but model.fixed_inputs fixes it at {value}.")
    if not (source.fixed or source.defaults):
        return sample
    return dataclasses.replace(sample, inputs={**source.defaults, **sample.inputs, **source.fixed})


def refuse_or_skip(
    key: str, on_bad: OnBadSample, run_log: RunLog, sample: str, reason: str, *, others_are_good: bool = True
) -> None:
    """Do with a sample that cannot be used what the settings say.

    Args:
        key: the setting that names its set.
        on_bad: what to do.
        run_log: notes a sample that is skipped.
        sample: its id.
        reason: why it cannot be used.
        others_are_good: whether a run could go on without it.

    Raises:
        DataError: such samples are refused.
    """
    if on_bad is OnBadSample.refuse:
        skip = f" To go on without such samples: {key.partition('.')[0]}.on_bad_sample=skip." if others_are_good else ""
        raise DataError(f"{key}: {reason}{skip}")
    run_log.skip(key, sample, reason)


@dataclass(frozen=True)
class _Made:
    """A sample that was made of an utterance.

    Attributes:
        sample: the sample.
        notes: what was done with its recording.
        was_heard: whether the recording was read.
    """

    sample: Sample
    notes: list[str]
    was_heard: bool


_FORM = Form[_Made](
    lambda made: Entry({"id": made.sample.id, "notes": made.notes, "heard": made.was_heard}, made.sample.inputs),
    lambda entry: _Made(
        Sample(str(entry.facts["id"]), dict(entry.arrays)), [str(note) for note in entry.facts["notes"]], entry.facts["heard"]
    ),
)


@dataclass
class _Wanted:
    """What is wanted of a data set, and what happens to samples that cannot be used.

    Attributes:
        key: the setting that names the set.
        limit: how many samples at most.
        mismatch: what happens to audio of another sample rate.
        on_bad: what happens to a sample that cannot be used.
        run_log: notes what was read and what was skipped.
    """

    key: str
    limit: int
    mismatch: SampleRateMismatch
    on_bad: OnBadSample
    run_log: RunLog

    def from_arrays(
        self, model: SpeechModel, path: Path, source: SourceGraph, labels: npt.NDArray[np.integer] | None = None
    ) -> list[EvaluationSample]:
        samples = read_arrays(path, self.key, self.limit)
        self.run_log.read(path)
        if labels is not None and len(labels) < len(samples):
            raise DataError(f"evaluation.labels: there are {len(labels)} classes, but {len(samples)} samples in {path}.")
        classes = [None] * len(samples) if labels is None else [int(label) for label in labels]
        items = (EvaluationSample(sample, label=label) for sample, label in zip(samples, classes, strict=False))
        return self._usable(model, path, ((item, None) for item in items), source)

    def from_utterances(
        self, model: SpeechModel, path: Path, source: SourceGraph, *, own: bool, needs_text: bool = False
    ) -> list[EvaluationSample]:
        sample_of = self._maker(model, source)

        def pairs() -> Iterator[tuple[EvaluationSample | None, tuple[str, str] | None]]:
            for utterance in utterances_in(path, self.key, self._bad, self._left_out):
                # Token ids of the data that ships are those of the model that ships; another model reads the text.
                foreign = own and (model.dir is not None or not model.reads_shipped_tokens)
                known = dataclasses.replace(utterance, tokens=None) if foreign else utterance
                try:
                    if needs_text and not known.text:
                        raise DataError(
                            f"sample {known.id!r} has no text to compare with. Give a manifest with text, or compare outputs "
                            "only with evaluation=tensors."
                        )
                    yield EvaluationSample(sample_of(known), known), None
                except DataError as error:
                    yield None, (known.id, str(error))

        found = self._usable(model, path, pairs(), source)
        self.run_log.read(*files_of(path))
        return found

    def _maker(self, model: SpeechModel, source: SourceGraph) -> Callable[[Utterance], Sample]:
        """Return what makes the sample of an utterance; the features of a recording are not computed twice."""
        settings = settings_with_places(model)
        beside = [(file.name, hash_files(file)[1]) for file in model.side_files if file.is_file()]

        def sample_of(utterance: Utterance) -> Sample:
            audio = utterance.audio
            hashed = hash_files(audio)[0][0] if audio is not None and audio.is_file() else None

            def made() -> _Made:
                notes: list[str] = []
                heard: list[Path] = []

                def read(path: Path, sample_rate_hz: int) -> npt.NDArray[np.float32]:
                    found = read_audio(path, sample_rate_hz, self.mismatch, notes, model.resample)
                    heard.append(path)
                    return found

                return _Made(model.sample(utterance, read), notes, was_heard=bool(heard))

            def depends_on() -> tuple[object, ...]:
                return settings, source.sha256, beside, utterance, None if hashed is None else hashed.sha256, self.mismatch

            found = remembered(SAMPLES, depends_on, _FORM, made)
            for note in found.notes:
                self.run_log.note(note)
            if found.was_heard and hashed is not None:
                self.run_log.read_hashed(hashed)
            return found.sample

        return sample_of

    def _usable(
        self,
        model: SpeechModel,
        path: Path,
        pairs: Iterable[tuple[EvaluationSample | None, tuple[str, str] | None]],
        source: SourceGraph,
    ) -> list[EvaluationSample]:
        """Return the first `limit` samples that the graph takes."""
        inputs = graph_inputs(source)
        before = len(self.run_log.skipped)
        found: list[EvaluationSample] = []

        def checked() -> Iterator[EvaluationSample | tuple[str, str]]:
            for pair, problem in pairs:
                if problem is not None:
                    yield problem
                    continue
                assert pair is not None
                try:
                    sample = _completed(pair.sample, source)
                    if (steps := model.steps(sample)) is not None:
                        check_sequence(sample, steps, pair.label, self.key)
                    check_samples([dataclasses.replace(model.first_call(sample), id=sample.id)], inputs, self.key)
                except DataError as error:
                    yield pair.sample.id, str(error).removeprefix(f"{self.key}: ")
                else:
                    yield dataclasses.replace(pair, sample=sample)

        samples = checked()
        for item in samples:
            if isinstance(item, EvaluationSample):
                found.append(item)
            elif self.on_bad is OnBadSample.refuse:
                good = bool(found) or any(isinstance(other, EvaluationSample) for other in islice(samples, LOOKED_AHEAD))
                refuse_or_skip(self.key, self.on_bad, self.run_log, *item, others_are_good=good)
            else:
                self._bad(*item)
            if len(found) == self.limit:
                break
        drop_contradicted_names(source.model.graph, [model.first_call(item.sample) for item in found])
        skipped = len(self.run_log.skipped) - before
        if not found:
            raise DataError(
                f"{self.key}: {path} has no sample that can be used ({skipped} skipped)."
                if skipped
                else f"{self.key}: {path} is empty; at least one sample is needed."
            )
        if skipped:
            self.run_log.warn(f"{self.key}: {skipped} of {skipped + len(found)} samples of {path} were skipped; see `skipped`.")
        return found

    def _left_out(self, files: Sequence[str]) -> None:
        """Tell of files that are not taken for recordings; they may be anything, so that they are no reason to stop."""
        shown = ", ".join(files[:LISTED]) + (f" and {len(files) - LISTED} more" if len(files) > LISTED else "")
        self.run_log.warn(
            f"{self.key}: left out, since their endings are not those of audio that libsndfile reads: {shown}. Convert them to "
            "WAV or FLAC if they are recordings."
        )

    def _bad(self, sample: str, reason: str) -> None:
        refuse_or_skip(self.key, self.on_bad, self.run_log, sample, reason)
