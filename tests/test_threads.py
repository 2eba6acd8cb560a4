"""`runtime.threads` is what every stage runs on; `benchmark.threads` only adds to what the benchmark times."""

import os
import subprocess
import sys

import onnxruntime
import pytest

import pipeline

THREADS, FURTHER = 2, 3
SEARCH = ("mode=auto", "mode.metric=relative_error", "mode.max_loss=0.5", "mode.seconds=5")


@pytest.fixture
def here(user_files, monkeypatch):
    """Make the user's files the working directory, with the lock of benchmarks to itself."""
    monkeypatch.chdir(user_files)
    monkeypatch.setattr("tempfile.tempdir", str(user_files))


@pytest.fixture
def ran_on(monkeypatch):
    """Return the numbers of intra-op threads of all sessions of this process that have been run since they were opened."""
    found = set()

    class Recording(onnxruntime.InferenceSession):
        def run(self, *arguments, **settings):
            found.add(self.get_session_options().intra_op_num_threads)
            return super().run(*arguments, **settings)

    monkeypatch.setattr("onnxruntime.InferenceSession", Recording)
    return found


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("mode", [("mode=static",), ("mode=static", "mode.optimize=true", "mode.rounding=true"), SEARCH])
def test_inspection_calibration_search_and_evaluation_run_on_the_threads_of_the_runtime(ran_on, users_model, users_data, mode):
    threads = (f"runtime.threads={THREADS}", f"benchmark.threads=[{FURTHER}]")
    stages = "stages=[load,inspect,quantize,evaluate]"
    report = pipeline.run([*users_model, *users_data, *mode, *threads, stages])
    assert report.status == "done"
    assert ran_on == {THREADS}


@pytest.mark.usefixtures("here")
def test_the_benchmark_times_on_both_and_its_main_figures_are_of_the_runtime_s(ran_on, users_model, users_data):
    quick = ("benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2", "stages=[load,quantize,benchmark]")
    threads = (f"runtime.threads={THREADS}", f"benchmark.threads=[1,{FURTHER}]")
    measured = pipeline.run([*users_model, "evaluation.path=eval.npz", "mode=dynamic", *threads, *quick]).benchmark["model"]
    assert measured.threads == THREADS
    assert [other.threads for other in measured.other_threads] == [1, FURTHER]
    assert ran_on == {THREADS}, "what is timed runs in processes of its own"


BLAS = """import runpy, sys
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
except SystemExit:
    import numpy, threadpoolctl
    print({pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
"""


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2), ({"OMP_NUM_THREADS": "2"}, 2)])
def test_numpy_computes_on_one_thread_unless_it_is_told_otherwise(repo, given, expected):
    """Its threads wait actively for each other: small products, one after the other, cost more on two of them."""
    bare = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", BLAS, str(repo / "run.py"), "--version"]
    said = subprocess.run(command, env=bare | given, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == f"{{{min(expected, os.cpu_count())}}}"
