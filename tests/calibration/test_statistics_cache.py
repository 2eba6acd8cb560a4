"""The cache: found again when nothing has changed, never trusted when anything has."""

import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.cache import cache_key
from pipeline.cache.current_cache import CacheConfig, using
from pipeline.cache.kinds import Kind
from pipeline.calibration import statistics_cache
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import IntegerType, RangeMethod
from pipeline.config.mode_settings import StaticConfig
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.sample import Sample

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path):
    """Use a cache of this test's own."""
    with using(CacheConfig(dir=str(tmp_path / "cache"))) as cache:
        yield cache


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


def test_the_same_question_runs_the_model_once(graph, samples, runs):
    first = cached_statistics(graph, samples)
    second = cached_statistics(graph, lambda: iter(samples))
    assert len(runs) == 1
    for tensor in (*first.measured, *first.images):
        np.testing.assert_array_equal(first[tensor].sample_low, second[tensor].sample_low)
        np.testing.assert_array_equal(first[tensor].histogram.edges, second[tensor].histogram.edges)
        np.testing.assert_array_equal(first[tensor].histogram.counts, second[tensor].histogram.counts)


def test_every_method_and_type_is_derived_from_one_run_of_the_model(graph, samples, runs):
    modes = [StaticConfig(method=method) for method in RangeMethod]
    modes += [StaticConfig(method=RangeMethod.mse, activation_type=kind) for kind in (IntegerType.int8, IntegerType.uint16)]
    found = []
    for mode, tensors in product(modes, (["y"], ["c", "leaky", "m"])):
        found.append(measured_ranges(graph, samples, tensors, mode, threads=1, seed=0, on_sample=lambda _: None))
    assert len(runs) == 1
    assert len({ranges["y"] for ranges in found if "y" in ranges}) > 4


def test_layers_alone_are_measured_where_nothing_else_is_asked_for(graph, samples, runs):
    around = cached_statistics(graph, samples, needed=["x", "c"])
    assert {*around.measured, *around.images} == {"x", "c", "leaky", "t", "back", "r", "clipped"}
    cached_statistics(graph, samples, needed=["clipped"])
    cached_statistics(graph, samples, needed=["x"])
    assert len(runs) == 1


def test_what_is_asked_for_beyond_layers_is_measured_with_everything_once(graph, samples, runs):
    around = cached_statistics(graph, samples, needed=["x", "c"])
    everything = cached_statistics(graph, samples, needed=["c", "m"])
    assert {*everything.measured} >= {*around.measured, "s", "m", "y"}
    for needed in (["s"], ["x"], None):
        again = cached_statistics(graph, samples, needed=needed)
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
def test_another_model_or_sample_is_collected_anew(graph, samples, runs, change):
    cached_statistics(graph, samples)
    cached_statistics(*change(graph, samples))
    assert len(runs) == 2


@pytest.mark.parametrize("setting", [{"seed": 1}, {"threads": 2}, {"channel_axes": {"c": 1}}], ids=str)
def test_another_setting_is_collected_anew(graph, samples, runs, setting):
    cached_statistics(graph, samples)
    cached_statistics(graph, samples, **setting)
    assert len(runs) == 2


def test_another_library_or_engine_version_is_collected_anew(graph, samples, runs, monkeypatch):
    cached_statistics(graph, samples)
    monkeypatch.setattr(cache_key, "surroundings", lambda: b"another library")
    cached_statistics(graph, samples)
    monkeypatch.setattr(statistics_cache, "STATISTICS", Kind("statistics", 0, of_code=False))
    cached_statistics(graph, samples)
    assert len(runs) == 3


def test_a_damaged_entry_is_collected_anew_and_replaced(graph, samples, cache, runs, caplog):
    good = cached_statistics(graph, samples)
    [entry] = cache.store.entries()
    content = bytearray(entry.path.read_bytes())
    content[len(content) // 2] ^= 1
    entry.path.write_bytes(content)
    again = cached_statistics(graph, samples)
    assert "is damaged" in caplog.text
    assert len(runs) == 2
    assert again["y"].high == good["y"].high
    cached_statistics(graph, samples)
    assert len(runs) == 2
    assert (cache.used["statistics"].found, cache.used["statistics"].made) == (1, 2)


def test_a_killed_run_leaves_no_entry(graph, tmp_path):
    onnx.save(graph, tmp_path / "model.onnx")
    program = f"""
import time
from itertools import product
from pathlib import Path
import numpy as np
from pipeline.cache.current_cache import CacheConfig, using
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.sample import Sample
x = np.ones((1, 4, 500), np.float32)
samples = [Sample(str(i), {{"x": x * i, "length": np.array([500])}}) for i in range(100)]
def tell(done):
    print(done, flush=True)
    time.sleep(0.2)
with using(CacheConfig(dir={str(tmp_path / "cache")!r})):
    cached_statistics(Path({str(tmp_path / "model.onnx")!r}), samples, on_sample=tell)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout.readline() == b"1\n"
        run.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("cache/*/*"))
