"""ONNX Runtime's telemetry is off before ONNX Runtime is imported, in every process of this project."""

import ast
import os
import subprocess
import sys

import pytest

WITNESS = """\
import importlib.abc, os, sys

class Witness(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            with open(os.environ["WITNESS"], "a", encoding="utf-8") as seen:
                print(os.getpid(), os.environ.get("ORT_DISABLE_TELEMETRY"), file=seen)

sys.meta_path.insert(0, Witness())
"""


@pytest.fixture
def witness(tmp_path, monkeypatch, repo):
    """Let every Python process note the variable when it imports ONNX Runtime; return a function: process -> its value."""
    (tmp_path / "witness").mkdir()
    (tmp_path / "witness" / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
    seen = tmp_path / "seen.txt"
    monkeypatch.setenv("WITNESS", str(seen))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "witness"), str(repo)]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)  # this process has set it
    return lambda: dict(line.split() for line in seen.read_text(encoding="utf-8").splitlines())


def test_the_command_and_the_processes_that_time_and_measure_have_it_off_and_leave_nothing(
    witness, user_files, run_py, users_model
):
    stages = "stages=[load,quantize,benchmark]"
    run_py(*users_model, "mode=dynamic", stages, "benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2").succeeded()
    values = list(witness().values())
    assert len(values) >= 5, "the command, the timing, three measurements of memory"
    assert set(values) == {"1"}
    assert not list((user_files / "cache").rglob("*onnxruntime*"))


@pytest.mark.parametrize(("chosen", "value"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")], ids=["default", "chosen"])
def test_the_library_has_it_off_unless_the_user_chooses_otherwise(witness, chosen, value):
    subprocess.run([sys.executable, "-c", "import pipeline.graph.session"], env=os.environ | chosen, check=True)
    assert list(witness().values()) == [value]


def modules_imported(path):
    """Return what a file imports at its top level, in that order."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return [name.partition(".")[0] for name in found]


def test_a_benchmark_that_imports_onnx_runtime_imports_this_package_before(repo):
    for path in (repo / "benchmarks").glob("*.py"):
        imported = modules_imported(path)
        if "onnxruntime" in imported:
            assert "pipeline" in imported[: imported.index("onnxruntime")], path.name
