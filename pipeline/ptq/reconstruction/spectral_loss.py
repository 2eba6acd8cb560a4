"""How far audio is from other audio, as a loss: log-mels in three resolutions.

The metric that vocoders are judged by (`pipeline.metrics.audio_metrics.log_mel_l1`) and two of shorter windows, whose frames
see the noise between two pulses or before a plosive.
"""

from functools import lru_cache
from typing import Any

import torch

from pipeline.audio.mel import LOG_FLOOR, mel_bands

Tensor = Any  # torch.Tensor: types are checked where PyTorch need not be installed
SHAPES = ((1024, 80, 8000.0), (512, 40, 11025.0), (256, 20, 11025.0))  # FFT length, bands, highest frequency in Hz
LEAST_SAMPLES = 1024  # so that the longest window can be reflected at the ends


def log_mel_distance(audio: Tensor, right: Tensor, rate_hz: int, *, resolutions: int = len(SHAPES)) -> Tensor:
    """Return the mean absolute difference of the log-mels of two batches of waveforms, in nats.

    Args:
        audio: (batch, samples).
        right: (batch, samples), what it should be.
        rate_hz: sample rate.
        resolutions: how many of `SHAPES` to look at; 1: the metric alone.
    """
    factor = 1 if rate_hz <= 24_000 else 2
    distances = []
    for length, bands, highest in SHAPES[:resolutions]:
        first, second = (_log_mel(one, rate_hz, length * factor, bands, highest) for one in (audio, right))
        distances.append((first - second).abs().mean())
    return torch.stack(distances).mean()


def _log_mel(audio: Tensor, rate_hz: int, length: int, bands: int, highest: float) -> Tensor:
    matrix, window = _matrix(rate_hz, length, bands, min(highest, rate_hz / 2))
    spectrum = torch.stft(audio, length, length // 4, length, window, center=True, pad_mode="reflect", return_complex=True)
    magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12)
    return torch.log(torch.clamp(matrix @ magnitude, min=LOG_FLOOR))


@lru_cache(maxsize=8)
def _matrix(rate_hz: int, length: int, bands: int, highest: float) -> tuple[Tensor, Tensor]:
    bands_of_bins = mel_bands(rate_hz, length, bands, 0.0, highest)
    return torch.tensor(bands_of_bins, dtype=torch.float32), torch.hann_window(length)
