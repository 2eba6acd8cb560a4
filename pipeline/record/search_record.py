"""What a search over settings has found: `search.json` in the sweep's directory, which needs no Optuna to be read."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.shell_words import settings_as_given

SEARCH_FILE = "search.json"
STUDY_FILE = "study.db"  # Optuna's, SQLite
DONE, FAILED, RUNNING = "done", "failed", "running"


@dataclass(frozen=True)
class Aim:
    """What a search makes better: a name that `optimize_for` takes, and whether more of it is better."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class TrialRecord:
    """One trial, which is the job of the same number.

    Attributes:
        number: counts from 0.
        state: done, failed, or running; a trial that was killed is running until the search goes on.
        settings: what was searched over: name -> value, as an override has it.
        values: of the aims, in their order; None where it is not done.
        directory: of its run; None: it has none yet.
        error: why it failed.
    """

    number: int
    state: str
    settings: dict[str, Any]
    directory: str | None = None
    values: list[float] | None = None
    error: str | None = None


@dataclass(frozen=True)
class SearchRecord:
    """A search over settings.

    Attributes:
        asked: how many trials were asked for.
        aims: what is made better.
        trials: so far, by number.
    """

    asked: int
    aims: list[Aim]
    trials: list[TrialRecord] = field(default_factory=list)

    def in_state(self, state: str) -> list[TrialRecord]:
        """Return the trials of a state."""
        return [trial for trial in self.trials if trial.state == state]

    @property
    def front(self) -> list[TrialRecord]:
        """The trials that no other one dominates: as good in every aim, and better in one. The best ones, of one aim."""
        done = [(trial, self._signed(trial)) for trial in self.in_state(DONE)]
        return [
            trial
            for trial, own in done
            if not any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for _, other in done)
        ]

    def _signed(self, trial: TrialRecord) -> list[float]:
        return [value if aim.higher_is_better else -value for value, aim in zip(trial.values or [], self.aims, strict=True)]


def settings_in_words(trial: TrialRecord) -> str:
    """Return what was chosen for a trial, as on a command line."""
    return ", ".join(settings_as_given(trial.settings))


def search_record_from(text: str) -> SearchRecord:
    """Return what search.json holds.

    Raises:
        ValueError: it is damaged.
    """
    try:
        found = json.loads(text)
        return SearchRecord(
            int(found["asked"]), [Aim(**aim) for aim in found["aims"]], [TrialRecord(**trial) for trial in found["trials"]]
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{SEARCH_FILE} is damaged: {error!r}") from error


def read_search(sweep: Path) -> SearchRecord | None:
    """Return what a search has found; None where the sweep is none.

    Raises:
        ConfigError: the file is damaged.
    """
    path = sweep / SEARCH_FILE
    if not path.is_file():
        return None
    try:
        return search_record_from(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"search: {path} cannot be read: {error}. Resume the search: it is made again.") from error
