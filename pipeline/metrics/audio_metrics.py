"""Metrics of waveforms and mel spectrograms, and the transforms that they and the adapters need.

A waveform is float (samples,), a mel float (bands, frames), natural log; leading batch axes of 1 are dropped. The mel
is the one that Matcha-TTS, HiFi-GAN and Vocos are trained on: a Hann window of the FFT's length, reflect-padded
("center"), magnitude (not power) times area-normalised Slaney bands, natural log clipped at 1e-5.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import log_mel
from pipeline.audio.stft import drop_batch_axes, stft
from pipeline.errors import DataError
from pipeline.metrics.tensor_metrics import checked_pair

# FFT length, hop and window of the three resolutions: Yamamoto et al. 2020, "Parallel WaveGAN", table 1.
STFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
FULL_SCALE = 0.999  # of audio in [-1, 1]: the last 33 of the 32,768 steps of 16 bits


def log_mel_l1(reference_mel: npt.ArrayLike, test_mel: npt.ArrayLike) -> float:
    """Mean absolute difference of two natural-log mels of the same shape, in nats (1 nat is 8.7 dB)."""
    a, b = checked_pair(reference_mel, test_mel)
    return float(np.mean(np.abs(a - b)))


def log_mel_l1_of_audio(reference: npt.ArrayLike, test: npt.ArrayLike, sample_rate_hz: int) -> float:
    """`log_mel_l1` of the log-mels of two waveforms of the same length.

    Above 24 kHz the FFT is twice as long, so that no low band falls between two bins.
    """
    a, b = checked_pair(drop_batch_axes(reference, 1, "audio"), drop_batch_axes(test, 1, "audio"))
    n_fft = 1024 if sample_rate_hz <= 24_000 else 2048
    mels = [log_mel(audio, sample_rate_hz, n_fft=n_fft, hop_length=n_fft // 4) for audio in (a, b)]
    return log_mel_l1(*mels)


def mcd_db(reference_mel: npt.ArrayLike, test_mel: npt.ArrayLike) -> float:
    """Mel cepstral distortion (Kubichek 1993) of two natural-log mels of the same shape, in dB.

    Convention: cepstra are the orthonormal DCT-II of the log-mel over its bands; coefficients 1 to 13 (the 0th,
    loudness, left out); 10 / ln 10 * sqrt(2 * sum d²) per frame, then the mean over frames. Values of other conventions
    (WORLD's mel-generalised cepstra, 24 coefficients) differ: compare with this one only.
    """
    from scipy.fft import dct

    a, b = checked_pair(drop_batch_axes(reference_mel, 2, "mel"), drop_batch_axes(test_mel, 2, "mel"))
    a_cepstrum, b_cepstrum = (dct(mel, type=2, norm="ortho", axis=0)[1:14] for mel in (a, b))
    gap = a_cepstrum - b_cepstrum
    return float(10.0 / math.log(10.0) * np.mean(np.sqrt(2.0 * np.sum(gap**2, axis=0))))


def mr_stft(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Multi-resolution STFT distance of two waveforms of the same length (Yamamoto et al. 2020, equations 3 to 6).

    The mean over three resolutions of spectral convergence, ||R| - |T||_F / ||R||_F, plus the mean absolute difference
    of natural-log magnitudes, whose squares are floored at 1e-7 as in the authors' code.
    """
    a, b = checked_pair(drop_batch_axes(reference, 1, "audio"), drop_batch_axes(test, 1, "audio"))
    total = 0.0
    for n_fft, hop_length, window_length in STFT_RESOLUTIONS:
        r, t = (
            np.sqrt(np.maximum(spectrum.real**2 + spectrum.imag**2, 1e-7))
            for spectrum in (stft(x, n_fft, hop_length, window_length) for x in (a, b))
        )
        total += float(np.linalg.norm(r - t) / np.linalg.norm(r) + np.mean(np.abs(np.log(r / t))))
    return total / len(STFT_RESOLUTIONS)


def full_scale_percent(audio: npt.ArrayLike) -> float:
    """Share of a waveform that lies at full scale or beyond it, in percent."""
    wave = np.asarray(audio, dtype=np.float64).reshape(-1)
    return float(100.0 * np.mean(np.abs(wave) >= FULL_SCALE)) if wave.size else 0.0


def dc_offset(audio: npt.ArrayLike) -> float:
    """How far the mean of a waveform is from zero, of full scale."""
    wave = np.asarray(audio, dtype=np.float64).reshape(-1)
    return float(abs(wave.mean())) if wave.size else 0.0


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
    from scipy.spatial.distance import cdist

    a, b = drop_batch_axes(reference_mel, 2, "mel"), drop_batch_axes(test_mel, 2, "mel")
    if len(a) != len(b):
        raise DataError(f"Cannot align mels of {len(a)} and of {len(b)} bands.")
    cost = cdist(a.T, b.T, "cityblock") / len(a)
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
