"""What a command does with past runs, beside running them again: shows, looks at and tries them."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from pipeline.errors import ConfigError
from pipeline.record.console import Paragraph, result_console


def look_back(composed: DictConfig, folder: Path, overrides: list[str], *, in_sweep: bool) -> bool:
    """Do what looks at past runs and runs nothing, if that is asked for; say whether it was.

    Args:
        composed: the settings.
        folder: the directory that Hydra made for it.
        overrides: the settings that were given.
        in_sweep: whether a sweep was asked for.

    Raises:
        PipelineError: what a user can act on.
    """
    if composed.compare:
        compare(composed, folder, in_sweep=in_sweep)
    elif composed.index is not None:
        index(composed, folder, in_sweep=in_sweep)
    elif composed.run is not None:
        try_past_models(composed, folder, overrides, in_sweep=in_sweep)
    elif composed.verify is not None:
        verify_run(composed, folder, overrides, in_sweep=in_sweep)
    else:
        return False
    return True


def verify_run(composed: DictConfig, folder: Path, overrides: list[str], *, in_sweep: bool) -> None:
    """Say what has changed since a run; exit with status 2 where a file has. No run's directory is left."""
    from pipeline.verify import verify

    try:
        if in_sweep:
            raise ConfigError("verify: looks at one run and runs nothing; leave out -m.")
        refuse_others("verify", overrides)
        found = verify(Path(composed.verify))
    finally:
        remove_empty_run(folder)
    lines = [
        *(found.inputs_changed or [f"{found.inputs} inputs: unchanged"]),
        *(found.files_changed or [f"{found.files} files of the run: unchanged"]),
        *(found.environment_changed or ["environment: unchanged"]),
    ]
    console = result_console()
    console.print(Paragraph(f"Since {composed.verify}", "bold"), crop=False)
    for line in lines:
        console.print(Paragraph(f"  {line}"), crop=False)
    if not found.is_whole:
        sys.exit(2)


def refuse_others(key: str, overrides: list[str], *, but: Sequence[str] = ()) -> None:
    """Refuse other settings beside one that names a past run, which has its own; but those of some groups."""
    allowed = (f"{key}=", *(f"{group}{sign}" for group in but for sign in "=."))
    if others := [text for text in overrides if not text.startswith(allowed)]:
        raise ConfigError(
            f"{key}: {', '.join(others)} beside {key} would have no effect: a past run has its own settings. Leave it out."
        )


def compare(composed: DictConfig, folder: Path, *, in_sweep: bool) -> None:
    """Show past runs side by side, in the terminal and on a page."""
    from pipeline.report.compare_runs import compare_runs, write_comparison
    from pipeline.report.comparison_table import print_comparison

    if in_sweep:
        raise ConfigError("compare: shows past runs and runs nothing, so there is nothing to sweep; leave out -m.")
    comparison = compare_runs(list(composed.compare), composed.sort_by)
    page = write_comparison(comparison, folder, composed.report.language.name)
    print_comparison(comparison)
    result_console().print(Paragraph(f"page: {page}"), crop=False)


def index(composed: DictConfig, folder: Path, *, in_sweep: bool) -> None:
    """Make the page of all runs below a directory again; the run's own directory, which holds nothing, goes."""
    from pipeline.report.index_file import write_index

    try:
        if in_sweep:
            raise ConfigError(
                "index: makes the page of past runs and runs nothing, so there is nothing to sweep; leave out -m."
            )
        page = write_index(Path(composed.index), composed.report.language.name)
    finally:
        remove_empty_run(folder)
    result_console().print(Paragraph(f"index: {page}"), crop=False)


def try_past_models(composed: DictConfig, folder: Path, overrides: list[str], *, in_sweep: bool) -> None:
    """Let the models of a past run speak or listen, and print what came of it; no run's directory is left."""
    from pipeline.graph.rehearsal import rehearsals
    from pipeline.try_models import speak, transcribe

    try:
        if in_sweep:
            raise ConfigError("run: the models of one run are tried; leave out -m.")
        if others := [text for text in overrides if not text.startswith(("run=", "say=", "transcribe="))]:
            key = others[0].partition("=")[0]
            raise ConfigError(f"{key}: would have no effect beside run: a past run has its own settings. Leave it out.")
        run = Path(composed.run)
        with rehearsals():  # the run may be a stranger's
            found = speak(run, composed.say) if composed.say is not None else transcribe(run, Path(composed.transcribe))
    finally:
        remove_empty_run(folder)
    console = result_console()
    for one in found:
        said = f"{one.label}, {one.seconds:.2f} s" if one.file is not None else one.label
        heard = "" if one.text is None else f": {'heard: ' if one.file is not None else ''}{one.text}"
        console.print(Paragraph(f"{said}{heard}"), crop=False)
    for one in found:
        if one.file is not None:
            console.print(Paragraph(f"speech of {one.label}: {one.file}"), crop=False)


def remove_empty_run(folder: Path) -> None:
    """Remove the directory that Hydra made for something that is no run: its own files, and folders that are empty then."""
    for file in (*(folder / ".hydra" / f"{name}.yaml" for name in ("config", "hydra", "overrides")), folder / "run.log"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the user's choice of a directory, which holds more
        for place in (folder / ".hydra", folder, folder.parent):
            place.rmdir()
