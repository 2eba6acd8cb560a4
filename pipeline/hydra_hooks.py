"""What Hydra calls: the name of a run's folder, the claim on its directory before it starts, the table after a sweep.

`conf/config.yaml` names these. Hydra makes callbacks at every start, so this module imports little.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.compose import register_schemas
from pipeline.config.saved_settings import read_settings
from pipeline.errors import ConfigError
from pipeline.interruption import begin
from pipeline.lost_workers import is_loss, loss_in_words
from pipeline.outside_errors import told_of
from pipeline.record.console import Paragraph, result_console, say
from pipeline.record.run_directory import past_config_file, stay_alone_in
from pipeline.record.search_record import STUDY_FILE, read_search
from pipeline.record.sweep_record import (
    INTERRUPTED,
    Job,
    Plan,
    forget_jobs,
    how_many_planned,
    is_sweep,
    jobs_of,
    note_interruption,
    read_plan,
    write_plan,
)

log = logging.getLogger("pipeline.sweep")

TIME_STAMP = "%Y-%m-%d_%H-%M-%S"  # as in the ${now:...} of conf/config.yaml
COMPARISONS = "comparisons"
BASIC_SWEEPER = "BasicSweeper"  # and ours: runs the product of all values, and makes nothing of what a job returns
SEARCH_SWEEPER = "SearchSweeper"  # chooses values by what the directories of its jobs hold
PLUGINS = Path(__file__).parent / "plugins"


def register() -> None:
    """Make known to Hydra what `conf/` refers to: the settings' types, the help text, `${run_folder:...}`, the search."""
    register_schemas()
    if str(PLUGINS) not in sys.path:
        sys.path.append(str(PLUGINS))  # Hydra takes sweepers from packages called `hydra_plugins` alone
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def run_folder(
    model: str,
    mode: str,
    rerun: str | None = None,
    compare: Sequence[str] = (),
    sort_by: str | None = None,
    index: str | None = None,
    run: str | None = None,
    say: str | None = None,
    transcribe: str | None = None,
    resume: str | None = None,
    verify: str | None = None,
) -> str:
    """Return the folder of `outputs/` that a run belongs to: `<model>/<mode>`. Reads, and creates nothing.

    Args:
        model: the model's name.
        mode: the mode's name.
        rerun: a past run's directory; then its model and mode decide.
        compare: runs that are shown side by side; then nothing is run, and the page goes to a folder of its own.
        sort_by: what they are sorted by.
        index: a directory of runs that gets its index; then nothing is run, and no folder is left.
        run: a past run whose models are tried; the same.
        say: what they say.
        transcribe: what they write down.
        resume: a past run that goes on in its own directory.
        verify: a past run whose files are looked at; then nothing is run.

    Raises:
        ConfigError: `rerun` is not a run, `compare` names none, `index` is no directory or not alone, or `sort_by` is given
            without runs to sort.
    """
    for key, place in (("resume", resume), ("verify", verify)):
        if place is not None:
            past_config_file(place, key)
            return COMPARISONS
    if index is not None:
        if not Path(index).is_dir():
            raise ConfigError(f"index: {index} is not a directory. Give one that runs lie in: index=outputs.")
        if beside := [key for key, value in (("rerun", rerun), ("compare", compare), ("sort_by", sort_by)) if value]:
            raise ConfigError(f"index: makes the page of past runs and runs nothing; leave out {', '.join(beside)}.")
        return COMPARISONS
    if any(value is not None for value in (run, say, transcribe)):
        if run is None or (say is None) == (transcribe is None):
            raise ConfigError("run: give a run's directory and what its models are to do: run=<directory> say=<text>, or "
                              "run=<directory> transcribe=<recording>.")  # fmt: skip
        if beside := [key for key, value in (("rerun", rerun), ("compare", compare), ("sort_by", sort_by)) if value]:
            raise ConfigError(
                f"run: lets the models of a past run speak or listen, and nothing else; leave out {', '.join(beside)}."
            )
        return COMPARISONS
    if compare:
        from pipeline.report.compare_runs import find_runs

        find_runs(compare)
        return COMPARISONS
    if sort_by is not None:
        raise ConfigError("sort_by: only runs side by side are sorted: give it with compare=[...], or to a sweep (-m).")
    if rerun is None:
        return f"{model}/{mode}"
    past = read_settings(past_config_file(rerun))
    return f"{past.model.name}/{past.mode.name}"


class ClaimDirectory(Callback):
    """Gives every run and every sweep a directory of its own, before Hydra writes into it.

    Making a directory is what claims it. Of two runs that start in the same second, the later one takes the next second as
    its time stamp. The jobs of a sweep have the sweep's time stamp and their number, so that the claim on the sweep's
    directory holds for them too.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Claim the directory of a single run."""
        del kwargs
        _claim(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Claim the directory of a sweep, and write down what it is to run; end the process with status 2 where that fails.

        Hydra turns exceptions of callbacks into warnings, and would run the sweep without its table and exit status
        (findings/hydra_warns_of_a_callback_that_refuses.sh).
        """
        del kwargs
        try:
            _begin_sweep(config)
        except OmegaConfBaseException:
            pass  # Hydra meets the same error next, where it can be told
        except Exception as error:
            told = told_of(error)
            if told is None:
                log.exception("The sweep cannot begin")
            else:
                say(f"error: {told}", "bold red")
            sys.exit(2 if told is not None else 1)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ANN401
        """Forget what a job of a sweep was composed of, a quarter of a megabyte: Hydra holds it to the end of the sweep."""
        del kwargs
        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None


def _begin_sweep(config: DictConfig) -> None:
    place = Path(config.hydra.sweep.dir)
    if config.resume is not None and is_sweep(place):  # `sweep_again` has claimed it
        _at_the_time_of(config, read_plan(place).stamp)
    else:
        _claim(config, "hydra.sweep.dir")
        place = Path(config.hydra.sweep.dir)
        stay_alone_in(place)
        if _searches(config) and (place / STUDY_FILE).is_file():  # the same command again
            _at_the_time_of(config, read_plan(place).stamp)
        else:
            forget_jobs(place)
            write_plan(place, _plan(config))
    _open.append(_Sweep(place, config.sort_by, config.report.language.name, config.results.url))
    _let_workers_import_this_checkout()
    begin()  # what was run is compared, even if the sweep is interrupted


def _let_workers_import_this_checkout() -> None:
    """Let processes of a launcher import this package where it is run from a checkout without being installed."""
    project = Path(__file__).resolve().parent.parent
    known = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if (project / "run.py").is_file() and str(project) not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([*known, str(project)])


def _searches(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).endswith(f".{SEARCH_SWEEPER}")


def _claim(config: DictConfig, key: str) -> None:
    """Make the directory that a setting names; where it is there already, move the time stamp in its name on.

    A directory without a time stamp is the user's choice and taken as it is; `RunDirectory` refuses one that holds a run.
    """
    with contextlib.suppress(OSError, OmegaConfBaseException):  # Hydra meets the same error next, where it can be told
        while not _made(place := Path(OmegaConf.select(config, key))):
            _next_second(config)
            if Path(OmegaConf.select(config, key)) == place:
                return


def _made(place: Path) -> bool:
    try:
        place.mkdir(parents=True)
    except FileExistsError:
        if not place.is_dir():
            raise
        return False
    return True


def _next_second(config: DictConfig) -> None:
    """Move the time stamp of a composed config on: Hydra keeps it in the config's cache, and copies that to every job."""
    stamps = OmegaConf.get_cache(config)["now"]
    if (key := (TIME_STAMP,)) in stamps:
        stamps[key] = (datetime.strptime(stamps[key], TIME_STAMP) + timedelta(seconds=1)).strftime(TIME_STAMP)


def _at_the_time_of(config: DictConfig, stamp: str) -> None:
    """Let the directories of jobs have the time stamp that they have had before."""
    OmegaConf.get_cache(config)["now"][TIME_STAMP,] = stamp


def _plan(config: DictConfig) -> Plan:
    """Return what a sweep is to run; of a sweeper that chooses as it goes, only its command is known."""
    stamps = OmegaConf.get_cache(config)["now"]
    stamp = str(stamps.setdefault((TIME_STAMP,), datetime.now().strftime(TIME_STAMP)))
    given = [str(text) for text in config.hydra.overrides.task]
    sweeper, jobs = config.hydra.sweeper, None
    if str(sweeper._target_).endswith(BASIC_SWEEPER):
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        loader = GlobalHydra.instance().config_loader()
        params = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
        with contextlib.suppress(HydraException):  # Hydra tells of it next
            [jobs] = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides([*params, *given]), None)
    trials = None
    if _searches(config):
        trials, jobs = int(sweeper.trials), []
    return Plan([*map(str, config.hydra.overrides.hydra), *given], str(Path.cwd()), stamp, jobs, trials)


class CompareSweep(Callback):
    """Compares the runs of a sweep at its end, in the terminal and on a page beside its multirun.yaml."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Print the comparison, write comparison.json and comparison.html, and exit with status 2 where a job failed.

        Where none failed, but a model is worse than `fail_if_worse` allows, with status 3.

        What the jobs did is read from the disk: they may have run in other processes. Hydra turns exceptions of callbacks
        into warnings, but lets SystemExit pass.
        """
        del kwargs
        del config
        if status := end_sweep():
            sys.exit(status)


@dataclass(frozen=True)
class _Sweep:
    """A sweep that has begun: its directory, and what its runs are sorted by."""

    directory: Path
    sort_by: str | None
    language: str
    results: str | None = None


_open: list[_Sweep] = []  # at most one; a sweep that fails never comes to `on_multirun_end`


def lost_workers(error: BaseException) -> str | None:
    """Return what is said where a worker of the launcher was killed, and has taken the sweep with it; None: none was."""
    if not _open or not is_loss(error):
        return None
    return (
        "a worker of the launcher was killed, by lack of memory or by a signal, and the launcher has ended the sweep. Go on "
        f"with resume={_open[-1].directory}, with fewer workers if memory was the cause. The launcher says: "
        f"{loss_in_words(error)}"
    )


def end_sweep(*, interrupted: bool = False) -> int:
    """Compare the runs of the sweep that is open, if there is one, and close it.

    Returns:
        The exit status: 2 where a job failed or never began, 3 where one broke a limit with `fail_if_worse`, else 0.
    """
    if not _open:
        return 0
    sweep = _open.pop()
    if interrupted:
        for job in jobs_of(sweep.directory):
            note_interruption(job)
    jobs, planned = jobs_of(sweep.directory), how_many_planned(sweep.directory)
    failed = [job for job in jobs if job.error is not None]
    try:
        if jobs:
            _show(jobs, failed, sweep.directory, sweep.sort_by, sweep.language)
        if jobs and sweep.results is not None:
            from pipeline.results_copy import copy_sweep

            copy_sweep(sweep.directory, sweep.results)
        if (planned or 0) > len(jobs):
            told = f"{(planned or 0) - len(jobs)} of {planned} jobs have not begun: resume={sweep.directory} runs them"
            result_console().print(Paragraph(told, "bold red"), crop=False)
    except Exception:  # the exit status says more than a warning of Hydra's, which makes one of exceptions here
        log.exception("The runs of %s cannot be compared", sweep.directory)
    return 2 if failed or len(jobs) < (planned or 0) else 3 if any(job.worse for job in jobs) else 0


def _repeated(directories: Sequence[Path]) -> str | None:
    """Return whether the artifacts of runs that repeat others are the same; None: no run does."""
    from pipeline.report.report_file import read_report

    found: dict[str, bool] = {}
    for directory in directories:
        with contextlib.suppress(ConfigError):
            if (again := read_report(directory, "rerun").rerun) is not None:
                found |= {f"{directory.name}/{file}": same for file, same in again.artifacts_identical.items()}
    if not found:
        return None
    others = [file for file, same in found.items() if not same]
    told = f"{len(found) - len(others)} of {len(found)} artifacts are bit-identical to those of the runs that were repeated"
    return f"{told}; not {', '.join(others)}" if others else told


def _show(jobs: Sequence[Job], failed: Sequence[Job], sweep: Path, sort_by: str | None, language: str) -> None:
    from pipeline.report.compare_runs import compare_directories, write_comparison
    from pipeline.report.comparison_table import print_comparison
    from pipeline.report.index_file import refresh_index

    directories = list(dict.fromkeys(job.directory for job in jobs))
    console = result_console()
    try:
        comparison = compare_directories(directories, sort_by)
    except ConfigError as error:  # the runs are done: they are shown in the usual order
        say(f"warning: {error} Sorted by speed instead.", "yellow")
        comparison = compare_directories(directories)
    comparison = replace(comparison, search=read_search(sweep))
    page = write_comparison(comparison, sweep, language)
    refresh_index(directories[0], language)
    console.print()  # behind the last job
    print_comparison(comparison)
    for what, some in (
        ("failed", [job for job in failed if job.error != INTERRUPTED]),
        ("were interrupted", [job for job in failed if job.error == INTERRUPTED]),
    ):
        numbers = ", ".join(f"#{job.number}" for job in some)
        if some:
            console.print(Paragraph(f"{len(some)} of {len(jobs)} jobs {what}: {numbers}", "bold red"), crop=False)
    if told := _repeated(directories):
        console.print(Paragraph(told), crop=False)
    for job in jobs:
        if job.worse is not None:
            console.print(Paragraph(f"fail_if_worse: #{job.number}: {job.worse}", "bold red"), crop=False)
    console.print(Paragraph(f"comparison: {page.resolve()}"), crop=False)
