"""The command: `python run.py`, and `speech-quantize` where the package is installed.

Hydra composes the settings and calls `run_job`, once or, in a sweep, once per job.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.command_line.arguments import prepare, without_mistakes
from pipeline.command_line.correction import CommandLineError, command_of, corrected
from pipeline.command_line.sweep_again import of_whole_sweep
from pipeline.config.composed_once import compose_once
from pipeline.config.composition_error import composition_error
from pipeline.config.help_text import INSTALLED_COMMAND, program_version
from pipeline.errors import ConfigError, PipelineError
from pipeline.garbage import collect_garbage
from pipeline.hydra_hooks import BASIC_SWEEPER, SEARCH_SWEEPER, end_sweep, lost_workers, register
from pipeline.interruption import begin, interruption_in, status_of
from pipeline.outside_errors import outside_error, told_of
from pipeline.past_runs import look_back
from pipeline.paths import config_directory
from pipeline.record.console import Paragraph, drop_output, log_console, log_without_readers, result_console, say
from pipeline.record.run_directory import locked
from pipeline.record.sweep_record import INTERRUPTED, has_noted, note_job
from pipeline.remote_files import ask_again
from pipeline.report.objective import Objective, check_names, objective_names, objective_of
from pipeline.report.schema import Report
from pipeline.report.unfinished import has_begun, is_finished
from pipeline.urls import refuse_secrets

if TYPE_CHECKING:
    from pipeline.record.run_directory import RunDirectory

_given: list[str] = []
"""The arguments of this process, as they were given."""

DOCTOR, SERVE, CACHE = "doctor", "serve", "cache"
STATUS_WORSE = 3  # with fail_if_worse


def main() -> None:
    """Run the installed command."""
    start(hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="config")(run_job))


def start(command: Callable[[], object]) -> None:
    """Run a function that `hydra.main` decorates. A mistake of the user's ends the process with status 2.

    Without arguments the command shows its help. A sweep in which a job failed ends with status 2 as well: `CompareSweep` sees
    to it. Ctrl-C ends it with status 130, SIGTERM with 143. A sweep that ends early compares what it has run.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach this place instead of Hydra's own handler
    register()
    log_without_readers()
    compose_once()
    try:
        sys.argv[1:] = _arguments(sys.argv[1:])
        command()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BrokenPipeError:  # help and settings are printed by Hydra; their reader has seen enough
        drop_output(sys.stdout.fileno())
    except BaseException as error:
        if (stopped := interruption_in(error)) is not None:
            end_sweep(interrupted=True)
            say(getattr(stopped, "__notes__", ["interrupted"])[-1], "bold yellow")
            sys.exit(status_of(stopped))
        message = composition_error(error) or lost_workers(error)
        if message is None and (told := outside_error(error)) is not None:
            message = str(told)
        end_sweep()
        if message is None:
            raise
        _report_failure(message, error=error)
        sys.exit(2)


def _arguments(given: list[str]) -> list[str]:
    """Return what Hydra is given; say what a short form stands for, and the version where that is asked for."""
    if given[:1] in ([SERVE], [CACHE]):
        collect_garbage()
    if given[:1] == [SERVE]:
        from pipeline.serve.serve_command import serve

        serve(given[1:])
    if given[:1] == [CACHE]:
        from pipeline.command_line.cache_command import cache

        cache(given[1:])
    refuse_secrets(given)
    if given[:1] == [DOCTOR]:
        given = _examination(given[1:])
    _given[:] = given
    prepared = of_whole_sweep(prepare(given or ["--help"]))
    if "--version" in prepared.options:
        print(f"{INSTALLED_COMMAND} {program_version()}")
        sys.exit(0)
    if {"--shell-completion", "-sc"} & set(prepared.options):
        from pipeline.command_line.completion import use_own_completion

        use_own_completion()
    for note in prepared.notes:
        print(f"note: {note}", file=sys.stderr)
    if prepared.stands_for is not None:
        _given[:] = prepared.stands_for
        print(f"stands for: {command_of(prepared.stands_for)}", file=sys.stderr, flush=True)
    return prepared.arguments


def _examination(given: list[str]) -> list[str]:
    """Return the settings that `doctor <settings>` stands for; the kind of a model that is named by its file is found.

    Raises:
        ConfigError: no model is named.
    """
    keys = [text.partition("=")[0] for text in given]
    places = [text for text in given if "=" not in text and not text.startswith("-")]
    if not places and not {"model", "model.path", "model.dir", "path"} & set(keys):
        raise ConfigError(
            "doctor: of which model? Name its file: doctor model.path=model.onnx, or an option: doctor model=vocoder."
        )
    if "model" not in keys:
        given = [re.sub(r"^model\.(path|dir)=", "path=", text) for text in given]
    return [*given, f"stages=[load,inspect,{DOCTOR}]"]


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
    if in_sweep:
        os.chdir(settings.runtime.cwd)  # which paths are relative to; a process of a cluster may begin elsewhere
    optimises = in_sweep and not str(settings.sweeper._target_).endswith((BASIC_SWEEPER, SEARCH_SWEEPER))
    begin()
    collect_garbage()
    logging.captureWarnings(True)
    try:
        with locked(folder, wait=True) if in_sweep else contextlib.nullcontext():  # a launcher may run a job twice
            return _do(composed, folder, in_sweep=in_sweep, optimises=optimises)
    except KeyboardInterrupt as error:
        if in_sweep:
            note_job(Path(settings.sweep.dir), settings.job.num, folder, INTERRUPTED)
        if not composed.compare:
            from pipeline.interrupted_run import so_far

            place = folder if in_sweep else Path(composed.resume or folder)
            error.add_note(so_far(place, Path(settings.sweep.dir) if in_sweep else place))
        raise
    except PipelineError as error:
        if in_sweep:
            note_job(Path(settings.sweep.dir), settings.job.num, folder, str(error))
        if optimises:
            raise
        _report_failure(str(error), folder, None if in_sweep else error)
        if not in_sweep:
            sys.exit(2)
        return None


def _do(composed: DictConfig, folder: Path, *, in_sweep: bool, optimises: bool) -> Objective:
    """Do what Hydra composed, in a directory, and print what came of it."""
    settings = HydraConfig.get()
    if look_back(composed, folder, list(settings.overrides.task), in_sweep=in_sweep):
        return None
    place = folder if in_sweep or composed.resume is None else Path(composed.resume)
    again = composed.resume is not None or (in_sweep and has_noted(Path(settings.sweep.dir), settings.job.num))
    report, strict = None, composed.fail_if_worse
    if again:
        from pipeline.resume import left_of

        left = left_of(composed, folder, list(settings.overrides.task))
        report, strict = left.report, left.fail_if_worse
        if left.told and composed.resume is not None:
            result_console().print(Paragraph(left.told), crop=False)
        if not left.to_do and (report is None or not in_sweep):
            return None
    if in_sweep:
        note_job(Path(settings.sweep.dir), settings.job.num, folder)
    if report is None:
        try:
            report = execute(composed, folder, list(settings.overrides.task), again=again, held=in_sweep)
        finally:
            if not in_sweep:  # a sweep refreshes it once, at its end
                _refresh_index(composed, place)
        _print(report, place, brief=in_sweep)
    worse = _broken_limits(report) if strict else None
    if worse is not None and in_sweep:
        note_job(Path(settings.sweep.dir), settings.job.num, folder, worse=worse)
    elif worse is not None:
        _report_failure(worse, kind="fail_if_worse")
        sys.exit(STATUS_WORSE)
    return objective_of(report, objective_names(composed.optimize_for), required=optimises)


def execute(composed: DictConfig, folder: Path, overrides: list[str], *, again: bool = False, held: bool = False) -> "Report":
    """Run what Hydra composed, or the past run that it names, in a directory; return its report.

    Args:
        composed: the settings.
        folder: the run's directory; it exists, and no run has reported into it.
        overrides: the settings that were given, as Hydra takes them.
        again: what the directory holds of the run is to go on.
        held: the caller has locked the directory.

    Raises:
        PipelineError: what a user can act on; report.json then says `failed`.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the report then says `interrupted`, and it and the page hold what there is.
    """
    from pipeline.record.run_directory import RunDirectory
    from pipeline.results_copy import copied
    from pipeline.tracking import tracked

    ask_again()
    if composed.resume is not None and HydraConfig.get().mode is not RunMode.MULTIRUN:
        return _resume(composed, folder, overrides)
    goes_on = again and has_begun(folder)
    claimed = RunDirectory.claimed(folder, again=goes_on, held=held)
    with claimed as directory, copied(composed, folder), tracked(composed, folder):
        return _executed(composed, directory, overrides, goes_on=goes_on)


def _resume(composed: DictConfig, folder: Path, overrides: list[str]) -> "Report":
    """Finish a past run in its own directory; of that which Hydra made for it, nothing is left."""
    from pipeline.past_runs import refuse_others, remove_empty_run
    from pipeline.record.run_directory import RunDirectory, past_config_file
    from pipeline.report.report_file import read_report
    from pipeline.results_copy import copied
    from pipeline.resume import OF_COMMAND, log_in
    from pipeline.tracking import tracked

    place = Path(composed.resume)
    try:
        refuse_others("resume", overrides, but=OF_COMMAND)
        past_config_file(composed.resume, "resume")
        if is_finished(place):
            return read_report(place, "resume")
        claimed = RunDirectory.claimed(place, again=True)
        with claimed as directory, log_in(place), copied(composed, place), tracked(composed, place):
            return _executed(composed, directory, overrides, goes_on=True)
    finally:
        remove_empty_run(folder)


def _executed(composed: DictConfig, directory: "RunDirectory", overrides: list[str], *, goes_on: bool) -> "Report":
    """Run, or go on with a run, and see to the report and the page where that ends early."""
    from pipeline.config.compose import to_cache_config
    from pipeline.record.report_end import mark_failed
    from pipeline.resume import resume_run

    try:
        return resume_run(directory, to_cache_config(composed)) if goes_on else _execute(composed, directory, overrides)
    except BaseException as error:
        if (stopped := interruption_in(error)) is None:
            if (told := told_of(error)) is None or told is error:
                raise
            mark_failed(directory.path, str(told))  # after the stages: while a page was written
            raise told from error
        from pipeline.interrupted_run import keep_what_there_is

        keep_what_there_is(directory, composed.report.language.name)
        raise stopped from None


def _execute(composed: DictConfig, directory: "RunDirectory", overrides: list[str]) -> "Report":
    from pipeline.cache.current_cache import CacheConfig
    from pipeline.config.compose import read_run_config, save_config, to_plain, to_run_config
    from pipeline.config.readers import unread
    from pipeline.data.implied_kind import with_implied_kind
    from pipeline.paths import with_portable_paths
    from pipeline.record.run_directory import CONFIG_FILE, past_config_file
    from pipeline.report.report_file import read_report, write_report
    from pipeline.report.schema import Report
    from pipeline.report.unfinished import begin_unfinished
    from pipeline.resume import OF_COMMAND, finish, own_overrides
    from pipeline.runner import run_stages

    overrides = own_overrides(overrides)
    without_effect, mistakes = list[str](), list[str]()
    try:
        if composed.rerun is not None:
            _only_rerun(overrides)
            read_report(Path(composed.rerun), "rerun")
            config, plain = read_run_config(past_config_file(composed.rerun))
            config = replace(config, cache=CacheConfig(enabled=False))  # what is repeated is made again
        else:
            config, plain = with_implied_kind(to_run_config(composed), to_plain(composed), overrides)
            spare = unread(config, overrides)
            without_effect = [setting.sentence for setting in spare]
            mistakes = [setting.sentence for setting in spare if not setting.needless_data]
        check_names(objective_names(composed.optimize_for), config.stages)
        if composed.fail_if_worse and "evaluate" not in config.stages:
            raise ConfigError("fail_if_worse: quality comes from the stage evaluate, which is not in stages.")
        if mistakes and HydraConfig.get().mode is not RunMode.MULTIRUN:
            raise ConfigError("\n".join(mistakes))
    except PipelineError as error:
        write_report(directory, Report("failed", error=str(error)))
        raise
    begin_unfinished(directory, overrides, composed.rerun, fail_if_worse=composed.fail_if_worse)
    kept = {key: value for key, value in plain.items() if key not in OF_COMMAND}
    directory.write_text(CONFIG_FILE, save_config(with_portable_paths(kept | {"resume": None, "resume_failed": False})))
    report = run_stages(config, directory, warnings=without_effect)
    return finish(directory, report, config, overrides, composed.rerun)


def _print(report: "Report", folder: Path, *, brief: bool) -> None:
    from pipeline.report.terminal import print_report

    print_report(report, str(folder), brief=brief)


def _broken_limits(report: "Report") -> str | None:
    from pipeline.report.verdict import broken_limits

    return broken_limits(report)


def _refresh_index(composed: DictConfig, folder: Path) -> None:
    from pipeline.report.index_file import refresh_index

    refresh_index(folder, composed.report.language.name)


def _report_failure(message: str, folder: Path | None = None, error: BaseException | None = None, kind: str = "error") -> None:
    """Print one clear message to standard error and, where a better command line is known, that line, to be pasted.

    Args:
        message: what is wrong.
        folder: of the run that failed: what it has warned of is printed first. None: it has none, or it is printed already.
        error: that came; None for a job of a sweep, whose other jobs go on.
        kind: the word before the message.
    """
    from pipeline.report.report_file import read_report

    if folder is not None:
        with contextlib.suppress(PipelineError):  # it ended before it had a report
            for warning in read_report(folder, "report").warnings:
                say(f"warning: {warning}", "yellow")
    console = log_console()
    console.print(Paragraph(f"{kind}: {message}", lead=(f"{kind}:", "bold red")), crop=False)
    instead = error.instead if isinstance(error, CommandLineError) else corrected(_given, message) if error else None
    if instead is not None:
        instead = without_mistakes(instead)
        console.print(Paragraph(f"try: {command_of(instead or ['--help'])}", whole=True), crop=False)


def _only_rerun(overrides: list[str]) -> None:
    """Refuse other settings beside `rerun`: a run that is repeated has its own."""
    from pipeline.resume import OF_COMMAND

    allowed = ("rerun=", "optimize_for=", "fail_if_worse=", *OF_COMMAND)
    if others := [override for override in overrides if not override.startswith(allowed)]:
        raise ConfigError(
            f"rerun: {', '.join(others)} beside rerun would have no effect: a past run is repeated with its own settings. "
            "To run with others, give them without rerun."
        )
