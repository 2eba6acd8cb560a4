"""Another sample rate for a recording."""

import math

import numpy as np
import numpy.typing as npt

from pipeline.audio.stft import Audio, drop_batch_axes


def resample(audio: npt.ArrayLike, from_hz: int, to_hz: int) -> Audio:
    """Resample (samples,) by a polyphase low-pass filter; ceil(samples * to_hz / from_hz) samples remain."""
    wave = drop_batch_axes(audio, 1, "audio")
    if from_hz == to_hz:
        return wave.astype(np.float32)
    from scipy.signal import resample_poly  # takes half a second to import

    divisor = math.gcd(from_hz, to_hz)
    return np.asarray(resample_poly(wave, to_hz // divisor, from_hz // divisor), dtype=np.float32)
