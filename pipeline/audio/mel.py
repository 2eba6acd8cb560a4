"""Mel spectrograms as Matcha-TTS, HiFi-GAN and Vocos are trained on."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.audio.stft import drop_batch_axes, stft
from pipeline.sample import FloatArray

Mel = npt.NDArray[np.float32]


STEP = math.log(6.4) / 27.0  # of Slaney's scale above 1 kHz
LOG_FLOOR = 1e-5  # of a mel band's magnitude, before the log


def log_mel(
    audio: npt.ArrayLike,
    sample_rate_hz: int,
    *,
    n_fft: int = 1024,
    hop_length: int = 256,
    n_mels: int = 80,
    fmin_hz: float = 0.0,
    fmax_hz: float = 8000.0,
) -> Mel:
    """Natural-log mel spectrogram.

    Args:
        audio: (samples,).
        sample_rate_hz: of the audio.
        n_fft: FFT and window length, in samples.
        hop_length: samples between frames.
        n_mels: number of bands.
        fmin_hz: lower edge of the first band.
        fmax_hz: upper edge of the last band; half the sample rate where that is lower.

    Returns:
        float32 (n_mels, 1 + samples // hop_length).

    Raises:
        DataError: the audio is empty or not one channel.
    """
    magnitude = np.abs(stft(drop_batch_axes(audio, 1, "audio"), n_fft, hop_length, n_fft))
    bands = mel_bands(sample_rate_hz, n_fft, n_mels, fmin_hz, min(fmax_hz, sample_rate_hz / 2))
    mel: Mel = np.log(np.maximum(band_sums(bands, magnitude), LOG_FLOOR)).astype(np.float32)
    return mel


def band_sums(bands: FloatArray, spectrum: FloatArray) -> FloatArray:
    """Return bands @ spectrum, (bands, frames), each band over its own bins alone: one in fifty of all.

    As one product of matrices it would be fifty times the work, and all threads of BLAS would wake for it: on a busy machine,
    where one of them has to wait for a core, the others spin for longer than the transform takes.
    """
    found: FloatArray = np.empty((len(bands), spectrum.shape[1]))
    rows = np.ascontiguousarray(spectrum)
    for band, total in zip(bands, found, strict=True):
        bins = np.flatnonzero(band)
        inside = slice(bins[0], bins[-1] + 1) if bins.size else slice(0)
        np.dot(band[inside], rows[inside], out=total)
    return found


@lru_cache(maxsize=8)
def mel_bands(sample_rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> FloatArray:
    """Triangles (n_mels, n_fft // 2 + 1) of area 1 on Slaney's scale: linear to 1 kHz, then 27 bands to 6.4 kHz."""
    mels = np.linspace(mel_of_hz(fmin_hz), mel_of_hz(fmax_hz), n_mels + 2)
    edges = hz_of_mel(mels)
    bins = np.linspace(0.0, sample_rate_hz / 2.0, n_fft // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bands: FloatArray = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    return bands


def mel_of_hz(hz: float) -> float:
    """Return a frequency on Slaney's scale."""
    return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + math.log(hz / 1000.0) / STEP


def hz_of_mel(mels: FloatArray) -> FloatArray:
    """Return frequencies of places on Slaney's scale."""
    found: FloatArray = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * STEP))
    return found
