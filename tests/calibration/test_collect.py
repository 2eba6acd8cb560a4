"""Collecting statistics: exact extremes, close histograms, constant memory, precise errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from pipeline.calibration import collect as engine
from pipeline.calibration.collect import collect
from pipeline.calibration.derived_tensors import Inferred, infer, quantizable_tensors
from pipeline.calibration.range_selection import Entropy, MeanSquaredError, MinMax, MovingAverage, Percentile, tensor_ranges
from pipeline.calibration.segments import SegmentedGraph, cut
from pipeline.errors import DataError, ModelError
from pipeline.sample import Sample


def range_of(seen, tensor, method, **settings):
    return tensor_ranges(seen, [tensor], method, **settings)[tensor]


VOCOS = Path(__file__).parents[2] / "data" / "models" / "vocoder" / "vocos.onnx"
METHODS = [MinMax(), MovingAverage(), Percentile(99.99), Entropy(), MeanSquaredError()]


def mels(number):
    rng = np.random.default_rng(1)
    lengths = rng.integers(40, 90, number)
    return [
        Sample(f"mel-{index}", {"mels": rng.normal(-5, 2, (1, 80, length)).astype(np.float32)})
        for index, length in enumerate(lengths)
    ]


def test_minimum_and_maximum_are_those_of_all_intermediate_values(graph, samples, every_value):
    tensors = quantizable_tensors(graph)
    seen = collect(graph, samples, tensors=tensors)
    for tensor, values in every_value(graph, samples, tensors).items():
        assert seen[tensor].sample_low.tolist() == [value.min() for value in values], tensor
        assert seen[tensor].sample_high.tolist() == [value.max() for value in values], tensor
        assert seen[tensor].count == sum(value.size for value in values), tensor


def test_minimum_and_maximum_of_a_real_vocoder_are_exact(every_value):
    model, samples = onnx.load(VOCOS), mels(4)
    tensors = quantizable_tensors(model)
    seen = collect(model, samples, tensors=tensors, histograms=False)
    for tensor, values in every_value(model, samples, tensors).items():
        assert seen[tensor].low == min(value.min() for value in values), tensor
        assert seen[tensor].high == max(value.max() for value in values), tensor


def test_percentiles_are_within_half_a_percent_of_those_of_all_values(graph, samples, every_value):
    tensors = quantizable_tensors(graph)
    seen = collect(graph, samples, tensors=tensors)
    for tensor, parts in every_value(graph, samples, tensors).items():
        values = np.concatenate(parts)
        for percentile in (99.0, 99.9, 99.99):
            outside = (1 - percentile / 100) / 2
            low, high = np.quantile(values, [outside, 1 - outside], method="inverted_cdf")
            found = range_of(seen, tensor, Percentile(percentile))
            assert found.low == pytest.approx(min(low, 0), rel=0.005, abs=1e-3), (tensor, percentile)
            assert found.high == pytest.approx(max(high, 0), rel=0.005, abs=1e-3), (tensor, percentile)


def test_large_tensors_of_several_samples_are_counted_whole():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N] x) => (float[N] y) { y = Sin (x) }""")
    rng = np.random.default_rng(3)
    arrays = [rng.uniform(0.5, 2) * rng.standard_t(4, 700_000).astype(np.float32) for _ in range(5)]
    seen = collect(model, [Sample(str(i), {"x": array}) for i, array in enumerate(arrays)], tensors=["x", "y"])
    values = np.concatenate(arrays)
    assert (seen["x"].low, seen["x"].high, seen["x"].count) == (values.min(), values.max(), values.size)
    assert seen["x"].histogram.counts.sum() == values.size
    for percentile in (99.0, 99.9, 99.99, 99.999):
        outside = (1 - percentile / 100) / 2
        low, high = np.quantile(values, [outside, 1 - outside], method="inverted_cdf")
        found = range_of(seen, "x", Percentile(percentile))
        assert (found.low, found.high) == (pytest.approx(low, rel=0.005), pytest.approx(high, rel=0.005)), percentile


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_every_method_takes_24_utterances_of_different_lengths(graph, samples, method):
    assert len({sample.inputs["x"].shape for sample in samples}) > 20
    seen = collect(graph, samples, tensors=quantizable_tensors(graph))
    for tensor in quantizable_tensors(graph):
        found = range_of(seen, tensor, method)
        assert seen[tensor].low - 0.05 <= found.low <= 0 <= found.high <= seen[tensor].high + 0.05
        assert found.high > found.low


def test_segments_change_no_extreme_and_no_count(graph, samples, monkeypatch):
    tensors = quantizable_tensors(graph)
    whole = collect(graph, samples, tensors=tensors)
    monkeypatch.setattr(engine, "SEGMENT_BYTES", 1)
    cut = collect(graph, samples, tensors=tensors)
    for tensor in tensors:
        np.testing.assert_array_equal(cut[tensor].sample_low, whole[tensor].sample_low)
        np.testing.assert_array_equal(cut[tensor].histogram.counts, whole[tensor].histogram.counts)


def test_sizes_that_only_a_run_tells_cut_the_graph_anew_and_nothing_is_counted_twice(monkeypatch):
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[1] x, int64[1] times) => (float[N] y) {
        a = Expand (x, times)  b = Sin (a)  c = Cos (b)  d = Mul (b, c)  y = Tanh (d)
    }""")
    samples = [Sample(str(n), {"x": np.array([n], np.float32), "times": np.array([n * 10_000])}) for n in (7, 3, 5)]
    tensors = ["x", "a", "b", "c", "d", "y"]
    whole = collect(model, samples, tensors=tensors)
    monkeypatch.setattr(engine, "SEGMENT_BYTES", 100_000)  # three are guessed to fit, at 280,000 each
    cuts, recut = [], SegmentedGraph.recut
    monkeypatch.setattr(SegmentedGraph, "recut", lambda self: cuts.append(recut(self)) or cuts[-1])
    seen = collect(model, samples, tensors=tensors)
    assert cuts == [True, False, False, False]
    for tensor in tensors:
        np.testing.assert_array_equal(seen[tensor].sample_high, whole[tensor].sample_high)
        np.testing.assert_array_equal(seen[tensor].histogram.counts, whole[tensor].histogram.counts)


def test_a_graph_is_cut_where_its_measured_tensors_exceed_the_budget_and_types_are_known(graph):
    sizes = dict.fromkeys(["c", "m", "y"], 100)
    types = infer(graph)
    assert [segment.measured for segment in cut(graph, sizes, 1, types)] == [("c",), ("m",), ("y",)]
    assert [segment.measured for segment in cut(graph, sizes, 200, types)] == [("c", "m"), ("y",)]
    assert [segment.measured for segment in cut(graph, sizes, 1, types | {"back": Inferred(0)})] == [("c", "m"), ("y",)]


def test_tensors_that_follow_from_others_are_not_measured(graph, samples):
    seen = collect(graph, samples, tensors=quantizable_tensors(graph))
    assert set(seen.measured) == {"x", "c", "s", "m", "y"}
    assert {"leaky", "t", "back", "r", "clipped"} <= set(seen.images)


def test_what_follows_from_a_weight_is_measured_itself():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N] x) => (float[N] y) <float[1] w = {-3}> { positive = Relu (w)  y = Add (x, positive) }""")
    seen = collect(model, [Sample("one", {"x": np.ones(4, np.float32)})], tensors=["positive", "y"])
    assert (seen["positive"].low, seen["positive"].high, seen["y"].high) == (0, 0, 1)


def test_a_constant_is_one_in_every_segment(monkeypatch):
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    agraph (float[T, 3] x, float[1, 3] start) => (float[1, 3] last, float[T, 1, 3] y) {
        axis = Constant <value = int64[1] {0}> ()
        scaled = Mul (x, x)
        last, sums = Scan <num_scan_inputs = 1, body = step (state, value) => (next, out) {
            row = Unsqueeze (value, axis)  next = Add (state, row)  out = Identity (next)
        }> (start, scaled)
        y = Tanh (sums)
    }""")
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    samples = [Sample(str(rows), {"x": x[:rows], "start": np.zeros((1, 3), np.float32)}) for rows in (4, 2)]
    monkeypatch.setattr(SegmentedGraph, "join", lambda self: False)  # nothing makes up for it
    monkeypatch.setattr(engine, "SEGMENT_BYTES", 1)
    seen = collect(model, samples, tensors=["scaled", "sums", "y"])
    assert seen["scaled"].sample_high.tolist() == [121, 25]
    assert seen["sums"].sample_high.tolist() == [(x[:rows] ** 2).sum(axis=0).max() for rows in (4, 2)]


def test_a_graph_that_does_not_run_in_segments_runs_whole(monkeypatch):
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    agraph (float[4, 3] x, float[3] start) => (float[3] last, float[4, 3] y) {
        scaled = Mul (x, x)
        shape = Shape (start)
        last, sums = Scan <num_scan_inputs = 1, body = step (state, value) => (next, out) {
            sum = Add (state, value)  next = Reshape (sum, shape)  out = Identity (next)
        }> (start, scaled)
        y = Tanh (sums)
    }""")
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    samples = [Sample(str(factor), {"x": factor * x, "start": np.zeros(3, np.float32)}) for factor in (1, 2)]
    monkeypatch.setattr(engine, "SEGMENT_BYTES", 1)
    joined, join = [], SegmentedGraph.join
    monkeypatch.setattr(SegmentedGraph, "join", lambda self: joined.append(join(self)) or joined[-1])
    seen = collect(model, samples, tensors=["scaled", "sums", "y"])
    assert joined == [True]
    assert seen["scaled"].sample_high.tolist() == [121, 484]
    assert seen["sums"].sample_high.tolist() == [(x**2).sum(axis=0).max(), 4 * (x**2).sum(axis=0).max()]
    assert seen["sums"].count == 24


def test_folded_and_fused_tensors_are_measured():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {1, -2, 3, -4, 5, -6}, float[2] b = {1, 2}>
    {
        product = MatMul (x, w)
        sum = Add (product, b)
        same = Identity (sum)
        y = Relu (same)
    }""")
    sample = Sample("one", {"x": np.array([[1, 2, 3], [-1, 0, 1]], np.float32)})
    seen = collect(model, [sample], tensors=["product", "sum", "same", "y"])
    assert (seen["product"].low, seen["product"].high) == (-28, 22)
    assert (seen["same"].low, seen["same"].high) == (-26, 23)
    assert (seen["y"].low, seen["y"].high) == (0, 23)


def test_a_value_that_is_not_finite_is_refused_by_sample_tensor_and_position(graph, make_samples):
    samples = make_samples(3)
    samples[1].inputs["x"][0, 2, 7] = np.nan
    with pytest.raises(DataError, match=r"'utterance-1': tensor 'x' is nan at \[0, 2, 7\]"):
        collect(graph, samples, tensors=["y"])


def test_an_infinity_within_the_graph_is_refused_where_it_arises():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N] x) => (float[N] y) { e = Exp (x)  y = Sigmoid (e) }""")
    samples = [Sample("quiet", {"x": np.zeros(3, np.float32)}), Sample("loud", {"x": np.array([0, 1000], np.float32)})]
    with pytest.raises(DataError, match=r"'loud': tensor 'e' is inf at \[1\]"):
        collect(model, samples, tensors=["e", "y"])


MASKED = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N] x, bool[N] keep) => (float[N] y) <float mask = {-inf}>
{ scaled = Exp (x)  masked = Where (keep, scaled, mask)  y = Softmax (masked) }"""


def masked_model():
    model = parser.parse_model(MASKED.replace("{-inf}", "{0}"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "mask"))
    return model


def test_infinities_that_the_graph_masks_with_end_no_run_and_have_no_range():
    keep = np.array([True, False, True])
    samples = [Sample("one", {"x": np.array([1, 2, 3], np.float32), "keep": keep})]
    seen = collect(masked_model(), samples, tensors=["scaled", "masked", "y"])
    assert (seen["y"].low, seen["masked"].low, seen["masked"].high) == (0, -np.inf, np.exp(np.float32(3)))
    for method in METHODS:
        assert range_of(seen, "y", method).high > 0
        with pytest.raises(DataError, match=r"'masked' holds -inf, with which the graph masks"):
            range_of(seen, "masked", method)


@pytest.mark.parametrize("size", [3, 3001])
def test_where_extremes_alone_are_wanted_masks_and_values_that_are_not_finite_are_told_apart(size):
    x, keep = np.linspace(1, 3, size, dtype=np.float32), np.arange(size) % 2 == 0
    tensors = ["scaled", "masked", "y"]
    seen = collect(masked_model(), [Sample("one", {"x": x, "keep": keep})], tensors=tensors, histograms=False)
    assert (seen["masked"].low, seen["masked"].high) == (-np.inf, pytest.approx(np.exp(3), rel=1e-6))
    assert seen["scaled"].low == pytest.approx(np.exp(1), rel=1e-6)
    x[1] = 1000
    with pytest.raises(DataError, match=r"'one': tensor 'scaled' is inf at \[1\]"):
        collect(masked_model(), [Sample("one", {"x": x, "keep": keep})], tensors=tensors, histograms=False)


@pytest.mark.parametrize(("wrong", "tensor"), [(1000.0, "scaled"), (np.nan, "x")])
def test_a_mask_hides_no_value_that_overflows(wrong, tensor):
    inputs = {"x": np.array([1, wrong, 3], np.float32), "keep": np.ones(3, bool)}
    with pytest.raises(DataError, match=rf"'one': tensor '{tensor}' is .* at \[1\]"):
        collect(masked_model(), [Sample("one", inputs)], tensors=["scaled", "masked", "y"])


def test_unknown_and_integer_tensors_are_refused_by_name(graph, samples):
    with pytest.raises(ModelError, match=r"'clippd'.*clipped"):
        collect(graph, samples, tensors=["clippd"])
    with pytest.raises(ModelError, match="'length' holds int64"):
        collect(graph, samples, tensors=["length"])


def test_a_sample_that_does_not_fit_the_graph_is_named(graph, samples):
    odd = Sample("odd", {"x": np.zeros((1, 5, 9), np.float32), "length": np.array([9])})
    with pytest.raises(DataError, match="'odd'"):
        collect(graph, [*samples[:2], odd], tensors=["y"])
    with pytest.raises(DataError, match="The calibration set is empty"):
        collect(graph, [], tensors=["y"])


def test_a_generator_is_read_once_and_progress_is_told(graph, samples):
    reads, done = [], []

    def stream():
        reads.append(1)
        yield from samples[:5]

    collect(graph, stream, tensors=["y"], on_sample=done.append)
    assert (reads, done) == ([1], [1, 2, 3, 4, 5])


def test_channels_have_their_own_extremes_and_means(graph, samples, every_value):
    seen = collect(graph, samples, tensors=["y"], channel_axes={"c": 1}, histograms=False)["c"].channels
    values = np.concatenate([value.reshape(6, -1) for value in every_value(graph, samples, ["c"])["c"]], axis=1)
    np.testing.assert_array_equal(seen.low, values.min(axis=1))
    np.testing.assert_array_equal(seen.high, values.max(axis=1))
    np.testing.assert_allclose(seen.mean, values.mean(axis=1, dtype=np.float64), rtol=1e-6)


def test_a_graph_that_draws_noise_has_the_same_statistics_for_a_seed():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N] x) => (float[N] y) { noise = RandomNormalLike (x)  y = Mul (x, noise) }""")
    samples = [Sample("one", {"x": np.ones(1000, np.float32)})]
    first, again, other = (collect(model, samples, tensors=["y"], seed=seed)["y"] for seed in (3, 3, 4))
    assert first.high == again.high != other.high


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_memory_does_not_grow_with_the_number_of_samples():
    def peak(number):
        program = f"""
import resource
import numpy as np
import onnx
from pipeline.calibration.collect import collect
from pipeline.calibration.segments import cut
from pipeline.calibration.derived_tensors import infer, quantizable_tensors
from pipeline.sample import Sample
rng = np.random.default_rng(0)
lengths = [90, 40, 60, 75, 50, 85, 45, 70] * {number // 8}
model = onnx.load({str(VOCOS)!r})
samples = (Sample(str(n), {{"mels": rng.normal(-5, 2, (1, 80, n)).astype(np.float32)}}) for n in lengths)
collect(model, lambda: samples, tensors=quantizable_tensors(model))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
        root = Path(__file__).parents[2]
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
        return int(run.stdout)

    assert peak(128) <= 1.05 * peak(8)
