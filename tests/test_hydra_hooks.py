"""Every run gets a directory of its own, and nothing is made while settings are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.errors import ConfigError
from pipeline.hydra_hooks import TIME_STAMP, ClaimDirectory, run_folder
from tests.conftest import COMMAND_LIMIT_S

QUICK = ("mode=dynamic", "stages=[load]")


def composed(tmp_path, directory="${now:%Y-%m-%d_%H-%M-%S}"):
    """Return the part of Hydra's settings that says where a run writes, at one and the same second."""
    config = OmegaConf.create({"hydra": {"run": {"dir": f"{tmp_path}/outputs/a/{directory}"}}})
    OmegaConf.get_cache(config)["now"] = {(TIME_STAMP,): "2026-01-31_23-59-58"}
    return config


@pytest.fixture
def now():
    """Make `${now:...}` known, as Hydra does when it starts."""
    from hydra.core.utils import setup_globals

    setup_globals()


@pytest.mark.usefixtures("now")
def test_of_three_runs_in_one_second_the_later_ones_take_the_next_seconds(tmp_path):
    configs = [composed(tmp_path) for _ in range(3)]
    for config in configs:
        ClaimDirectory().on_run_start(config)
    names = [Path(config.hydra.run.dir).name for config in configs]
    assert names == ["2026-01-31_23-59-58", "2026-01-31_23-59-59", "2026-02-01_00-00-00"]
    assert sorted(path.name for path in (tmp_path / "outputs" / "a").iterdir()) == names


@pytest.mark.usefixtures("now")
def test_a_directory_that_the_user_names_is_taken_as_it_is(tmp_path):
    (tmp_path / "outputs" / "a" / "mine").mkdir(parents=True)
    config = composed(tmp_path, "mine")
    ClaimDirectory().on_run_start(config)
    assert config.hydra.run.dir == f"{tmp_path}/outputs/a/mine"


def test_a_run_belongs_to_its_model_and_mode():
    assert run_folder("asr", "static") == "asr/static"


def test_a_rerun_belongs_to_the_model_and_mode_of_the_run_that_it_repeats(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: vocoder}\nmode: {name: fp16}\n", encoding="utf-8")
    assert run_folder("matcha", "static", str(tmp_path)) == "vocoder/fp16"


def test_a_comparison_has_a_folder_of_its_own(tmp_path):
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    assert run_folder("matcha", "static", None, [str(tmp_path)]) == "comparisons"


def test_an_order_without_runs_to_sort_is_refused():
    with pytest.raises(ConfigError, match="sort_by: only runs side by side are sorted"):
        run_folder("matcha", "static", None, [], "bytes")


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=1,2")], ids=["runs", "sweeps"])
def test_processes_that_start_together_get_a_directory_each(user_files, repo, users_model, sweep):
    command = [sys.executable, str(repo / "run.py"), *sweep, *users_model, *QUICK]
    processes = [
        subprocess.Popen(command, cwd=user_files, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=COMMAND_LIMIT_S)
        assert process.returncode == 0, complaint
    directories = list(user_files.glob("outputs/model/dynamic/*"))
    assert len(directories) == (4 if sweep else 2)
    for directory in directories:
        assert (directory / "run.log").read_text(encoding="utf-8").count("load took") == 1  # of one run only
        assert json.loads((directory / "report.json").read_text(encoding="utf-8"))["status"] == "done"


def test_the_jobs_of_a_sweep_get_a_directory_each_though_they_share_model_and_mode(user_files, run_quickly, users_model):
    run = run_quickly("-m", *users_model, *QUICK, "seed=1,2,3").succeeded()
    [sweep] = (user_files / "outputs" / "sweeps").iterdir()
    assert [path.name for path in run.directories] == [f"{sweep.name}_{number}" for number in range(3)]
    assert all(path.parent == user_files / "outputs" / "model" / "dynamic" for path in run.directories)
    compared = json.loads((sweep / "comparison.json").read_text(encoding="utf-8"))
    assert [Path(row["directory"]) for row in compared] == list(run.directories)


def test_a_sweep_that_cannot_begin_ends_the_command(user_files, run_quickly, users_model):
    """Hydra would make a warning of it, and run the jobs without a table and without their exit status."""
    import fcntl

    (user_files / "sweep").mkdir()
    sweep = ("-m", *users_model, *QUICK, "seed=1,2")
    handle = os.open(user_files / "sweep", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # another sweep runs there
        taken = run_quickly(*sweep, "hydra.sweep.dir=sweep")
    finally:
        os.close(handle)
    nowhere = run_quickly(*sweep, "hydra.sweep.dir=model.onnx/sweep")
    for refused, said in ((taken, "sweep is being written by another run"), (nowhere, "model.onnx/sweep cannot be written")):
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "Callback" not in refused.stderr
        assert refused.directories == ()


@pytest.mark.parametrize(
    "look", [("--help",), ("--cfg", "job"), ("--cfg", "all"), ("--cfg", "job", "--resolve"), ("--info", "config")]
)
def test_looking_at_settings_makes_nothing(run_quickly, tmp_path, look):
    assert run_quickly(*look).succeeded().stdout
    assert not (tmp_path / "outputs").exists()


LAUNCHERS = {"basic": (), "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")}


@pytest.fixture
def run_with(run_quickly, run_py):
    """Return a function: launcher -> what runs a command with it; joblib starts processes of its own."""
    return {"basic": run_quickly, "joblib": run_py}.get


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_is_told_at_the_end_of_the_sweep_and_by_its_exit_status(
    user_files, run_with, users_model, users_data, launcher
):
    sweep = ("mode=dynamic,fp16", "mode.nodes_to_exclude=[conv_a],['conv_*']", "stages=[load,quantize]")
    run = run_with(launcher)("-m", *users_model, *users_data, *sweep, *LAUNCHERS[launcher])
    assert run.exit_code == 2
    assert "Traceback" not in run.stdout + run.stderr
    assert "2 of 4 jobs failed: #1, #3" in run.stdout
    statuses = [json.loads((path / "report.json").read_text(encoding="utf-8"))["status"] for path in run.directories]
    assert sorted(statuses) == ["done", "done", "failed", "failed"]
    [page] = user_files.glob("outputs/sweeps/*/comparison.json")
    assert len(json.loads(page.read_text(encoding="utf-8"))) == 4


def test_a_sweep_without_failures_ends_with_status_0(user_files, run_quickly, users_model):
    run = run_quickly("-m", *users_model, "mode=dynamic", "mode.per_channel=true,false", "stages=[load,quantize]").succeeded()
    assert len(run.directories) == 2
    assert "failed" not in run.stdout


def test_a_job_without_a_report_of_its_own_has_failed(user_files, run_quickly, users_model):
    """The second job of this sweep is refused its directory: it holds the run of the first."""
    run = run_quickly("-m", *users_model, *QUICK, "seed=1,2", "hydra.sweep.subdir=one")
    assert run.exit_code == 2
    assert "1 of 2 jobs failed: #1" in run.stdout
    assert "already holds a run's report.json" in run.stderr


def test_a_comparison_cannot_be_swept(user_files, run_quickly, users_model):
    past = run_quickly(*users_model, *QUICK).succeeded().directory
    run = run_quickly("-m", f"compare=[{past}]", "seed=1,2")
    assert run.exit_code == 2
    assert "compare: shows past runs and runs nothing" in run.stderr


@pytest.mark.parametrize(("mode", "kept"), [(RunMode.MULTIRUN, False), (RunMode.RUN, True)])
def test_what_a_job_of_a_sweep_was_composed_of_is_not_held_to_its_end(mode, kept):
    config = OmegaConf.create({"hydra": {"mode": mode}})
    done = JobReturn(cfg=config, hydra_cfg=config, overrides=["seed=1"], status=JobStatus.COMPLETED)
    ClaimDirectory().on_job_end(config, done)
    assert (done.cfg is config) == (done.hydra_cfg is config) == kept
    assert done.overrides == ["seed=1"]
