"""Waveforms and what the models see of them: log-mel spectrograms, Kaldi features, noise and echo."""

import functools

import kaldi_native_fbank
import numpy as np
from scipy.signal import fftconvolve, resample_poly

MEL_RATE_HZ = 22_050
ASR_RATE_HZ = 16_000
FFT_SIZE = 1024
HOP = 256
MEL_BANDS = 80
LOG_FLOOR = 1e-5


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangular filters on Slaney's scale, 0 to 8,000 Hz, each of the same area: float32 (80 bands, 513 bins).

    Below 1,000 Hz the scale is linear (200/3 Hz per mel), above it is logarithmic (27 mels for a factor of 6.4).
    """
    knee_mel, mels_per_octave_e = 15.0, 27.0 / np.log(6.4)
    top_mel = knee_mel + mels_per_octave_e * np.log(8000 / 1000)
    mels = np.linspace(0.0, top_mel, MEL_BANDS + 2)
    edges_hz = np.where(mels < knee_mel, mels * 200 / 3, 1000 * np.exp((mels - knee_mel) / mels_per_octave_e))
    bins_hz = np.linspace(0, MEL_RATE_HZ / 2, FFT_SIZE // 2 + 1)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)).clip(min=0)
    return (triangles * 2 / (high - low)).astype(np.float32)


@functools.cache
def hann() -> np.ndarray:
    """The periodic Hann window: float32 (1024,)."""
    return np.hanning(FFT_SIZE + 1)[:-1].astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram of a waveform at 22,050 Hz.

    Args:
        samples: float32 (samples,) in [-1, 1].

    Returns:
        float32 (80, 1 + samples // 256): natural logarithms, at least log(1e-5). Frame t is centred on sample 256 t.
    """
    padded = np.pad(samples, FFT_SIZE // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP] * hann()
    magnitudes = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32)
    return np.log(np.maximum(mel_filters() @ magnitudes.T, LOG_FLOOR))


def inverse_stft(spectrum: np.ndarray) -> np.ndarray:
    """Waveform from a complex spectrogram (513, frames), the inverse of a centred STFT: float32 (256 * (frames - 1),)."""
    frames = np.fft.irfft(spectrum.T, FFT_SIZE, axis=1) * hann()
    samples = np.zeros((len(frames) - 1) * HOP + FFT_SIZE)
    weight = np.zeros_like(samples)
    for index, frame in enumerate(frames):
        part = slice(index * HOP, index * HOP + FFT_SIZE)
        samples[part] += frame
        weight[part] += hann() ** 2
    return (samples / np.maximum(weight, 1e-8))[FFT_SIZE // 2 : -FFT_SIZE // 2].astype(np.float32)


def to_asr_rate(samples: np.ndarray) -> np.ndarray:
    """Resamples a waveform from 22,050 Hz to 16,000 Hz."""
    return resample_poly(samples, 320, 441).astype(np.float32)


def kaldi_features(samples: np.ndarray) -> np.ndarray:
    """The features of icefall's recognisers: float32 (frames, 80), 100 frames per second.

    Args:
        samples: float32 (samples,) at 16,000 Hz in [-1, 1].
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = ASR_RATE_HZ
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(ASR_RATE_HZ, samples.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])


def trim(samples: np.ndarray, *, level: float = 0.003, tail: int = 800) -> np.ndarray:
    """Cuts the silence before the first and, but for `tail` samples, after the last sample that is louder than `level`."""
    loud = np.flatnonzero(np.abs(samples) > level)
    return samples[loud[0] : loud[-1] + tail]


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` samples of white, brown (integrated, without its drift) or pink noise, each a third of the time."""
    white = rng.standard_normal(count)
    colour = rng.integers(3)
    if colour == 1:
        brown = np.cumsum(white)
        return brown - np.convolve(brown, np.ones(200) / 200, "same")
    if colour == 2:
        spectrum = np.fft.rfft(white)
        return np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), count)
    return white


def add_noise(samples: np.ndarray, rng: np.random.Generator, *, snr_db: float) -> np.ndarray:
    """Adds noise of a random colour at a signal-to-noise ratio in decibels."""
    disturbance = noise(len(samples), rng)
    power_ratio = np.mean(samples**2) / np.mean(disturbance**2)
    return (samples + disturbance * np.sqrt(power_ratio) * 10 ** (-snr_db / 20)).astype(np.float32)


def add_echo(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puts the speaker in a room: convolves with noise that decays by 60 dB in 50 to 350 ms."""
    length = int(ASR_RATE_HZ * rng.uniform(0.05, 0.35))
    room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    room *= rng.uniform(0.15, 0.6) / np.sqrt(np.sum(room**2))
    room[0] = 1.0
    return fftconvolve(samples, room)[: len(samples)].astype(np.float32)
