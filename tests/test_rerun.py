"""A past run, again: in a new directory, from its own settings, and what came out differently."""

import hashlib
import json

import pytest

from pipeline.errors import ConfigError
from pipeline.report.report_file import read_report, report_from_json, report_to_json
from pipeline.rerun import with_differences


def contents(directory):
    """Return what lies in a directory, with hashes and times of change."""
    return {
        str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def past(user_files, run_quickly, users_model, users_data):
    """Return a run of the user's model, with all that can differ: calibration, noise-free metrics, an artifact."""
    overrides = ("mode=static", "seed=3", "stages=[load,quantize,evaluate]")
    return run_quickly(*users_model, *users_data, *overrides).succeeded()


def test_a_rerun_gives_the_same_files_and_metrics_in_a_new_directory(past, run_quickly):
    before = contents(past.directory)
    again = run_quickly(f"rerun={past.directory}").succeeded()
    assert again.directory != past.directory
    assert again.directory.parent == past.directory.parent
    found = again.report["rerun"]
    assert found["artifacts_identical"] == {"model.int8.onnx": True}
    assert found["metrics_moved"] == {}
    assert found["inputs_changed"] == []
    assert found["environment_changed"] == []
    artifact = "model.int8.onnx"
    assert (again.directory / artifact).read_bytes() == (past.directory / artifact).read_bytes()
    assert contents(past.directory) == before


def test_a_rerun_takes_its_settings_from_the_past_run_and_can_be_run_again_itself(past, run_quickly):
    again = run_quickly(f"rerun={past.directory}").succeeded()
    config = "config.yaml"
    assert (again.directory / config).read_text(encoding="utf-8") == (past.directory / config).read_text(encoding="utf-8")
    third = run_quickly(f"rerun={again.directory}").succeeded()
    assert third.report["rerun"]["artifacts_identical"] == {"model.int8.onnx": True}


def test_an_input_that_has_changed_is_listed_and_so_is_what_follows(past, run_quickly, user_files, write_arrays, make_noise):
    write_arrays(user_files / "calib.npz", {"other": {"x": 5 * make_noise(20, seed=9)}})
    before = contents(past.directory)
    found = run_quickly(f"rerun={past.directory}").succeeded().report["rerun"]
    [changed] = found["inputs_changed"]
    assert "calib.npz" in changed
    assert found["artifacts_identical"] == {"model.int8.onnx": False}
    assert "mse" in found["metrics_moved"]
    assert contents(past.directory) == before


def test_a_run_that_failed_can_be_run_again_once_its_input_is_there(user_files, run_quickly, users_model, users_data):
    (user_files / "calib.npz").rename(user_files / "elsewhere.npz")
    failed = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize]")
    assert failed.exit_code == 2
    (user_files / "elsewhere.npz").rename(user_files / "calib.npz")
    again = run_quickly(f"rerun={failed.directory}").succeeded()
    assert again.report["rerun"]["artifacts_identical"] == {"model.int8.onnx": False}


def report(**changes):
    """Return a small report."""
    metric = {"baseline": 0.0, "delta": None, "unit": "", "higher_is_better": False}
    artifact = {"graph": "model", "file": "model.int8.onnx", "sha256": "3", "bytes": 1, "baseline_bytes": 4}
    parts = {
        "inputs": [input_file("a", "1"), input_file("b", "2")],
        "environment": {"onnxruntime": "1.0", "cpu": "one"},
        "artifacts": [{**artifact, "quantized_nodes": {}}],
        **changes,
    }
    values = parts.pop("metrics", {"mse": 0.5, "sqnr_db": None})
    metrics = {name: {**metric, "quantized": value} for name, value in values.items()}
    evaluation = {"samples": 1, "metrics": metrics}
    return report_from_json({"schema": 2, "status": "done", "evaluation": evaluation, **parts}, "report")


def input_file(path, sha256):
    return {"path": path, "sha256": sha256, "bytes": 1}


def differences(past, now, directory):
    """Return the `rerun` of report.json."""
    return report_to_json(with_differences(now, past, directory))["rerun"]


def test_nothing_differs_from_the_same(tmp_path):
    found = differences(report(), report(), tmp_path)
    assert found == {
        "of": str(tmp_path),
        "inputs_changed": [],
        "environment_changed": [],
        "artifacts_identical": {"model.int8.onnx": True},
        "metrics_moved": {},
    }


def test_other_versions_are_listed(tmp_path):
    now = report(environment={"onnxruntime": "1.1", "cpu": "one"})
    assert differences(report(), now, tmp_path)["environment_changed"] == ["onnxruntime: 1.0 -> 1.1"]


def test_inputs_that_are_new_or_gone_are_listed(tmp_path):
    now = report(inputs=[input_file("a", "9"), input_file("c", "2")])
    changed = differences(report(), now, tmp_path)["inputs_changed"]
    assert changed == ["a: other contents", "b: no longer read", "c: not read before"]


def test_metrics_that_moved_are_listed_with_both_values(tmp_path):
    moved = differences(report(), report(metrics={"mse": 0.6, "sqnr_db": 12.0}), tmp_path)["metrics_moved"]
    assert moved == {"mse": [0.5, 0.6], "sqnr_db": [None, 12.0]}


def test_a_metric_that_differs_in_its_last_bits_has_not_moved(tmp_path):
    now = report(metrics={"mse": 0.5 + 1e-12, "sqnr_db": None})
    assert differences(report(), now, tmp_path)["metrics_moved"] == {}


def test_an_artifact_that_is_no_longer_made_is_not_identical(tmp_path):
    assert differences(report(), report(artifacts=[]), tmp_path)["artifacts_identical"] == {"model.int8.onnx": False}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}'])
def test_a_file_that_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rerun: .*report\.json"):
        read_report(tmp_path, "rerun")


def test_the_report_of_a_run_that_ended_before_it_began_can_still_be_compared(tmp_path):
    early = {"schema": 2, "status": "failed", "error": "mode: wrong", "warnings": []}
    (tmp_path / "report.json").write_text(json.dumps(early), encoding="utf-8")
    found = differences(read_report(tmp_path, "rerun"), report(), tmp_path)
    assert found["inputs_changed"] == ["a: not read before", "b: not read before"]
