"""Choices by speed are timed on a device: relative speeds, rewrites and kernels, by one child there that is kept."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnxruntime
import psutil
import pytest

from pipeline.measure import timing_place
from pipeline.measure.device_place import DevicePlace
from pipeline.measure.relative_speed import speedups
from pipeline.measure.remote_device import PREFIX
from pipeline.measure.remote_host import LostDeviceError, connected
from pipeline.measure.rewrite_gain import measure_gain

WAIT_LIMIT_S = 600  # says nothing about speed: a test must not hang
QUICK = (
    "mode=auto", "mode.method=minmax", "mode.metric=relative_error", "mode.max_loss=0.5", "mode.seconds=120", "mode.probes=2",
    "mode.samples=2",
)  # fmt: skip


@pytest.fixture
def place(device, python_there):
    """Return the device as a place, connected."""
    with connected(device[0], python_there, device[1]) as remote:
        yield DevicePlace(remote)


@pytest.fixture
def not_here(monkeypatch):
    """Let nothing be timed in this process."""

    def refuse(*_, **__):
        raise AssertionError("timed here")

    for name in ("timed_round", "kernel_times", "open_session"):
        monkeypatch.setattr(timing_place, name, refuse)


@pytest.fixture
def graphs(chains):
    """Return the graph of five products and that of ten."""
    return [onnx.load(path) for path in chains]


def models_there(there):
    """Return how many models lie on the device."""
    return len(list(there.glob(f"{PREFIX}*/model*/model.onnx")))


def kept_children(there):
    """Return the children on the device that do one job after the other."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "--kept" in (one.info["cmdline"] or []) and one.environ().get("TMPDIR") == str(there)
    ]


def test_graphs_are_timed_there_with_one_child_and_those_of_before_are_removed(place, not_here, graphs, noise, there):
    five, ten = graphs
    found = speedups(ten, {"half": five, "same": ten}, [noise(30), noise(60)], threads=1, seconds=0.05, place=place)
    assert found["half"] > 1.2
    assert 0.6 < found["same"] < 1.7
    assert models_there(there) == 2, "what is the same graph twice is sent once"
    gain = measure_gain(ten, five, [noise(30)], max_seconds=0.1, place=place)
    assert gain.faster and gain.speedup > 1.2
    times = place.kernel_times(five, noise(30), 1)
    assert times.all >= times.computing > 0
    assert models_there(there) == 1
    assert len(kept_children(there)) == 1


def test_what_the_device_does_not_run_is_not_fast_and_what_ends_its_child_neither(place, graphs, noise, there):
    five, ten = graphs
    unknown = onnx.ModelProto.FromString(ten.SerializeToString())
    unknown.graph.node[0].op_type = "NoSuchOperator"
    found = speedups(ten, {"unknown": unknown, "half": five}, [noise(30)], threads=1, seconds=0.02, place=place)
    assert found["unknown"] == 0.0 < found["half"]
    bench = place.bench([ten], [noise(30)], 1)
    kept_children(there)[0].kill()
    assert not bench.survives(0), "killed while it ran, for all that is known here"
    assert bench.survives(0), "the next job has another child"


def test_a_search_chooses_by_times_of_the_device_and_says_so(
    device, on_device, user_files, run_quickly, users_model, users_data, left, there
):
    run = run_quickly(*users_model, *users_data, *QUICK, *on_device, "stages=[load,quantize]").succeeded()
    found = run.report["search"]["model"]
    assert found["timed_on"].startswith(f"{device[0]}: ")
    assert found["timed_on"].endswith(f"; ONNX Runtime {onnxruntime.__version__}")
    assert any(candidate["measured"] and candidate["int8_groups"] for candidate in found["candidates"])
    assert any(node["gain_ms"] is not None for node in found["nodes"])
    assert f"timed on {device[0]}: " in run.stdout.replace("\n", " ")
    assert "Speed was measured on" in (run.directory / "report.html").read_text()
    started = (there / "started").read_text().splitlines()
    assert sum(line.endswith("--kept") for line in started) == 1, "one child for the whole search"
    assert left() == set()


def command(folder, *overrides):
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *QUICK, "stages=[load,quantize]", "hydra.run.dir=run", *overrides],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def wait_for(words, process, folder):
    """Wait until a run has logged some words."""
    log, until = folder / "run" / "run.log", time.monotonic() + WAIT_LIMIT_S
    while not (log.is_file() and words in log.read_text()):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.02)


def test_a_search_that_loses_its_device_keeps_the_best_so_far_and_fails(
    device, on_device, user_files, users_model, users_data, cut, left, tmp_path
):
    process = command(tmp_path, *users_model, *users_data, *on_device)
    wait_for("measuring whole graphs took", process, tmp_path)
    cut(process, 0.0)
    said, _ = process.communicate(timeout=WAIT_LIMIT_S)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert process.returncode == 2
    assert "Traceback" not in said and said.count(f"error: benchmark.host: the connection to {device[0]} broke") == 1
    assert (report["status"], report["error"][:14]) == ("failed", "benchmark.host")
    [artifact] = report["artifacts"]
    assert (tmp_path / "run" / artifact["file"]).is_file()
    assert report["search"]["model"]["stopped"].startswith("lost its device after")
    assert left() == set()


STEPS = (
    "quantize", "calibrating took", "choosing how ranges follow took", "measuring whole graphs took",
    "measuring what each node gains took", "measuring what each node loses took",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(int(os.environ.get("CUTS", "1"))))
def test_a_search_whose_connection_is_cut_at_any_moment_fails_clearly_and_leaves_nothing(
    device, on_device, user_files, users_model, users_data, cut, left, tmp_path, seed
):
    process = command(tmp_path, *users_model, *users_data, *on_device)
    rng = random.Random(seed)
    wait_for(rng.choice(STEPS), process, tmp_path)  # the last one is followed by two seconds of timing
    cut(process, rng.uniform(0.0, 0.3))
    said, _ = process.communicate(timeout=WAIT_LIMIT_S)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert process.returncode == 2, said
    assert "Traceback" not in said and "error: benchmark.host: " in said
    assert report["status"] == "failed"
    assert all((tmp_path / "run" / artifact["file"]).is_file() for artifact in report.get("artifacts", []))
    assert not list((tmp_path / "run").glob("*.part*"))
    assert left() == set()


def test_a_lost_device_is_named(device, python_there, graphs, noise, left):
    with connected(device[0], python_there, device[1]) as remote:
        place = DevicePlace(remote)
        place.kernel_times(graphs[0], noise(30), 1)
        for one in psutil.Process().children():
            if one.name() == "ssh":
                one.kill()
        with pytest.raises(LostDeviceError, match=r"benchmark.host: the connection to ssh://.* broke"):
            place.kernel_times(graphs[1], noise(30), 1)
    assert left() == set()
