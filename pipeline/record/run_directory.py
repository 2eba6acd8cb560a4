"""A run's own directory: written atomically, never shared with another run."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.outside_errors import naming

REPORT_FILE = "report.json"
CONFIG_FILE = "config.yaml"
PAGE_FILE = "report.html"
STAGING = ".staging"
PACKAGE, PACKAGE_STAGING = "package", ".package"
SAMPLES = "samples"
FOLLOWED = (
    STAGING,
    PACKAGE,
    PACKAGE_STAGING,
    SAMPLES,
    ".hydra",
    "run.log",
)  # what is written in place; all else is written beside and then renamed


def past_config_file(directory: str, setting: str = "rerun") -> Path:
    """Return the config.yaml of a past run.

    Args:
        directory: of the run.
        setting: that names it, for messages.

    Raises:
        ConfigError: it is not a run's directory.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"{setting}: {directory} is not a run's directory: it has no {CONFIG_FILE}. A run's directory looks like "
            "outputs/<model>/<mode>/<timestamp>."
        )
    return path


class RunDirectory:
    """The one place that a run writes to."""

    def __init__(self, path: Path, *, again: bool = False) -> None:
        """Take over `path`.

        Args:
            path: of the directory.
            again: it holds the run that goes on.

        Raises:
            ConfigError: another run has already reported into it. One that ended before it had done anything, such as one with
                a misspelt setting, gives its place to the run that the user corrects it with. Or a folder that
                a run writes into is a symbolic link.
        """
        if not again and (path / REPORT_FILE).exists() and not _did_nothing(path / REPORT_FILE):
            raise ConfigError(f"hydra.run.dir: {path} already holds a run's {REPORT_FILE}; name a new directory.")
        if links := [name for name in FOLLOWED if (path / name).is_symlink()]:
            raise ConfigError(
                f"hydra.run.dir: {path} holds the symbolic link {links[0]}, through which a run would write or remove files "
                "elsewhere; name a new directory."
            )
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def claimed(cls, path: Path, *, again: bool = False, held: bool = False) -> "Iterator[RunDirectory]":
        """Take over `path` for as long as a run lasts; the system lets go of it where the process is killed.

        Args:
            path: of the directory.
            again: it holds the run that goes on.
            held: the caller has locked it.

        Raises:
            ConfigError: as of `RunDirectory`; or a run that goes on has claimed it.
        """
        with contextlib.nullcontext() if held else locked(path):
            yield cls(path, again=again)

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that a reader sees all of it or nothing, also when this process is killed half-way."""
        write_text(self.path / name, text)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write report.json; no number in it is infinite or NaN."""
        self.write_text(REPORT_FILE, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def staging(self, name: str) -> Path:
        """Return where an artifact is written before it is checked; `publish` gives it its name."""
        place = self.path / STAGING
        place.mkdir(exist_ok=True)
        return place / name

    def publish(self, staged: Path) -> Path:
        """Move a finished artifact (and its external data) to its place in the run's directory."""
        for path in staged.parent.glob(f"{staged.name}*"):
            path.replace(self.path / path.name)
        return self.path / staged.name

    def clear_staging(self) -> None:
        """Remove what was never published."""
        place = self.path / STAGING
        if place.exists():
            for path in place.iterdir():
                path.unlink()
            place.rmdir()


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a directory itself, so that nothing is left of it; Windows and some network file systems have no such lock.

    Args:
        path: of the directory.
        wait: for the process that has locked it: a worker may outlive the sweep that was killed.

    Raises:
        ConfigError: another process has locked it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ConfigError(
                    f"hydra.run.dir: {path} is being written by another run; wait for its end, or name a new directory."
                ) from None
        yield
    finally:
        os.close(handle)


def write_text(target: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing: other processes may write it at the same time, or be killed.

    Raises:
        OSError: it cannot be written; what was there before is still there, and nothing else.
    """
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staged.unlink(missing_ok=True)  # of a process of this number that was killed
        with naming(target), staged.open("x", encoding="utf-8") as stream:  # never through a link
            stream.write(text)
        staged.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise


def stay_alone_in(path: Path) -> None:
    """Lock a directory until this process ends.

    Raises:
        ConfigError: another process has locked it.
    """
    _until_the_end.enter_context(locked(path))


_until_the_end = contextlib.ExitStack()


def _did_nothing(file: Path) -> bool:
    """Whether a run has failed before any of its stages was done; false where that cannot be read."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        return report["status"] == "failed" and all(stage["status"] == "failed" for stage in report["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
