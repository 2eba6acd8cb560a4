"""Disks that are full, processes that are killed, two runs in one place: what was there before stays, and a report says it."""

import ast
import builtins
import errno
import hashlib
import io
import json
import logging.config
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

import pipeline
from pipeline.config.composition_error import composition_error
from pipeline.errors import ConfigError, DataError, ModelError, PipelineError, StageError
from pipeline.graph.session import infer, open_session
from pipeline.outside_errors import outside_error, told_of
from pipeline.record.report_end import mark_failed
from pipeline.record.run_directory import RunDirectory, write_text
from pipeline.report.report_file import read_report
from pipeline.sample import Sample

QUANTIZED = ("model=onnx", "model.path=model.onnx", "mode=dynamic", "stages=[load,quantize]")


def hashes(folder):
    """Return the hash of every file of a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


class FullDisk:
    """Lets no file be written any more below a folder, from one opening on."""

    def __init__(self, monkeypatch, folder, after):
        self.opened, self._after, self._folder, self._open = 0, after, str(folder), io.open
        for module in (builtins, io):
            monkeypatch.setattr(module, "open", self.open)

    def open(self, file, mode="r", *arguments, **settings):
        """Be `open`; a file that is written takes its first byte, and no more."""
        stream = self._open(file, mode, *arguments, **settings)
        place = os.fspath(file) if isinstance(file, str | os.PathLike) else ""
        if place.startswith(self._folder) and not place.endswith("run.log") and any(letter in mode for letter in "wxa"):
            self.opened += 1
            if self.opened > self._after:
                return _Full(stream, place)
        return stream


class _Full:
    def __init__(self, stream, place):
        self._stream, self._place = stream, place

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        self._stream.__enter__()
        return self

    def __exit__(self, *error):
        return self._stream.__exit__(*error)

    def write(self, content):
        """Fail as a write to a full disk does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._place)


FAULTS = tuple(range(int(os.environ["FAULTS"]))) if "FAULTS" in os.environ else (3, 5, 7, 9)  # FAULTS=20: every write


@pytest.mark.parametrize("after", FAULTS)
def test_a_full_disk_ends_a_run_with_a_message_and_a_report(user_files, monkeypatch, after):
    """Whichever write it is that fails: of settings, a report, an artifact, a page."""
    monkeypatch.chdir(user_files)
    before = hashes(user_files)
    with monkeypatch.context() as patched:
        disk = FullDisk(patched, user_files / "run", after)
        try:
            pipeline.run([*QUANTIZED, "hydra.run.dir=run"])
            ended = None
        except PipelineError as error:
            ended = str(error)
    assert (ended is None) == (disk.opened <= after)
    report = user_files / "run" / "report.json"
    if ended is not None:
        assert "No space left on device" in ended
        assert not list((user_files / "run").rglob(".*.onnx*")) + list((user_files / "run").glob(".report*"))
        if report.is_file():
            assert read_report(user_files / "run", "test").status == "failed"
            assert "No space left" in json.loads(report.read_text(encoding="utf-8"))["error"]
    assert {path: digest for path, digest in hashes(user_files).items() if path in before} == before
    assert pipeline.run([*QUANTIZED, "hydra.run.dir=again"]).status == "done"  # once there is room


def test_a_report_says_that_its_run_failed_where_there_is_no_room_for_another_file(tmp_path, monkeypatch):
    stages = [{"name": "load", "status": "done", "seconds": 0.1}, {"name": "quantize", "status": "running", "seconds": None}]
    whole = {"schema": 2, "status": "running", "stages": stages, "environment": {"numpy": "2"}}
    for error in ("the disk is full", "words " * 1000):
        (tmp_path / "report.json").write_text(json.dumps(whole), encoding="utf-8")
        monkeypatch.setattr("pipeline.record.report_end.write_text", _no_space)
        mark_failed(tmp_path, error)
        report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert report["status"] == "failed"
        assert error.startswith(report["error"])
        assert (tmp_path / "report.json").stat().st_size <= len(json.dumps(whole))


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["model.onnx/run", "/proc/run"])
def test_a_place_that_cannot_be_written_is_refused_with_the_setting(user_files, run_quickly, place):
    run = run_quickly(*QUANTIZED, f"hydra.run.dir={place}")
    assert run.exit_code == 2
    assert "hydra.run.dir" in run.stderr
    assert "Traceback" not in run.stderr


KILLED = """
import os, signal, sys
import pipeline, pipeline.cli, pipeline.in_process
from pipeline import runner
run_stage = runner.Stage.run

def run(self, context):
    given = run_stage(self, context)
    if self.name == stage:
        (context.directory.path / ".staging").mkdir(exist_ok=True)
        (context.directory.path / ".staging" / "half.onnx").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return given

runner.Stage.run = run
for stage in sys.argv[2].split(","):
    if not (child := os.fork()):
        pipeline.run([*sys.argv[3:], f"hydra.run.dir={sys.argv[1]}/{stage}"])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""
FEW = ("evaluation.samples=3", "evaluation.node_samples=0", "benchmark.seconds=0", "benchmark.runs=5", "benchmark.rounds=2")


def test_a_run_that_is_killed_in_any_stage_has_failed_and_can_be_run_again(user_files, repo, run_quickly):
    stages = ("load", "inspect", "quantize", "benchmark", "evaluate")
    before = hashes(user_files)
    command = [sys.executable, "-c", KILLED, "killed", ",".join(stages), *QUANTIZED[:3], *FEW]
    subprocess.run(command, cwd=user_files, env=os.environ | {"PYTHONPATH": str(repo)}, check=True, capture_output=True)
    until = time.monotonic() + 60
    for number, stage in enumerate(stages):
        folder = user_files / "killed" / stage
        while time.monotonic() < until and '"running"' in (folder / "report.json").read_text(encoding="utf-8"):
            time.sleep(0.05)
        report = read_report(folder, "test")
        assert report.status == "failed"
        assert f"in the stage {stage}" in report.error
        assert [one.status for one in report.stages] == ["done"] * number + ["failed"] + ["pending"] * (4 - number)
        assert not (folder / ".staging").exists()
    assert {path: digest for path, digest in hashes(user_files).items() if path in before} == before
    run_quickly(f"rerun={user_files / 'killed' / 'quantize'}").succeeded()


def test_of_two_runs_in_one_directory_the_second_is_refused(tmp_path):
    second = RunDirectory.claimed(tmp_path)
    with RunDirectory.claimed(tmp_path), pytest.raises(ConfigError, match="is being written by another run"):
        second.__enter__()
    with RunDirectory.claimed(tmp_path):  # free again
        pass


def test_no_time_is_measured_by_a_clock_that_may_jump(repo):
    for path in (repo / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "time":
                assert node.attr != "time", f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("error", "stage", "words"),
    [
        (OSError(errno.EROFS, "Read-only", "/x/report.json"), None, ("/x/report.json", "read-only", "hydra.run.dir")),
        (OSError(errno.EMFILE, "Too many open files", "a"), "evaluate", ("evaluate: too many files", "ulimit -n")),
        (MemoryError("Unable to allocate 3 GiB"), "quantize", ("out of memory, with", "3 GiB", "calibration.samples")),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "evaluate", ("out of memory, with", "evaluation.samples")),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), None, ("no further thread or process", "ulimit -v and -u")),
        (RuntimeError("can't start new thread"), "load", ("load: the system starts no further thread", "of the container")),
        (type("TerminatedWorkerError", (RuntimeError,), {})("A worker"), None, ("that ran a job was killed", "n_jobs")),
    ],
)  # fmt: skip
def test_what_comes_from_around_the_program_is_told_with_what_to_do(error, stage, words):
    told = str(outside_error(error, stage))
    for word in words:
        assert word in told


def test_what_a_library_makes_another_error_of_is_told_by_its_cause(tmp_path):
    handler = {"class": "logging.FileHandler", "filename": str(tmp_path / "absent" / "run.log")}
    (tmp_path / "absent").write_bytes(b"")
    with pytest.raises(ValueError, match="Unable to configure handler") as raised:
        logging.config.dictConfig({"version": 1, "handlers": {"file": handler}, "disable_existing_loggers": False})
    assert "run.log cannot be written or read: Not a directory" in str(outside_error(raised.value))


AT_A_NODE = "Non-zero status code returned while running Conv node. Name:'conv_a' Status Message: std::bad_alloc"


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (StageError("model.onnx does not run on sample 'a'. Exclude the node"), RuntimeException(AT_A_NODE), "std::bad_alloc"),
        (
            DataError("a.npz is not an .npz that numpy reads"),
            MemoryError("Unable to allocate 3 GiB"),
            "numpy reads (Unable to allocate 3 GiB).",
        ),
        (DataError("a.npz is not an .npz that numpy reads"), MemoryError(), ": a.npz is not"),
        (ModelError("model.onnx is not an ONNX model"), DecodeError("Error parsing: Arena alloc failed"), "Arena alloc failed"),
        (ModelError("model.onnx is not an ONNX model"), OSError(errno.ENOMEM, "Cannot allocate"), "Cannot allocate"),
    ],
)
def test_no_node_sample_or_file_is_blamed_where_memory_was_used_up(error, cause, words):
    try:
        raise error from cause
    except PipelineError as raised:
        told = told_of(raised, "quantize")
    assert str(told).startswith("quantize: out of memory, with ")
    assert words in str(told)
    assert str(told).endswith("Lower calibration.samples, or give shorter samples.")
    assert told_of(told) is told  # by whoever passes it on


def test_a_library_that_memory_does_not_suffice_to_load_is_no_directory_that_cannot_be_written():
    """Under ulimit -v 300000, numpy's or libsndfile's."""
    for kind in (ImportError, OSError):
        told = composition_error(kind("libsndfile.so: failed to map segment from shared object"))
        assert told.startswith("out of memory, with ")
        assert "libsndfile.so: failed to map segment" in told
    assert composition_error(OSError(errno.EROFS, "Read-only", "failed to map segment/run")).startswith("hydra.run.dir: ")


def test_the_limit_of_the_shell_is_told_where_there_is_one(monkeypatch):
    monkeypatch.setattr("pipeline.memory.process_limits", lambda: {"-v": 900_000_000})
    told = str(told_of(MemoryError("no array.")))
    assert " MB, ulimit -v allows 900 MB: no array. Lower" in told
    assert told.endswith(", or raise that limit.")


def test_a_call_of_c_that_failed_and_says_not_why_has_met_the_limit_where_there_is_one(monkeypatch):
    error = SystemError("error return without exception set")
    for limits, told in (({}, False), ({"-d": 10**9}, True)):
        monkeypatch.setattr("pipeline.memory.process_limits", lambda limits=limits: limits)
        assert (told_of(error) is not None) is told


def test_a_name_that_sounds_like_it_is_no_lack_of_memory():
    error = ModelError("model.path: bad_alloc.onnx has no node std::bad_alloc")
    assert told_of(error) is error


def test_a_session_that_lacks_memory_does_not_blame_its_graph(build):
    """ONNX Runtime does: `FAIL`, with the name of the node."""
    model = build("g (int64[1] shape) => (float[n] y) { y = Expand (one, shape) }", one=np.ones(1, np.float32))
    session = open_session(model)
    with pytest.raises(MemoryError, match="Failed to allocate memory"):
        infer(session, Sample("a", {"shape": np.array([2**44])}))


def test_a_run_without_the_memory_to_say_so_lets_another_process_say_that_it_failed(user_files, monkeypatch):
    def stage_run(*_):
        raise StageError("model.onnx does not run on sample 'a'") from RuntimeException(AT_A_NODE)

    def write(target, text):
        if target.name == "report.json" and '"failed"' in text:
            raise MemoryError
        write_text(target, text)

    monkeypatch.chdir(user_files)
    monkeypatch.setattr("pipeline.runner.Stage.run", stage_run)
    for module in ("run_directory", "report_end"):
        monkeypatch.setattr(f"pipeline.record.{module}.write_text", write)
    with pytest.raises(PipelineError, match="load: out of memory, with") as raised:
        pipeline.run([*QUANTIZED, "hydra.run.dir=run"])
    report = read_report(user_files / "run", "test")
    assert (report.status, report.error) == ("failed", str(raised.value))
    assert [stage.status for stage in report.stages] == ["failed", "pending"]


def test_a_defect_of_the_program_is_none_of_them():
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("x")):
        assert outside_error(error) is None
