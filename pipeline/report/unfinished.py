"""What a run needs beside config.yaml and report.json to go on after it has ended early: a small file, gone at its end."""

import contextlib
import json
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.record.run_directory import CONFIG_FILE, PACKAGE_STAGING, PAGE_FILE, REPORT_FILE, STAGING, RunDirectory
from pipeline.report.report_file import DamagedReportError, read_report, report_from_json, report_to_json
from pipeline.report.schema import Report
from pipeline.typed_json import from_json, to_json

FILE = ".unfinished.json"
HALF_MADE = (STAGING, PACKAGE_STAGING)
STAGED = re.compile(rf"\.({CONFIG_FILE}|{REPORT_FILE}|{PAGE_FILE}|{FILE}|make_calib\.py)\.\d+")  # written, and not yet renamed


@dataclass(frozen=True)
class Unfinished:
    """A run that is not finished.

    Attributes:
        overrides: the settings that were given, as Hydra takes them: what to try next is made of them.
        rerun: the run that it repeats; None: none.
        fail_if_worse: whether quality beyond its limit makes an exit status of its own.
        there: names of the files that its directory held before it.
        standing: the report as of the last stage that was done, where the run has failed or was interrupted later; None: it is
            what report.json holds.
    """

    overrides: list[str] = field(default_factory=list)
    rerun: str | None = None
    fail_if_worse: bool = False
    there: list[str] = field(default_factory=list)
    standing: dict[str, Any] | None = None


def begin_unfinished(directory: RunDirectory, overrides: list[str], rerun: str | None, *, fail_if_worse: bool) -> None:
    """Write the file, before a run does anything; remove what a run has left here that was killed before it had settings."""
    clear(directory.path)
    there = sorted(path.name for path in directory.path.iterdir())
    _write(directory, Unfinished(overrides, rerun, fail_if_worse, there))


def clear(folder: Path, made: Collection[str] = ()) -> None:
    """Remove what a process has left half-written when it was killed, and results of stages that were not done.

    Args:
        folder: of the run.
        made: names of those results. Whatever else is there may be the user's.
    """
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.name in HALF_MADE or (path.is_dir() and path.name in made):
            shutil.rmtree(path)
        elif STAGED.fullmatch(path.name) or path.name in made:
            path.unlink()


def read_unfinished(folder: Path) -> Unfinished | None:
    """Return what a run's directory says of a run that is not finished; None: it is finished, or never began.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return from_json(Unfinished, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"resume: {path} is damaged: {error}. Run it again with rerun={folder}.") from error


def standing_report(folder: Path, unfinished: Unfinished | None) -> Report:
    """Return the report of a run as of the last stage that was done; one that has none has done nothing.

    Raises:
        ConfigError: it is damaged, or of a schema that this version does not read.
    """
    if unfinished is not None and unfinished.standing is not None:
        return report_from_json(unfinished.standing, "resume", folder / FILE)
    return read_report(folder, "resume") if (folder / REPORT_FILE).is_file() else Report("running")


def keep_standing(directory: RunDirectory, report: Report) -> None:
    """Keep the report as of the last stage that was done: what comes after it holds warnings of a stage that was not."""
    found = read_unfinished(directory.path)
    if found is not None:
        _write(directory, replace(found, standing=report_to_json(report)))


def forget_standing(directory: RunDirectory) -> None:
    """Forget it: report.json holds it."""
    found = read_unfinished(directory.path)
    if found is not None and found.standing is not None:
        _write(directory, replace(found, standing=None))


def end_unfinished(directory: RunDirectory) -> None:
    """Remove the file: the run is done."""
    (directory.path / FILE).unlink(missing_ok=True)


def has_failed_itself(folder: Path) -> bool:
    """Say whether a run has failed and could say so; one that was killed could not."""
    with contextlib.suppress(ConfigError):
        report, found = read_report(folder, "resume"), read_unfinished(folder)
        return report.status == "failed" and (found is None or found.standing is not None)
    return False


def is_finished(folder: Path) -> bool:
    """Say whether a run is done, with its page and what follows from its report."""
    with contextlib.suppress(DamagedReportError):
        done = read_report(folder, "resume").status == "done" and (folder / PAGE_FILE).is_file()
        return done and not (folder / FILE).is_file()
    return False


def has_begun(folder: Path) -> bool:
    """Say whether a run has kept its settings, from which it can go on."""
    return (folder / CONFIG_FILE).is_file() and ((folder / REPORT_FILE).is_file() or (folder / FILE).is_file())


def _write(directory: RunDirectory, unfinished: Unfinished) -> None:
    directory.write_text(FILE, json.dumps(to_json(unfinished), indent=2, ensure_ascii=False) + "\n")
