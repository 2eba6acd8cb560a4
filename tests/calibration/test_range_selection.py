"""Range methods against brute force on the values themselves."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.calibration import entropy
from pipeline.calibration.accumulator import TensorAccumulator
from pipeline.calibration.collect import collect
from pipeline.calibration.derived_tensors import quantizable_tensors
from pipeline.calibration.entropy import entropy_range
from pipeline.calibration.mse import mse_range
from pipeline.calibration.range_selection import (
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    tensor_ranges,
)
from pipeline.calibration.statistics import Measurement, Statistics
from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import CalibrationConfig
from pipeline.data.datasets import calibration_samples
from pipeline.errors import ConfigError, DataError
from pipeline.models.vocoder import Vocoder
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample


def range_of(seen, tensor, method, **settings):
    return tensor_ranges(seen, [tensor], method, **settings)[tensor]


RNG = np.random.default_rng(0)
DATA = {
    "gaussian": RNG.standard_normal(200_000),
    "heavy tails": RNG.standard_t(3, 200_000),
    "after a relu": np.maximum(RNG.standard_normal(200_000), 0),
    "swish": (x := 3 * RNG.standard_normal(200_000)) / (1 + np.exp(-x)),
    "saturated": np.clip(1.5 * RNG.standard_normal(200_000), -1, 1),
    "negative": -np.abs(RNG.laplace(size=200_000)),
}


def counts_of(*samples):
    tallies = TensorAccumulator({"t": samples[0]}, histograms=True)
    for values in samples:
        tallies.add({"t": values.astype(np.float32)}, Sample("all", {}))
    [bins] = tallies.bins()
    return bins


def statistics_of(values):
    values = values.astype(np.float32)
    low, high = np.array([values.min()]), np.array([values.max()])
    return Statistics(("all",), {"t": Measurement(low, high, values.size, counts_of(values), None)})


def histogram_of(values):
    return statistics_of(values)["t"].histogram


def squared_error(values, low, high, levels, symmetric):
    if symmetric:
        step = high / (levels // 2 - 1)
        codes = np.clip(np.round(values / step), -(levels // 2 - 1), levels // 2 - 1)
    else:
        step = (high - low) / (levels - 1)
        zero = np.round(-low / step)
        codes = np.clip(np.round(values / step) + zero, 0, levels - 1) - zero
    return float(np.mean((values - codes * step) ** 2))


def points_of(histogram):
    """The values that a histogram stands for, spread evenly over its bins, and the weight of each."""
    at = (np.arange(64) + 0.5) / 64
    values = histogram.edges[:-1, None] + np.diff(histogram.edges)[:, None] * at
    return values.ravel(), np.repeat(histogram.counts / 64, 64)


@pytest.fixture(scope="module")
def recorded(shipped):
    """Histograms of what some tensors of the shipped Vocos hold on mels of its calibration voice."""
    source = shipped("vocoder")
    model = Vocoder("vocoder", path=str(source.path), calibration_path="data/voice/calibration/manifest.jsonl")
    samples = calibration_samples(model, source, CalibrationConfig(CalibrationKind.real, samples=6), 0, RunLog())
    tensors = quantizable_tensors(source.model)[:: len(quantizable_tensors(source.model)) // 11]
    seen = collect(source.model, samples, tensors=tensors)
    return [seen[tensor].histogram for tensor in tensors]


@pytest.mark.parametrize("name", DATA)
def test_mse_of_a_symmetric_range_is_that_of_brute_force_within_a_bin(name):
    is_that_of_brute_force(histogram_of(DATA[name]))


def test_on_what_a_model_computes_mse_and_entropy_find_what_brute_force_finds(recorded):
    assert len(recorded) > 10
    for histogram in recorded:
        is_that_of_brute_force(histogram)
    for histogram in recorded[::3]:
        is_the_least_divergence(histogram)


def is_that_of_brute_force(histogram):
    _, found = mse_range(histogram, 256, symmetric=True)
    values, weights = points_of(histogram)
    edges = np.unique(np.abs(histogram.edges))
    coarse = set(range(len(edges) - 1, len(edges) - 385, -8))  # three octaves, and every bin around what was found
    near = np.searchsorted(edges, found) + np.arange(-16, 17)
    candidates = edges[sorted(coarse | {int(index) for index in near if index < len(edges)})]
    steps = candidates / 127
    errors = [weights @ (values - step * np.clip(np.round(values / step), -127, 127)) ** 2 for step in steps]
    best = candidates[np.argmin(errors)]
    assert abs(np.searchsorted(edges, best) - np.searchsorted(edges, found)) <= 1


@pytest.mark.parametrize("name", DATA)
def test_mse_of_a_symmetric_range_loses_no_more_than_the_best_of_all_thresholds(name):
    values = DATA[name]
    _, found = mse_range(histogram_of(values), 256, symmetric=True)
    thresholds = np.abs(values).max() * 2.0 ** -np.arange(0, 4, 1 / 32)
    best = min(squared_error(values, -t, t, 256, True) for t in thresholds)
    assert squared_error(values, -found, found, 256, True) <= 1.005 * best


@pytest.mark.parametrize("name", DATA)
def test_mse_of_an_asymmetric_range_is_no_worse_than_brute_force_over_both_ends(name):
    values = DATA[name]
    low, high = mse_range(histogram_of(values), 256, symmetric=False)
    shares = 2.0 ** -np.arange(0, 3, 1 / 8)
    ends = [(min(values.min(), 0) * a, max(values.max(), 0) * b) for a in shares for b in shares]
    subset = values[::10]
    best = min(set(ends), key=lambda end: squared_error(subset, *end, 256, False))
    assert squared_error(values, low, high, 256, False) <= 1.003 * squared_error(values, *best, 256, False)


def divergence_by_definition(counts, start, end, levels):
    """KL(P || Q) as the source defines it, bin by bin."""
    p = counts[start:end].copy()
    q_mass = counts[start:end]
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    q = np.zeros_like(p)
    borders = np.rint((end - start) * np.arange(levels + 1) / levels).astype(int)
    for first, last in pairwise(borders):
        filled = p[first:last] > 0
        if filled.any():
            q[first:last][filled] = q_mass[first:last].sum() / filled.sum()
    p, q = p / p.sum(), q / q.sum()
    if (q[p > 0] == 0).any():
        return np.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("symmetric", [True, False])
def test_divergence_is_that_of_its_definition(name, symmetric):
    histogram = histogram_of(DATA[name])
    seen, levels = (histogram.magnitudes(), 128) if symmetric else (histogram, 256)
    counts, zero, _ = entropy.binned(seen)
    rows = entropy.reference(counts)
    start = 0 if symmetric else zero // 2
    ends = range(max(zero + 1, start + levels), len(counts) + 1, 211)
    fast = [entropy.divergence(rows, start, end, levels) for end in ends]
    slow = [divergence_by_definition(counts, start, end, levels) for end in ends]
    np.testing.assert_allclose(fast, slow, rtol=1e-6, atol=1e-9)
    assert all(entropy.bound(rows, start, end, levels) <= value for end, value in zip(ends, fast, strict=True))


@pytest.mark.parametrize("name", DATA)
def test_the_entropy_search_finds_the_least_divergence_of_all_ends(name):
    is_the_least_divergence(histogram_of(DATA[name]))


def is_the_least_divergence(histogram):
    counts, _, width = entropy.binned(histogram.magnitudes())
    ends = entropy.candidates(len(counts), 0, 0, 128, 1)
    slow = [divergence_by_definition(counts, 0, end, 128) for end in ends]
    _, found = entropy_range(histogram, 256, symmetric=True)
    assert found == pytest.approx(ends[np.argmin(slow)] * width)
    assert np.diff(ends).min() >= -(1 + len(counts) / 128)


@pytest.mark.parametrize("name", DATA)
def test_a_histogram_in_bins_of_one_width_keeps_the_mass_below_each_edge(name):
    histogram = histogram_of(DATA[name])
    counts, zero, width = entropy.binned(histogram)
    borders = width * (np.arange(len(counts) + 1) - zero)
    mass = np.interp(borders, histogram.edges, np.concatenate(([0], np.cumsum(histogram.counts))))
    near_zero = [place for place in (zero - 1, zero) if 0 <= place < len(counts)]  # where what is exactly zero was taken out
    expected = np.diff(np.concatenate(([0], mass[1:])))
    np.testing.assert_allclose(np.delete(counts, near_zero), np.delete(expected, near_zero), atol=1e-6)
    assert (counts[near_zero] <= expected[near_zero]).all()


def test_entropy_clips_an_outlier_and_keeps_a_uniform_range():
    uniform = RNG.uniform(-1, 1, 100_000)
    outlier = np.append(RNG.standard_normal(100_000), 60.0)
    assert range_of(statistics_of(uniform), "t", Entropy(), symmetric=True).high > 0.95
    assert range_of(statistics_of(outlier), "t", Entropy(), symmetric=True).high < 20


@pytest.mark.parametrize("percentile", [99, 99.9, 99.99])
@pytest.mark.parametrize("name", DATA)
def test_a_percentile_is_within_half_a_percent(name, percentile):
    values, seen = DATA[name], statistics_of(DATA[name])
    outside = (1 - percentile / 100) / 2
    low, high = np.quantile(values, [outside, 1 - outside], method="inverted_cdf")
    found = range_of(seen, "t", Percentile(percentile))
    assert found.low == pytest.approx(min(low, 0), rel=0.005, abs=1e-3)
    assert found.high == pytest.approx(max(high, 0), rel=0.005, abs=1e-3)
    largest = np.quantile(np.abs(values), percentile / 100, method="inverted_cdf")
    assert range_of(seen, "t", Percentile(percentile), symmetric=True).high == pytest.approx(largest, rel=0.005)


def test_a_moving_average_follows_the_samples():
    lows, highs = np.array([-1, -3, -1], np.float32), np.array([2, 2, 6], np.float32)
    seen = Statistics(("a", "b", "c"), {"t": Measurement(lows, highs, 3, None, None)})
    found = range_of(seen, "t", MovingAverage(0.5))
    assert (found.low, found.high) == (-1.5, 4)


@pytest.mark.parametrize(
    "method", [MinMax(), MovingAverage(), Percentile(), Entropy(), MeanSquaredError()], ids=lambda method: type(method).__name__
)
@pytest.mark.parametrize("values", [np.zeros(50), np.full(50, 2.5), np.full(50, -2.5), np.array([1e-30, 0, 3e38])], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_ranges_include_zero_whatever_was_seen(method, values, symmetric):
    found = range_of(statistics_of(values), "t", method, symmetric=symmetric)
    assert found.low <= 0 <= found.high
    assert np.isfinite([found.low, found.high]).all()
    if symmetric:
        assert found.low == -found.high


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", [MinMax(), Percentile(99.9), Entropy(), MeanSquaredError()], ids=lambda m: type(m).__name__)
def test_ranges_of_many_tensors_are_those_of_each(method, symmetric):
    scales = 10.0 ** np.arange(-6, 6)
    parts = {f"{name} * {scale}": statistics_of(scale * DATA[name]).measured["t"] for name in DATA for scale in scales}
    seen = Statistics(("all",), parts)
    together = tensor_ranges(seen, list(parts), method, symmetric=symmetric)
    assert together == {name: range_of(seen, name, method, symmetric=symmetric) for name in parts}


def test_what_was_not_collected_is_refused():
    extremes = np.zeros(1, np.float32)
    seen = Statistics(("a",), {"t": Measurement(extremes, extremes, 1, None, None)})
    with pytest.raises(DataError, match="histograms=True"):
        range_of(seen, "t", Percentile())
    with pytest.raises(DataError, match="'u'"):
        range_of(seen, "u", MinMax())


@pytest.mark.parametrize("wrong", [lambda: Percentile(50), lambda: Percentile(100.1), lambda: MovingAverage(1)])
def test_settings_outside_their_limits_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


def test_merged_counts_do_not_depend_on_the_order_of_scales():
    small, large = RNG.standard_normal(1000) / 1000, RNG.standard_normal(1000)
    together = counts_of(np.concatenate((large, small)))
    for first, second in ((small, large), (large, small)):
        for merged in (counts_of(first).merge(counts_of(second)), counts_of(first, second)):
            assert merged.exponent == together.exponent
            np.testing.assert_array_equal(merged.counts.sum(axis=1), together.counts.sum(axis=1))
            np.testing.assert_array_equal(merged.counts[1:], together.counts[1:])


def test_counts_of_more_values_than_32_bits_hold_are_kept_apart_and_added(monkeypatch):
    parts = [RNG.standard_normal(1000) * scale for scale in (1, 100, 0.01, 3, 1)]
    expected = counts_of(np.concatenate(parts))
    monkeypatch.setattr("pipeline.calibration.accumulator.LARGEST_COUNT", 2500)
    found = counts_of(*parts)
    assert (found.exponent, found.counts.sum()) == (expected.exponent, 5000)
    np.testing.assert_array_equal(found.counts[1:], expected.counts[1:])


@pytest.mark.parametrize("size", [1, 7, 1024, 1025, 5000])
def test_every_value_is_counted_between_the_edges_it_lies_between(size):
    values = (RNG.standard_normal(size) * 10.0 ** RNG.integers(-6, 3, size)).astype(np.float32)
    values[::5] = 0
    values[::7] = -0.0
    seen = statistics_of(values)["t"].histogram
    edges = np.concatenate(([-np.inf], seen.edges[1:-1], [np.inf]))
    # a bin ends at the edge further from zero, which it does not hold
    negative = np.histogram(-values[values < 0], -edges[::-1])[0][::-1]
    expected = np.histogram(values[values >= 0], edges)[0] + negative
    np.testing.assert_array_equal(seen.counts, expected)
