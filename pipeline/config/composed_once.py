"""One composition for a run, where Hydra makes two.

Hydra 1.3 composes all settings to see whether `hydra.mode` asks for a sweep, throws them away and composes them again to run:
`Hydra.get_mode` and `Hydra.run`. Half of what a command costs before it does something is the second time.
"""

from hydra._internal import hydra as hydras
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig

SINGLE_RUN = "hydra.mode=RUN"  # what Hydra appends where the settings do not say what they ask for
NEEDS_SWEEP = "--multirun"  # what it names where a single run is given several values


class ComposedOnce(ConfigLoaderImpl):
    """Hydra's loader, which keeps what it composed to find the mode, or what is wrong with it, for the run that follows."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._kept: tuple[str | None, list[str], DictConfig | Exception] | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose the settings, or return those of the call before where they are the same."""
        kept, self._kept = self._kept, None
        if run_mode is RunMode.MULTIRUN and not validate_sweep_overrides:  # `get_mode` asks
            try:
                composed = super().load_configuration(config_name, overrides, RunMode.RUN, from_shell)
            except Exception as error:
                if isinstance(error, MissingConfigException) or NEEDS_SWEEP in str(error):
                    return super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
                self._kept = (config_name, list(overrides), error)  # Hydra finds no mode, and tells what is wrong when it runs
                raise
            self._kept = (config_name, list(overrides), composed)
            return composed
        if run_mode is RunMode.RUN and kept is not None and kept[0] == config_name:
            _, before, found = kept
            if overrides in (before, [*before, SINGLE_RUN]):
                if isinstance(found, Exception):
                    raise found
                if overrides != before:
                    found.hydra.mode = RunMode.RUN
                    found.hydra.overrides.hydra.append(SINGLE_RUN)
                return found
        return super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)


def compose_once() -> None:
    """Make Hydra compose once, in this process."""
    hydras.ConfigLoaderImpl = ComposedOnce  # type: ignore[attr-defined]
