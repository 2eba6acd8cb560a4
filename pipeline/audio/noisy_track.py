"""Tracks that detectors and denoisers are judged on: a recording, said again and again between pauses, in noise.

A recording of an utterance is speech from end to end, and clean. What a detector of speech and a denoiser are for is elsewhere:
in pauses, and in noise. All that is drawn follows from the name of the recording, so that a track is the same every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audio.silent_clips import noise_of
from pipeline.errors import ConfigError
from pipeline.sample import Float32Array

SECONDS = (1.0, 600.0)  # of a track
NOISES = ("white", "pink", "brown", "hum", "clicks")
PAUSE_S = (0.6, 1.6)  # before, between and after: longer than the silence that ends speech for a client (0.5 s)


@dataclass(frozen=True)
class Track:
    """What is heard, and what was said.

    Attributes:
        audio: (samples,) in [-1, 1], with noise.
        clean: the same without noise: zeros in pauses; None where that is not known.
    """

    audio: Float32Array
    clean: Float32Array | None


def noisy_track(name: str, recording: Float32Array, sample_rate_hz: int, seconds: float, snr_db: Sequence[float]) -> Track:
    """Return a track of a recording (samples,).

    Args:
        name: of the recording: all that is drawn follows from it.
        recording: clean speech.
        sample_rate_hz: of it.
        seconds: of the track, at least; the recording is repeated until it is that long.
        snr_db: lowest and highest signal to noise, of the recording's power over that of the noise.
    """
    rng = np.random.default_rng(list(name.encode()))
    parts, length = [_pause(rng, sample_rate_hz)], 0
    while length < seconds * sample_rate_hz:
        parts += [recording, _pause(rng, sample_rate_hz)]
        length = sum(map(len, parts))
    clean = np.concatenate(parts)
    clean = np.roll(clean, int(rng.integers(len(clean))))  # as much speech at the start and at the end as between
    level = float(np.sqrt(np.mean(np.square(recording, dtype=np.float64)))) * 10.0 ** (
        -rng.uniform(snr_db[0], snr_db[1]) / 20.0
    )
    kind = NOISES[int(rng.integers(len(NOISES)))]
    noise = noise_of(kind, len(clean), level, sample_rate_hz, rng) if level else np.zeros(len(clean))
    audio = clean + noise
    peak = max(1.0, float(np.abs(audio).max()))
    return Track((audio / peak).astype(np.float32), (clean / peak).astype(np.float32))


def _pause(rng: np.random.Generator, sample_rate_hz: int) -> Float32Array:
    return np.zeros(int(rng.uniform(*PAUSE_S) * sample_rate_hz), np.float32)


def check_tracks(seconds: float | None, snr_db: Sequence[float]) -> None:
    """Check the settings of tracks that are made of recordings.

    Raises:
        ConfigError: one is out of limits.
    """
    if seconds is not None and not SECONDS[0] <= seconds <= SECONDS[1]:
        raise ConfigError(f"model.track_s: {seconds} is out of limits; allowed: null or {SECONDS[0]:g} to {SECONDS[1]:g}.")
    if len(snr_db) != 2 or not -40 <= snr_db[0] <= snr_db[1] <= 100:
        raise ConfigError(f"model.snr_db: {snr_db}; expected the lowest and the highest, between -40 and 100: [0, 30].")
