"""What a sweep finds out of its jobs from the disk alone."""

import json

import pytest

from pipeline.record.sweep_record import INTERRUPTED, jobs_of, note_job


@pytest.fixture
def job_error(tmp_path):
    """Return a function: the status in a run's report, what its job noted -> the error that the sweep sees."""

    def error(status, noted):
        run = tmp_path / "run"
        run.mkdir()
        (run / "report.json").write_text(json.dumps({"status": status}), encoding="utf-8")
        note_job(tmp_path, 0, run, noted)
        [job] = jobs_of(tmp_path)
        return job.error

    return error


@pytest.mark.parametrize(
    ("status", "noted", "seen"),
    [
        ("done", None, None),
        ("done", INTERRUPTED, None),  # the signal came between the end of the run and that of its job
        ("done", "no space left", "no space left"),
        ("interrupted", None, INTERRUPTED),
        ("interrupted", INTERRUPTED, INTERRUPTED),
        ("running", INTERRUPTED, INTERRUPTED),
        ("running", None, "it ended with status running"),
    ],
)
def test_a_job_whose_run_is_done_was_not_interrupted(job_error, status, noted, seen):
    assert job_error(status, noted) == seen
