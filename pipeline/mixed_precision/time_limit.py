"""The time that a search may take, and what it will take about."""

import math
from collections.abc import Mapping

from pipeline.own_time import own_time


class OutOfTimeError(Exception):
    """The time of a search is over; what it has found so far is its answer."""


class TimeLimit:
    """A point in time after which nothing further is begun.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self.start = own_time()
        self.end = self.start + seconds

    @property
    def left(self) -> float:
        """Seconds until the end; 0 behind it."""
        return max(self.end - own_time(), 0.0)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return own_time() - self.start

    @property
    def passed(self) -> bool:
        """Whether the end is behind us."""
        return own_time() >= self.end

    def leave_out(self, seconds: float) -> None:
        """Leave out what has just passed, which had a limit of its own."""
        self.start += seconds
        self.end += seconds

    def share(self, share: float) -> float:
        """Return the point, on the clock of `own_time`, at which a share of what is left will have passed."""
        return own_time() + share * self.left

    def check(self, needed: float = 0.0) -> None:
        """Go on where there is time for the next step.

        Args:
            needed: seconds that it will take about.

        Raises:
            OutOfTimeError: there is not.
        """
        if own_time() + needed >= self.end:
            raise OutOfTimeError


# Seconds, of models that take milliseconds: mostly sessions that are opened, and pairs that are timed.
REWRITING_S, GROUP_S, TIMED_S = 40.0, 0.5, 60.0
CALIBRATION_RUNS = 3.0  # of each sample, in inferences of all of it: statistics, rounding, equalization
GROUP_RUNS = 30.0  # of each node alone, in all forms
CANDIDATES = 25  # that are scored
CANDIDATES_TIMED_RUNS = 300.0


def estimated_seconds(
    *,
    graph_s: float,
    model_s: float,
    groups: int,
    calibration: int,
    probes: float,
    samples: int,
    whole: int,
    rewriting: bool,
) -> dict[str, float]:
    """Return what the parts of a search take about: part -> seconds. Within a factor of two.

    Args:
        graph_s: of one inference of the float graph.
        model_s: of one inference of all of the model, as a candidate is scored.
        groups: nodes that may be quantized.
        calibration: whole samples that are calibrated on.
        probes: whole samples that a node's loss is measured on; a tenth of a sample counts as that.
        samples: that candidates are scored on.
        whole: that the choice is checked on.
        rewriting: whether float operators are rewritten first.
    """
    return {
        "rewrites": REWRITING_S if rewriting else 0.0,
        "ranges": calibration * CALIBRATION_RUNS * graph_s + 5 * probes * model_s,
        "nodes": groups * (GROUP_S + probes * model_s) + GROUP_RUNS * graph_s,
        "candidates": CANDIDATES * samples * model_s + 2 * whole * model_s + TIMED_S + CANDIDATES_TIMED_RUNS * graph_s,
    }


def in_words(parts: Mapping[str, float]) -> str:
    """Return an estimate as a user reads it: `about 4 min: ranges 40 s, candidates 3 min`."""
    shown = ", ".join(f"{part} {_duration(seconds)}" for part, seconds in parts.items() if seconds >= 1.0)
    return f"about {_duration(sum(parts.values()))}: {shown}"


def enough_seconds(needed: float) -> int:
    """Return a value of `mode.seconds` that is enough for a search that needs so long, with room, in a round number."""
    step = 60 if needed < 600 else 300
    return math.ceil(1.25 * needed / step) * step


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60.0:.0f} min"
