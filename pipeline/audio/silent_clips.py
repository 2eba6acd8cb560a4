"""Recordings in which nobody speaks: silence, noise, hum, clicks. A recogniser should write nothing."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.sample import FloatArray

SECONDS = (1.0, 8.0)  # of a clip, at least and at most
LEVELS_DB = (-60.0, -25.0)  # of its noise, against full scale: a quiet room, and a loud one
KINDS = ("silence", "dither", "white", "pink", "brown", "hum", "clicks")
SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""By which power of the frequency the amplitude of a noise falls."""


def silent_clips(count: int, seed: int, sample_rate_hz: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield clips (samples,) in [-1, 1] in which nobody speaks, and their names; the n-th is always the same.

    In turn: zeros; the last bit of 16; white, pink and brown noise at random levels; the hum of the mains and its harmonics;
    and clicks at random times.

    Args:
        count: how many.
        seed: of all that is drawn.
        sample_rate_hz: of the clips.
    """
    for number in range(count):
        rng, kind = np.random.default_rng([seed, number]), KINDS[number % len(KINDS)]
        samples = int(rng.uniform(*SECONDS) * sample_rate_hz)
        level = 10.0 ** (rng.uniform(*LEVELS_DB) / 20.0)
        yield f"{kind}_{number:03d}", np.clip(noise_of(kind, samples, level, sample_rate_hz, rng), -1.0, 1.0).astype(np.float32)


def noise_of(kind: str, samples: int, level: float, rate_hz: int, rng: np.random.Generator) -> FloatArray:
    """Return what is heard where nobody speaks (samples,): one of `KINDS`, of a root mean square where it has one."""
    match kind:
        case "silence":
            return np.zeros(samples)
        case "dither":
            return rng.integers(-1, 2, samples) / 32_768.0
        case "hum":
            mains = float(rng.choice([50.0, 60.0]))
            seconds = np.arange(samples) / rate_hz
            tones = [np.sin(2 * np.pi * mains * k * seconds + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 6)]
            return _at_level(np.sum(tones, axis=0), level) + _noise("white", samples, level / 30.0, rng)
        case "clicks":
            wave = _noise("pink", samples, level / 10.0, rng)
            places = rng.integers(0, samples, 1 + samples // rate_hz)
            wave[places] += rng.choice([-1.0, 1.0], len(places)) * min(10.0 * level, 0.9)
            return wave
        case _:
            return _noise(kind, samples, level, rng)


def _noise(kind: str, samples: int, level: float, rng: np.random.Generator) -> FloatArray:
    """Return noise (samples,) of a root mean square, its amplitude falling with the frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    falling = np.arange(1, len(spectrum) + 1) ** -SLOPES[kind]
    return _at_level(np.fft.irfft(spectrum * falling, n=samples), level)


def _at_level(wave: FloatArray, level: float) -> FloatArray:
    scaled: FloatArray = wave * (level / np.sqrt(np.mean(wave**2)))
    return scaled
