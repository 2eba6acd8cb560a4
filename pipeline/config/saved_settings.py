"""The settings that a run has saved, read again: the file may be a stranger's."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError


def read_settings(path: Path) -> DictConfig:
    """Read a YAML file of settings.

    Raises:
        ConfigError: the file is damaged, or holds something else, or what would be replaced by something else when it is read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(
                f"rerun: {path} holds an alias (*name), which no run writes: it may stand for any amount of data."
            )
        loaded = OmegaConf.create(text)
        values = OmegaConf.to_container(loaded, resolve=False) if isinstance(loaded, DictConfig) else None
    except (OSError, ValueError, RecursionError, TypeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"rerun: {path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(loaded, DictConfig) or not {"model", "mode"} <= set(loaded):
        raise ConfigError(f"rerun: {path} holds no settings of a run.")
    if (found := _interpolation(values)) is not None:
        raise ConfigError(
            f"rerun: {path} holds {found!r}, which no run writes: it could read variables of your environment, such as keys. "
            "Write the value itself."
        )
    return loaded


def _interpolation(value: object) -> str | None:
    """Return a text that OmegaConf would replace by something else."""
    if isinstance(value, dict):
        return next((found for pair in value.items() for part in pair if (found := _interpolation(part))), None)
    if isinstance(value, list):
        return next((found for part in value if (found := _interpolation(part))), None)
    return value if isinstance(value, str) and "${" in value else None
