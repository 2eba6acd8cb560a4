"""The spectrograms that Whisper was trained on, and those that sherpa-onnx gives it."""

import numpy as np
import numpy.typing as npt

from pipeline.audio.mel import band_sums, mel_bands
from pipeline.audio.stft import hann_window
from pipeline.errors import DataError

SAMPLE_RATE_HZ = 16_000
WINDOW, HOP = 400, 160  # samples: 25 ms every 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP
MOST_FRAMES = 3000
"""What a model hears at once: 30 s."""
TAIL_FRAMES = 1000
"""What the client appends, for the model to find that nobody speaks any more."""
ROOM_FRAMES = 50
"""What the client leaves free at the end of 30 s."""
FLOOR = 1e-10  # of a band's power, before the logarithm
RANGE = 8.0  # decades below the loudest value, which are heard

Mel = npt.NDArray[np.float32]


def whisper_log_mel(audio: npt.NDArray[np.float32], n_mels: int = 80) -> Mel:
    """Return OpenAI's log-mel spectrogram (n_mels, samples // 160) of audio (samples,) at 16 kHz.

    Frames are centred on multiples of the hop, the ends are reflected, the last frame is left out; of the base-10 logarithm of
    the power in Slaney's bands, all more than 8 below the largest is cut off, and (x + 4) / 4 is taken
    (`whisper.audio.log_mel_spectrogram`, version 20250625).
    """
    if len(audio) <= WINDOW // 2:
        raise DataError(f"a recording of {len(audio)} samples is too short for one frame of 25 ms.")
    padded = np.pad(audio.astype(np.float64), WINDOW // 2, mode="reflect")
    return _scaled(_power(padded, len(audio) // HOP, n_mels))


def client_log_mel(audio: npt.NDArray[np.float32], n_mels: int = 80) -> Mel:
    """Return the spectrogram (n_mels, frames) that sherpa-onnx 2.0.1 gives an encoder, of audio (samples,) at 16 kHz.

    It differs from OpenAI's in three ways. A frame lies half a hop later, as Kaldi's do that are not cut at the edges; the
    ends are mirrored with their last sample (`WhisperFeatureComputer` of kaldi-native-fbank). A recording of more than 29.5 s
    is cut. And it is not filled up with silence to 30 s before the logarithm, but with ten seconds of zeros after it
    (`OfflineRecognizerWhisperImpl`).
    """
    count = (len(audio) + HOP // 2) // HOP
    if not count:
        raise DataError(f"a recording of {len(audio)} samples is too short for one frame of 25 ms.")
    left = WINDOW // 2 - HOP // 2
    right = max((count - 1) * HOP + WINDOW - left - len(audio), 0)
    padded = np.pad(audio.astype(np.float64), (left, right), mode="symmetric")
    power = _power(padded, count, n_mels)
    if count >= MOST_FRAMES - ROOM_FRAMES:
        power = power[:, : MOST_FRAMES - ROOM_FRAMES]
    mel = _scaled(power)
    frames = min(mel.shape[1] + TAIL_FRAMES, MOST_FRAMES)
    return np.pad(mel, ((0, 0), (0, frames - mel.shape[1])))


def recorded_frames(mel: npt.NDArray[np.floating]) -> int:
    """Return how many frames of a spectrogram (..., n_mels, frames) are the recording's: the others are zero in all bands."""
    heard = np.flatnonzero(np.any(mel.reshape(-1, mel.shape[-1]) != 0, axis=0))
    return int(heard[-1]) + 1 if len(heard) else 0


def _power(padded: npt.NDArray[np.float64], count: int, n_mels: int) -> npt.NDArray[np.float64]:
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count]
    spectrum = np.fft.rfft(frames * hann_window(WINDOW), axis=1)
    bands = mel_bands(SAMPLE_RATE_HZ, WINDOW, n_mels, 0.0, SAMPLE_RATE_HZ / 2)
    return band_sums(bands, (np.abs(spectrum) ** 2).T)


def _scaled(power: npt.NDArray[np.float64]) -> Mel:
    logarithm = np.log10(np.maximum(power, FLOOR))
    return np.asarray((np.maximum(logarithm, logarithm.max() - RANGE) + 4.0) / 4.0, dtype=np.float32)
