"""What run.py is made of: one run from a composed config, and errors as people read them."""

import gc
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.conf import HydraConf
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from pipeline.errors import ConfigError, PipelineError, did_you_mean

if TYPE_CHECKING:
    from pipeline.report.schema import Report


def execute(composed: DictConfig, hydra_config: HydraConf) -> "Report | None":
    """Do what Hydra composed: run it, run the past run that it names, or compare the runs that it names.

    Returns:
        The report of the run; None where runs were compared.

    Raises:
        PipelineError: what a user can act on; report.json then says `failed`.
    """
    from pipeline.config.compose import read_run_config, save_config, to_plain, to_run_config
    from pipeline.paths import with_portable_paths
    from pipeline.record.run_directory import CONFIG_FILE, RunDirectory, discard, past_config_file
    from pipeline.report.html.run_page import PAGE_FILE, write_page
    from pipeline.report.report_file import read_report, write_report
    from pipeline.report.schema import Report
    from pipeline.report.terminal import print_report
    from pipeline.rerun import with_differences
    from pipeline.runner import run_stages

    if not gc.get_freeze_count():
        gc.freeze()  # modules stay to the end: the collector need not walk through them again and again
    if composed.compare:
        _compare(list(composed.compare), composed.sort_by, Path(hydra_config.runtime.output_dir))
        return None
    folder = Path(hydra_config.runtime.output_dir)
    if composed.sort_by is not None and hydra_config.mode is not RunMode.MULTIRUN:
        discard(folder)
        raise ConfigError("sort_by: only runs side by side are sorted: give it with compare=[...], or to a sweep (-m).")
    directory = RunDirectory(folder)
    logging.captureWarnings(True)
    past = None
    try:
        if composed.rerun is not None:
            _only_rerun(list(hydra_config.overrides.task))
            past = read_report(Path(composed.rerun), "rerun")
            config, plain = read_run_config(past_config_file(composed.rerun))
        else:
            config, plain = to_run_config(composed), to_plain(composed)
    except PipelineError as error:
        write_report(directory, Report("failed", error=str(error)))
        raise
    directory.write_text(CONFIG_FILE, save_config(with_portable_paths(plain)))
    report = run_stages(config, directory)
    if past is not None:
        report = write_report(directory, with_differences(report, past, Path(composed.rerun)))
    directory.write_text(PAGE_FILE, write_page(report, directory.path))
    print_report(report, str(directory.path))
    return report


def _compare(patterns: list[str], sort_by: str | None, folder: Path) -> None:
    """Show past runs side by side, in the terminal and on a page."""
    from pipeline.record.run_directory import discard
    from pipeline.report.compare_runs import compare_runs, write_comparison
    from pipeline.report.comparison_table import comparison_table, wide_console

    try:
        comparison = compare_runs(patterns, sort_by)
    except ConfigError:
        discard(folder)
        raise
    console = wide_console()
    console.print(comparison_table(comparison))
    console.print(f"page: {write_comparison(comparison, folder)}", style="dim", soft_wrap=True, highlight=False)


def report_failure(error: PipelineError | str) -> None:
    """Print one clear message to standard error."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)


def composition_error(error: BaseException) -> str | None:
    """Return what a user needs to know of an error that came before the run; None where it is a defect of the program.

    Hydra and OmegaConf report a mistake in an override as a chain of exceptions; the innermost one that tells the setting
    is what counts.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, PipelineError):
            return str(link)
        if isinstance(link, MissingConfigException):
            return _unknown_option(link)
    for link in reversed(chain):
        if isinstance(link, OmegaConfBaseException) and link.full_key:
            return _setting_error(link)
    if isinstance(error, HydraException):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"hydra.run.dir: {error.filename or ''} cannot be written ({error.strerror}); name another place."
    return None


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    options = error.options or []
    if not group:
        return " ".join(str(error).split())
    return f"{group}={option}: no such option of the group {group}.{did_you_mean(option, options)}"


def _setting_error(error: OmegaConfBaseException) -> str:
    what = re.sub(r"\s+", " ", str(error.msg or error).split("\n", maxsplit=1)[0]).rstrip(".")
    what = re.sub(
        r"Invalid value assigned: (\w+) is not a ListConfig, list or tuple", r"a list is needed, such as [a,b], not \1", what
    )
    known = [str(key) for key in error.parent_node] if isinstance(error.parent_node, DictConfig) else []
    hint = did_you_mean(str(error.key), known) if str(error.key) not in known else ""
    return f"{error.full_key}: {what}.{hint}"


def _only_rerun(overrides: list[str]) -> None:
    """Refuse other settings beside `rerun`: a run that is repeated has its own."""
    if others := [override for override in overrides if not override.startswith("rerun=")]:
        raise ConfigError(
            f"rerun: {', '.join(others)} beside rerun would have no effect: a past run is repeated with its own settings. "
            "To run with others, give them without rerun."
        )
