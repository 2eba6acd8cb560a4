"""Metrics of waveforms and mel spectrograms, and the transforms that they and the adapters need.

A waveform is float (samples,), a mel float (bands, frames), natural log; leading batch axes of 1 are dropped. The mel
is the one that Matcha-TTS, HiFi-GAN and Vocos are trained on: a Hann window of the FFT's length, reflect-padded
("center"), magnitude (not power) times area-normalised Slaney bands, natural log clipped at 1e-5.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when first touched: scipy.signal alone takes half a second

from pipeline.errors import DataError
from pipeline.metrics.tensor import Array, checked_pair

Audio = npt.NDArray[np.float32]
Mel = npt.NDArray[np.float32]

LOG_FLOOR = 1e-5  # of a mel band's magnitude, before the log
# FFT length, hop and window of the three resolutions: Yamamoto et al. 2020, "Parallel WaveGAN", table 1.
STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


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
    magnitude = np.abs(_stft(_flat(audio, 1, "audio"), n_fft, hop_length, n_fft))
    bands = _mel_bands(sample_rate_hz, n_fft, n_mels, fmin_hz, min(fmax_hz, sample_rate_hz / 2))
    mel: Mel = np.log(np.maximum(bands @ magnitude, LOG_FLOOR)).astype(np.float32)
    return mel


def log_mel_l1(reference_mel: npt.ArrayLike, test_mel: npt.ArrayLike) -> float:
    """Mean absolute difference of two natural-log mels of the same shape, in nats (1 nat is 8.7 dB)."""
    a, b = checked_pair(reference_mel, test_mel)
    return float(np.mean(np.abs(a - b)))


def log_mel_l1_of_audio(reference: npt.ArrayLike, test: npt.ArrayLike, sample_rate_hz: int) -> float:
    """`log_mel_l1` of the log-mels of two waveforms of the same length.

    Above 24 kHz the FFT is twice as long, so that no low band falls between two bins.
    """
    a, b = checked_pair(_flat(reference, 1, "audio"), _flat(test, 1, "audio"))
    n_fft = 1024 if sample_rate_hz <= 24_000 else 2048
    mels = [log_mel(audio, sample_rate_hz, n_fft=n_fft, hop_length=n_fft // 4) for audio in (a, b)]
    return log_mel_l1(*mels)


def mcd_db(reference_mel: npt.ArrayLike, test_mel: npt.ArrayLike) -> float:
    """Mel cepstral distortion (Kubichek 1993) of two natural-log mels of the same shape, in dB.

    Convention: cepstra are the orthonormal DCT-II of the log-mel over its bands; coefficients 1 to 13 (the 0th,
    loudness, left out); 10 / ln 10 * sqrt(2 * sum d²) per frame, then the mean over frames. Values of other conventions
    (WORLD's mel-generalised cepstra, 24 coefficients) differ: compare with this one only.
    """
    a, b = checked_pair(_flat(reference_mel, 2, "mel"), _flat(test_mel, 2, "mel"))
    a_cepstrum, b_cepstrum = (scipy.fft.dct(mel, type=2, norm="ortho", axis=0)[1:14] for mel in (a, b))
    gap = a_cepstrum - b_cepstrum
    return float(10.0 / math.log(10.0) * np.mean(np.sqrt(2.0 * np.sum(gap**2, axis=0))))


def mr_stft(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Multi-resolution STFT distance of two waveforms of the same length (Yamamoto et al. 2020, equations 3 to 6).

    The mean over three resolutions of spectral convergence, ||R| - |T||_F / ||R||_F, plus the mean absolute difference
    of natural-log magnitudes, whose squares are floored at 1e-7 as in the authors' code.
    """
    a, b = checked_pair(_flat(reference, 1, "audio"), _flat(test, 1, "audio"))
    total = 0.0
    for n_fft, hop_length, window_length in STFT_RESOLUTIONS:
        r, t = (
            np.sqrt(np.maximum(spectrum.real**2 + spectrum.imag**2, 1e-7))
            for spectrum in (_stft(x, n_fft, hop_length, window_length) for x in (a, b))
        )
        total += float(np.linalg.norm(r - t) / np.linalg.norm(r) + np.mean(np.abs(np.log(r / t))))
    return total / len(STFT_RESOLUTIONS)


def align_by_dtw(reference_mel: npt.ArrayLike, test_mel: npt.ArrayLike) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Align two mels of different lengths by dynamic time warping (Sakoe and Chiba 1978).

    The path of least summed cost from the first pair of frames to the last one; a step advances one side or both, all
    at the same weight; the cost of a pair is its mean absolute difference. No frame is left out: compare
    `reference_mel[:, i]` with `test_mel[:, j]`.

    Args:
        reference_mel: (bands, frames).
        test_mel: (bands, other frames).

    Returns:
        (i, j): frame indices of the reference and of the test, of the same length. A mel and itself give the diagonal.
    """
    a, b = _flat(reference_mel, 2, "mel"), _flat(test_mel, 2, "mel")
    if len(a) != len(b):
        raise DataError(f"Cannot align mels of {len(a)} and of {len(b)} bands.")
    cost = scipy.spatial.distance.cdist(a.T, b.T, "cityblock") / len(a)
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):  # cells of one antidiagonal don't depend on each other
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]))
        total[i + 1, j + 1] = cost[i, j] + before
    i, j = rows - 1, columns - 1
    path = [(i, j)]
    while i or j:
        # min() keeps the first of equals: the diagonal
        i, j = min((i - 1, j - 1), (i - 1, j), (i, j - 1), key=lambda cell: float(total[cell[0] + 1, cell[1] + 1]))
        path.append((i, j))
    reference_index, test_index = np.array(path[::-1], dtype=np.intp).T
    return reference_index, test_index


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
    magnitude, cosine, sine = (_flat(part, 2, "spectrum") for part in (mag, x, y))
    if n_fft % hop_length or len(magnitude) != n_fft // 2 + 1:
        raise DataError(
            f"An inverse STFT of {n_fft} points and hop {hop_length} needs {n_fft // 2 + 1} bins and a hop that "
            f"divides the points, but the spectrum has {len(magnitude)} bins."
        )
    window = _hann(n_fft)
    pieces = np.fft.irfft(magnitude * (cosine + 1j * sine), n=n_fft, axis=0).T * window
    overlap, frames = n_fft // hop_length, len(pieces)
    audio, envelope = np.zeros((2, frames + overlap - 1, hop_length))
    for k in range(overlap):  # the k-th hop of every frame at once
        part = slice(k * hop_length, (k + 1) * hop_length)
        audio[k : k + frames] += pieces[:, part]
        envelope[k : k + frames] += window[part] ** 2
    inside = slice(n_fft // 2, audio.size - n_fft // 2)
    result: Audio = (audio.ravel()[inside] / np.maximum(envelope.ravel()[inside], 1e-11)).astype(np.float32)
    return result


def resample(audio: npt.ArrayLike, from_hz: int, to_hz: int) -> Audio:
    """Resample (samples,) by a polyphase low-pass filter; ceil(samples * to_hz / from_hz) samples remain."""
    wave = _flat(audio, 1, "audio")
    if from_hz == to_hz:
        return wave.astype(np.float32)
    divisor = math.gcd(from_hz, to_hz)
    return np.asarray(scipy.signal.resample_poly(wave, to_hz // divisor, from_hz // divisor), dtype=np.float32)


def _flat(array: npt.ArrayLike, rank: int, what: str) -> Array:
    """Return the array as float64 of the given rank, leading axes of length 1 dropped."""
    values = np.asarray(array, dtype=np.float64)
    while values.ndim > rank and values.shape[0] == 1:
        values = values[0]
    if values.ndim != rank or not values.size:
        raise DataError(f"Expected {what} of {rank} axes, one utterance at a time, but its shape is {values.shape}.")
    return values


@lru_cache(maxsize=8)
def _hann(length: int) -> Array:
    window: Array = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)  # periodic, as in torch and librosa
    return window


def _stft(audio: Array, n_fft: int, hop_length: int, window_length: int) -> npt.NDArray[np.complex128]:
    """Complex spectrum (n_fft // 2 + 1, frames), frames centred on multiples of the hop, the window in their middle."""
    left = (n_fft - window_length) // 2
    window = np.pad(_hann(window_length), (left, n_fft - window_length - left))
    padded = np.pad(audio, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return np.asarray(np.fft.rfft(frames * window, axis=1).T, dtype=np.complex128)


@lru_cache(maxsize=8)
def _mel_bands(sample_rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> Array:
    """Triangles (n_mels, n_fft // 2 + 1) of area 1 on Slaney's scale: linear to 1 kHz, then 27 bands to 6.4 kHz."""
    step = math.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + math.log(hz / 1000.0) / step

    mels = np.linspace(to_mel(fmin_hz), to_mel(fmax_hz), n_mels + 2)
    edges = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * step))
    bins = np.linspace(0.0, sample_rate_hz / 2.0, n_fft // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bands: Array = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    return bands
