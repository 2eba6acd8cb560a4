"""A run's directory is written atomically, and left without half-written files."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.record.run_directory import RunDirectory
from pipeline.typed_json import to_json


def test_infinite_and_undefined_numbers_become_null(run_directory):
    found = {"a": math.inf, "b": [-math.inf, math.nan, 1.5], "c": {"d": (math.inf, 2)}, "e": Path("x")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_directory.write_report(found)
    run_directory.write_report(to_json(found))
    written = json.loads((run_directory.path / "report.json").read_text(encoding="utf-8"))
    assert written == {"a": None, "b": [None, None, 1.5], "c": {"d": [None, 2]}, "e": "x"}


def test_a_report_that_cannot_be_written_leaves_the_one_before(run_directory):
    run_directory.write_report({"status": "running"})
    with pytest.raises(TypeError):
        run_directory.write_report({"status": object()})
    assert json.loads((run_directory.path / "report.json").read_text(encoding="utf-8")) == {"status": "running"}
    assert [path.name for path in run_directory.path.iterdir()] == ["report.json"]


KILLED = """
import os, pathlib, sys
from pipeline.record.run_directory import RunDirectory
directory = RunDirectory(pathlib.Path(sys.argv[1]))
directory.write_report({"status": "running"})
whole = pathlib.Path.open
class HalfWay:
    def __init__(self, stream):
        self.stream = stream
    def __enter__(self):
        return self
    def __exit__(self, *error):
        os._exit(1)
    def write(self, text):
        self.stream.write(text[: len(text) // 2])
        self.stream.flush()
        os._exit(9)
pathlib.Path.open = lambda *arguments, **settings: HalfWay(whole(*arguments, **settings))
directory.write_report({"status": "done", "numbers": list(range(1000))})
"""


def test_a_run_that_is_killed_while_it_writes_leaves_the_whole_report_from_before(tmp_path, repo):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=repo, check=False)
    assert killed.returncode == 9
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"status": "running"}


def test_an_artifact_has_no_name_in_the_directory_before_it_is_published(run_directory):
    staged = run_directory.staging("model.int8.onnx")
    staged.write_bytes(b"graph")
    staged.with_name("model.int8.onnx.data").write_bytes(b"weights")
    assert not list(run_directory.path.glob("*.onnx*"))
    assert run_directory.publish(staged) == run_directory.path / "model.int8.onnx"
    run_directory.clear_staging()
    assert sorted(path.name for path in run_directory.path.iterdir()) == ["model.int8.onnx", "model.int8.onnx.data"]


def test_what_was_never_published_is_removed(run_directory):
    run_directory.staging("model.int8.onnx").write_bytes(b"half")
    run_directory.clear_staging()
    assert not list(run_directory.path.iterdir())


def test_a_directory_that_another_run_has_reported_into_is_refused(run_directory):
    run_directory.write_report({"status": "done"})
    with pytest.raises(ConfigError, match=r"already holds a run's report\.json"):
        RunDirectory(run_directory.path)


@pytest.mark.parametrize("stages", [[], [{"name": "load", "status": "failed", "seconds": 0.1}]])
def test_a_run_that_failed_before_it_had_done_anything_gives_its_directory_to_the_corrected_one(run_directory, stages):
    run_directory.write_report({"status": "failed", "stages": stages})
    assert RunDirectory(run_directory.path).path == run_directory.path


@pytest.mark.parametrize("status", ["running", "interrupted", "done", "failed"])
def test_a_run_that_is_going_on_or_has_done_something_keeps_its_directory(run_directory, status):
    done = [{"name": "load", "status": "done", "seconds": 0.1}] if status == "failed" else []
    run_directory.write_report({"status": status, "stages": done})
    with pytest.raises(ConfigError, match=r"already holds a run's report\.json"):
        RunDirectory(run_directory.path)
