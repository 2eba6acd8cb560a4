"""Speed is measured in the ONNX Runtime that a client has, in child processes."""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from pipeline.errors import ConfigError
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.other_runtime import find_runtime, own_runtime

QUICK = {"min_pairs": 4, "min_seconds": 0, "warmup_seconds": 0, "rounds": 2}


def test_without_the_setting_it_is_the_installed_one():
    assert find_runtime(None) == find_runtime(onnxruntime.__version__) == own_runtime()
    assert own_runtime().note is None


def test_another_environment_is_given_by_its_python(tmp_path, chains, noise):
    """It has its own packages: nothing of this environment hides them."""
    home = tmp_path / "client"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = next(home.glob("lib/python*/site-packages"), home / "Lib" / "site-packages")
    ours = Path(onnxruntime.__file__).resolve().parents[1]
    (packages / "borrowed.pth").write_text(f"{ours}\n", encoding="utf-8")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = find_runtime(str(python))
    assert found.python == str(python)
    assert found.version == onnxruntime.__version__
    measured = benchmark_graph(chains[0], chains[1], [noise(5)], runtime=found, **QUICK)
    assert measured.runtime == onnxruntime.__version__


def test_another_version_is_installed_once_and_times_there(tmp_path, chains, noise, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        found = find_runtime("1.28.2")  # sherpa-onnx 2.0.1 carries it; as a package there is 1.28.0
    except ConfigError as error:
        assert "benchmark.runtime=venv/bin/python" in str(error)
        pytest.skip(f"no packages to be had here: {error}")
    assert found.version.startswith("1.28.")
    assert found.note is None if found.version == "1.28.2" else "1.28.2" in str(found.note)
    assert benchmark_graph(chains[0], chains[1], [noise(5)], runtime=found, **QUICK).runtime == found.version


@pytest.mark.parametrize(
    ("setting", "problem"),
    [("newest", "is no version of ONNX Runtime"), ("./nowhere/python", "is no file"), ("1.2.0", "nothing is known")],
)
def test_what_is_no_runtime_is_refused(setting, problem):
    with pytest.raises(ConfigError, match=rf"benchmark\.runtime: .*{problem}"):
        find_runtime(setting)


def test_a_python_without_onnx_runtime_is_refused_with_what_it_lacks(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    with pytest.raises(ConfigError, match=r"No module named .*needs the packages onnxruntime, numpy, psutil and scipy"):
        find_runtime(str(python))
