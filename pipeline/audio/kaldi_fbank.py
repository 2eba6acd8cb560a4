"""The features that recognisers were trained on, as their clients compute them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError


@dataclass(frozen=True)
class Fbank:
    """What one family of recognisers asks of Kaldi's log filter-bank energies.

    Attributes:
        scale: of the samples: 1 for [-1, 1], 32768 where a model was trained on integers.
        dither: standard deviation of the white noise that is added, in units of the scaled samples.
        window: of a frame.
        high_freq_hz: upper edge of the bands; zero or less: so far below Nyquist.
        snip_edges: leave out frames that the recording does not fill; the last one is padded otherwise.
        low_freq_hz: lower edge of the bands.
        bands: how many.
        slaney: bands on Slaney's mel scale and of equal area, as librosa makes them; else on HTK's, of equal height.
        remove_dc_offset: subtract the mean of each frame.
        log_guard: added to each energy before the logarithm; 0: energies below the smallest float32 step are raised to it.
    """

    scale: float = 1.0
    dither: float = 0.0
    window: str = "povey"
    high_freq_hz: float = -400.0
    snip_edges: bool = False
    low_freq_hz: float = 20.0
    bands: int = 80
    slaney: bool = False
    remove_dc_offset: bool = True
    log_guard: float = 0.0


ICEFALL = Fbank()
WENET = Fbank(scale=32_768.0, dither=1.0)
FUNASR = Fbank(scale=32_768.0, window="hamming", high_freq_hz=0.0, snip_edges=True)
NEMO = Fbank(low_freq_hz=0.0, slaney=True, remove_dc_offset=False)
GIGAAM = Fbank(window="hann", low_freq_hz=0.0, high_freq_hz=8000.0, bands=64, remove_dc_offset=False)
NEMO_LOG_GUARD = 2.0**-24
"""With `normalised_bands`. These three are what sherpa-onnx 2.0.1 was seen to compute."""


def kaldi_fbank(audio: npt.NDArray[np.float32], sample_rate_hz: int, fbank: Fbank = ICEFALL) -> npt.NDArray[np.float32]:
    """Return Kaldi's log filter-bank energies (frames, bands), of frames of 25 ms every 10 ms.

    The defaults are those of icefall's models. Dither is drawn with a fixed seed, so that the same recording has the same
    features every time; Kaldi draws it frame by frame.

    Args:
        audio: (samples,) in [-1, 1].
        sample_rate_hz: of the audio.
        fbank: what the model was trained on.
    """
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = fbank.snip_edges
    options.frame_opts.samp_freq = sample_rate_hz
    options.frame_opts.window_type = fbank.window
    options.frame_opts.remove_dc_offset = fbank.remove_dc_offset
    options.mel_opts.num_bins = fbank.bands
    options.mel_opts.low_freq = fbank.low_freq_hz
    options.mel_opts.is_librosa = fbank.slaney
    options.use_log_fbank = fbank.log_guard == 0
    options.mel_opts.high_freq = fbank.high_freq_hz
    wave = audio if fbank.scale == 1.0 else audio * np.float32(fbank.scale)
    if fbank.dither:
        noise = np.random.default_rng(0).standard_normal(len(wave), dtype=np.float32)
        wave = wave + np.float32(fbank.dither) * noise
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(sample_rate_hz, wave.tolist())
    extractor.input_finished()
    frames = [extractor.get_frame(index) for index in range(extractor.num_frames_ready)]
    if not frames:
        raise DataError(f"a recording of {len(audio)} samples is too short for one frame of 25 ms.")
    features = np.stack(frames).astype(np.float32)
    return np.log(features + np.float32(fbank.log_guard)) if fbank.log_guard else features


def stacked_frames(
    features: npt.NDArray[np.float32],
    size: int,
    shift: int,
    neg_mean: npt.NDArray[np.float32],
    inv_stddev: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return the frames of FunASR's models (frames', size * bands): stacked, and normalised.

    Each is `size` neighbours of (frames, bands), every `shift` frames (Pundak and Sainath, Lower Frame Rate Neural Network
    Acoustic Models, 2016), plus `neg_mean`, times `inv_stddev`, which the metadata holds. The middle of the first one is the
    first frame; what is missing at both ends is that of the nearest frame (`apply_lfr` of FunASR; `ApplyLfr` of sherpa-onnx
    2.0.1).
    """
    count = -(-len(features) // shift)
    places = np.arange(count)[:, None] * shift + np.arange(size)[None, :] - (size - 1) // 2
    stacked = features[np.clip(places, 0, len(features) - 1)].reshape(count, -1)
    return np.asarray((stacked + neg_mean) * inv_stddev, dtype=np.float32)


def normalised_bands(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return features (frames, bands) with mean 0 and standard deviation 1 in each band: NeMo's `per_feature`.

    The deviation is that of the population, plus 1e-5, in single precision, as in sherpa-onnx 2.0.1 (NeMo divides by one
    frame less).
    """
    mean = features.mean(axis=0)
    variance = np.maximum(np.square(features).mean(axis=0) - np.square(mean), 0)
    return np.asarray((features - mean) / (np.sqrt(variance) + np.float32(1e-5)), dtype=np.float32)
