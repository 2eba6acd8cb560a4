"""The command: `python run.py`, and `speech-quantize` where the package is installed.

Hydra composes the settings and calls `run_job`, once or, in a sweep, once per job.
"""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.text import Text

from pipeline.config.composition_error import composition_error
from pipeline.errors import ConfigError, PipelineError
from pipeline.hydra_hooks import register
from pipeline.paths import config_directory
from pipeline.record.console import Paragraph, drop_output, log_console, result_console, say
from pipeline.record.sweep_record import note_job
from pipeline.report.objective import Objective, check_names, objective_names, objective_of
from pipeline.report.schema import Report

BASIC_SWEEPER = "BasicSweeper"  # runs the product of all values, and makes nothing of what a job returns


def main() -> None:
    """Run the installed command. Without arguments it shows its help."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    start(hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="config")(run_job))


def start(command: Callable[[], object]) -> None:
    """Run a function that `hydra.main` decorates. A mistake of the user's ends the process with status 2.

    A sweep in which a job failed ends with status 2 as well: `CompareSweep` sees to it.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach this place instead of Hydra's own handler
    register()
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:  # help and settings are printed by Hydra; their reader has seen enough
        drop_output(sys.stdout.fileno())
    except Exception as error:
        message = composition_error(error)
        if message is None:
            raise
        _report_failure(message)
        sys.exit(2)


def run_job(composed: DictConfig) -> Objective:
    """Do what Hydra composed: run it, run the past run that it names, or compare the runs that it names.

    Returns:
        The values that `optimize_for` names; None where there is none, and where a job of a sweep failed: the other jobs go on.

    Raises:
        PipelineError: a job failed in a sweep that optimises: its sweeper decides whether the others go on.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    in_sweep = settings.mode is RunMode.MULTIRUN
    optimises = in_sweep and not str(settings.sweeper._target_).endswith(BASIC_SWEEPER)
    if not gc.get_freeze_count():
        gc.freeze()  # modules stay to the end: the collector need not walk through them again and again
    logging.captureWarnings(True)
    if in_sweep:
        note_job(Path(settings.sweep.dir), settings.job.num, folder)
    try:
        if composed.compare:
            _compare(composed, folder, in_sweep=in_sweep)
            return None
        if composed.index is not None:
            _index(composed, folder, in_sweep=in_sweep)
            return None
        try:
            report = execute(composed, folder, list(settings.overrides.task))
        finally:
            if not in_sweep:  # a sweep refreshes it once, at its end
                _refresh_index(composed, folder)
        _print(report, folder)
        return objective_of(report, objective_names(composed.optimize_for), required=optimises)
    except PipelineError as error:
        if in_sweep:
            note_job(Path(settings.sweep.dir), settings.job.num, folder, str(error))
        if optimises:
            raise
        _report_failure(str(error), folder)
        if not in_sweep:
            sys.exit(2)
        return None


def execute(composed: DictConfig, folder: Path, overrides: list[str]) -> "Report":
    """Run what Hydra composed, or the past run that it names, in a directory; return its report.

    Args:
        composed: the settings.
        folder: the run's directory; it exists, and no run has reported into it.
        overrides: the settings that were given, as Hydra takes them.

    Raises:
        PipelineError: what a user can act on; report.json then says `failed`.
    """
    from pipeline.config.compose import read_run_config, save_config, to_plain, to_run_config
    from pipeline.paths import with_portable_paths
    from pipeline.record.run_directory import CONFIG_FILE, PAGE_FILE, RunDirectory, past_config_file
    from pipeline.report.html.run_page import write_page
    from pipeline.report.report_file import read_report, write_report
    from pipeline.report.schema import Report
    from pipeline.rerun import with_differences
    from pipeline.runner import run_stages

    directory = RunDirectory(folder)
    past = None
    try:
        if composed.rerun is not None:
            _only_rerun(overrides)
            past = read_report(Path(composed.rerun), "rerun")
            config, plain = read_run_config(past_config_file(composed.rerun))
        else:
            config, plain = to_run_config(composed), to_plain(composed)
        check_names(objective_names(composed.optimize_for), config.stages)
    except PipelineError as error:
        write_report(directory, Report("failed", error=str(error)))
        raise
    directory.write_text(CONFIG_FILE, save_config(with_portable_paths(plain)))
    report = run_stages(config, directory)
    if past is not None:
        report = write_report(directory, with_differences(report, past, Path(composed.rerun)))
    directory.write_text(PAGE_FILE, write_page(report, directory.path, config.report.language.name))
    return report


def _print(report: "Report", folder: Path) -> None:
    from pipeline.report.terminal import print_report

    print_report(report, str(folder))


def _compare(composed: DictConfig, folder: Path, *, in_sweep: bool) -> None:
    """Show past runs side by side, in the terminal and on a page."""
    from pipeline.report.compare_runs import compare_runs, write_comparison
    from pipeline.report.comparison_table import print_comparison

    if in_sweep:
        raise ConfigError("compare: shows past runs and runs nothing, so there is nothing to sweep; leave out -m.")
    comparison = compare_runs(list(composed.compare), composed.sort_by)
    page = write_comparison(comparison, folder, composed.report.language.name)
    print_comparison(comparison)
    result_console().print(Paragraph(f"page: {page}"), crop=False)


def _index(composed: DictConfig, folder: Path, *, in_sweep: bool) -> None:
    """Make the page of all runs below a directory again; the run's own directory, which holds nothing, goes."""
    from pipeline.report.index_file import write_index

    try:
        if in_sweep:
            raise ConfigError(
                "index: makes the page of past runs and runs nothing, so there is nothing to sweep; leave out -m."
            )
        page = write_index(Path(composed.index), composed.report.language.name)
    finally:
        _remove_empty_run(folder)
    result_console().print(Paragraph(f"index: {page}"), crop=False)


def _remove_empty_run(folder: Path) -> None:
    """Remove the directory that Hydra made for something that is no run: its own files, and folders that are empty then."""
    for file in (*(folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")), folder / "run.log"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the user's choice of a directory, which holds more
        for place in (folder / ".hydra", folder, folder.parent):
            place.rmdir()


def _refresh_index(composed: DictConfig, folder: Path) -> None:
    from pipeline.report.index_file import refresh_index

    refresh_index(folder, composed.report.language.name)


def _report_failure(message: str, folder: Path | None = None) -> None:
    """Print one clear message to standard error, after what the run in a directory has warned of."""
    from pipeline.report.report_file import read_report

    if folder is not None:
        with contextlib.suppress(PipelineError):  # it ended before it had a report
            for warning in read_report(folder, "report").warnings:
                say(f"warning: {warning}", "yellow")
    log_console().print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)


def _only_rerun(overrides: list[str]) -> None:
    """Refuse other settings beside `rerun`: a run that is repeated has its own."""
    if others := [override for override in overrides if not override.startswith(("rerun=", "optimize_for="))]:
        raise ConfigError(
            f"rerun: {', '.join(others)} beside rerun would have no effect: a past run is repeated with its own settings. "
            "To run with others, give them without rerun."
        )
