"""A run's own directory: claimed once, written atomically, never shared with another run."""

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config.compose import read_settings
from pipeline.errors import ConfigError

OUTPUTS = Path("outputs")
REPORT_FILE = "report.json"
CONFIG_FILE = "config.yaml"


def register_resolver() -> None:
    """Make `${run_directory:model,mode,rerun,job}` known: Hydra then writes into a directory that no other run has.

    The result is cached by its arguments, so that every mention of it in one job is the same directory.
    """
    OmegaConf.register_new_resolver("run_directory", partial(claim, OUTPUTS), use_cache=True, replace=True)


def claim(outputs: Path, model: str, mode: str, rerun: str | None, job: int, compare: Sequence[str] = ()) -> str:
    """Create `<outputs>/<model>/<mode>/<YYYY-MM-DD_HH-MM-SS>` and return its absolute path.

    Making the directory is what claims it: of two runs that start in the same second, the later one takes the next second.

    Args:
        outputs: where all runs are.
        model: the model's name.
        mode: the mode's name.
        rerun: a past run's directory; then its model and mode decide.
        job: the number of the job in a sweep; only tells the jobs of one sweep apart.
        compare: runs that are shown side by side; then nothing is run, and the page goes to `<outputs>/comparisons`.

    Raises:
        ConfigError: the directory cannot be made, or `rerun` is no run.
    """
    if rerun is not None:
        past = read_settings(past_config_file(rerun))
        model, mode = str(past.model.name), str(past.mode.name)
    parent = (outputs / "comparisons" if compare else outputs / model / mode).absolute()
    moment = time.time()
    while True:
        directory = parent / datetime.fromtimestamp(moment).strftime("%Y-%m-%d_%H-%M-%S")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise ConfigError(f"hydra.run.dir: {parent} cannot be made: a file is in the way.") from None
            moment += 1
        except OSError as error:
            raise ConfigError(
                f"hydra.run.dir: {directory} cannot be made ({error.strerror}). Free the place, or name another one with "
                "hydra.run.dir=..."
            ) from error
        else:
            return str(directory)


def past_config_file(rerun: str) -> Path:
    """Return the config.yaml of a past run.

    Raises:
        ConfigError: `rerun` is no run's directory.
    """
    path = Path(rerun) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"rerun: {rerun} is no run's directory: it has no {CONFIG_FILE}. A run's directory looks like "
            "outputs/<model>/<mode>/<timestamp>."
        )
    return path


def discard(directory: Path) -> None:
    """Remove a directory that was claimed for nothing, and its parent where that is empty then."""
    shutil.rmtree(directory)
    with contextlib.suppress(OSError):  # it holds others
        directory.parent.rmdir()


class RunDirectory:
    """The one place that a run writes to."""

    def __init__(self, path: Path) -> None:
        """Take over `path`.

        Raises:
            ConfigError: another run has already reported into it.
        """
        if (path / REPORT_FILE).exists():
            raise ConfigError(f"hydra.run.dir: {path} already holds a run's {REPORT_FILE}; name a new directory.")
        self.path = path

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that a reader sees all of it or nothing, also when this process is killed half-way."""
        target = self.path / name
        staged = target.with_name(f".{target.name}.{os.getpid()}")
        staged.write_text(text, encoding="utf-8")
        staged.replace(target)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write report.json. A number that JSON does not know (infinite, not a number) becomes null."""
        self.write_text(REPORT_FILE, json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def staging(self, name: str) -> Path:
        """Return where an artifact is written before it is checked; `publish` gives it its name."""
        place = self.path / ".staging"
        place.mkdir(exist_ok=True)
        return place / name

    def publish(self, staged: Path) -> Path:
        """Move a finished artifact (and its external data) to its place in the run's directory."""
        for path in staged.parent.glob(f"{staged.name}*"):
            path.replace(self.path / path.name)
        return self.path / staged.name

    def clear_staging(self) -> None:
        """Remove what was never published."""
        place = self.path / ".staging"
        if place.exists():
            for path in place.iterdir():
                path.unlink()
            place.rmdir()


def finite(value: Any) -> Any:  # noqa: ANN401
    """Return what JSON can hold: a number that is infinite or none becomes null, a path its text."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value
