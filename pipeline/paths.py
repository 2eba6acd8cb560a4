"""The files that settings name: where they are, and their hashes."""

import contextlib
import dataclasses
import difflib
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.remote_files import beside, local_copy, origin_of
from pipeline.urls import is_url

NAMED_FILES = 8  # in a message, at most
COPIES = "copies"  # of what is at URLs, in the directory of the cache
PACKED = "packed"  # the folder of the package that setup.py puts `conf/` and `data/` into


def resolve_path(path: str) -> Path:
    """Return the absolute path of a file that a setting names: relative to the working directory, else to the project.

    What a URL names is copied first, once in a run.

    Raises:
        ConfigError: no file can have such a name; or a URL that cannot be used.
        DataError: there is nothing at a URL, or its server does not give it.
    """
    if is_url(path):
        return local_copy(path, cache_directory() / COPIES)
    given = Path(path)
    with contextlib.suppress(RuntimeError):  # `~name` of nobody: a file of that name
        given = given.expanduser()
    if given.is_absolute():
        return given
    here = given.absolute()
    try:
        return here if here.exists() or not (_project_root() / given).exists() else _project_root() / given
    except OSError as error:  # of so long a name, the system does not even say that there is no such file
        raise ConfigError(f"{path[:100]!r}: no file can have this name ({error.strerror}).") from error


def near_files(file: Path, pattern: str = "*") -> str:
    """Return what lies where a file was looked for, and the name that is nearest to its own, in sentences; empty: nothing does.

    Args:
        file: that is not there.
        pattern: of the names of files that may be meant.
    """
    try:
        there = sorted(other.name for other in file.parent.glob(pattern) if not other.name.startswith("."))
    except OSError:  # a folder that may not be read, or too long a name
        there = []
    close = difflib.get_close_matches(file.name, there, n=1)
    shown = ", ".join(there[:NAMED_FILES]) + (f" and {len(there) - NAMED_FILES} more" if len(there) > NAMED_FILES else "")
    return (f" {file.parent} holds {shown}." if there else "") + (f" Did you mean {close[0]}?" if close else "")


def config_directory() -> Path:
    """Return the directory of the YAML files that Hydra composes."""
    return _project_root() / "conf"


def cache_directory() -> Path:
    """Return where downloads and other things that cost time are kept: below `$XDG_CACHE_HOME`, or else `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "speech-quantization-pipeline"


@cache
def _project_root() -> Path:
    """Return the directory that holds `conf/` and `data/`: the repository, or in an installed package a folder of it."""
    package = Path(__file__).resolve().parent
    packed = package / PACKED
    return packed if packed.is_dir() else package.parent


def portable(file: Path) -> str:
    """Return a path relative to the project where the file is part of it, else absolute; of a copy, the URL."""
    if (url := origin_of(file)) is not None:
        return url
    root = _project_root()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def from_portable(path: str) -> Path:
    """Return the file that `portable` has made a text of."""
    return resolve_path(path) if is_url(path) else _project_root() / path  # an absolute path stays what it is


def file_beside(folder: Path, name: str) -> Path:
    """Return the file that a file in a folder names; where that is a copy of what is at a URL, it is copied from beside it.

    Raises:
        DataError: at a URL, it is outside of the folder, or its server does not give it.
    """
    return beside(folder, name, cache_directory() / COPIES)


def shown(file: Path) -> str:
    """Return a file as messages name it: a copy by its URL."""
    return origin_of(file) or str(file)


def settings_with_places(settings: object) -> tuple[str, dict[str, object]]:
    """Return the class and the values of settings (a dataclass); what names a file or a folder as the place that it means."""
    assert dataclasses.is_dataclass(settings) and not isinstance(settings, type)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return type(settings).__name__, {name: _place(name, value) or value for name, value in values.items()}


def _place(key: str, value: object) -> Path | None:
    if isinstance(value, str) and value and (is_place(key, value) or not is_url(value)):
        with contextlib.suppress(OSError, ConfigError):  # no file can have such a name
            place = resolve_path(value)
            return place if place.is_file() or is_place(key, value) else None
    return None


def with_portable_paths(plain: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose paths mean the same files from any working directory: what config.yaml holds."""
    return {
        group: {key: _portable_setting(value) if is_place(key, value) else value for key, value in settings.items()}
        if group in ("model", "calibration", "evaluation")
        else settings
        for group, settings in plain.items()
    }


def _portable_setting(value: str) -> str:
    return value if is_url(value) else portable(resolve_path(value))


def is_place(key: str, value: object) -> bool:
    """Return whether a setting of a model or of data names a file or a folder."""
    return isinstance(value, str) and (key in ("path", "dir", "labels", "initial_states") or key.endswith("_path"))


@dataclass(frozen=True)
class HashedFile:
    """A file that was read.

    Attributes:
        path: where it is.
        sha256: of its contents.
        bytes: its size.
    """

    path: Path
    sha256: str
    bytes: int


def hash_files(*files: Path) -> tuple[tuple[HashedFile, ...], str]:
    """Return each file with its hash, and the SHA-256 of all contents, one after the other; each file is read once."""
    hashed = []
    whole = hashlib.sha256()
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                if len(files) > 1:
                    whole.update(block)
        hashed.append(HashedFile(file, digest.hexdigest(), file.stat().st_size))
    return tuple(hashed), whole.hexdigest() if len(files) > 1 else hashed[0].sha256
