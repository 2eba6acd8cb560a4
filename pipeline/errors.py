"""Errors that a user can act on.

    PipelineError
    ├── ConfigError    a setting: unknown, of the wrong type, out of its limits, or contradicting another one
    ├── ModelError     an ONNX file: missing, corrupt, already quantized, or not fit for the chosen mode
    ├── DataError      a calibration or evaluation sample, audio file, token table or transcript
    └── StageError     a stage that could not do its work, or was asked for without what it needs

A message names the full config key or file, what was found, what is allowed, and what to do. `run.py` prints it and
exits with status 2, without a traceback; every other exception is a defect of this program and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """Base of every error that a user can act on."""


class ConfigError(PipelineError):
    """A setting is unknown, has the wrong type, is out of its limits, or contradicts another one."""


class ModelError(PipelineError):
    """An ONNX file is missing, corrupt, already quantized, or not fit for the chosen mode."""


class DataError(PipelineError):
    """A sample, audio file, token table or transcript cannot be used."""


class StageError(PipelineError):
    """A stage could not do its work, or was asked for without what it needs."""


def did_you_mean(name: str, options: Iterable[str], limit: int = 3) -> str:
    """Return a sentence that names the options nearest to `name`, or all of them where none is near.

    The sentence starts with a space, so that it can be appended to a message; it is empty where there is no option.
    """
    known = sorted({str(option) for option in options})
    near = difflib.get_close_matches(name, known, n=limit, cutoff=0.6)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    if not known:
        return ""
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    return f" Allowed: {shown}."
