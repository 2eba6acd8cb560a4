"""From losses and gains of single groups to a path of choices, from all float to the fastest, best bargains first.

Losses of groups add up well enough to say which group comes next, though not what the sum will be: what a choice on the path
really costs is measured (`steps.py`). For each group, the precisions that are worth having lie on the upper hull of gain over
loss; the steps from one to the next of all groups, sorted by gain per loss, are the greedy solution of the multiple-choice
knapsack, which is optimal at each of its steps (Sinha and Zoltners 1979, "The Multiple-Choice Knapsack Problem").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.mixed_precision.precision_groups import Group
from pipeline.quantize.plan import Precision

LEAST_LOSS = 1e-9  # a group that loses nothing is as good a bargain as can be


@dataclass(frozen=True)
class Step:
    """One group becomes something else.

    Attributes:
        group: its name.
        precision: what it becomes.
        gain: by how much the choice gets better.
        loss: by how much it gets worse.
    """

    group: str
    precision: Precision
    gain: float
    loss: float


def path_of(
    groups: Sequence[Group], losses: Mapping[tuple[str, Precision], float], gains: Mapping[tuple[str, Precision], float]
) -> list[Step]:
    """Return the steps from all float to the largest gain, best gain per loss first.

    Args:
        groups: what is decided together.
        losses: (group, precision) -> loss of this group alone.
        gains: (group, precision) -> gain; without any, or without a loss, a precision is never chosen.
    """
    steps = [step for group in groups for step in hull(group, losses, gains)]
    place = {group.name: number for number, group in enumerate(groups)}
    return sorted(steps, key=lambda step: (-step.gain / max(step.loss, LEAST_LOSS), place[step.group]))


def front_to_back(groups: Sequence[Group], steps: Sequence[Step]) -> list[Step]:
    """Return a path to the end of another one in the order of the graph, one step for each group.

    What is integer is then one region with one border, where layouts change and numbers are converted once; and in a
    vocoder the front is heard least.
    """
    reached = choice_after(steps, len(steps))
    found = []
    for group in groups:
        own = [step for step in steps if step.group == group.name]
        if own:
            gain, loss = sum(step.gain for step in own), sum(step.loss for step in own)
            found.append(Step(group.name, reached[group.name], gain, loss))
    return found


def hull(
    group: Group, losses: Mapping[tuple[str, Precision], float], gains: Mapping[tuple[str, Precision], float]
) -> list[Step]:
    """Return the steps of one group through the precisions that are worth having, in the order of their gain per loss."""
    points = sorted(
        (losses[group.name, p], -gains[group.name, p], p.name, p) for p in group.precisions if (group.name, p) in losses
    )
    kept: list[tuple[float, float, Precision | None]] = [(0.0, 0.0, None)]
    for loss, negative, _, precision in points:
        gain = -negative
        if gain <= kept[-1][1]:
            continue
        while len(kept) > 1 and _slope(kept[-2], (loss, gain)) >= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append((loss, gain, precision))
    found = []
    for (loss_before, gain_before, _), (loss, gain, chosen) in pairwise(kept):
        assert chosen is not None
        found.append(Step(group.name, chosen, gain - gain_before, loss - loss_before))
    return found


def fastest_choice(groups: Sequence[Group], gains: Mapping[tuple[str, Precision], float]) -> dict[str, Precision]:
    """Return where a path ends, whatever is lost: each group in the precision that gains most, where that is anything."""
    found = {}
    for group in groups:
        best = max(group.precisions, key=lambda precision: gains.get((group.name, precision), 0.0))
        if gains.get((group.name, best), 0.0) > 0:
            found[group.name] = best
    return found


def choice_after(steps: Sequence[Step], count: int) -> dict[str, Precision]:
    """Return the choice after the first steps of a path."""
    choice: dict[str, Precision] = {}
    for step in steps[:count]:
        choice[step.group] = step.precision
    return choice


def _slope(start: tuple[float, float, Precision | None], end: Sequence[object]) -> float:
    loss, gain = float(end[0]), float(end[1])  # type: ignore[arg-type]
    return (gain - start[1]) / max(loss - start[0], LEAST_LOSS)
