"""Timing on a device over ssh: against a real sshd on loopback, with a key and a configuration of its own."""

import os
import random
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from pipeline.errors import ConfigError, StageError
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.device_address import command_of
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.measure.remote_device import PREFIX
from pipeline.measure.remote_host import connected
from pipeline.sample import Sample

WAIT_LIMIT_S = 60


@pytest.fixture
def files(tmp_path, make_user_files, make_noise):
    """Return a model, and samples of two lengths."""
    return make_user_files(tmp_path) / "model.onnx", [Sample(f"{k}", {"x": make_noise(20 + k, k)}) for k in range(2)]


def test_a_device_times_as_this_machine_does_and_keeps_nothing(device, python_there, files, left, there):
    model, samples = files
    with connected(device[0], python_there, device[1]) as remote:
        runtime = OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)
        steps = []
        found = benchmark_graph(
            model, model, samples, min_pairs=8, min_seconds=0.1, rounds=2, runtime=runtime, on_step=lambda: steps.append(1)
        )
        assert list(there.glob(f"{PREFIX}*")), "it works in a directory there"
    assert found.pairs >= 8
    assert found.speedup.low <= 1.0 <= found.speedup.high or 0.5 < found.speedup.median < 2.0, "the same model twice"
    assert found.device.startswith(f"{device[0]}: ")
    assert found.baseline_peak_bytes > found.runtime_peak_bytes // 2 > 0
    assert len(steps) == 2 + 3
    assert left() == set()


def test_weights_beside_a_model_go_along_wherever_they_lie(device, python_there, files, tmp_path, left):
    model, samples = files
    (tmp_path / "权重 w").mkdir()
    onnx.save(
        onnx.load(model),
        tmp_path / "outside.onnx",
        save_as_external_data=True,
        location="权重 w/all of it.bin",
        size_threshold=0,
    )
    with connected(device[0], python_there, device[1]) as remote:
        runtime = OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)
        outside = tmp_path / "outside.onnx"
        assert benchmark_graph(model, outside, samples, min_pairs=2, min_seconds=0.1, rounds=1, runtime=runtime).pairs >= 2
    assert left() == set()


def test_a_run_is_timed_on_a_device_and_says_which(device, on_device, user_files, run_quickly, users_model, left):
    quick = ("benchmark.runs=6", "benchmark.seconds=0.1", "benchmark.rounds=2")
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load,quantize,benchmark]", *on_device, *quick).succeeded()
    measured = run.report["benchmark"]["model"]
    assert measured["device"].startswith(device[0])
    assert f"on {device[0]}: " in run.stdout.replace("\n", " ")
    assert measured["op_times"], "traces come back"
    assert left() == set()


RUN = """
import sys
from pathlib import Path
import numpy as np
from pipeline.errors import PipelineError
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.measure.remote_host import connected
from pipeline.sample import Sample
host, config, python, model = sys.argv[1:]
samples = [Sample("a", {"x": np.ones((1, 16, 20), np.float32)})]
try:
    with connected(host, python, config) as remote:
        runtime = OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)
        benchmark_graph(Path(model), Path(model), samples, min_seconds=60, runtime=runtime)
except PipelineError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize("seed", range(int(os.environ.get("CUTS", "2"))))
def test_a_connection_that_is_cut_fails_clearly_and_leaves_nothing(device, python_there, files, left, repo, cut, seed):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *device, python_there, str(files[0])],
        cwd=repo,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(repo)},
    )
    cut(process, random.Random(seed).uniform(0.0, 4.0))
    _, said = process.communicate(timeout=WAIT_LIMIT_S)
    assert process.returncode == 1
    assert "error: benchmark.host: " in said and "Traceback" not in said
    assert "broke; nothing was timed" in said or "no connection to" in said
    assert left() == set()


def test_an_unknown_key_of_a_host_is_refused(device, tmp_path):
    config = tmp_path / "config"
    config.write_text(Path(device[1]).read_text().replace("known_hosts", "none"))
    with pytest.raises(ConfigError, match=r"no connection to ssh://.*Host key verification failed"):
        connected(device[0], sys.executable, str(config)).__enter__()


def test_a_python_without_onnx_runtime_is_named(device, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    with pytest.raises(ConfigError, match=r"has no ONNX Runtime that starts: .*No module named"):
        connected(device[0], f"{tmp_path}/venv/bin/python", device[1]).__enter__()


def test_a_model_that_the_device_refuses_is_an_error_that_says_so(device, python_there, files):
    model, samples = files
    broken = model.with_name("broken.onnx")
    broken.write_bytes(b"")
    with (
        connected(device[0], python_there, device[1]) as remote,
        pytest.raises(StageError, match=r"broken.onnx .* nothing was timed"),
    ):
        runtime = OtherRuntime("0", device=remote.device, remote=remote)
        benchmark_graph(model, broken, samples, min_pairs=2, min_seconds=0.1, rounds=1, runtime=runtime)


def test_what_runs_on_a_device_needs_numpy_and_onnx_runtime_alone():
    code = (
        "import sys; sys.modules['psutil'] = None; import pipeline.measure.benchmark_child as child; "
        "print({'onnx', 'scipy', 'soundfile', 'omegaconf'} & set(sys.modules), child.others_cores(1.0, 2.0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() None"


@pytest.mark.parametrize(
    ("host", "python", "said"),
    [
        ("pi", "python3", "is not an address"),
        ("ssh://-oProxyCommand=x", "python3", "is not an address"),
        ("ssh://a b@pi", "python3", "is not an address"),
        ("ssh://$(id)@pi", "python3", "is not an address"),
        ("ssh://pi/home", "python3", "is not an address"),
        ("ssh://me:secret@pi", "python3", "a password is not taken"),
        ("ssh://pi:99999", "python3", "the port is a number"),
        ("ssh://pi", "python3; rm -rf x", "benchmark.host_python"),
        ("ssh://pi", "$(id)", "benchmark.host_python"),
    ],
)
def test_nothing_that_a_shell_could_read_is_taken(host, python, said):
    with pytest.raises(ConfigError, match=said):
        command_of(host, python, None, 1)
