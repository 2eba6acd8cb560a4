"""Metrics of audio that was cleaned of noise, against what was said."""

import math

import numpy as np

from pipeline.metrics.tensor_metrics import checked_pair
from pipeline.sample import Float32Array

LOWEST_DB = -120.0  # of a level: below the last bit of 16 and 20
TAIL_S, HEAD_S = 0.15, 0.05  # of a pause, that belong to the speech before it and after it
SHORTEST_S = 0.1  # pause that is looked at


def si_sdr_db(clean: Float32Array, audio: Float32Array) -> float:
    """Scale-invariant signal-to-distortion ratio of audio (samples,), dB (Le Roux et al., SDR - half-baked or well done, 2019).

    The clean signal is scaled to what the audio holds of it; all else is distortion. Not above 120 dB, nor below -120 dB.
    """
    reference, estimate = checked_pair(clean, audio)
    power = float(np.sum(reference**2))
    scale = float(np.sum(estimate * reference)) / power if power else 0.0
    target, rest = scale**2 * power, float(np.sum((estimate - scale * reference) ** 2))
    if not target:
        return LOWEST_DB
    return max(LOWEST_DB, min(-LOWEST_DB, 10.0 * math.log10(target / rest) if rest else -LOWEST_DB))


def pause_floor_db(clean: Float32Array, audio: Float32Array, sample_rate_hz: int) -> float | None:
    """Level of audio (samples,) where nothing is said, in dB against full scale; -120 at the lowest, None without a pause.

    A pause is where the clean signal is zero for 0.3 s at least; its first 0.15 s and last 0.05 s, where speech rings, are left
    out.

    Args:
        clean: what is said: zeros in pauses.
        audio: what is heard.
        sample_rate_hz: of both.
    """
    length = min(len(clean), len(audio))
    edges = np.flatnonzero(np.diff(np.concatenate([[True], clean[:length] != 0, [True]]).astype(np.int8)))
    powers, samples = 0.0, 0
    for start, end in edges.reshape(-1, 2):
        first, last = start + int(TAIL_S * sample_rate_hz), end - int(HEAD_S * sample_rate_hz)
        if last - first >= SHORTEST_S * sample_rate_hz:
            powers += float(np.sum(np.square(audio[first:last], dtype=np.float64)))
            samples += last - first
    if not samples:
        return None
    return max(LOWEST_DB, 10.0 * math.log10(powers / samples)) if powers else LOWEST_DB
