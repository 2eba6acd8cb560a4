"""A run from Python, as `pipeline.run`: composed, run and reported as the command does it, without a terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.cli import execute
from pipeline.command_line.override_text import protected
from pipeline.config.composition_error import composition_error
from pipeline.errors import ConfigError, PipelineError
from pipeline.hydra_hooks import register
from pipeline.outside_errors import outside_error
from pipeline.paths import config_directory
from pipeline.report.index_file import refresh_index
from pipeline.report.schema import Report
from pipeline.resume import log_in
from pipeline.urls import refuse_secrets

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def run(overrides: Sequence[str] = ()) -> Report:
    """Run what the command would run with these overrides; see `pipeline.run`."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: {overrides!r} is a text; give a list, such as ['model=vocoder', 'mode=dynamic'].")
    overrides = [protected(override) for override in overrides]
    refuse_secrets(overrides)
    with _hydra() as hydra:
        try:
            if hydra.get_mode("config", list(overrides)) is RunMode.MULTIRUN:
                raise ConfigError("hydra.mode: MULTIRUN is a sweep, and this makes one run. Call it once for each, or use -m.")
            result = hydra.run("config", _run_job, list(overrides), with_log_configuration=False).return_value
        except PipelineError:
            raise
        except Exception as error:
            message = composition_error(error)
            if message is None:
                if (told := outside_error(error)) is not None:
                    raise told from error
                raise
            raise ConfigError(message) from error
    if isinstance(result, PipelineError):
        raise result
    assert isinstance(result, Report)
    return result


def _run_job(composed: DictConfig) -> Report | PipelineError:
    """Return the report, or the error: Hydra prints what an exception that leaves this function is about."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    with log_in(folder):
        try:
            if composed.compare:
                raise ConfigError("compare: shows past runs in the terminal; from Python: pipeline.report.compare_runs.")
            if composed.index is not None:
                raise ConfigError("index: makes a page of past runs; from Python: pipeline.report.index_file.write_index.")
            if composed.verify is not None:
                raise ConfigError("verify: looks at a past run in the terminal; from Python: pipeline.verify.verify.")
            try:
                return execute(composed, folder, list(settings.overrides.task))
            finally:
                refresh_index(folder, composed.report.language.name)
        except PipelineError as error:
            return error


@contextmanager
def _hydra() -> Iterator["Hydra"]:
    """Start Hydra, and leave its global state as it was: the caller may be a program of Hydra's itself."""
    register()
    host, base = GlobalHydra.instance().hydra, version.getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_directory()), job_name="run", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    finally:
        GlobalHydra.instance().hydra = host
        # Where no program has chosen a base yet, the next one that starts Hydra will.
        if isinstance(base, version.Version):  # type: ignore[attr-defined]
            version.VersionBase.instance().setbase(base)
