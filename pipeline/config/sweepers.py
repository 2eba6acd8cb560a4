"""The settings of the sweepers in `pipeline/plugins`: processes of a launcher may know this package, and not its plugins."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class PatientBasicSweeperConf:
    """The settings of Hydra's basic sweeper, whose place it takes."""

    _target_: str = "hydra_plugins.speech_quantize_sweep.PatientBasicSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


@dataclass
class SearchConf:
    """The settings of a search, `hydra.sweeper.*`.

    Attributes:
        trials: how many there are to be in all, those that failed included.
        parallel: how many are handed to the launcher together; what one of them comes to helps no other.
        sampler: who chooses: tpe, nsgaii or random.
        seed: of the choices.
        params: what is searched over: setting -> choice(...), range(...) or interval(...).
    """

    _target_: str = "hydra_plugins.speech_quantize_search.SearchSweeper"
    trials: int = 20
    parallel: int = 1
    sampler: str = "tpe"
    seed: int = 0
    params: dict[str, Any] = field(default_factory=dict)
