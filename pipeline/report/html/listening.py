"""The same sentence before and after: audio to hear in the page, and its mel spectrograms."""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from markupsafe import Markup

from pipeline.audio.mel import log_mel
from pipeline.metrics.audio_metrics import align_by_dtw
from pipeline.report.html.plots import spectrogram, spectrogram_difference
from pipeline.report.schema import Report

MAX_SENTENCES = 3
AUDIO_BYTES = 10_000_000  # of all WAV files in the page; base64 makes them a third larger, and the page stays under 15 MB
PICTURED_SECONDS = 15.0  # of a long recording: more would be a blur at this width
HOP = 256
N_FFT = 1024
BASELINE = "fp32"

Mel = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Player:
    """One version of a sentence.

    Attributes:
        uri: its audio, as a data URI.
        file: its name in the run's directory.
        seconds: its length.
    """

    uri: str
    file: str
    seconds: float


@dataclass(frozen=True)
class Sentence:
    """One sentence, before and after.

    Attributes:
        id: of the sample.
        text: what is said, where it is known.
        baseline: what fp32 says.
        quantized: what the quantized model says.
        pictures: caption and spectrogram of fp32, of the quantized model, and of their difference.
        distance: how far the spectrograms are apart, in words.
        notes: what must be known to read the pictures.
    """

    id: str
    text: str | None
    baseline: Player
    quantized: Player
    pictures: list[tuple[str, Markup]]
    distance: str
    notes: list[str]


@dataclass(frozen=True)
class Listening:
    """What can be heard in a run, and the files that the page has no room for."""

    sentences: list[Sentence]
    left_out: list[str]


def listening(report: Report, directory: Path) -> Listening:
    """Read the pairs of WAV files that a run has written to samples/."""
    folder = directory / "samples"
    texts = {} if report.evaluation is None else {sample.id: sample.text for sample in report.evaluation.per_sample}
    pairs = _pairs(folder)
    found: list[Sentence] = []
    left_out: list[str] = []
    room = AUDIO_BYTES
    for number, (name, (before, after)) in enumerate(pairs.items()):
        size = before.stat().st_size + after.stat().st_size
        if len(found) == MAX_SENTENCES or size > room:
            left_out += [f"samples/{before.name}", f"samples/{after.name}"]
            continue
        room -= size
        found.append(_sentence(number, name, texts.get(name), before, after))
    return Listening(found, left_out)


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        name, _, label = path.stem.rpartition(".")
        files.setdefault(name, {})[label] = path
    pairs = {}
    for name, versions in files.items():
        before, others = versions.pop(BASELINE, None), list(versions.values())
        if before is not None and others:
            pairs[name] = (before, others[0])
    return pairs


def _sentence(number: int, name: str, text: str | None, before: Path, after: Path) -> Sentence:
    (a, rate), (b, other_rate) = (soundfile.read(path, dtype="float32", always_2d=True) for path in (before, after))
    a, b = a.mean(axis=1), b.mean(axis=1)
    players = (_player(before, len(a) / rate), _player(after, len(b) / other_rate))
    if not len(a) or not len(b):
        return Sentence(name, text, *players, [], "", ["One of the files is empty, so there is no picture."])
    mels = [log_mel(_cut(audio, hz), hz, n_fft=N_FFT, hop_length=HOP) for audio, hz in ((a, rate), (b, other_rate))]
    step = HOP / rate
    top_hz = min(8000.0, rate / 2)
    # One scale for both, from what both hold: otherwise the quieter one would look as loud as the other.
    low, high = float(np.percentile(np.concatenate(mels, axis=1), 2)), float(max(mel.max() for mel in mels))
    title = f"sentence {name}" + (f", {text!r}" if text else "")
    pictures = [
        (caption, spectrogram(mel, step, top_hz, (low, high), f"mel-{number}-{label}",
                              f"Mel spectrogram of {title}, spoken by {model}: {mel.shape[1] * step:.2f} seconds."))
        for caption, label, model, mel in zip(
            ("fp32", "quantized"), ("fp32", "quantized"), ("fp32", "the quantized model"), mels, strict=True)
    ]  # fmt: skip
    gap, notes = _difference(mels[0], mels[1])
    distance = f"{np.abs(gap).mean():.3f} nat apart on average, {np.abs(gap).max():.2f} nat at most"
    pictures.append((
        "difference",
        spectrogram_difference(gap, step, top_hz, f"mel-{number}-difference",
                               f"Quantized minus fp32 mel spectrogram of {title}: {distance}."),
    ))  # fmt: skip
    if max(len(a) / rate, len(b) / other_rate) > PICTURED_SECONDS:
        notes.append(f"The pictures show the first {PICTURED_SECONDS:.0f} seconds.")
    return Sentence(name, text, *players, pictures, distance, notes)


def _cut(audio: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Return the part that is pictured, padded where it is too short for one window."""
    part = audio[: int(PICTURED_SECONDS * sample_rate_hz)]
    return np.pad(part, (0, max(0, N_FFT - len(part))))


def _difference(before: Mel, after: Mel) -> tuple[Mel, list[str]]:
    if before.shape == after.shape:
        return after - before, []
    i, j = align_by_dtw(before, after)
    return after[:, j] - before[:, i], [
        f"The quantized model speaks {after.shape[1]} frames where fp32 speaks {before.shape[1]}; "
        "the difference is taken along the best alignment of the two."
    ]


def _player(path: Path, seconds: float) -> Player:
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return Player(f"data:audio/wav;base64,{encoded}", f"samples/{path.name}", seconds)
