"""A sweep under launchers of other processes comes to what it does under the basic one, also where workers are killed.

submitit waits 15 s for the result of each job that was killed: LAUNCHERS=all python -m pytest tests/test_launchers.py
Workers that die at twenty moments: FAULTS=20
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.lost_workers import PatientLauncher, is_loss
from pipeline.record.sweep_record import note_job
from tests.conftest import COMMAND_LIMIT_S, REPO

QUICK = ("mode=dynamic", "stages=[load,quantize]", "hydra.sweep.dir=sweep")
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ("hydra.launcher.timeout_min=30",)),
}
POISON = '''"""Kills the process that runs the job of a number, where a file says so."""
import os, signal, threading, time
from pathlib import Path

def kill(file):
    from hydra.core.hydra_config import HydraConfig
    while True:
        time.sleep(0.002)
        job = HydraConfig.get().job if HydraConfig.initialized() else {}
        if "num" in job and str(job.num) in file.read_text().split() and Path(f"sweep/jobs/{job.num}.json").is_file():
            time.sleep(float(os.environ.get("POISON_AFTER", "0")))
            if "POISON_ONCE" in os.environ:
                file.write_text("none")
            os.kill(os.getpid(), signal.SIGKILL)

if "POISON" in os.environ:
    threading.Thread(target=kill, args=[Path(os.environ["POISON"])], daemon=True).start()
'''


def available(launcher):
    """Return the settings of a launcher; skip where it is not installed."""
    module, settings = LAUNCHERS[launcher]
    pytest.importorskip(module, reason=f"needs the launcher: pip install hydra-{launcher.partition('_')[0]}-launcher")
    return settings


def test_under_submitit_a_failed_job_is_told_by_table_page_and_exit_status(user_files, run_py, users_model):
    settings = ("hydra/launcher=submitit_local", *available("submitit_local"))
    ended = run_py("-m", *users_model, *QUICK, "mode.nodes_to_exclude=[conv_a],['conv_*']", *settings)
    assert ended.exit_code == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "1 of 2 jobs failed: #1" in ended.stdout
    rows = json.loads((user_files / "sweep" / "comparison.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert (user_files / "sweep" / "comparison.html").is_file()


@pytest.fixture
def poison(tmp_path):
    """Return the environment in which every worker that begins job #1 is killed."""
    (tmp_path / "plugins" / "hydra_plugins").mkdir(parents=True)
    (tmp_path / "plugins" / "hydra_plugins" / "poison.py").write_text(POISON, encoding="utf-8")
    (tmp_path / "poison.txt").write_text("1", encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path / "plugins"), "POISON": str(tmp_path / "poison.txt")}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_kills_its_worker_fails_alone_and_can_be_tried_again(
    user_files, run_py, users_model, poison, run_in, launcher
):
    if launcher == "submitit_local" and os.environ.get("LAUNCHERS") != "all":
        pytest.skip("submitit waits 15 s for each job that was killed: LAUNCHERS=all runs it")
    settings = available(launcher)
    ended = run_py("-m", *users_model, *QUICK, "seed=1,2", f"hydra/launcher={launcher}", *settings, **poison)
    assert ended.exit_code == 2
    assert "Traceback" not in ended.stderr
    assert "a worker of the launcher was lost" in ended.stderr
    assert "1 of 2 jobs failed: #1" in ended.stdout
    rows = json.loads((user_files / "sweep" / "comparison.json").read_text(encoding="utf-8"))
    assert sorted(row["status"] for row in rows) == ["done", "failed"]
    assert ["killed twice" in row["error"] for row in rows if row["status"] == "failed"] == [True]
    logs = {path: path.read_text(encoding="utf-8") for path in user_files.glob("outputs/model/dynamic/*/run.log")}
    again = run_in(user_files, "resume=sweep", "resume_failed=true", "hydra/launcher=basic").succeeded()
    assert "jobs failed" not in again.stdout
    assert sum(path.read_text(encoding="utf-8") != log for path, log in logs.items()) == 1  # the others are not run again


@pytest.mark.parametrize("seed", range(int(os.environ.get("FAULTS", "0"))))
def test_a_worker_that_dies_at_any_moment_takes_no_other_job_with_it(user_files, run_py, run_in, users_model, poison, seed):
    """Once, with every second seed, or as often as the job is begun."""
    rng, once = random.Random(f"worker {seed}"), seed % 2 == 1
    job, after = str(rng.randrange(3)), str(rng.uniform(0.0, 0.4))
    (user_files / "poison.txt").write_text(job, encoding="utf-8")
    fault = poison | {"POISON_AFTER": after} | ({"POISON_ONCE": "1"} if once else {})
    run_in(user_files, *users_model, "mode=dynamic", "stages=[load,quantize]", "hydra.run.dir=earlier").succeeded()
    before = {path: path.read_bytes() for path in (user_files / "earlier").rglob("*") if path.is_file()}
    sweep = ("-m", *users_model, *QUICK, "seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    ended = run_py(*sweep, **fault)
    words = f"seed {seed}, job {job} after {after} s: {ended.exit_code} {ended.stdout[-800:]} {ended.stderr[-1500:]}"
    assert "Traceback" not in ended.stderr, words
    rows = json.loads((user_files / "sweep" / "comparison.json").read_text(encoding="utf-8"))
    statuses = Counter(row["status"] for row in rows)
    assert statuses in (Counter(done=3), Counter(done=2, failed=1)), words
    assert (ended.exit_code, statuses["failed"]) in ((0, 0), (2, 1)), words
    assert f"1 of 3 jobs failed: #{job}" in ended.stdout or not statuses["failed"], words
    assert not (once and statuses["failed"]), words
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in user_files.glob("outputs/model/dynamic/*/report.json")]
    assert Counter(report["status"] for report in reports) == statuses, words
    logs = {path: path.read_text(encoding="utf-8") for path in user_files.glob("outputs/model/dynamic/*/run.log")}
    run_in(user_files, "resume=sweep", "resume_failed=true", "hydra/launcher=basic").succeeded()
    assert sum(path.read_text(encoding="utf-8") != log for path, log in logs.items()) == statuses["failed"], words
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def nodes(tmp_path):
    """Start two nodes of Ray on this machine; return the address, and the process of the second one."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs Ray: pip install hydra-ray-launcher")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--object-store-memory=80000000"]
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # the path of a socket is short
    head = [f"--port={address.partition(':')[2]}", "--head", "--include-dashboard=false", f"--temp-dir={folder}"]
    surroundings = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPO)}
    processes = []

    def starts(more, said):
        """Return whether a node is up; on a busy machine, Ray's own patience of 30 s may be too short."""
        with said.open("w") as stream:
            processes.append(subprocess.Popen([*start, *more], env=surroundings, stdout=stream, stderr=stream, cwd=tmp_path))
        while processes[-1].poll() is None:
            if "Ray runtime started" in said.read_text(encoding="utf-8"):
                return True
            time.sleep(0.1)
        processes.pop()
        assert "timed out during startup" in said.read_text(encoding="utf-8"), said.read_text(encoding="utf-8")[-2000:]
        return False

    try:
        for name, more in (("head", head), ("second", [f"--address={address}"])):
            if not any(starts(more, tmp_path / f"{name}{attempt}") for attempt in range(3)):
                pytest.skip("this machine is too busy for Ray: a node was not up in the 30 s that Ray gives it, three times")
        yield address, psutil.Process(processes[1].pid)
    finally:
        for process in processes:
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_sweep_on_two_nodes_of_ray_ends_though_one_of_them_is_killed(nodes, user_files, users_model, run_in):
    address, second = nodes
    settings = (
        "-m", *users_model, *QUICK, "seed=1,2,3,4,5,6", "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}",
        "+hydra.launcher.ray.init.object_store_memory=null",
    )  # fmt: skip
    sweep = subprocess.Popen(
        [sys.executable, str(REPO / "run.py"), *settings], cwd=user_files, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    until = time.monotonic() + COMMAND_LIMIT_S
    while len(list(user_files.glob("sweep/jobs/*.json"))) < 3 and sweep.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    for one in second.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    said, complaint = sweep.communicate(timeout=COMMAND_LIMIT_S)
    assert sweep.returncode == 0, complaint[-3000:]
    assert "sweep/comparison.html" in said
    rows = json.loads((user_files / "sweep" / "comparison.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in rows] == ["done"] * 6
    logs = list(user_files.glob("outputs/model/dynamic/*/run.log"))
    assert [log.read_text(encoding="utf-8").count("quantize took") for log in logs] == [1] * 6


class Launcher:
    """Stands for a launcher: what each call of it does is given."""

    def __init__(self, sweep, *calls):
        self.sweep, self.calls, self.made = sweep, list(calls), []

    def launch(self, job_overrides, initial_job_idx):  # noqa: D102
        self.made.append((list(job_overrides), initial_job_idx))
        done, failed, error = self.calls.pop(0)
        for number in (*done, *failed):
            (self.sweep / f"run{number}").mkdir(exist_ok=True)
        for number in done:
            run = self.sweep / f"run{number}"
            (run / "report.json").write_text(json.dumps({"schema": 2, "status": "done", "stages": []}), encoding="utf-8")
        for number in (*done, *failed):
            note_job(self.sweep, number, self.sweep / f"run{number}")
        if error is not None:
            raise error
        return [f"#{initial_job_idx + place}" for place in range(len(job_overrides))]


def broken():
    from concurrent.futures import BrokenExecutor

    return BrokenExecutor("killed")


def test_jobs_that_had_begun_run_alone_and_the_rest_together(tmp_path):
    launcher = Launcher(tmp_path, ([0], [1, 2], broken()), ([], [1], broken()), ([2], [], None), ([3, 4], [], None))
    results = PatientLauncher(launcher, tmp_path).launch([["a"], ["b"], ["c"], ["d"], ["e"]], 0)
    assert [found if isinstance(found, str) else found.return_value for found in results] == [None, None, "#2", "#3", "#4"]
    assert launcher.made == [([["a"], ["b"], ["c"], ["d"], ["e"]], 0), ([["b"]], 1), ([["c"]], 2), ([["d"], ["e"]], 3)]
    noted = json.loads((tmp_path / "jobs" / "1.json").read_text(encoding="utf-8"))
    assert "killed twice" in noted["error"]


def test_a_launcher_that_runs_nothing_is_asked_twice(tmp_path):
    launcher = Launcher(tmp_path, ([], [], broken()), ([], [], broken()))
    with pytest.raises(type(broken())):
        PatientLauncher(launcher, tmp_path).launch([["a"]], 0)
    assert len(launcher.made) == 2


def test_an_error_of_a_job_is_no_lost_worker(tmp_path):
    launcher = Launcher(tmp_path, ([], [0], ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        PatientLauncher(launcher, tmp_path).launch([["a"]], 0)
    assert not is_loss(ValueError())
    assert is_loss(type("TerminatedWorkerError", (type(broken()),), {})())
