"""Short-time Fourier transforms, forward and inverse."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.sample import FloatArray

Audio = npt.NDArray[np.float32]


def istft(mag: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike, *, n_fft: int = 1024, hop_length: int = 256) -> Audio:
    """Waveform of a Vocos graph's outputs: inverse STFT of mag * (x + iy), as sherpa-onnx does it.

    Periodic Hann window of the FFT's length, overlap-add, division by the summed squared window, half an FFT cut off
    either end ("center"). The defaults are Vocos' for 22.05 kHz; a model's metadata holds its own.

    Args:
        mag: (n_fft // 2 + 1, frames), magnitude; a batch axis of 1 before it is dropped.
        x: cosine of the phase, of the same shape.
        y: sine of the phase, of the same shape.
        n_fft: FFT and window length, a multiple of `hop_length`.
        hop_length: samples between frames.

    Returns:
        float32 ((frames - 1) * hop_length,).
    """
    magnitude, cosine, sine = (drop_batch_axes(part, 2, "spectrum") for part in (mag, x, y))
    if n_fft % hop_length or len(magnitude) != n_fft // 2 + 1:
        raise DataError(
            f"An inverse STFT of {n_fft} points and hop {hop_length} needs {n_fft // 2 + 1} bins and a hop that "
            f"divides the points, but the spectrum has {len(magnitude)} bins."
        )
    return overlap_added(np.asarray(magnitude * (cosine + 1j * sine), np.complex128), hann_window(n_fft), hop_length)


def overlap_added(spectrum: npt.NDArray[np.complex128], window: FloatArray, hop_length: int) -> Audio:
    """Return the waveform ((frames - 1) * hop_length,) of a spectrum (bins, frames) of centred frames.

    Each frame is windowed once more; overlap-add, division by the summed squared window, half a frame cut off either end.

    Args:
        spectrum: as `spectrum_of` gives it.
        window: (n_fft,) of the frames; its length is a multiple of the hop.
        hop_length: samples between frames.
    """
    n_fft = len(window)
    pieces = np.fft.irfft(spectrum, n=n_fft, axis=0).T * window
    overlap, frames = n_fft // hop_length, len(pieces)
    audio, envelope = np.zeros((2, frames + overlap - 1, hop_length))
    for k in range(overlap):  # the k-th hop of every frame at once
        part = slice(k * hop_length, (k + 1) * hop_length)
        audio[k : k + frames] += pieces[:, part]
        envelope[k : k + frames] += window[part] ** 2
    inside = slice(n_fft // 2, audio.size - n_fft // 2)
    result: Audio = (audio.ravel()[inside] / np.maximum(envelope.ravel()[inside], 1e-11)).astype(np.float32)
    return result


def drop_batch_axes(array: npt.ArrayLike, rank: int, what: str) -> FloatArray:
    """Return the array as float64 of the given rank, leading axes of length 1 dropped."""
    values = np.asarray(array, dtype=np.float64)
    while values.ndim > rank and values.shape[0] == 1:
        values = values[0]
    if values.ndim != rank or not values.size:
        raise DataError(f"Expected {what} of {rank} axes, one utterance at a time, but its shape is {values.shape}.")
    return values


@lru_cache(maxsize=4)
def root_hann_window(length: int) -> FloatArray:
    """Return the square root of a periodic Hann window (length,): applied before and after, it is a Hann window."""
    window: FloatArray = np.sqrt(hann_window(length))
    return window


@lru_cache(maxsize=4)
def vorbis_window(length: int) -> FloatArray:
    """Return the window (length,) of Vorbis I, whose square and that of its other half add up to one (specification, 4.3.1)."""
    inner = np.sin(0.5 * np.pi * (np.arange(length) + 0.5) / (length / 2.0))
    window: FloatArray = np.sin(0.5 * np.pi * inner**2)
    return window


@lru_cache(maxsize=8)
def hann_window(length: int) -> FloatArray:
    """Return a periodic Hann window (length,)."""
    window: FloatArray = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)  # periodic, as in torch and librosa
    return window


def stft(audio: FloatArray, n_fft: int, hop_length: int, window_length: int) -> npt.NDArray[np.complex128]:
    """Complex spectrum (n_fft // 2 + 1, frames), frames centred on multiples of the hop, the window in their middle."""
    left = (n_fft - window_length) // 2
    window = np.pad(hann_window(window_length), (left, n_fft - window_length - left))
    return spectrum_of(audio, window, hop_length)


def spectrum_of(audio: FloatArray, window: FloatArray, hop_length: int) -> npt.NDArray[np.complex128]:
    """Complex spectrum (n_fft // 2 + 1, frames) of frames of the window's length, centred on multiples of the hop."""
    n_fft = len(window)
    padded = np.pad(audio, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return np.asarray(np.fft.rfft(frames * window, axis=1).T, dtype=np.complex128)
