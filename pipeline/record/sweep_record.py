"""Which runs a sweep is to make, and which it has made: a plan, and a small file per job, in the sweep's directory.

Jobs may run in other processes or on other machines, so that the sweep can learn of them from the disk only. A sweep that was
killed has nothing else to go on from.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.record.run_directory import CONFIG_FILE, REPORT_FILE

INTERRUPTED = "interrupted"  # the error of a job that a signal ended
JOBS = "jobs"  # the folder in the sweep's directory
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What a sweep is to run.

    Attributes:
        arguments: of the command, as Hydra takes them.
        folder: the working directory, which paths are relative to.
        stamp: the time in the names of the directories of its jobs.
        jobs: the settings of each job, by number; None: its sweeper chooses them one after the other. Of a search: those so
            far.
        trials: how many jobs a search is to run; None: it is none.
    """

    arguments: list[str]
    folder: str
    stamp: str
    jobs: list[list[str]] | None
    trials: int | None = None


def write_plan(sweep: Path, plan: Plan) -> None:
    """Write down, at the start of a sweep, what it is to run."""
    staged = sweep / f".{PLAN_FILE}.{os.getpid()}"
    staged.write_text(json.dumps(asdict(plan), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    staged.replace(sweep / PLAN_FILE)


def read_plan(sweep: Path) -> Plan:
    """Return what a sweep is to run.

    Raises:
        ConfigError: there is no plan, or it is damaged.
    """
    path = sweep / PLAN_FILE
    if not path.is_file():
        raise ConfigError(
            f"resume: {sweep} has no {PLAN_FILE}: it is the sweep of an older version. Finish its runs one by one, with "
            "resume=<the run's directory>."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        arguments, jobs = _texts(found["arguments"]), found["jobs"]
        folder, stamp = _texts([found["folder"], found["stamp"]])
        trials = None if found.get("trials") is None else int(found["trials"])
        return Plan(arguments, folder, stamp, None if jobs is None else [_texts(job) for job in jobs], trials)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"resume: {path} is damaged: {error!r}. Give the command of the sweep again.") from error


def how_many_planned(sweep: Path) -> int | None:
    """Return how many jobs a sweep is to have; None: it is not known."""
    with contextlib.suppress(ConfigError):
        plan = read_plan(sweep)
        return plan.trials if plan.trials is not None or plan.jobs is None else len(plan.jobs)
    return None


def _texts(values: Any) -> list[str]:  # noqa: ANN401
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r} is no list of texts")
    return values


def is_sweep(folder: Path) -> bool:
    """Say whether a directory is that of a sweep."""
    return (folder / PLAN_FILE).is_file() or ((folder / JOBS).is_dir() and not (folder / CONFIG_FILE).is_file())


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: counts from 0 in the order in which the sweeper launches them.
        directory: of its run.
        error: why it failed; None: it did not.
        worse: with `fail_if_worse`: which limit of quality its model breaks; None: none.
        noted: the error that it has noted itself; None: none.
    """

    number: int
    directory: Path
    error: str | None
    worse: str | None = None
    noted: str | None = None


def note_job(sweep: Path, number: int, directory: Path, error: str | None = None, worse: str | None = None) -> None:
    """Note where a job writes, and, once it is known, that it failed, or that its model is worse than is allowed."""
    folder = sweep / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".{number}"
    staged.write_text(
        json.dumps({"directory": str(directory.absolute()), "error": error, "worse": worse}) + "\n", encoding="utf-8"
    )
    staged.replace(folder / f"{number}.json")


def has_noted(sweep: Path, number: int) -> bool:
    """Say whether a job of a sweep has begun before: a launcher runs one again whose worker was lost."""
    return (sweep / JOBS / f"{number}.json").is_file()


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
        jobs.append(Job(int(path.stem), directory, error or failure, noted["worse"], error))
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
