"""The same sample before and after, and its recording: audio to hear in the page, and its mel spectrograms."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from markupsafe import Markup

from pipeline.audio.mel import log_mel
from pipeline.evaluate.changed_audio import BASELINE, RECORDING, file_stem
from pipeline.metrics.audio_metrics import align_by_dtw
from pipeline.metrics.metric_registry import METRICS, in_reading_order
from pipeline.report.evaluation_schema import SampleResult
from pipeline.report.html.language import tr
from pipeline.report.html.plots import spectrogram, spectrogram_difference
from pipeline.report.intervals import worst_samples
from pipeline.report.schema import Report
from pipeline.report.terminal import format_number

MAX_SENTENCES = 3
SHOWN_METRICS = 3  # of a sample
AUDIO_BYTES = 10_000_000  # of all WAV files in the page; base64 makes them a third larger, and the page stays under 15 MB
PICTURED_SECONDS = 15.0  # of a long recording: more would be a blur at this width
HOP = 256
N_FFT = 1024
QUANTIZED = "quantized"
CAPTIONS = {BASELINE: "fp32", QUANTIZED: "quantized", RECORDING: "recording"}

Audio = npt.NDArray[np.float32]
Mel = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Player:
    """The audio of one version of a sample.

    Attributes:
        uri: its audio, as a data URI.
        file: its name in the run's directory.
        seconds: its length.
    """

    uri: str
    file: str
    seconds: float


@dataclass(frozen=True)
class Version:
    """One version of a sample: fp32, quantized or recording; no picture where the file is empty."""

    kind: str
    caption: str
    player: Player
    picture: Markup | None


@dataclass(frozen=True)
class SampleMetric:
    """A metric of one sample, in words: its value, or fp32's and the quantized model's; and the mean over all samples."""

    name: str
    value: str
    mean: str


@dataclass(frozen=True)
class Sentence:
    """One sample, before and after.

    Attributes:
        id: of the sample.
        text: what is said, where it is known.
        metrics: of this sample.
        versions: the recording where there is one, fp32, quantized.
        difference: picture of quantized minus fp32.
        distance: how far the spectrograms are apart, in words.
        notes: what must be known to read the pictures.
    """

    id: str
    text: str | None
    metrics: list[SampleMetric]
    versions: list[Version]
    difference: Markup | None = None
    distance: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listening:
    """What can be heard in a run, the worst first where that is known; and the files that the page has no room for."""

    sentences: list[Sentence]
    left_out: list[str]
    ranked: bool


def listening(report: Report, directory: Path) -> Listening:
    """Read the WAV files that a run has written to samples/; the samples that quantization changed most come first."""
    evaluated = [] if report.evaluation is None else report.evaluation.per_sample
    known = {file_stem(sample.id): sample for sample in evaluated}
    found = worst_samples(report, len(evaluated)) if evaluated else None
    rank = {} if found is None else {file_stem(sample.id): place for place, sample in enumerate(found[1])}
    versions = _versions(directory / "samples")
    sentences: list[Sentence] = []
    left_out: list[str] = []
    room = AUDIO_BYTES
    for name in sorted(versions, key=lambda name: rank.get(name, len(rank))):
        files = versions[name]
        size = sum(path.stat().st_size for path in files.values())
        if len(sentences) == MAX_SENTENCES or size > room:
            left_out += [f"samples/{path.name}" for path in files.values()]
            continue
        room -= size
        sentences.append(_sentence(len(sentences), name, known.get(name), files, report))
    return Listening(sentences, left_out, ranked=bool(rank))


def _versions(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the stem of a sample's files -> kind -> file, of samples that can be heard before and after."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        name, _, label = path.stem.rpartition(".")
        kind = label if label in (BASELINE, RECORDING) else QUANTIZED
        files.setdefault(name, {}).setdefault(kind, path)
    order = (RECORDING, BASELINE, QUANTIZED)
    return {
        name: {kind: found[kind] for kind in order if kind in found}
        for name, found in files.items()
        if BASELINE in found and QUANTIZED in found
    }


def _sentence(number: int, name: str, sample: SampleResult | None, files: dict[str, Path], report: Report) -> Sentence:
    audio: dict[str, Audio] = {}
    rates: dict[str, int] = {}
    for kind, path in files.items():
        wave, rates[kind] = soundfile.read(path, dtype="float32", always_2d=True)
        audio[kind] = wave.mean(axis=1)
    players = {kind: _player(path, len(audio[kind]) / rates[kind]) for kind, path in files.items()}
    name, text = (name, None) if sample is None else (sample.id, sample.text)
    metrics = [] if sample is None else _metrics(sample, report)
    if not all(map(len, audio.values())):
        unseen = [Version(kind, tr(CAPTIONS[kind]), player, None) for kind, player in players.items()]
        return Sentence(name, text, metrics, unseen, notes=[tr("One of the files is empty, so there is no picture.")])
    mels = {kind: log_mel(_cut(wave, rates[kind]), rates[kind], n_fft=N_FFT, hop_length=HOP) for kind, wave in audio.items()}
    step, top_hz = HOP / rates[BASELINE], min(8000.0, rates[BASELINE] / 2)
    # One scale for all, from what they hold together: otherwise the quieter one would look as loud as the others.
    low, high = (
        float(np.percentile(np.concatenate(list(mels.values()), axis=1), 2)),
        float(max(mel.max() for mel in mels.values())),
    )
    title = f"{name}, “{text}”" if text else name
    versions = [
        Version(
            kind,
            tr(CAPTIONS[kind]),
            players[kind],
            spectrogram(
                mel, step, top_hz, (low, high), f"mel-{number}-{kind}",
                tr("Mel spectrogram of sample {title}, {version}: {seconds} seconds.", title=title,
                   version=tr(CAPTIONS[kind]), seconds=f"{mel.shape[1] * step:.2f}"),
            ),
        )
        for kind, mel in mels.items()
    ]  # fmt: skip
    gap, notes = _difference(mels[BASELINE], mels[QUANTIZED])
    mean, most = f"{np.abs(gap).mean():.3f}", f"{np.abs(gap).max():.2f}"
    distance = tr("{mean} nat apart on average, {most} nat at most", mean=mean, most=most)
    told = tr("Quantized minus fp32 mel spectrogram of sample {title}: {distance}.", title=title, distance=distance)
    difference = spectrogram_difference(gap, step, top_hz, f"mel-{number}-difference", told)
    if max(player.seconds for player in players.values()) > PICTURED_SECONDS:
        notes.append(tr("The pictures show the first {seconds} seconds.", seconds=f"{PICTURED_SECONDS:.0f}"))
    return Sentence(name, text, metrics, versions, difference, distance, notes)


def _metrics(sample: SampleResult, report: Report) -> list[SampleMetric]:
    """Return what was measured of a sample: the metrics that a report is read by, beside their means over all samples."""
    totals = {} if report.evaluation is None else report.evaluation.metrics
    found = []
    for name in in_reading_order():
        unit = METRICS[name].unit
        shown = f" {tr(unit)}" if unit else ""
        total = totals.get(name)
        if (pair := sample.truth.get(name)) is not None:
            mean = "" if total is None else f"{format_number(total.baseline)} → {format_number(total.quantized)}"
            found.append(SampleMetric(name, f"{format_number(pair.baseline)} → {format_number(pair.quantized)}{shown}", mean))
        elif name in sample.fidelity and (METRICS[name].priority is not None or METRICS[name].of_sample):
            mean = "" if total is None else format_number(total.quantized)
            found.append(SampleMetric(name, f"{format_number(sample.fidelity[name])}{shown}", mean))
    return found[:SHOWN_METRICS]


def _cut(audio: Audio, sample_rate_hz: int) -> Audio:
    """Return the part that is pictured, padded where it is too short for one window."""
    part = audio[: int(PICTURED_SECONDS * sample_rate_hz)]
    return np.pad(part, (0, max(0, N_FFT - len(part))))


def _difference(before: Mel, after: Mel) -> tuple[Mel, list[str]]:
    if before.shape == after.shape:
        return after - before, []
    i, j = align_by_dtw(before, after)
    note = tr(
        "The quantized model speaks {after} frames where fp32 speaks {before}; the difference is taken along the best "
        "alignment of the two.",
        after=after.shape[1],
        before=before.shape[1],
    )
    return after[:, j] - before[:, i], [note]


def _player(path: Path, seconds: float) -> Player:
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return Player(f"data:audio/wav;base64,{encoded}", f"samples/{path.name}", seconds)
