"""The features that icefall's recognisers were trained on."""

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError


def kaldi_fbank(audio: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Return Kaldi's log filter-bank energies (frames, 80), as icefall's models are trained on.

    Frames of 25 ms every 10 ms, upper edge 400 Hz below Nyquist, no dither, the last frame padded. Audio is (samples,) in
    [-1, 1].
    """
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.samp_freq = sample_rate_hz
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(sample_rate_hz, audio.tolist())
    extractor.input_finished()
    frames = [extractor.get_frame(index) for index in range(extractor.num_frames_ready)]
    if not frames:
        raise DataError(f"a recording of {len(audio)} samples is too short for one frame of 25 ms.")
    return np.stack(frames).astype(np.float32)
