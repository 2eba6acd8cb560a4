"""The child process: a crash is an error, memory is its own, and one runs at a time."""

import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from pipeline.errors import StageError
from pipeline.measure import benchmark_child
from pipeline.measure.child_process import _lock_directory, machine_lock, run_child
from pipeline.mixed_precision.time_limit import TimeLimit
from pipeline.own_time import own_time

MEGABYTE = 1_000_000


def test_a_child_that_is_killed_is_an_error_that_names_the_signal_and_its_last_words(tmp_path, monkeypatch, noise):
    folder, site = tmp_path / "job", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\nprint('a kernel fell over', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    with pytest.raises(StageError, match=r"The benchmark of x crashed \(SIGSEGV\), nothing was timed\. a kernel fell"):
        run_child(folder, "memory", [noise(5)], "The benchmark of x", model=None, threads=1)


def test_a_child_that_dies_without_a_result_is_an_error_with_its_status(tmp_path, monkeypatch, noise):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StageError, match=r"exit status 7.*no message"):
        run_child(tmp_path, "memory", [noise(5)], "It", model=None, threads=1)


@pytest.mark.parametrize("seed", range(5))
def test_each_model_is_loaded_first_in_half_of_the_rounds(monkeypatch, seed):
    class Session:
        def get_inputs(self):
            return []

        def run(self, *_):
            return [np.zeros(1, np.float32)]

    loaded = []
    monkeypatch.setattr(benchmark_child, "measured_session", lambda path, _: loaded.append(path) or Session())
    job = {"baseline": "original", "quantized": "int8", "threads": 1, "rounds": 8, "seed": seed}
    benchmark_child.time_models(job | {"min_pairs": 8, "min_seconds": 0.0, "warmup_seconds": 0.0, "interval": 0.0}, [{}])
    firsts, seconds = loaded[1::2], loaded[2::2]  # after one that pays for the library's own start
    assert sorted(firsts) == sorted(seconds) == ["int8"] * 4 + ["original"] * 4


def test_the_peak_of_a_child_is_not_its_parents(tmp_path, noise):
    ballast = np.ones(50_000_000)
    benchmark_child = run_child(tmp_path, "memory", [noise(5)], "It", model=None, threads=1)
    assert 20 * MEGABYTE < benchmark_child["peak_bytes"] < 250 * MEGABYTE < ballast.nbytes


def test_the_peak_of_a_model_holds_its_weights(tmp_path, noise):
    code = (
        "import sys, numpy as np, onnx; from onnx import helper, numpy_helper\n"
        "w = np.random.default_rng(0).standard_normal((160, 125_000)).astype(np.float32)\n"
        "io = [helper.make_tensor_value_info(n, 1, ['f', s]) for n, s in (('x', 160), ('y', 125_000))]\n"
        "g = helper.make_graph([helper.make_node('MatMul', ['x', 'w'], ['y'])], 'g', io[:1], io[1:],"
        " [numpy_helper.from_array(w, 'w')])\n"
        "m = helper.make_model(g, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)\n"
        "onnx.save(m, sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "large.onnx")], check=True)
    peaks = []
    for name, model in (("empty", None), ("large", str(tmp_path / "large.onnx"))):
        (tmp_path / name).mkdir()
        result = run_child(tmp_path / name, "memory", [noise(2)], "It", model=model, threads=1)
        peaks.append(result["peak_bytes"])
    assert peaks[1] - peaks[0] > 80 * MEGABYTE  # 20 million float32


def test_inputs_of_any_name_and_type_reach_the_child(tmp_path, noise):
    """An npz keeps no array called `file`, and the child must see 0-d and integer arrays as they are."""
    sample = noise(3)
    sample.inputs.update({"file": np.array(7), "a/b:0": np.arange(3, dtype=np.int32)})
    run_child(tmp_path, "memory", [sample, sample], "It", model=None, threads=1)
    with np.load(tmp_path / "samples.npz") as arrays:
        assert sorted((array.shape, str(array.dtype)) for array in arrays.values()) == sorted(
            [((3, 160), "float32"), ((), "int64"), ((3,), "int32")] * 2
        )


def test_the_lock_keeps_a_second_benchmark_out_until_the_first_ends(temporary_directory):
    entered = threading.Event()

    def second():
        with machine_lock():
            entered.set()

    thread = threading.Thread(target=second)
    with machine_lock():
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    thread.join()


def test_a_wait_for_the_lock_is_not_time_of_a_search(temporary_directory, monkeypatch):
    now, modes = [1000.0], []

    def flock(handle, mode):
        modes.append(mode)
        if len(modes) == 1:
            raise BlockingIOError
        now[0] += 100.0

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("fcntl.flock", flock)
    limit = TimeLimit(10.0)
    end = limit.share(0.5)
    with machine_lock():
        now[0] += 3.0
        assert (limit.spent, limit.left) == (3.0, 7.0)
    assert own_time() + 2.0 == end
    assert len(modes) == 2


def test_under_slurm_jobs_share_the_lock_though_each_has_temporary_files_of_its_own(temporary_directory, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: str(path) == "/dev/shm")
    assert _lock_directory() == temporary_directory
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert str(_lock_directory()) == "/dev/shm"


def test_the_lock_of_a_process_that_died_is_free(temporary_directory):
    code = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from pipeline.measure.child_process import machine_lock\n"
        "machine_lock().__enter__(); print('held', flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", code, str(temporary_directory)]
    holder = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (holder.stdout, holder.returncode) == ("held\n", 9)
    with machine_lock():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_child_ends_when_its_parent_is_killed(tmp_path, repo):
    child = "import time, pipeline.measure.benchmark_child as one; one.end_with_parent(); print(flush=True); time.sleep(600)"
    parent = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent, child], cwd=repo, stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        assert psutil.pid_exists(number)
        process.kill()
    until = time.monotonic() + 60
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.02)
    assert time.monotonic() < until
