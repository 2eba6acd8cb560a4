"""What a user needs to know of an error of Hydra or OmegaConf: the setting, what was found, what is allowed."""

import re
import traceback

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.compose import renamed
from pipeline.errors import PipelineError, did_you_mean
from pipeline.outside_errors import lack_of_memory, told_of

COMPOSERS = frozenset({"hydra", "omegaconf", "yaml", "antlr4"})  # what they raise comes of what they were given


def composition_error(error: BaseException) -> str | None:  # noqa: PLR0911  a row for each kind
    """Return what a user needs to know of an error that came before the run; None where it is a defect of the program.

    Hydra and OmegaConf report a mistake in an override as a chain of exceptions; the innermost one that names the setting
    is what counts.
    """
    if lack_of_memory(error) is not None:  # while something was composed or loaded: no setting is at fault
        return str(told_of(error))
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
    if _raised_in(error) in COMPOSERS and not isinstance(error, OSError):  # ValueError, AssertionError: `mode=2`, for example
        return f"the settings cannot be composed: {' '.join(str(error).split()) or type(error).__name__}"
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"hydra.run.dir: {error.filename or 'its directory'} cannot be written ({reason}); name another place."
    return None


def _raised_in(error: BaseException) -> str:
    """Return the top-level package whose code raised an exception."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] if frames else ""


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    options = error.options or []
    if not group:
        return " ".join(str(error).split())
    hint = renamed(f"{group}={option}") or did_you_mean(option, options)
    return f"{group}={option}: no such option of the group {group}.{hint}"


def _near(found: str, options: list[str]) -> bool:
    return "Did you mean" in did_you_mean(found, options)


def _setting_error(error: OmegaConfBaseException) -> str:
    what = re.sub(r"\s+", " ", str(error.msg or error).split("\n", maxsplit=1)[0]).rstrip(".")
    what = re.sub(
        r"Invalid value assigned: (\w+) is not a ListConfig, list or tuple", r"a list is needed, such as [a,b], not \1", what
    )
    if expected := re.search(r"'([^']*)', expected one of \[(.*)\]", what):
        what += f".{did_you_mean(expected[1], expected[2].split(', '))}" if _near(expected[1], expected[2].split(", ")) else ""
    known = [str(key) for key in error.parent_node] if isinstance(error.parent_node, DictConfig) else []
    hint = renamed(str(error.full_key)) or did_you_mean(str(error.key), known) if str(error.key) not in known else ""
    return f"{error.full_key}: {what.rstrip('?') + '?' if what.endswith('?') else what + '.'}{hint}"
