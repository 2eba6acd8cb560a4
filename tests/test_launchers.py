"""A sweep under launchers of other processes comes to what it does under the basic one, also where workers are killed."""

import json

import pytest

from pipeline.lost_workers import PatientLauncher, is_loss
from pipeline.record.sweep_record import note_job

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
            os.kill(os.getpid(), signal.SIGKILL)

if "POISON" in os.environ:
    threading.Thread(target=kill, args=[Path(os.environ["POISON"])], daemon=True).start()
'''


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
    module, settings = LAUNCHERS[launcher]
    pytest.importorskip(module, reason=f"needs the launcher: pip install hydra-{launcher.partition('_')[0]}-launcher")
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
