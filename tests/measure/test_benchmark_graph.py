"""The benchmark of real models: what it finds, and what it refuses to time."""

import dataclasses
import json

import numpy as np
import pytest

from pipeline.errors import StageError
from pipeline.measure.benchmark_graph import benchmark_graph, benchmark_warnings, pick_lengths, steps_of
from pipeline.measure.benchmark_result import Speedup

QUICK = {"min_pairs": 12, "min_seconds": 0.3, "warmup_seconds": 0.3, "rounds": 3}


@pytest.fixture(scope="module")
def result(chains, noise):
    """Return the benchmark of ten products against five, at three lengths, with the check against itself."""
    five, ten = chains
    samples = [noise(frames) for frames in (400, 100, 200)]
    return benchmark_graph(ten, five, samples, audio_seconds=[4.0, 1.0, 2.0], self_check=True, **QUICK)


def test_half_the_work_takes_about_half_the_time(result):
    assert 1.4 < result.speedup.median < 2.8  # wide: the machine that runs the tests may be busy
    assert result.speedup.low <= result.speedup.median <= result.speedup.high
    assert result.verdict == result.speedup.verdict


def test_a_model_against_itself_takes_about_the_same_time(result):
    assert 0.7 < result.self_check.median < 1.4


def test_at_least_so_many_pairs_were_timed(result):
    assert result.pairs >= 12
    assert result.rounds == 3


def test_latency_is_given_per_length(result):
    assert {label: latency.sample for label, latency in result.lengths.items()} == {
        "short": "frames-100",
        "median": "frames-200",
        "long": "frames-400",
    }
    short, long = result.lengths["short"], result.lengths["long"]
    assert long.baseline_ms > 1.5 * short.baseline_ms
    assert (long.audio_seconds, long.elements) == (4.0, 400 * 160)
    assert result.quantized_ms.p50 <= result.quantized_ms.p90 <= result.quantized_ms.p99


def test_the_real_time_factor_is_processing_time_over_audio_time(result):
    before, after = (
        sum(getattr(latency, side) for latency in result.lengths.values()) for side in ("baseline_ms", "quantized_ms")
    )
    assert result.baseline_rtf == pytest.approx(before / 1000 / 7.0)
    assert result.rtf == pytest.approx(after / 1000 / 7.0)


def test_load_and_first_run_take_time_and_memory_is_more_than_the_library_takes(result):
    assert result.baseline_load_ms > 0 < result.quantized_load_ms
    assert result.baseline_first_run_ms > 0 < result.quantized_first_run_ms
    assert result.runtime_peak_bytes > 20_000_000
    assert result.runtime_peak_bytes < result.quantized_peak_bytes


def test_the_result_is_the_json_that_the_report_promises(result):
    report = json.loads(json.dumps(dataclasses.asdict(result)))
    assert set(report["baseline_ms"]) == set(report["quantized_ms"]) == {"p50", "p90", "p99"}
    assert set(report["speedup"]) == set(report["self_check"]) == {"median", "low", "high"}
    assert report["verdict"] in {"faster", "slower", "same"}
    assert report["threads"] == 1
    assert all(isinstance(report[f"{role}_peak_bytes"], int) for role in ("baseline", "quantized"))


def test_nothing_is_left_behind_but_the_empty_lock(chains, temporary_directory, noise):
    found = benchmark_graph(*chains, [noise(50)], min_pairs=1, min_seconds=0.0, warmup_seconds=0.0)
    assert (found.rtf, found.self_check, set(found.lengths)) == (None, None, {"median"})
    assert [path.stat().st_size for path in temporary_directory.iterdir()] == [0]


def test_a_model_that_gives_nan_is_not_timed(chains, tmp_path, matmul_chain, noise):
    broken = matmul_chain(tmp_path / "broken.onnx", 5, op="Sqrt")  # of negative numbers
    with pytest.raises(StageError, match=r"broken\.onnx.*output 0 of the quantized model holds NaN"):
        benchmark_graph(chains[0], broken, [noise(50)], **QUICK)


def test_a_model_that_refuses_the_sample_is_not_timed(chains, noise):
    with pytest.raises(StageError, match=r"ten\.onnx against five\.onnx was given up, nothing was timed.*another"):
        benchmark_graph(*chains, [noise(50, name="another")], **QUICK)


def test_a_file_that_is_no_model_is_not_timed(chains, tmp_path, noise):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(StageError, match=r"text\.onnx"):
        benchmark_graph(chains[0], tmp_path / "text.onnx", [noise(50)], **QUICK)


def test_a_benchmark_without_samples_is_refused(chains):
    with pytest.raises(StageError, match="at least one sample"):
        benchmark_graph(*chains, [])


def test_lengths_are_picked_by_audio_or_else_by_the_size_of_the_inputs(noise):
    samples = [noise(frames) for frames in (30, 10, 20, 50, 40)]
    assert pick_lengths(samples) == {"short": 1, "median": 0, "long": 3}
    assert pick_lengths(samples, [5.0, 4.0, 3.0, 2.0, 1.0]) == {"short": 4, "median": 2, "long": 0}


def test_a_machine_that_is_too_busy_to_tell_is_named_in_a_warning():
    quiet = {"others_cores": 0.1, "cores": 4, "warm_rounds": 6, "rounds": 6}
    narrow, wide = Speedup(1.5, 1.47, 1.53), Speedup(1.5, 1.2, 1.8)
    assert benchmark_warnings(narrow, None, quiet, threads=4) == []
    assert benchmark_warnings(narrow, None, quiet | {"others_cores": 2.9}, threads=1) == []  # a core was free
    assert benchmark_warnings(narrow, None, quiet | {"others_cores": None}, threads=4) == []  # too brief to tell
    (busy,) = benchmark_warnings(narrow, None, quiet | {"others_cores": 2.9}, threads=2)
    assert busy.startswith("Other programs kept 2.9 of 4 cores busy")
    (noisy,) = benchmark_warnings(wide, None, quiet, threads=1)
    assert noisy.startswith("The interval of the speed-up, 1.20 to 1.80, is too wide")
    (cold,) = benchmark_warnings(narrow, None, quiet | {"warm_rounds": 2}, threads=1)
    assert "time for warm-up was over" in cold
    (biased,) = benchmark_warnings(narrow, Speedup(1.05, 1.02, 1.08), quiet, threads=1)
    assert "1.050 times as fast as itself" in biased


def test_rounds_end_where_the_interval_is_narrow_and_go_on_where_it_is_not(chains, noise):
    """Of a million percent, any interval is narrower; none has no width at all."""
    settings = {"min_pairs": 12, "min_seconds": 0.0, "warmup_seconds": 0.0, "rounds": 6}
    steps = []
    narrow = benchmark_graph(*chains, [noise(50)], interval=1e4, on_step=lambda: steps.append(None), **settings)
    wide = benchmark_graph(*chains, [noise(50)], interval=1e-9, **settings)
    assert (narrow.rounds, narrow.pairs) == (4, 8)
    assert (wide.rounds, wide.pairs) == (6, 12)
    assert len(steps) == steps_of(min_pairs=12, rounds=6, self_check=False, trace=False)


def test_a_length_that_occurs_once_is_named_once(noise):
    assert set(pick_lengths([noise(10), noise(10), noise(10)])) == {"median"}
    assert set(pick_lengths([noise(10), noise(20)])) == {"short", "long"}
    assert set(pick_lengths([noise(10), noise(10), noise(20)])) == {"short", "long"}


def test_audio_lengths_must_be_as_many_as_samples(noise):
    with pytest.raises(StageError, match="2 samples, but audio lengths of 1"):
        pick_lengths([noise(10), noise(20)], np.array([1.0]))
