"""What detectors of speech hear that do not take samples: TEN VAD as sherpa-onnx gives it, and FunASR's statistics."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.audio.mel import hz_of_mel, mel_of_hz
from pipeline.errors import ModelError
from pipeline.sample import Float32Array

TEN_BANDS, TEN_FFT, TEN_RATE_HZ = 40, 1024, 16_000
TEN_FRAMES = 3  # that a step of TEN VAD is given: its own, and the two before
TEN_STATISTICS = {"mean": TEN_BANDS + 1, "inv_stddev": TEN_BANDS + 1, "window": 768}
"""Numbers in the metadata of a file for sherpa-onnx: how many of each."""


def ten_vad_features(audio: Float32Array, hop: int, statistics: Mapping[str, Float32Array]) -> Float32Array:
    """Return what TEN VAD is given at each step (steps, 1, 3, 41), as sherpa-onnx 2.0.1 computes it.

    Samples as integers, less 0.97 of the one before; a window; power spectrum; 40 bands on Slaney's scale whose edges are whole
    bins; logarithm, less that of 32768 squared; the 41st value, a pitch, is always 0; normalised. Before a recording is zero.

    Two things differ from TEN's own library, and are what the graph is given in the client: it windows the `hop` samples of a
    step alone, with the first part of the window, where TEN takes 768; and in its power spectrum, made in place, the power of
    the last bin stands where the imaginary part of the one before is read, so that the highest band is far too loud
    (findings/ten_vad_in_sherpa_onnx_hears_a_wrong_last_band.sh).

    Args:
        audio: (samples,) in [-1, 1] at 16 kHz.
        hop: samples of a step.
        statistics: `TEN_STATISTICS`, from the metadata.
    """
    scaled = audio[: len(audio) // hop * hop].astype(np.float64) * 32_768.0
    emphasised = scaled - 0.97 * np.concatenate([[0.0], scaled[:-1]])
    frames = emphasised.reshape(-1, hop) * statistics["window"][:hop]
    spectrum = np.fft.rfft(frames, TEN_FFT, axis=1)
    power = np.square(np.abs(spectrum))
    power[:, -2] = np.square(spectrum[:, -2].real) + np.square(power[:, -1])
    logarithm = np.log(power @ _ten_bands().T + 1e-10) - 2.0 * np.log(32_768.0)
    features = np.concatenate([logarithm, np.zeros((len(logarithm), 1))], axis=1)
    features = (features - statistics["mean"]) * statistics["inv_stddev"]
    before = np.concatenate([np.zeros((TEN_FRAMES - 1, features.shape[1])), features])
    seen = np.lib.stride_tricks.sliding_window_view(before, TEN_FRAMES, axis=0).transpose(0, 2, 1)
    return np.ascontiguousarray(seen[:, None], dtype=np.float32)


@lru_cache(maxsize=1)
def _ten_bands() -> Float32Array:
    """Return triangles (40, 513) of height 1; their edges are rounded down to bins."""
    mels = np.linspace(mel_of_hz(0.0), mel_of_hz(TEN_RATE_HZ / 2), TEN_BANDS + 2)
    edges = np.floor(hz_of_mel(mels) * (TEN_FFT + 1) / TEN_RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(TEN_FFT // 2 + 1, dtype=np.float64)[None]
    rising = (bins - low) / np.maximum(middle - low, 1.0)
    falling = (high - bins) / np.maximum(high - middle, 1.0)
    inside = (bins > low) & (bins < high)
    return np.where(inside, np.where(bins <= middle, rising, falling), 0.0).astype(np.float32)


def kaldi_cmvn(path: Path) -> tuple[Float32Array, Float32Array]:
    """Return what is added to features, and what they are multiplied with, of FunASR's `am.mvn`: Kaldi's nnet1 in text form.

    Raises:
        ModelError: the file is missing, or has no such numbers.
    """
    if not path.is_file():
        raise ModelError(f"{path}: not found. A detector of FunASR is published with it: it normalises the features.")
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    for part in ("AddShift", "Rescale"):
        match = re.search(rf"<{part}>[^\[]*\[([^\]]*)\]", text)
        try:
            found.append(np.array(match[1].split() if match else [], dtype=np.float32))
        except ValueError:
            found.append(np.zeros(0, np.float32))
    shift, scale = found
    if not len(shift) or shift.shape != scale.shape:
        raise ModelError(f"{path}: has no <AddShift> and <Rescale> of the same size, as Kaldi's nnet1 writes them as text.")
    return shift, scale
