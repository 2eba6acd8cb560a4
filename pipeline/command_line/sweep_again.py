"""`resume=` and `rerun=` of a sweep's directory: the command that they stand for, a sweep of its own.

What lies in the directory may come from elsewhere. Of its plan only settings are taken, and a choice among the launchers that
are installed: nothing that would let Hydra import, call or read what the plan names.
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.command_line.arguments import Prepared
from pipeline.command_line.override_text import literal, parsed, pieces, split_override
from pipeline.config.help_text import GROUPS
from pipeline.errors import ConfigError
from pipeline.record.run_directory import CONFIG_FILE, stay_alone_in
from pipeline.record.sweep_record import is_sweep, jobs_of, read_plan

OF_HYDRA = re.compile(
    r"hydra/(launcher|sweeper)|hydra\.sweep\.subdir|hydra\.sweeper\.(max_batch_size|trials|parallel|sampler|seed)|hydra\.verbose|"
    r"hydra\.launcher\."
    r"(n_jobs|backend|verbose|batch_size|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|mem_gb|nodes|partition)"
)
"""What of Hydra's own settings is taken from a plan: of launchers, what is a number or a name, and no command."""
SWEEPERS = ("basic", "search")
LEFT = re.compile(r"hydra\.(mode|sweep\.dir|run\.dir)")  # given anew, or of no use
OPTION = re.compile(r"[\w-]+")
SETTING = re.compile(r"[+~]{0,2}[A-Za-z_][\w.]*(@[\w.]+)?")
GET_ALL = ("tracking.uri", "results.url")  # a stranger's would get all that is run
MULTIRUN = ("-m", "--multirun")


def of_whole_sweep(prepared: Prepared) -> Prepared:
    """Return the command that resumes or repeats a sweep, where the command line names one; else the command as it is.

    Raises:
        ConfigError: its plan is damaged, asks for what is not allowed, or is not known from its start; another process runs
            it; settings are given that would have no effect.
    """
    named = {key: text for text in prepared.overrides if (key := text.partition("=")[0]) in ("resume", "rerun")}
    for key, text in named.items():
        found = parsed(text)
        place = found.value() if found is not None else None
        if isinstance(place, str) and is_sweep(Path(place)):
            rest = [other for other in prepared.overrides if other != text]
            if key == "resume":
                return _resumed(prepared, Path(place).absolute(), rest)
            return _repeated(prepared, Path(place).absolute(), rest)
        if key == "resume" and set(MULTIRUN) & set(prepared.options):
            raise ConfigError(f"resume: {place} is no sweep's directory, and one run is no sweep; leave out -m.")
    return prepared


def _repeated(prepared: Prepared, sweep: Path, rest: Sequence[str]) -> Prepared:
    """Return the sweep over the runs of a past one; those that ended before they had settings are left out, with a note."""
    jobs = jobs_of(sweep)
    runs = [job for job in jobs if (job.directory / CONFIG_FILE).is_file()]
    if not runs:
        raise ConfigError(f"rerun: {sweep} has no run that could be repeated: none has a {CONFIG_FILE}.")
    notes = tuple(
        f"rerun: #{job.number} of the sweep is left out: {job.directory} has no {CONFIG_FILE}."
        for job in jobs
        if job not in runs
    )
    again = ",".join(literal(str(job.directory)) for job in runs)
    return replace(
        prepared, options=_as_sweep(prepared.options), overrides=[*rest, f"rerun={again}"], notes=(*prepared.notes, *notes)
    )


def _resumed(prepared: Prepared, sweep: Path, rest: Sequence[str]) -> Prepared:
    """Return the command of a past sweep in the same directory; `resume` tells its jobs that they may have begun."""
    if others := [text for text in rest if not text.startswith(("resume_failed=", "hydra", "tracking", "results."))]:
        raise ConfigError(
            f"resume: {', '.join(others)} beside resume would have no effect: a sweep has its own settings. Leave it out."
        )
    plan = read_plan(sweep)
    if plan.jobs is None:
        raise ConfigError(
            f"resume: the sweeper of {sweep} chooses its jobs by the results of others, so that they are not known. Give the "
            "command of the sweep again."
        )
    anew = {text.partition("=")[0] for text in rest}
    own = [text for text in plan.arguments if not _is_given_anew(text.partition("=")[0], anew)]
    for text in own:
        _check(sweep, text)
    stay_alone_in(sweep)
    try:
        os.chdir(plan.folder)
    except OSError as error:
        raise ConfigError(
            f"resume: the sweep ran in {plan.folder}, which its paths are relative to: {error.strerror}."
        ) from error
    here = literal(str(sweep))
    given = [*own, *rest, f"resume={here}", f"hydra.sweep.dir={here}", "hydra.output_subdir=null"]
    return replace(prepared, options=_as_sweep(prepared.options), overrides=given)


def _is_given_anew(key: str, anew: Collection[str]) -> bool:
    """Say whether a setting of a plan gives way: to its directory, or to a launcher that is chosen beside `resume`."""
    of_other_launcher = "hydra/launcher" in anew and key.startswith("hydra.launcher.")
    return key in anew or of_other_launcher or LEFT.fullmatch(key) is not None


def _as_sweep(options: Sequence[str]) -> list[str]:
    return [*(text for text in options if text not in MULTIRUN), "-m"]


def _check(sweep: Path, text: str) -> None:
    """Refuse what a plan may not hold.

    Raises:
        ConfigError: it is no setting, or one that could make Hydra read or call something else than a sweep does.
    """
    parts = split_override(text)
    key, value = (parts[1], parts[2]) if parts is not None else (text, "")
    fine = parts is not None and "_target_" not in key.replace("model._target_", "") and "_target_" not in value
    if key.partition(".")[0].partition("/")[0].startswith("hydra"):
        fine = fine and OF_HYDRA.fullmatch(key) is not None and (key != "hydra/sweeper" or value in SWEEPERS)
        fine = fine and (key != "hydra.sweep.subdir" or not (value.startswith(("/", "~", "'", '"')) or ".." in value))
    else:
        fine = fine and SETTING.fullmatch(key) is not None and key not in GET_ALL
    if re.split("[@/]", key)[0] in GROUPS or "/" in key:  # a file is read for each option
        fine = fine and all(OPTION.fullmatch(option) for option in pieces(value))
    if not fine:
        raise ConfigError(
            f"resume: {text!r} in the plan of {sweep} is not taken from a file. If you know the sweep, give that beside resume."
        )
