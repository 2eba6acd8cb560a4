"""Each kind of fault, at moments that a seed decides: a run says that it failed, what was there stays, and it can be resumed.

All of them twenty times: FAULTS=20 python -m pytest tests/test_fault_kinds.py
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.report.report_file import read_report
from tests.conftest import REPO, Run, _surroundings, fitting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are those of Linux")
COUNT = int(os.environ.get("FAULTS", "1"))
STAGES = ("load", "quantize", "evaluate")
FAILED = 2
"""The exit status of a run that failed of what a user can act on."""


def hashes(folder):
    """Return the hash of every file of a folder, those that are a test's own left out."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".scratch" not in path.parts
    }


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Return a folder in which Hydra finds what brings faults."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "hydra_plugins").mkdir()
    shutil.copy(REPO / "tests" / "faulty.py", folder / "hydra_plugins")
    return str(folder)


@pytest.fixture(scope="module")
def command(users_model, users_data):
    """Return the settings of a short run."""
    stages = f"stages=[{','.join(STAGES)}]"
    return (*users_model, *users_data, "mode=static", stages)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_user_files, run_in, command):
    """Return the directory of a run that nothing has disturbed."""
    folder = make_user_files(tmp_path_factory.mktemp("undisturbed"))
    run_in(folder, *command, "hydra.run.dir=run").succeeded()
    return folder / "run"


@pytest.fixture
def place(user_files, run_in, undisturbed):
    """Return the user's folder, with an earlier run in it."""
    shutil.copytree(undisturbed, user_files / "earlier")
    return user_files


def resumed(place, run_in, command):
    """Finish a run, or begin it again where it had not begun."""
    goes_on = (place / "run" / "config.yaml").is_file()
    return run_in(place, *(("resume=run",) if goes_on else (*command, "hydra.run.dir=run")))


def ended(place):
    """Return the report of a run as soon as it no longer says that the run goes on; None where there is none."""
    file = place / "run" / "report.json"
    until = time.monotonic() + 30
    while file.is_file() and json.loads(file.read_text(encoding="utf-8"))["status"] == "running" and time.monotonic() < until:
        time.sleep(0.02)
    return read_report(place / "run", "test") if file.is_file() else None


def assert_finished(place, undisturbed, before, stages=3):
    """A run has come to what one does that nothing has disturbed, and what was there before is as it was."""
    report = read_report(place / "run", "test")
    assert report.status == "done"
    assert [stage.status for stage in report.stages] == ["done"] * stages
    assert (place / "run" / "model.int8.onnx").read_bytes() == (undisturbed / "model.int8.onnx").read_bytes()
    assert not [path for path in (place / "run").rglob(".*") if path.name.startswith((".staging", ".report", ".config"))]
    assert {path: digest for path, digest in hashes(place).items() if path in before} == before


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_run_that_is_killed_in_a_stage_says_so_and_is_resumed(place, run_in, command, faults, undisturbed, seed):
    stage, before = STAGES[(seed + 1) % len(STAGES)], hashes(place)
    fault = {"FAULT": "kill", "FAULT_SEED": str(seed), "FAULT_STAGE": stage, "PYTHONPATH": faults}
    assert run_in(place, *command, "hydra.run.dir=run", copies=False, **fault).exit_code == -9, f"seed {seed}"
    report = ended(place)
    assert report.status == "failed", f"seed {seed}"
    assert f"in the stage {stage}" in report.error, f"seed {seed}"
    until = time.monotonic() + 30
    while (place / "run" / ".staging").exists() and time.monotonic() < until:  # the report comes first
        time.sleep(0.01)
    assert not (place / "run" / ".staging").exists(), f"seed {seed}"
    resumed(place, run_in, command).succeeded()
    assert_finished(place, undisturbed, before)


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_run_whose_directory_becomes_read_only_fails_with_its_name(place, run_in, command, faults, undisturbed, seed):
    before = hashes(place)
    write = str(random.Random(f"write {seed}").randint(1, 40))
    fault = {"FAULT": "read-only", "FAULT_SEED": str(seed), "FAULT_WRITE": write, "PYTHONPATH": faults}
    run = run_in(place, *command, "hydra.run.dir=run", copies=False, **fault)
    for path in (place / "run", *(place / "run").rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    words = f"seed {seed}, write {write}: {run.stderr[-1500:]}"
    assert "Traceback" not in run.stderr, words
    if run.exit_code != 0:  # otherwise it was done by then
        assert run.exit_code == FAILED, words
        assert str(place / "run") in run.stderr, words
        assert "Permission denied" in run.stderr, words
        if (place / "run" / "report.json").is_file():
            assert read_report(place / "run", "test").status in (("failed",) if seed % 2 == 0 else ("failed", "running")), words
    resumed(place, run_in, command).succeeded()
    assert_finished(place, undisturbed, before)


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_run_that_gets_no_more_memory_fails_and_is_resumed(place, run_in, command, faults, undisturbed, seed):
    before = hashes(place)
    stage = STAGES[(seed + 1) % len(STAGES)]
    fault = {"FAULT": "memory", "FAULT_SEED": str(seed), "FAULT_STAGE": stage, "PYTHONPATH": faults}
    run = run_in(place, *command, "hydra.run.dir=run", copies=False, **fault)
    report = ended(place)
    words = f"seed {seed}: exit status {run.exit_code}, {report and (report.status, report.error)}: {run.stderr[-1500:]}"
    print(words)
    assert "Traceback" not in run.stderr, words
    if run.exit_code != 0:
        assert run.exit_code in (FAILED, -6), words  # native code has no other way to say it than to end the process
        assert report.status == "failed", words
        name = "{}: " if run.exit_code == FAILED else "stage {} "
        assert any(name.format(one) in report.error for one in STAGES[STAGES.index(stage) :]), words
        assert any(word in report.error for word in ("memory", "native code")), words
    resumed(place, run_in, command).succeeded()
    assert_finished(place, undisturbed, before)


@pytest.mark.parametrize("seed", range(COUNT if "FAULTS" in os.environ else 0))
def test_a_job_of_a_sweep_that_gets_no_more_memory_fails_alone(place, run_in, command, faults, seed):
    """A process that runs the next job has the memory of the one that failed."""
    before, job, stage = hashes(place), str(random.Random(f"job {seed}").randrange(3)), STAGES[(seed + 1) % len(STAGES)]
    fault = {"FAULT": "memory", "FAULT_SEED": str(seed), "FAULT_STAGE": stage, "FAULT_JOB": job, "PYTHONPATH": faults}
    sweep = run_in(place, "-m", *command, "seed=1,2,3", "hydra.sweep.dir=sweep", copies=False, **fault)
    words = f"seed {seed}, job {job}, {stage}: {sweep.exit_code} {sweep.stdout[-800:]} {sweep.stderr[-1500:]}"
    assert sweep.exit_code == FAILED, words
    assert "Traceback" not in sweep.stderr, words
    assert f"1 of 3 jobs failed: #{job}" in sweep.stdout, words
    reports = [read_report(path.parent, "test") for path in place.glob("outputs/model/static/*/report.json")]
    assert sorted(report.status for report in reports) == ["done", "done", "failed"], words
    [error] = [report.error for report in reports if report.status == "failed"]
    assert error.startswith(f"{stage}: "), words
    assert "memory" in error, words
    run_in(place, "resume=sweep", "resume_failed=true").succeeded()
    again = [read_report(path.parent, "test").status for path in place.glob("outputs/model/static/*/report.json")]
    assert again == ["done"] * 3, words
    assert {path: digest for path, digest in hashes(place).items() if path in before} == before


def starting(server, place):
    """Return a function that starts the command in a folder, and one that waits for its end, as `run_in` does both."""

    def answer(message):
        server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    def begin(name, *overrides, **variables):
        printed = {one: place / ".scratch" / f"{name}.{one}" for one in ("stdout", "stderr")}
        environment = _surroundings(place) | variables
        message = {"argv": fitting(overrides), "folder": str(place), "environment": environment}
        message |= {"pictures": False, "copies": False}
        pid = answer(message | {one: str(path) for one, path in printed.items()} | {"background": True})
        return pid, printed

    def end(started):
        code = answer({"wait": started[0]})
        return Run(code, *(path.read_text(encoding="utf-8") for path in started[1].values()), place, ())

    return begin, end


@pytest.mark.parametrize("seed", range(COUNT))
def test_of_two_runs_in_one_directory_one_is_done_and_the_other_refused(
    place, command_server, command, faults, undisturbed, seed
):
    """The first one waits, before it writes a file, until the second one has come to its end."""
    (begin, end), before = starting(command_server, place), hashes(place)
    write = str(random.Random(f"write {seed}").randint(1, 30))
    overrides = (*command, "hydra.run.dir=run")
    first = begin("first", *overrides, FAULT="wait", FAULT_SEED=str(seed), FAULT_WRITE=write, PYTHONPATH=faults)
    until = time.monotonic() + 60
    while not (place / "reached").exists() and first[1]["stderr"].exists() and time.monotonic() < until:
        time.sleep(0.005)
        if (place / "run" / "report.html").exists():  # it writes fewer files than that
            break
    second = end(begin("second", *overrides))
    (place / "go").touch()
    first = end(first)
    words = f"seed {seed}, write {write}: {first.exit_code} {first.stderr[-800:]} and {second.exit_code} {second.stderr[-800:]}"
    assert sorted((first.exit_code, second.exit_code)) == [0, FAILED], words
    assert "Traceback" not in first.stderr + second.stderr, words
    refused = first if first.exit_code else second
    assert "is being written by another run" in refused.stderr or "already holds a run" in refused.stderr, words
    assert_finished(place, undisturbed, before)


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory):
    """Start a process that forks for commands and whose wall clock is what a file says; return it, and their environment."""
    named = (
        [os.environ["LIBFAKETIME"]]
        if "LIBFAKETIME" in os.environ
        else sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    )
    if not named:
        pytest.skip("needs libfaketime: apt-get install faketime, or its library in LIBFAKETIME")
    file = tmp_path_factory.mktemp("clock") / "offset"
    file.write_text("+0", encoding="ascii")
    variables = {
        "LD_PRELOAD": str(named[0]), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "NO_FAKE_STAT": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "command_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | variables,
    )  # fmt: skip
    with server:
        yield server, variables


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_clock_that_jumps_and_a_machine_that_sleeps_change_no_result_and_no_duration(
    place, wrong_clock, command, faults, undisturbed, seed
):
    """By seconds to years, forward and back, a dozen times a second."""
    (server, variables), before, start = wrong_clock, hashes(place), time.monotonic()
    begin, end = starting(server, place)
    timed = [one.replace("quantize,", "quantize,benchmark,") for one in command]
    short = ("benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2")
    fault = {"FAULT": "clock", "FAULT_SEED": str(seed), "PYTHONPATH": faults}
    run = end(begin("run", *timed, *short, "hydra.run.dir=run", **variables, **fault))
    took = time.monotonic() - start
    assert run.exit_code == 0, f"seed {seed}: {run.stderr[-1500:]}"
    report = read_report(place / "run", "test")
    seconds = [stage.seconds for stage in report.stages]
    assert all(one >= 0.0 for one in seconds), f"seed {seed}: {seconds}"
    assert sum(seconds) <= took, f"seed {seed}: {seconds}, in {took} s"
    assert_finished(place, undisturbed, before, stages=4)
    lines = (place / "run" / "run.log").read_text(encoding="utf-8").splitlines()
    dates = {line[1:11] for line in lines if line.startswith("[")}
    assert len(dates) > 1, f"seed {seed}: the clock did not jump: {lines[:3]}"
