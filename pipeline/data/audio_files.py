"""Recordings: mono audio at the sample rate of the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline.audio.resample import resample
from pipeline.config.choices import SampleRateMismatch
from pipeline.errors import DataError
from pipeline.limits import limits
from pipeline.paths import shown

Audio = npt.NDArray[np.float32]
Resample = Callable[[Audio, int, int], Audio]
"""(audio (samples,), its rate in Hz, the wanted rate) -> audio."""


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
        DataError: the file is missing, too long, not audio, empty, not mono, not finite, or of another rate where that is
            refused.
    """
    if not path.is_file():
        raise DataError(f"{shown(path)}: audio file not found.")
    try:
        header = soundfile.info(path)
        seconds, longest = header.frames / max(header.samplerate, 1), limits().sample_seconds
        if seconds > longest:  # what a header says may be more than the file holds, and than fits into memory
            raise DataError(
                f"{path}: {seconds:.0f} s long, more than limits.sample_seconds={longest:g}. Cut it, or raise the limit."
            )
        audio, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: not an audio file that libsndfile reads ({error}). Use WAV or FLAC.") from error
    if audio.ndim != 1:
        raise DataError(f"{path}: {audio.shape[1]} channels; the models take mono.")
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
