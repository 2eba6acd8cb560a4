"""Recordings: mono audio at the sample rate of the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline.audio.resample import resample
from pipeline.config.choices import SampleRateMismatch
from pipeline.errors import DataError
from pipeline.limits import MEGABYTE, limits
from pipeline.paths import shown

Audio = npt.NDArray[np.float32]
Resample = Callable[[Audio, int, int], Audio]
"""(audio (samples,), its rate in Hz, the wanted rate) -> audio."""
HIGHEST_RATE_HZ = 768_000  # twice what recorders of bats take; the filter that leads down to a model's rate grows with it


def read_audio(
    path: Path, sample_rate_hz: int, mismatch: SampleRateMismatch, notes: list[str], resampled: Resample = resample
) -> Audio:
    """Read mono audio as float32 (samples,) in [-1, 1] at `sample_rate_hz`.

    Args:
        path: the file.
        sample_rate_hz: the rate that is wanted.
        mismatch: what happens to audio of another rate.
        notes: what was done with the audio is appended here.
        resampled: how audio of another rate gets the wanted one.

    Raises:
        DataError: the file is missing, too long or too large, not audio, empty, not mono, not finite, of a rate that no
            recording has, or of another rate where that is refused.
    """
    if not path.is_file():
        raise DataError(f"{shown(path)}: audio file not found.")
    try:
        _check_header(path, soundfile.info(path))
        audio, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not an audio file that libsndfile reads ({error}). Use WAV or FLAC.") from error
    if audio.size == 0:
        raise DataError(f"{path}: empty; at least one sample of audio is needed.")
    if not np.isfinite(audio).all():
        raise DataError(f"{path}: holds NaN or Inf.")
    if rate == sample_rate_hz:
        return np.asarray(audio, dtype=np.float32)
    if mismatch is SampleRateMismatch.refuse:
        raise DataError(
            f"{path}: {rate} Hz, but the model takes {sample_rate_hz} Hz. Convert the file, or let it be resampled with "
            "calibration.on_sample_rate=resample and evaluation.on_sample_rate=resample."
        )
    note = f"{shown(path.parent)}: audio of {rate} Hz was resampled to the model's {sample_rate_hz} Hz."
    if note not in notes:
        notes.append(note)
    return resampled(np.asarray(audio, dtype=np.float32), rate, sample_rate_hz)


def _check_header(path: Path, header: "soundfile._SoundFileInfo") -> None:
    """Refuse what a header alone gives reason to: it may say more than the file holds, and a small file may hold much silence.

    Raises:
        DataError: too long, too large, not mono, or of a rate that no recording has.
    """
    seconds, longest, largest = header.frames / max(header.samplerate, 1), limits().sample_seconds, limits().sample_mb
    if seconds > longest:
        raise DataError(
            f"{path}: {seconds:.0f} s long, more than limits.sample_seconds={longest:g}. Cut it, or raise the limit."
        )
    if header.channels != 1:
        raise DataError(f"{path}: {header.channels} channels; the models take mono.")
    if header.samplerate > HIGHEST_RATE_HZ:
        raise DataError(
            f"{path}: its header says {header.samplerate} Hz; recordings of up to {HIGHEST_RATE_HZ} Hz are read. Correct the "
            "header, or convert the file."
        )
    size = header.frames * np.dtype(np.float32).itemsize
    if size > largest * MEGABYTE:
        raise DataError(
            f"{path}: takes {size // MEGABYTE} MB in memory, more than limits.sample_mb={largest}. Cut it, or raise the limit."
        )
