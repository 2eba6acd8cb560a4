"""What Hydra calls: the name of a run's folder, the claim on its directory before it starts, the table after a sweep.

`conf/config.yaml` names these. Hydra makes callbacks at every start, so this module imports little.
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.compose import register_schemas
from pipeline.config.saved_settings import read_settings
from pipeline.errors import ConfigError
from pipeline.interruption import begin
from pipeline.record.console import Paragraph, result_console, say
from pipeline.record.run_directory import past_config_file
from pipeline.record.sweep_record import INTERRUPTED, Job, forget_jobs, jobs_of, note_interruption

log = logging.getLogger("pipeline.sweep")

TIME_STAMP = "%Y-%m-%d_%H-%M-%S"  # as in the ${now:...} of conf/config.yaml
COMPARISONS = "comparisons"


def register() -> None:
    """Make known to Hydra what `conf/` refers to: the settings' types, the help text, `${run_folder:...}`."""
    register_schemas()
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

    Raises:
        ConfigError: `rerun` is not a run, `compare` names none, `index` is no directory or not alone, or `sort_by` is given
            without runs to sort.
    """
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
        """Claim the directory of a sweep."""
        del kwargs
        _claim(config, "hydra.sweep.dir")
        forget_jobs(Path(config.hydra.sweep.dir))
        _open.append(_Sweep(Path(config.hydra.sweep.dir), config.sort_by, config.report.language.name))
        begin()  # what was run is compared, even if the sweep is interrupted


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


_open: list[_Sweep] = []  # at most one; a sweep that fails never comes to `on_multirun_end`


def end_sweep(*, interrupted: bool = False) -> int:
    """Compare the runs of the sweep that is open, if there is one, and close it.

    Returns:
        The exit status: 2 where a job failed, 3 where one broke a limit with `fail_if_worse`, else 0.
    """
    if not _open:
        return 0
    sweep = _open.pop()
    if interrupted:
        for job in jobs_of(sweep.directory):
            note_interruption(job)
    jobs = jobs_of(sweep.directory)
    failed = [job for job in jobs if job.error is not None]
    try:
        if jobs:
            _show(jobs, failed, sweep.directory, sweep.sort_by, sweep.language)
    except Exception:  # the exit status says more than a warning of Hydra's, which makes one of exceptions here
        log.exception("The runs of %s cannot be compared", sweep.directory)
    return 2 if failed else 3 if any(job.worse for job in jobs) else 0


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
    page = write_comparison(comparison, sweep, language)
    refresh_index(directories[0], language)
    print_comparison(comparison)
    for what, some in (
        ("failed", [job for job in failed if job.error != INTERRUPTED]),
        ("were interrupted", [job for job in failed if job.error == INTERRUPTED]),
    ):
        numbers = ", ".join(f"#{job.number}" for job in some)
        if some:
            console.print(Paragraph(f"{len(some)} of {len(jobs)} jobs {what}: {numbers}", "bold red"), crop=False)
    for job in jobs:
        if job.worse is not None:
            console.print(Paragraph(f"fail_if_worse: #{job.number}: {job.worse}", "bold red"), crop=False)
    console.print(Paragraph(f"comparison: {page}"), crop=False)
