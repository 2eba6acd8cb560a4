"""Another sample rate as Kaldi's clients make it: the resampler that recognisers hear in use.

sherpa-onnx resamples with Kaldi's LinearResample (kaldi/src/feat/resample.h), a windowed sinc of six zero crossings below 0.99
of the lower Nyquist frequency. Of telephone audio (8 kHz) it lets images above 4 kHz through, which a longer filter does not:
the features there differ by up to 4.5 nats, and a recogniser answers to them.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.audio.stft import Audio, drop_batch_axes

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def kaldi_resample(audio: npt.ArrayLike, from_hz: int, to_hz: int) -> Audio:
    """Resample (samples,) as sherpa-onnx 2.0.1 does; ceil(samples * to_hz / from_hz) samples remain.

    Output sample n is the sum over inputs k of x[k] h(n / to_hz - k / from_hz) / from_hz with h(t) = 2 c sinc(2 c t) times a
    raised cosine of half width 6 / (2 c), c = 0.99 * min(from_hz, to_hz) / 2. The offsets between both grids repeat with the
    greatest common divisor of the rates, so that each of to_hz / gcd phases has weights of its own.
    """
    wave = drop_batch_axes(audio, 1, "audio").astype(np.float32)
    if from_hz == to_hz or not wave.size:
        return wave
    divisor = math.gcd(from_hz, to_hz)
    ins, outs = from_hz // divisor, to_hz // divisor  # samples of each in one period
    cutoff_hz = ROLLOFF * 0.5 * min(from_hz, to_hz)
    width_s = ZERO_CROSSINGS / (2.0 * cutoff_hz)
    total = -(-wave.size * to_hz // from_hz)
    periods = -(-total // outs)
    before = math.ceil(width_s * from_hz) + 1
    taps = 2 * before + 1
    padded = np.zeros(before + (periods + 1) * ins + taps, dtype=np.float32)
    padded[before : before + wave.size] = wave
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    made = np.empty((periods, outs), dtype=np.float32)
    for phase in range(outs):
        nearest = phase * ins // outs  # the input sample at or before the output's time
        offset_s = (np.arange(nearest - before, nearest - before + taps) / from_hz) - phase / to_hz
        made[:, phase] = windows[nearest : nearest + periods * ins : ins][:periods] @ _filter(
            offset_s, cutoff_hz, width_s, from_hz
        )
    return made.reshape(-1)[:total]


def _filter(offset_s: npt.NDArray[np.float64], cutoff_hz: float, width_s: float, rate_hz: int) -> Audio:
    """Return the weights of inputs so far away from an output sample."""
    window = 0.5 * (1.0 + np.cos(2.0 * np.pi * cutoff_hz / ZERO_CROSSINGS * offset_s))
    weights = window * 2.0 * cutoff_hz * np.sinc(2.0 * cutoff_hz * offset_s) / rate_hz
    return np.where(np.abs(offset_s) < width_s, weights, 0.0).astype(np.float32)
