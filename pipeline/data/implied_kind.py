"""What a calibration set is, where only its path was given."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.config.settings import RunConfig
from pipeline.data.utterance_sets import kind_of
from pipeline.paths import resolve_path

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
    if config.calibration.path is None or chosen:
        return config, plain
    kind = kind_of(resolve_path(config.calibration.path))
    calibration = plain["calibration"] | {"kind": kind.name}
    return replace(config, calibration=replace(config.calibration, kind=kind)), plain | {"calibration": calibration}
