"""`kill -9` at any moment of a run or a sweep, then `resume`: what comes of it is what an undisturbed one gives.

A longer loop: RESUME_MOMENTS=20 python -m pytest tests/test_resume.py
"""

import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest

from pipeline.report.report_file import read_report
from pipeline.report.restored import Restored, restored
from pipeline.report.writer import report_of
from pipeline.runner import stages_of
from pipeline.stages.context import RunContext
from tests.conftest import write_user_files

MOMENTS = int(os.environ.get("RESUME_MOMENTS", "2"))
SETTINGS = (
    "mode=static", "package=onnx", "package.license=mit", "benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2",
)  # fmt: skip
UNTIMED = "stages=[load,inspect,quantize,evaluate,package]"
HERE = "hydra.run.dir=run"
SWEEP = ("-m", "mode=static,dynamic", "mode.nodes_to_exclude=[conv_a],['conv_*']", "hydra.sweep.dir=sweep")
SWEPT = "stages=[load,quantize,evaluate]"
KILLED = -9


@pytest.fixture(scope="module")
def settings(users_model, users_data):
    return (*users_model, *users_data, *SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run_in, users_model, users_data, settings):
    """Return the folders of a run with all stages, of one without timing, and of a sweep, that nothing has disturbed."""
    found = {}
    for name, overrides in (
        ("timed", (*settings, HERE)),
        ("untimed", (*settings, UNTIMED, HERE)),
        ("sweep", (*users_model, *users_data, *SWEEP, SWEPT)),
    ):
        found[name] = write_user_files(tmp_path_factory.mktemp(name))
        run_in(found[name], *overrides)
    return found


@pytest.fixture
def run(user_files, run_in, killer):
    """Return a function that runs the command in the user's folder; it may be killed."""

    def start(*overrides, **variables):
        return run_in(user_files, *overrides, **variables, **({"PYTHONPATH": str(killer)} if variables else {}))

    return start


def told(folder, base=None):
    """Return what the report of a run says, without what depends on time, and on the folder that it was made in."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for stage in report["stages"]:
        stage["seconds"] = None
    for graph in report.get("inspect", {}).values():
        for key in ("time_share", "reasons", "advised_mode"):
            del graph[key]
    for file in report.get("package", {}).get("files", []):
        if file["file"] == "README.md":  # the card has the latency
            file["sha256"] = file["bytes"] = None
    for graph in report.get("benchmark", {}):
        report["benchmark"][graph] = None
    del report["try_next"]
    report["verdict"]["speed"] = None
    report["warnings"] = [text for text in report["warnings"] if "interval" not in text and "slower" not in text]
    return json.loads(json.dumps(report).replace(str(base or folder.absolute().parent), "."))


def files_of(folder):
    """Return the files of a run, those of Hydra left out."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts}


def steps_of(folder):
    """Return how often each stage was run to its end; `load` leaves nothing but what is in memory."""
    log = (folder / "run.log").read_text(encoding="utf-8")
    stages = ("inspect", "quantize", "benchmark", "evaluate", "package")
    return {stage: count for stage in stages if (count := log.count(f"- {stage} took"))}


def assert_same(folder, other):
    assert told(folder) == told(other)
    assert files_of(folder) == files_of(other)
    assert (folder / "config.yaml").read_text(encoding="utf-8").replace(str(folder.parent), str(other.parent)) == (
        other / "config.yaml"
    ).read_text(encoding="utf-8")
    for graph in other.glob("*.onnx"):
        assert (folder / graph.name).read_bytes() == graph.read_bytes()


def begins(stage):
    """Return what kills a run once it has begun a stage: those before it are done, and their report is written."""
    return f"run/run.log|- {stage}\n"


@pytest.mark.parametrize(("stage", "done"), [("benchmark", ["inspect", "quantize"]), ("package", ["quantize", "evaluate"])])
def test_a_run_goes_on_after_the_last_stage_that_was_done(run, user_files, settings, undisturbed, stage, done):
    place = user_files / "run"
    assert run(*settings, HERE, KILL_WHEN=begins(stage)).exit_code == KILLED
    before = {path.name: path.stat().st_mtime_ns for path in place.glob("*.onnx")}
    run("resume=run").succeeded()
    assert_same(place, undisturbed["timed"] / "run")
    assert all(steps_of(place)[one] == 1 for one in done)
    assert before == {path.name: path.stat().st_mtime_ns for path in place.glob("*.onnx")}


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_run_that_is_killed_at_any_moment_can_be_finished(run, user_files, settings, undisturbed, moment):
    place, command = user_files / "run", (*settings, UNTIMED, HERE)
    for attempt in range(2):  # the second one kills what was resumed
        after = random.Random(f"{moment} {attempt}").uniform(0.05, 1.3)
        again = ("resume=run",) if (place / "config.yaml").is_file() else command
        if run(*again, KILL_AFTER=str(after)).exit_code == KILLED and not (place / "config.yaml").is_file():
            assert "not a run's directory" in run("resume=run").stderr
    run(*(("resume=run",) if (place / "config.yaml").is_file() else command)).succeeded()
    assert_same(place, undisturbed["untimed"] / "run")


def runs_of(folder):
    return sorted(folder.glob("outputs/model/*/*"), key=lambda path: int(path.name.rpartition("_")[2]))


def table_of(folder):
    """Return the table of a sweep, without times and places."""
    rows = json.loads((folder / "sweep" / "comparison.json").read_text(encoding="utf-8"))
    kept = ("run", "graph", "status", "error", "bytes", "size_ratio", "quality", "metrics")
    return sorted(json.dumps({key: row.get(key) for key in kept if key != "run" or "settings" in row}) for row in rows)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_sweep_that_is_killed_at_any_moment_can_be_finished(run, user_files, users_model, users_data, undisturbed, moment):
    command = (*users_model, *users_data, *SWEEP, SWEPT)
    after = random.Random(f"sweep {moment}").uniform(0.2, 4.0)
    run(*command, KILL_AFTER=str(after))
    done = [place for place in runs_of(user_files) if (place / "report.html").is_file()]
    logs = {place: (place / "run.log").read_text(encoding="utf-8") for place in done}
    planned = (user_files / "sweep" / "plan.json").is_file()
    ended = run("resume=sweep") if planned else run(*command)
    assert ended.exit_code == 2  # two of the jobs have nothing to quantize
    assert "2 of 4 jobs failed: #1, #3" in ended.stdout
    assert table_of(user_files) == table_of(undisturbed["sweep"])
    places, others = runs_of(user_files), runs_of(undisturbed["sweep"])
    assert len(places) == len(others) == 4
    for place, other in zip(places, others, strict=True):
        assert files_of(place) - {".unfinished.json"} == files_of(other) - {".unfinished.json"}
        if json.loads((other / "report.json").read_text(encoding="utf-8"))["status"] == "done":
            assert told(place, user_files) == told(other, undisturbed["sweep"])
    assert all((place / "run.log").read_text(encoding="utf-8") == log for place, log in logs.items())  # not run again
    assert not [path for path in (user_files / "sweep").rglob(".*") if path.is_file()]


def test_a_run_that_is_done_is_left_as_it_is(undisturbed, run_in):
    folder = undisturbed["untimed"]
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")}
    again = run_in(folder, "resume=run").succeeded()
    assert again.stdout.strip() == "run is done: nothing is left to do."
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*")}
    assert again.directories == ()


def test_an_input_that_has_changed_is_named_and_nothing_is_run(run, user_files, settings, write_arrays, make_noise):
    place = user_files / "run"
    run(*settings, UNTIMED, HERE, KILL_WHEN=begins("evaluate"))
    log = (place / "run.log").read_text(encoding="utf-8")
    write_arrays(user_files / "calib.npz", {"other": {"x": make_noise(20, seed=9)}})
    refused = run("resume=run")
    assert refused.exit_code == 2
    assert "calib.npz: other contents" in refused.stderr
    assert "eval.npz" not in refused.stderr
    (user_files / "eval.npz").unlink()
    assert "eval.npz: is gone" in run("resume=run").stderr
    assert (place / "run.log").read_text(encoding="utf-8") == log


def test_an_artifact_that_is_another_one_is_made_again(run, user_files, settings, undisturbed):
    place = user_files / "run"
    run(*settings, UNTIMED, HERE, KILL_WHEN=begins("package"))
    (place / "model.int8.onnx").write_bytes(b"half")
    run("resume=run").succeeded()
    assert_same(place, undisturbed["untimed"] / "run")


def test_what_the_user_has_put_into_the_directory_stays_there(run, user_files, settings):
    place = user_files / "run"
    place.mkdir()
    for name in ("mine.onnx", ".mine.1"):
        (place / name).write_bytes(b"mine")
    run(*settings, UNTIMED, HERE, KILL_WHEN=begins("evaluate"))
    (place / "later.onnx").write_bytes(b"mine")
    (place / ".report.json.1").write_text("{", encoding="utf-8")
    (place / ".staging").mkdir(exist_ok=True)
    run("resume=run").succeeded()
    assert {"mine.onnx", ".mine.1", "later.onnx"} <= files_of(place)
    assert not {".report.json.1", ".staging", ".unfinished.json"} & {path.name for path in place.iterdir()}


def test_failed_jobs_are_tried_again_only_where_that_is_asked_for(run, user_files, users_model, users_data):
    (user_files / "calib.npz").rename(user_files / "later.npz")
    command = ("-m", *users_model, *users_data, "mode=static", "seed=1,2", "stages=[load,quantize]", "hydra.sweep.dir=sweep")
    assert "2 of 2 jobs failed" in run(*command).stdout
    (user_files / "later.npz").rename(user_files / "calib.npz")
    left = run("resume=sweep")
    assert left.exit_code == 2
    assert "#0: failed before" in left.stdout
    assert "2 of 2 jobs failed: #0, #1" in left.stdout
    assert "jobs failed" not in run("resume=sweep", "resume_failed=true").succeeded().stdout
    assert run("resume=sweep").stdout.count("done before") == 2


def test_settings_and_what_is_kept_of_a_run_are_checked_as_those_of_a_command_line(run, user_files, settings):
    place = user_files / "run"
    run(*settings, UNTIMED, HERE, KILL_WHEN=begins("evaluate"))
    config, kept = ((place / name).read_text(encoding="utf-8") for name in ("config.yaml", ".unfinished.json"))
    evil = re.sub(r"_target_: .*", "_target_: os.getcwd", config)
    (place / "config.yaml").write_text(evil, encoding="utf-8")
    refused = run("resume=run")
    assert refused.exit_code == 2
    assert "'os.getcwd' is not allowed" in refused.stderr
    (place / "config.yaml").write_text(config, encoding="utf-8")
    for damaged in (kept[:20], "[]", '{"overrides": "x"}', '{"standing": {"schema": 2}}'):
        (place / ".unfinished.json").write_text(damaged, encoding="utf-8")
        refused = run("resume=run")
        assert refused.exit_code == 2
        assert ".unfinished.json" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_sweep_is_repeated_from_the_settings_of_its_runs_alone(undisturbed, run_in, tmp_path):
    folder = undisturbed["sweep"]
    again = run_in(tmp_path, f"rerun={folder}/sweep")
    assert again.exit_code == 2
    assert "2 of 4 jobs failed: #1, #3" in again.stdout
    assert "2 of 2 artifacts are bit-identical" in again.stdout
    assert sorted(path.parent.name for path in again.directories) == ["dynamic", "dynamic", "static", "static"]


def test_verify_says_what_has_changed_and_runs_nothing(undisturbed, run_in, tmp_path):
    folder = write_user_files(tmp_path)
    shutil.copytree(undisturbed["untimed"] / "run", folder / "run")
    text = (folder / "run" / "report.json").read_text(encoding="utf-8").replace(str(undisturbed["untimed"]), str(folder))
    (folder / "run" / "report.json").write_text(text, encoding="utf-8")
    before = files_of(folder)
    fine = run_in(folder, "verify=run").succeeded()
    assert "3 inputs: unchanged" in fine.stdout
    assert "environment: unchanged" in fine.stdout
    report = json.loads(text)
    report["environment"] |= {"onnxruntime": "1.0", "cpu_flags": [*report["environment"]["cpu_flags"], "avx1024"]}
    (folder / "run" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    moved = run_in(folder, "verify=run").succeeded().stdout
    assert "onnxruntime: 1.0 ->" in moved
    assert "cpu_flags: no avx1024" in moved
    (folder / "run" / "model.int8.onnx").write_bytes(b"other")
    (folder / "run" / "package" / "model.int8.onnx").unlink()
    (folder / "calib.npz").unlink()
    changed = run_in(folder, "verify=run")
    assert changed.exit_code == 2
    for words in ("model.int8.onnx: other contents", "package/model.int8.onnx: is gone", "calib.npz: is gone"):
        assert words in changed.stdout
    assert files_of(folder) - {"outputs/index.html"} <= before | {".scratch/stdout", ".scratch/stderr"}


@pytest.mark.parametrize(
    "planted",
    [
     "hydra.callbacks.x._target_=os.getcwd", "+hydra.callbacks.x._target_=os.getcwd", "hydra/job_logging=evil",
     "hydra.searchpath=[file:///tmp]", "hydra/sweeper=evil", "hydra.launcher._target_=os.getcwd",
     "hydra.launcher.setup=[touch x]", "tracking.uri=http://elsewhere", "hydra.sweeper._target_=os.getcwd",
     "hydra.launcher.pre_dispatch=exit()", "experiment=../../evil", "model=/tmp/evil", "mode.x={_target_:os.getcwd}",
     "calibration._target_=os.getcwd", "hydra.sweep.subdir=/tmp/elsewhere", "--config-dir=/tmp", "-cd", "~model"],
)  # fmt: skip
def test_a_plan_cannot_make_hydra_read_or_call_anything(tmp_path, run_in, planted):
    sweep = tmp_path / "sweep"
    (sweep / "jobs").mkdir(parents=True)
    plan = {"arguments": ["model=vocoder", planted], "folder": str(tmp_path), "stamp": "2026-01-01_00-00-00", "jobs": [[]]}
    (sweep / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    refused = run_in(tmp_path, "resume=sweep")
    assert refused.exit_code == 2
    assert repr(planted) in refused.stderr
    assert "not taken from a file" in refused.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arguments": [1], "folder": "", "stamp": "", "jobs": null}'])
def test_a_damaged_plan_is_an_error(tmp_path, run_in, text):
    (tmp_path / "sweep" / "jobs").mkdir(parents=True)
    (tmp_path / "sweep" / "plan.json").write_text(text, encoding="utf-8")
    refused = run_in(tmp_path, "resume=sweep")
    assert refused.exit_code == 2
    assert "plan.json is damaged" in refused.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(("resume=nowhere",), "not a run's directory"), (("verify=nowhere",), "not a run's directory"),
     (("resume=run", "seed=1"), "seed=1 beside resume"), (("verify=run", "seed=1"), "seed=1 beside verify"),
     (("-m", "resume=run", "seed=1,2"), "leave out -m"), (("-m", "verify=run", "seed=1,2"), "leave out -m"),
     (("resume=run", "resume_failed=true"), "resume_failed")],
)  # fmt: skip
def test_what_cannot_be_resumed_or_verified_is_refused(undisturbed, run_in, overrides, said):
    refused = run_in(undisturbed["untimed"], *overrides)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_that_goes_on_is_not_resumed_by_another_process(undisturbed, run_in):
    import fcntl

    folder = undisturbed["timed"]
    (folder / "run" / "report.html").rename(folder / "report.html")  # not finished
    handle = os.open(folder / "run", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        refused = run_in(folder, "resume=run")
    finally:
        os.close(handle)
        (folder / "report.html").rename(folder / "run" / "report.html")
    assert refused.exit_code == 2
    assert "is being written by another run" in refused.stderr


@pytest.mark.parametrize("model", ["matcha", "asr"])
def test_what_is_restored_from_a_report_gives_the_same_report(shipped_run, model, settings):
    """With recordings and transcripts, several outputs, infinite values: nothing is lost on the way."""
    directory = Path(shipped_run(model, "static").directory)
    report = read_report(directory, "resume")
    found = restored(report, directory)
    assert isinstance(found, Restored)
    assert [stage.name for stage in found.stages] == [stage.name for stage in report.stages]
    context = RunContext.__new__(RunContext)
    RunContext.__init__(context, None, type("Directory", (), {"path": directory})())
    found.put_into(context)
    again = report_of(
        "done", model=report.model, mode=report.mode, stages=stages_of([], list(found.stages), "done"),
        environment=report.environment, run_log=context.run_log, inspection=context.inspection, quantized=context.quantized,
        samples={"selection": report.samples.selection, "report": report.samples.report}, benchmarks=context.benchmarks,
        evaluation=context.evaluation,
    )  # fmt: skip
    from pipeline.report.report_file import report_to_json

    before, after = report_to_json(report), report_to_json(again)
    del before["try_next"], after["try_next"]
    assert before == after
