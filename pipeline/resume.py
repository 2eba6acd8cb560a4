"""A run that ended early, to its end: killed, failed or interrupted, it goes on in its own directory.

It goes on from the last stage that was done; what that gave is read from its report and its files. Nothing that is stored in
its directory is executed: settings are typed and checked as those of a command line, the rest is JSON.
"""

import contextlib
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.cache.current_cache import CacheConfig
from pipeline.config.help_text import program
from pipeline.errors import ConfigError
from pipeline.past_runs import refuse_others, remove_empty_run
from pipeline.record.console import LogFile
from pipeline.record.environment import environment
from pipeline.record.run_directory import PACKAGE, PAGE_FILE, RunDirectory, past_config_file
from pipeline.record.sweep_record import INTERRUPTED, PLAN_FILE, is_sweep, jobs_of, read_plan
from pipeline.report.report_file import read_report, write_report
from pipeline.report.restored import Restored, restored
from pipeline.report.unfinished import (
    clear,
    end_unfinished,
    has_failed_itself,
    is_finished,
    read_unfinished,
    standing_report,
)
from pipeline.rerun import environment_changed, files_changed, with_differences

if TYPE_CHECKING:
    from pipeline.config.settings import RunConfig
    from pipeline.report.schema import Report

LOG_FILE = "run.log"
OF_COMMAND = ("tracking", "results")  # groups of settings that are no run's own
LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"  # Hydra's


def resume_run(directory: RunDirectory, cache: CacheConfig) -> "Report":
    """Finish a run in its own directory, and return its report: that of a run that was not disturbed, but for times.

    Args:
        directory: of the run.
        cache: what this command uses: where the run's own settings would have it, a stranger may have chosen.

    Raises:
        ConfigError: its settings or its report cannot be read, or a file that it has read is another one now.
        PipelineError: it fails again; the report says so.
        KeyboardInterrupt: it is interrupted again.
    """
    from pipeline.config.compose import read_run_config
    from pipeline.runner import run_stages

    folder = directory.path
    config, _ = read_run_config(past_config_file(str(folder), "resume"))
    config = replace(config, cache=replace(cache, enabled=cache.enabled and config.cache.enabled))
    unfinished = read_unfinished(folder)
    report = standing_report(folder, unfinished)
    if changed := files_changed(report.inputs):
        raise ConfigError(
            f"resume: {folder}: what it has read is not the same any more: {'; '.join(changed)}. Bring the files back, or run "
            f"it with those of today: rerun={folder}."
        )
    found = restored(report, folder)
    if unfinished is not None:
        clear(folder, made_by_halves(folder, found, unfinished.there))
    others = environment_changed(report.environment, environment()) if found.stages else []
    told = [f"resume: the first stages of this run were made with something else: {'; '.join(others)}."] if others else []
    done = run_stages(config, directory, warnings=told, restored=found)
    if unfinished is None:
        return finish(directory, done, config, [], None)
    return finish(directory, done, config, unfinished.overrides, unfinished.rerun)


@dataclass(frozen=True)
class Left:
    """What is left to do of a run that is to go on.

    Attributes:
        to_do: whether it must run.
        told: what is said where it need not.
        report: of a run that is done.
        fail_if_worse: whether quality beyond its limit makes an exit status of its own.
    """

    to_do: bool
    told: str = ""
    report: "Report | None" = None
    fail_if_worse: bool = False


def left_of(composed: DictConfig, folder: Path, overrides: Sequence[str]) -> Left:
    """Return what is left to do of the run that `resume` names, or of a job of a sweep that has begun before.

    Args:
        composed: the settings.
        folder: the directory that Hydra made: that of the job, in a sweep; then the caller has locked it.
        overrides: the settings of the job.

    Raises:
        ConfigError: no sweep goes on where one was asked for, or its jobs are others than they were.
    """
    settings = HydraConfig.get()
    if settings.mode is not RunMode.MULTIRUN:
        place = Path(composed.resume)
        if composed.resume_failed:
            raise ConfigError(
                "resume_failed: is for the failed runs of a sweep; a run that is named goes on anyway. Leave it out."
            )
        refuse_others("resume", list(overrides), but=OF_COMMAND)
        if is_finished(place):
            remove_empty_run(folder)
            return Left(to_do=False, told=f"{place} is done: nothing is left to do.")
        unfinished = read_unfinished(place)
        return Left(to_do=True, fail_if_worse=unfinished is not None and unfinished.fail_if_worse)
    sweep, number, strict = Path(settings.sweep.dir), settings.job.num, bool(composed.fail_if_worse)
    if composed.resume is not None and not (
        is_sweep(Path(composed.resume)) and Path(composed.resume).absolute() == sweep.absolute()
    ):
        raise ConfigError("resume: one run, or one sweep, goes on where it ended; leave out -m.")
    jobs = read_plan(sweep).jobs  # None: of a sweeper that chooses as it goes
    if jobs is not None and [own_overrides(job) for job in jobs[number : number + 1]] != [own_overrides(overrides)]:
        raise ConfigError(
            f"resume: #{number} of {sweep} is not what it was: the files of conf/ or the sweep's {PLAN_FILE} have changed. "
            "Give the command of the sweep again."
        )
    job = next((job for job in jobs_of(sweep) if job.number == number), None)
    if job is not None and job.directory != folder.absolute():
        raise ConfigError(
            f"resume: #{number} of {sweep} ran in {job.directory}, and would go on in {folder.absolute()}: was the sweep moved?"
        )
    failed = has_failed_itself(folder) or (job is not None and job.noted not in (None, INTERRUPTED))
    if failed and not composed.resume_failed:
        return Left(to_do=False, told=f"#{number}: failed before; resume_failed=true tries it again")
    if is_finished(folder):
        return Left(to_do=False, told=f"#{number}: done before", report=read_report(folder, "resume"), fail_if_worse=strict)
    return Left(to_do=True, fail_if_worse=strict)


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the settings of a run without those that say only that it goes on, and without Hydra's."""
    return [text for text in overrides if not text.lstrip("+~").startswith(("resume=", "resume_failed=", "hydra.", "hydra/"))]


def finish(
    directory: RunDirectory, report: "Report", config: "RunConfig", overrides: Sequence[str], past: str | None
) -> "Report":
    """Write what follows from the report of a run whose stages are done: what to try next, what differs, the page.

    Args:
        directory: of the run.
        report: of its stages.
        config: its settings.
        overrides: the settings that were given, as Hydra takes them.
        past: the directory of the run that it repeats; None: none.
    """
    from pipeline.report.html.run_page import write_page
    from pipeline.report.try_next import suggestions

    if past is not None:
        report = with_differences(report, read_report(Path(past), "rerun"), Path(past))
    else:
        report = replace(report, try_next=suggestions(report, config, list(overrides), program(sys.argv[0])))
    report = write_report(directory, report)
    directory.write_text(PAGE_FILE, write_page(report, directory.path, config.report.language.name))
    end_unfinished(directory)
    return report


@contextmanager
def log_in(folder: Path) -> Iterator[None]:
    """Write what the pipeline logs into a run's directory; the caller's own logging stays as it is."""
    logger = logging.getLogger("pipeline")
    handler = LogFile(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def made_by_halves(folder: Path, found: Restored, there: Collection[str]) -> set[str]:
    """Return what lies in a run's directory of stages that are run again.

    Args:
        folder: of the run.
        found: what is left of it.
        there: names of what was there before the run: the user's.
    """
    done = {stage.name for stage in found.stages}
    made = set() if PACKAGE in done else {PACKAGE}
    if "quantize" not in done:
        with contextlib.suppress(ConfigError):  # it has none yet
            files = [one.file for one in read_report(folder, "resume").artifacts or []]
            made |= {*files, *(f"{file}.data" for file in files)}
    return made - set(there)
