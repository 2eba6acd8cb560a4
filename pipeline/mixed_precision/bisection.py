"""How far to go on a path, with few measurements: bisection, guided by the losses of single groups.

Losses of groups add up well enough to say about where on the path the limit is reached. So the first point that is measured is
the one where their sum, times the factor by which real losses differed from such sums on another path, reaches the limit; the
next ones follow from interpolation between what has been measured (regula falsi), but never so near to an end that less than an
eighth of the steps would be decided. Where the same end moves again, as it does before a step that alone loses a lot, the other
one counts half (Dowell and Jarratt 1971, "A modified regula falsi method": the Illinois method); in the end it is the middle.
"""

from collections.abc import Sequence
from itertools import accumulate

from pipeline.mixed_precision.greedy_knapsack import Step

LITTLE = 0.015  # of the gain of a path, that is not worth a further measurement
LEAST_SHARE = 8  # one of so many steps is decided by each measurement
STALE, OFTEN = (
    0.5,
    3,
)  # what the other end counts each time that the same one moves again; from how many times on it is the middle


class Bisection:
    """The steps of a path between a point that keeps the quality and one that does not.

    Attributes:
        low: the furthest point that is known to keep it.
        high: the first point that is known not to; one behind the last where all of the path keeps it.

    Args:
        path: the steps.
        limit: of the loss; None: there is none, and the middle is measured.
        scale: real losses, relative to sums of those of single groups, as far as known.
    """

    def __init__(self, path: Sequence[Step], limit: float | None, scale: float | None = None) -> None:
        self._limit, self._expected = limit, scale
        self._sums = [0.0, *accumulate(max(step.loss, 0.0) for step in path)]
        self._gains = [0.0, *accumulate(max(step.gain, 0.0) for step in path)]
        self.low, self.high = 0, len(path) + 1
        self._losses: dict[int, float] = {}
        self._again = 0  # how many times in a row the end has moved that moved before
        self._last: bool | None = None  # which one: the lower

    def know(self, count: int, loss: float, *, kept: bool) -> None:
        """Take what was measured after so many steps."""
        self._losses[count] = loss
        self._again = self._again + 1 if kept is self._last else 0
        self._last = kept
        if kept:
            self.low = max(self.low, count)
        else:
            self.high = min(self.high, count)

    @property
    def scale(self) -> float | None:
        """Return by which factor the loss at `low` differs from the sum of those of its groups; None where nothing is lost."""
        loss, total = self._losses.get(self.low, 0.0), self._sums[self.low]
        return loss / total if loss > 0 and total > 0 else None

    def next(self) -> int | None:
        """Return the point to be measured next; None where nothing worth it is left between the two."""
        if self.high - self.low <= 1 or self._gains[self.high - 1] - self._gains[self.low] < LITTLE * self._gains[-1]:
            return None
        middle = (self.low + self.high) // 2
        wanted = self._wanted()
        if wanted is None or self._again >= OFTEN:
            return middle
        inside = range(self.low + 1, self.high)
        guess = max((count for count in inside if self._sums[count] <= wanted), default=self.low + 1)
        part = max((self.high - self.low) // LEAST_SHARE, 1)
        return min(max(guess, self.low + part), self.high - part)

    def _wanted(self) -> float | None:
        """Return the sum of losses of single groups at which the limit is reached, about; None: not known."""
        if self._limit is None:
            return None
        if self.low == 0 and self._expected is not None and len(self._losses) <= 2:
            return self._limit / self._expected
        above, below = self._losses.get(self.high), self._losses.get(self.low, 0.0)
        if above is None or not below < above < float("inf"):
            return None
        room, excess = self._limit - below, above - self._limit
        if self._last:
            excess *= STALE**self._again
        else:
            room *= STALE**self._again
        share = room / (room + excess)
        return self._sums[self.low] + share * (self._sums[self.high] - self._sums[self.low])
