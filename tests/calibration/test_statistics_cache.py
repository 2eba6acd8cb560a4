"""The cache: found again when nothing has changed, never trusted when anything has."""

import multiprocessing
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.calibration import statistics_cache
from pipeline.calibration.statistics import Statistics
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import IntegerType, RangeMethod
from pipeline.config.mode_settings import StaticConfig
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.sample import Sample

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(monkeypatch):
    """How often the model was run over the calibration set."""
    collected = []
    collect = statistics_cache.engine.collect

    def counting(*args, **kwargs):
        collected.append(1)
        return collect(*args, **kwargs)

    monkeypatch.setattr(statistics_cache.engine, "collect", counting)
    return collected


def test_the_same_question_runs_the_model_once(graph, samples, tmp_path, runs):
    first = cached_statistics(graph, samples, directory=tmp_path)
    second = cached_statistics(graph, lambda: iter(samples), directory=tmp_path)
    assert len(runs) == 1
    for tensor in (*first.measured, *first.images):
        np.testing.assert_array_equal(first[tensor].sample_low, second[tensor].sample_low)
        np.testing.assert_array_equal(first[tensor].histogram.edges, second[tensor].histogram.edges)
        np.testing.assert_array_equal(first[tensor].histogram.counts, second[tensor].histogram.counts)


def test_every_method_and_type_is_derived_from_one_run_of_the_model(graph, samples, tmp_path, runs, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    modes = [StaticConfig(method=method) for method in RangeMethod]
    modes += [StaticConfig(method=RangeMethod.mse, activation_type=kind) for kind in (IntegerType.int8, IntegerType.uint16)]
    found = []
    for mode, tensors in product(modes, (["y"], ["c", "leaky", "m"])):
        found.append(measured_ranges(graph, samples, tensors, mode, threads=1, seed=0, on_sample=lambda _: None))
    assert len(runs) == 1
    assert len({ranges["y"] for ranges in found if "y" in ranges}) > 4


def test_layers_alone_are_measured_where_nothing_else_is_asked_for(graph, samples, tmp_path, runs):
    around = cached_statistics(graph, samples, needed=["x", "c"], directory=tmp_path)
    assert {*around.measured, *around.images} == {"x", "c", "leaky", "t", "back", "r", "clipped"}
    cached_statistics(graph, samples, needed=["clipped"], directory=tmp_path)
    cached_statistics(graph, samples, needed=["x"], directory=tmp_path)
    assert len(runs) == 1


def test_what_is_asked_for_beyond_layers_is_measured_with_everything_once(graph, samples, tmp_path, runs):
    around = cached_statistics(graph, samples, needed=["x", "c"], directory=tmp_path)
    everything = cached_statistics(graph, samples, needed=["c", "m"], directory=tmp_path)
    assert {*everything.measured} >= {*around.measured, "s", "m", "y"}
    for needed in (["s"], ["x"], None):
        again = cached_statistics(graph, samples, needed=needed, directory=tmp_path)
        assert again.measured.keys() == everything.measured.keys()
    assert len(runs) == 2
    for tensor in (*around.measured, *around.images):
        np.testing.assert_array_equal(around[tensor].sample_high, everything[tensor].sample_high)
        np.testing.assert_array_equal(around[tensor].histogram.counts, everything[tensor].histogram.counts)


def changed_weight(graph, samples):
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    bias = next(initializer for initializer in other.graph.initializer if initializer.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(6, np.float32), "b"))
    return other, samples


def changed_value(graph, samples):
    x = samples[3].inputs["x"].copy()
    x[0, 1, 2] += 0.001
    return graph, [*samples[:3], Sample("utterance-3", {**samples[3].inputs, "x": x}), *samples[4:]]


def fewer_samples(graph, samples):
    return graph, samples[:-1]


@pytest.mark.parametrize("change", [changed_weight, changed_value, fewer_samples], ids=lambda change: change.__name__)
def test_another_model_or_sample_is_collected_anew(graph, samples, tmp_path, runs, change):
    cached_statistics(graph, samples, directory=tmp_path)
    cached_statistics(*change(graph, samples), directory=tmp_path)
    assert len(runs) == 2


@pytest.mark.parametrize("setting", [{"seed": 1}, {"threads": 2}, {"channel_axes": {"c": 1}}], ids=str)
def test_another_setting_is_collected_anew(graph, samples, tmp_path, runs, setting):
    cached_statistics(graph, samples, directory=tmp_path)
    cached_statistics(graph, samples, directory=tmp_path, **setting)
    assert len(runs) == 2


def test_another_library_or_engine_version_is_collected_anew(graph, samples, tmp_path, runs, monkeypatch):
    cached_statistics(graph, samples, directory=tmp_path)
    monkeypatch.setattr(statistics_cache.onnxruntime, "__version__", "0.0")
    cached_statistics(graph, samples, directory=tmp_path)
    monkeypatch.setattr(statistics_cache, "ENGINE_VERSION", 0)
    cached_statistics(graph, samples, directory=tmp_path)
    assert len(runs) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_collected_anew_and_replaced(graph, samples, tmp_path, runs, damage):
    good = cached_statistics(graph, samples, directory=tmp_path)
    (entry,) = tmp_path.glob("*.statistics")
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes({"cut": content[:-100], "flip": content, "empty": b""}[damage])
    again = cached_statistics(graph, samples, directory=tmp_path)
    assert len(runs) == 2
    assert again["y"].high == good["y"].high
    cached_statistics(graph, samples, directory=tmp_path)
    assert len(runs) == 2


def test_a_killed_run_leaves_no_entry(graph, tmp_path):
    onnx.save(graph, tmp_path / "model.onnx")
    program = f"""
import time
from itertools import product
from pathlib import Path
import numpy as np
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.sample import Sample
x = np.ones((1, 4, 500), np.float32)
samples = [Sample(str(i), {{"x": x * i, "length": np.array([500])}}) for i in range(100)]
def tell(done):
    print(done, flush=True)
    time.sleep(0.2)
cached_statistics(Path({str(tmp_path / "model.onnx")!r}), samples, directory=Path({str(tmp_path / "cache")!r}), on_sample=tell)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout.readline() == b"1\n"
        run.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("cache/*.statistics"))


def test_writing_that_fails_leaves_nothing_behind(graph, samples, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    seen = cached_statistics(graph, samples, directory=tmp_path)
    assert seen["y"].count > 0
    assert not list(tmp_path.iterdir())
    assert "No space left" in caplog.text


def write_and_read(directory: Path, number: int) -> int:
    """Write the same entry again and again while others read it; return how many reads found it damaged."""
    entry = directory / "entry.statistics"
    content = np.full(5000, number, np.float32)
    statistics = Statistics(("one",), {}, {})
    damaged, until = 0, time.monotonic() + 1
    while time.monotonic() < until:
        statistics_cache.write_entry(entry, statistics)
        damaged += statistics_cache.read_entry(entry) is None
    return damaged + int(content[0] != number)


def test_concurrent_runs_share_an_entry(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(write_and_read, [(tmp_path, 0), (tmp_path, 1)]) == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_place_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert statistics_cache.default_directory().is_relative_to(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert statistics_cache.default_directory().is_relative_to(Path.home() / ".cache")
