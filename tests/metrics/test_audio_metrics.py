"""Audio metrics agree with librosa, scipy and sherpa-onnx' own inverse STFT, and with what one computes by hand."""

import importlib
import math
import sys
from types import ModuleType

import kaldi_native_fbank as knf
import numpy as np
import pytest
import scipy.signal

from pipeline.audio.mel import band_sums, mel_bands
from pipeline.audio.resample import resample
from pipeline.audio.stft import istft
from pipeline.errors import DataError
from pipeline.metrics import audio_metrics


@pytest.fixture(scope="module")
def librosa():
    """Return librosa, interpreted: Numba would compile it for a minute, functions that no test here calls."""

    def as_written(*given, **_):
        return given[0] if len(given) == 1 and callable(given[0]) else lambda function: function

    numba = ModuleType("numba")
    vars(numba).update(dict.fromkeys(("jit", "njit", "stencil", "vectorize", "guvectorize"), as_written), prange=range)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "numba", numba)
        for module in ("util.utils", "core.spectrum", "filters"):  # as librosa would when a name in them is first used
            importlib.import_module(f"librosa.{module}")
    return importlib.import_module("librosa")


def chirp(rng, samples=12_000, rate=22_050):
    """Return a tone that climbs through the bands, over a little noise, with a silent third."""
    t = np.arange(samples) / rate
    wave = 0.5 * np.sin(2 * np.pi * (100 + 6000 * t) * t) + 0.01 * rng.standard_normal(samples)
    wave[samples // 3 : 2 * samples // 3] = 0.0
    return wave.astype(np.float32)


def librosa_log_mel(librosa, wave, rate, n_fft=1024, hop=256):
    spectrum = np.abs(librosa.stft(wave.astype(np.float64), n_fft=n_fft, hop_length=hop, pad_mode="reflect"))
    bands = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=80, fmin=0, fmax=8000, htk=False, norm="slaney", dtype=np.float64)
    return np.log(np.maximum(bands @ spectrum, 1e-5))


@pytest.mark.parametrize(("rate", "samples"), [(22_050, 12_000), (16_000, 12_031), (24_000, 1_100)])
def test_log_mel_equals_librosas(librosa, rng, rate, samples):
    wave = chirp(rng, samples, rate)
    mel = audio_metrics.log_mel(wave, rate)
    assert mel.dtype == np.float32
    assert mel.shape == (80, 1 + samples // 256)
    np.testing.assert_allclose(mel, librosa_log_mel(librosa, wave, rate), atol=1e-4)


@pytest.mark.parametrize(("n_fft", "bands"), [(1024, 80), (400, 128)])
def test_the_sum_of_each_band_over_its_own_bins_is_that_over_all(rng, n_fft, bands):
    """Of 128 bands over 201 bins, some hold a single bin, and some none."""
    weights = mel_bands(16_000, n_fft, bands, 0.0, 8_000.0)
    spectrum = rng.random((n_fft // 2 + 1, 20))
    np.testing.assert_allclose(band_sums(weights, spectrum), weights @ spectrum, rtol=1e-12)


def test_log_mel_of_silence_is_the_floor():
    assert audio_metrics.log_mel(np.zeros(1000), 22_050) == pytest.approx(math.log(1e-5))


def test_log_mel_of_a_low_rate_ends_at_half_of_it():
    mel = audio_metrics.log_mel(np.random.default_rng(0).standard_normal(4000), 8_000)
    assert mel.min() > math.log(1e-5)  # no band is empty


def test_log_mel_l1_is_the_mean_distance_in_nats():
    assert audio_metrics.log_mel_l1(np.zeros((2, 3)), [[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]]) == 0.5


def test_log_mel_l1_of_a_louder_copy_is_the_log_of_the_gain(rng):
    wave = rng.standard_normal(20_000)
    for rate in (16_000, 22_050, 48_000):
        assert audio_metrics.log_mel_l1_of_audio(wave, 2 * wave, rate) == pytest.approx(math.log(2), rel=1e-5)


def test_mel_cepstral_distortion_of_one_coefficient_is_known():
    # A step d in coefficient k of the orthonormal DCT is d * sqrt(2 / bands) * cos(pi * k * (band + 1/2) / bands).
    bands, d = 80, 0.7
    mel = np.zeros((bands, 5))
    basis = np.sqrt(2 / bands) * np.cos(np.pi * 3 * (np.arange(bands) + 0.5) / bands)
    expected = 10 / math.log(10) * math.sqrt(2) * d
    assert audio_metrics.mcd_db(mel, mel + d * basis[:, None]) == pytest.approx(expected)
    basis_14 = np.sqrt(2 / bands) * np.cos(np.pi * 14 * (np.arange(bands) + 0.5) / bands)
    assert audio_metrics.mcd_db(mel, mel + d * basis_14[:, None]) == pytest.approx(0.0, abs=1e-12)


def test_mel_cepstral_distortion_ignores_loudness():
    mel = np.random.default_rng(0).standard_normal((80, 9))
    assert audio_metrics.mcd_db(mel, mel + 1.5) == pytest.approx(0.0, abs=1e-9)


def scipy_magnitude(wave, n_fft, hop, window_length):
    left = (n_fft - window_length) // 2
    window = np.zeros(n_fft)
    window[left : left + window_length] = scipy.signal.get_window("hann", window_length)
    _, _, spectrum = scipy.signal.stft(wave, window=window, nperseg=n_fft, noverlap=n_fft - hop, boundary="even", padded=False)
    return np.sqrt(np.maximum(np.abs(spectrum * window.sum()) ** 2, 1e-7))


def test_multi_resolution_stft_distance_equals_one_built_on_scipys_stft(rng):
    reference = chirp(rng).astype(np.float64)
    test = reference + 0.05 * rng.standard_normal(reference.size)
    distances = []
    for n_fft, hop, window_length in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        r, t = (scipy_magnitude(wave, n_fft, hop, window_length) for wave in (reference, test))
        distances.append(np.sqrt(((r - t) ** 2).sum() / (r**2).sum()) + np.abs(np.log(r) - np.log(t)).mean())
    assert audio_metrics.mr_stft(reference, test) == pytest.approx(np.mean(distances), rel=1e-9)


def test_multi_resolution_stft_distance_of_a_louder_copy_is_known(rng):
    wave = rng.standard_normal(20_000)
    assert audio_metrics.mr_stft(wave, 2 * wave) == pytest.approx(1 + math.log(2), rel=1e-3)


def test_multi_resolution_stft_distance_is_finite_against_silence(rng):
    assert 0 < audio_metrics.mr_stft(np.zeros(9000), rng.standard_normal(9000)) < math.inf


def test_audio_of_another_length_is_refused_not_cut(rng):
    wave = rng.standard_normal(9000)
    for metric in (audio_metrics.mr_stft, lambda a, b: audio_metrics.log_mel_l1_of_audio(a, b, 22_050)):
        with pytest.raises(DataError, match=r"\(9000,\).*\(8999,\)"):
            metric(wave, wave[:-1])


def test_two_channels_are_refused(rng):
    with pytest.raises(DataError, match=r"\(2, 500\)"):
        audio_metrics.log_mel(rng.standard_normal((2, 500)), 22_050)


def test_dynamic_time_warping_finds_the_repeated_frames(rng):
    reference = rng.standard_normal((80, 6))
    stretched = reference[:, [0, 0, 1, 2, 3, 3, 3, 4, 5]]
    i, j = audio_metrics.align_by_dtw(reference, stretched)
    assert list(j) == list(range(9))
    assert list(i) == [0, 0, 1, 2, 3, 3, 3, 4, 5]
    assert audio_metrics.log_mel_l1(reference[:, i], stretched[:, j]) == 0.0


def test_a_mel_and_itself_align_on_the_diagonal(rng):
    for mel in (rng.standard_normal((80, 30)), np.zeros((80, 30))):
        i, j = audio_metrics.align_by_dtw(mel, mel)
        assert list(i) == list(j) == list(range(30))


def cheapest_warping(a, b):
    """Cost of the best path by the textbook's recursion, cell by cell."""
    total = np.full((a.shape[1] + 1, b.shape[1] + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            before = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = np.abs(a[:, i] - b[:, j]).sum() + before
    return total[-1, -1]


@pytest.mark.parametrize(("frames", "others"), [(40, 53), (53, 40), (1, 7), (7, 1)])
def test_dynamic_time_warping_finds_the_cheapest_path_from_end_to_end_without_leaving_a_frame_out(rng, frames, others):
    a, b = rng.standard_normal((12, frames)), rng.standard_normal((12, others))
    i, j = audio_metrics.align_by_dtw(a, b)
    assert np.abs(a[:, i] - b[:, j]).sum() == pytest.approx(cheapest_warping(a, b))
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, frames - 1, others - 1)
    steps = np.stack([np.diff(i), np.diff(j)], axis=1)
    assert {tuple(step) for step in steps.tolist()} <= {(1, 1), (1, 0), (0, 1)}


def spectrum_of(librosa, wave):
    spectrum = librosa.stft(wave, n_fft=1024, hop_length=256, pad_mode="reflect")
    magnitude = np.abs(spectrum)
    phase = spectrum / np.maximum(magnitude, 1e-12)
    return magnitude, phase.real, phase.imag


def test_inverse_stft_gives_the_audio_back(librosa, rng):
    wave = rng.standard_normal(256 * 40)
    rebuilt = istft(*(part[None] for part in spectrum_of(librosa, wave)))
    assert rebuilt.dtype == np.float32
    np.testing.assert_allclose(rebuilt, wave, atol=1e-5)


def test_inverse_stft_equals_scipys_and_sherpa_onnx_on_spectra_that_no_audio_has(rng):
    # A vocoder's spectrum is not consistent: this is where conventions of window and normalisation would show.
    mag, angle = np.exp(rng.standard_normal((513, 20))), rng.uniform(-np.pi, np.pi, (513, 20))
    x, y = np.cos(angle), np.sin(angle)
    ours = istft(mag, x, y)
    assert ours.shape == (19 * 256,)

    spectrum = mag * (x + 1j * y)
    _, scipys = scipy.signal.istft(spectrum / np.sum(scipy.signal.get_window("hann", 1024)), nperseg=1024, noverlap=768)
    np.testing.assert_allclose(ours, scipys, atol=1e-5)

    frames = spectrum.T.astype(np.complex64)
    config = knf.StftConfig(n_fft=1024, hop_length=256, win_length=1024, window_type="hann", center=True)
    result = knf.StftResult(real=frames.real.ravel().tolist(), imag=frames.imag.ravel().tolist(), num_frames=20)
    np.testing.assert_allclose(ours, knf.IStft(config)(result), atol=1e-4)


def test_inverse_stft_refuses_a_spectrum_of_other_bins():
    with pytest.raises(DataError, match="513 bins"):
        istft(*np.zeros((3, 257, 10)))


def test_resampling_keeps_a_tone_and_scales_the_length():
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050)
    lower = resample(tone, 22_050, 16_000)
    assert lower.shape == (16_000,)
    assert lower.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(lower[500:-500], expected[500:-500], atol=5e-3)


def test_resampling_to_the_same_rate_changes_nothing(rng):
    wave = rng.standard_normal(100).astype(np.float32)
    np.testing.assert_array_equal(resample(wave, 16_000, 16_000), wave)
