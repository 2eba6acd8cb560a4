"""Which runs a sweep has made: a small file per job in the sweep's directory.

Jobs may run in other processes or on other machines, so that the sweep can learn of them from the disk only.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.record.run_directory import REPORT_FILE

INTERRUPTED = "interrupted"  # the error of a job that a signal ended
JOBS = "jobs"  # the folder in the sweep's directory


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: counts from 0 in the order in which the sweeper launches them.
        directory: of its run.
        error: why it failed; None: it did not.
        worse: with `fail_if_worse`: which limit of quality its model breaks; None: none.
    """

    number: int
    directory: Path
    error: str | None
    worse: str | None = None


def note_job(sweep: Path, number: int, directory: Path, error: str | None = None, worse: str | None = None) -> None:
    """Note where a job writes, and, once it is known, that it failed, or that its model is worse than is allowed."""
    folder = sweep / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".{number}"
    staged.write_text(
        json.dumps({"directory": str(directory.absolute()), "error": error, "worse": worse}) + "\n", encoding="utf-8"
    )
    staged.replace(folder / f"{number}.json")


def forget_jobs(sweep: Path) -> None:
    """Forget the jobs of an earlier sweep in the same directory, which a user may have named."""
    for path in (sweep / JOBS).glob("*.json"):
        path.unlink()


def jobs_of(sweep: Path) -> list[Job]:
    """Return the jobs of a sweep by number. A job whose run has not reported that it is done has failed."""
    jobs = []
    for path in sorted((sweep / JOBS).glob("*.json"), key=lambda path: int(path.stem)):
        noted = json.loads(path.read_text(encoding="utf-8"))
        directory = Path(noted["directory"])
        failure, error = _failure(directory), noted["error"] or None
        if error == INTERRUPTED and failure is None:
            error = None  # the signal came between the end of the run and that of its job
        jobs.append(Job(int(path.stem), directory, error or failure, noted["worse"]))
    return jobs


def note_interruption(job: Job) -> None:
    """Let the report of a job say that it was interrupted, where its process was killed and could not say so itself."""
    path = job.directory / REPORT_FILE
    with contextlib.suppress(OSError, ValueError):
        report = json.loads(path.read_text(encoding="utf-8"))
        for part in (report, *report.get("stages", [])):
            if part.get("status") == "running":
                part["status"] = INTERRUPTED
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        staged.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        staged.replace(path)


def _failure(directory: Path) -> str | None:
    """Return why a run has failed, by its report; None where it is done."""
    try:
        report = json.loads((directory / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"its {REPORT_FILE} cannot be read: {error}"
    if report.get("status") == "done":
        return None
    if report.get("status") == INTERRUPTED:
        return INTERRUPTED
    return str(report.get("error") or f"it ended with status {report.get('status')}")
