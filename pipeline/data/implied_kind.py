"""What a calibration set is, where only its path was given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.config.readers import calibrates
from pipeline.config.settings import RunConfig
from pipeline.data.utterance_sets import kind_of
from pipeline.paths import resolve_path
from pipeline.record.progress_bars import ProgressBars
from pipeline.remote_files import copying
from pipeline.urls import is_url

CHOICES = ("calibration=", "+calibration=", "calibration.kind=")


def with_implied_kind(config: RunConfig, plain: dict[str, Any], overrides: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
    """Return settings whose `calibration.kind` is what `calibration.path` names, unless a kind was chosen.

    An .npz holds arrays, a folder recordings, a .txt sentences, and so on: `kind_of`.

    Args:
        config: the run.
        plain: the same as plain containers.
        overrides: what was given, as `key=value`.
    """
    chosen = any(override.startswith(CHOICES) for override in overrides)
    path = config.calibration.path
    if path is None or chosen or (is_url(path) and not calibrates(config)):  # what nothing reads is not copied
        return config, plain
    with progress_of_copies(path):
        kind = kind_of(resolve_path(path))
    calibration = plain["calibration"] | {"kind": kind.name}
    return replace(config, calibration=replace(config.calibration, kind=kind)), plain | {"calibration": calibration}


@contextmanager
def progress_of_copies(place: str) -> Iterator[None]:
    """Show the copy of what is at a URL: a run that has its own bars has not begun."""
    if not is_url(place):
        yield
        return
    with ProgressBars() as bars, copying(bars.megabytes):
        yield
