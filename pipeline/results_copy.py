"""`results.url=`: a run's directory, and that of a sweep, are copied to a URL at their end.

Everything is read from the directory, after it is written: the run does not depend on where it is copied to.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pipeline.config.compose import to_results
from pipeline.config.saved_settings import read_settings
from pipeline.errors import ConfigError, PipelineError
from pipeline.record.run_directory import CONFIG_FILE, REPORT_FILE, write_text
from pipeline.report.unfinished import FILE as UNFINISHED
from pipeline.urls import file_system, is_url, telling, url_problem

log = logging.getLogger(__name__)

FILE = "results.json"
COMPARISON = "comparison.json"
SWEEPS = "sweeps"
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "tos", "http", "https"})
"""Have no folders: to make one would make a bucket, of a name that may be mistyped."""


@contextlib.contextmanager
def copied(composed: DictConfig, folder: Path) -> Iterator[None]:
    """Copy a run's directory at its end, also where it has failed or was interrupted.

    A server that is down, or anything else that it refuses, is a warning: the run is done, and stays so.

    Raises:
        ConfigError: before the run: the setting is wrong.
    """
    url = to_results(composed).url
    try:
        yield
    finally:
        if url is not None and all((folder / name).is_file() for name in (REPORT_FILE, CONFIG_FILE)):
            _copy(folder, f"{url.rstrip('/')}/{_place_of(composed, folder)}", REPORT_FILE)


def copy_sweep(folder: Path, url: str) -> None:
    """Copy a sweep's directory, at its end; its runs have been copied at theirs."""
    if is_url(url) and url_problem(url) is None:  # else its jobs have said so
        _copy(folder, f"{url.rstrip('/')}/{SWEEPS}/{folder.absolute().name}", COMPARISON)


def _place_of(composed: DictConfig, folder: Path) -> str:
    """Return `<model>/<mode>/<timestamp>`; names of a run that came from elsewhere lead nowhere else."""
    settings = composed
    with contextlib.suppress(ConfigError):  # it failed before it had any
        settings = read_settings(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else composed
    names = (str(settings.model.name), str(settings.mode.name), folder.absolute().name)
    return "/".join(name.replace("/", "_").replace("\\", "_").replace("..", "__") for name in names)


def _copy(folder: Path, place: str, last: str) -> None:
    try:
        found = _send(folder, place, last)
    except (PipelineError, OSError) as error:
        log.warning("results.url: everything is in %s, but could not be copied to %s: %s", folder, place, error)
        return
    log.info("copied to %s", found)


def _send(folder: Path, place: str, last: str) -> str:
    """Copy a directory, one file last; return where it is.

    Raises:
        PipelineError: the server cannot be reached, or refuses.
    """
    with telling(place):
        place, system, path = _claimed(folder, place)
        if system.exists(f"{path}/{last}"):  # of a run that went on: it is not whole any more
            system.rm_file(f"{path}/{last}")
        for name in _files(folder, last):
            _make_folder(system, f"{path}/{name}")
            system.put_file(str(folder / name), f"{path}/{name}")
    return place


def _files(folder: Path, last: str) -> list[str]:
    """Return the names of the files that are copied: no links, nothing hidden but what a run goes on from."""
    names = [
        file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file() and not _leads_elsewhere(file, folder)
    ]
    kept = [
        name.as_posix() for name in names if name.name == UNFINISHED or not any(part.startswith(".") for part in name.parts)
    ]
    return sorted(kept, key=lambda name: name == last)


def _claimed(folder: Path, place: str) -> tuple[str, Any, str]:
    """Return a place that no other directory was copied to: another machine may have begun a run in the same second.

    Returns:
        Its URL, its file system and its path there.
    """
    before = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = str(json.loads((folder / FILE).read_text(encoding="utf-8"))["url"])
    for number in count(1):
        url = place if number == 1 else f"{place}-{number}"
        system, path = file_system(url)
        text = json.dumps({"url": url}) + "\n"
        if url == before or _is_new(system, f"{path}/{FILE}", text.encode()):
            write_text(folder / FILE, text)
            return url, system, path
    raise AssertionError


def _is_new(system: Any, path: str, content: bytes) -> bool:  # noqa: ANN401  a file system of fsspec
    """Write a file where there is none; at once, where the file system can."""
    if system.exists(path):
        return False
    _make_folder(system, path)
    try:
        system.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except (TypeError, ValueError, NotImplementedError):  # it cannot
        system.pipe_file(path, content)
    return True


def _make_folder(system: Any, path: str) -> None:  # noqa: ANN401
    names = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    if not OBJECT_STORES & set(names):
        system.makedirs(path.rpartition("/")[0], exist_ok=True)


def _leads_elsewhere(file: Path, folder: Path) -> bool:
    return any((folder / part).is_symlink() for part in (file.relative_to(folder), *file.relative_to(folder).parents[:-1]))
