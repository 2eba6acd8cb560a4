"""What a search has tried: candidates with loss, speed and size; what a budget allows of them, and what is on the front."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from pipeline.quantize.plan import Precision

FASTER_THAN_FP32 = 0.99  # what counts as no slower, given the noise of a quick measurement


@dataclass(frozen=True)
class Budget:
    """What the user asks for; None: not asked for.

    Attributes:
        metric: what a loss is measured in.
        max_loss: how much worse than fp32 the model may be in it.
        min_speedup: how many times as fast as fp32 it must be at least.
        max_bytes: how large its file may be.
        max_length_change: how much longer or shorter an output may become, relative to fp32's.
        size_weight: a file of no size at all is worth as much as being faster by this share.
        asked: which of these limits the user gave; the others are the usual ones.
    """

    metric: str
    max_loss: float | None = None
    min_speedup: float | None = None
    max_bytes: int | None = None
    max_length_change: float | None = None
    size_weight: float = 0.0
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One choice of precisions, and what was measured of it.

    Attributes:
        label: in words.
        choice: group -> precision; the others are float.
        loss: in the budget's metric.
        length_change: of an output at worst, relative to fp32's.
        bytes: of the file.
        size_ratio: of the file, to fp32's.
        speedup: against fp32, in the fastest layout; None: not measured.
        layout: the float layout that was fastest; empty: as it is.
        bias_correction: with biases corrected.
        fixed_scales: products of matrices have scales from calibration.
        rounded: weights are rounded to keep the outputs of their nodes, where anything is quantized.
        scored: whether its loss is known; where it is not, it counts as infinite.
        samples: that the loss is of; fewer than others have where it was surely too much.
        constants: that are stored though no group has them.
        learned: the graph, where its numbers were learned (`mode.reconstruct`); None: `Builder.build` makes it.
    """

    label: str
    choice: dict[str, Precision] = field(repr=False)
    loss: float
    length_change: float
    bytes: int
    size_ratio: float
    speedup: float | None = None
    layout: tuple[str, ...] = ()
    bias_correction: bool = False
    fixed_scales: bool = False
    rounded: bool = True
    scored: bool = True
    samples: int = 0
    constants: dict[str, Precision] = field(default_factory=dict, repr=False)
    learned: onnx.ModelProto | None = field(default=None, repr=False, compare=False)

    @property
    def measured(self) -> bool:
        """Whether its speed is known."""
        return self.speedup is not None


def keeps_quality(candidate: Candidate, budget: Budget) -> bool:
    """Return whether a candidate's loss is allowed."""
    fine = budget.max_loss is None or candidate.loss <= budget.max_loss
    return fine and (budget.max_length_change is None or candidate.length_change <= budget.max_length_change)


def holds(candidate: Candidate, budget: Budget) -> bool:
    """Return whether a candidate meets all that the budget asks for."""
    small = budget.max_bytes is None or candidate.bytes <= budget.max_bytes
    fast = budget.min_speedup is None or (candidate.speedup or 0.0) >= budget.min_speedup
    return small and fast and keeps_quality(candidate, budget)


def best_of(candidates: Sequence[Candidate], budget: Budget) -> tuple[Candidate, bool]:
    """Return the best candidate whose speed is known, and whether it meets the budget.

    With a limit on the loss, the fastest within it, of equally fast ones the smaller, and of these what loses less; without,
    the one that loses least of those that are fast and small enough. None that is slower than fp32, where there is another.
    Where nothing meets the budget, the candidate that misses it by the least.
    """
    known = [c for c in candidates if c.measured]
    meeting = [c for c in known if holds(c, budget)]
    if not meeting:
        return least_short(known, budget), False
    meeting = [c for c in meeting if (c.speedup or 0) >= FASTER_THAN_FP32] or meeting
    if budget.max_loss is None:
        return min(meeting, key=lambda c: (c.loss, -worth(c, budget))), True
    return max(meeting, key=lambda c: (worth(c, budget), -c.bytes, -c.loss)), True


def least_short(candidates: Sequence[Candidate], budget: Budget) -> Candidate:
    """Return the candidate that misses the budget by the least, and of equal ones the smallest."""
    return min(candidates, key=lambda c: (_shortfall(c, budget), c.bytes))


def worth(candidate: Candidate, budget: Budget) -> float:
    """Return a candidate's speed-up, raised by what its size is worth."""
    return (candidate.speedup or 0.0) * (1.0 + budget.size_weight * (1.0 - candidate.size_ratio))


def on_front(candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Return whether no other measured candidate is at least as good in loss, speed and size, and better in one."""
    if not candidate.measured:
        return False
    mine = _costs(candidate)
    others = [_costs(other) for other in candidates if other.measured and other is not candidate]
    return not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in others)


def _costs(candidate: Candidate) -> tuple[float, float, float]:
    return candidate.loss, -(candidate.speedup or 0.0), float(candidate.bytes)


def _shortfall(candidate: Candidate, budget: Budget) -> float:
    """Return by how much a candidate misses the budget: the sum of the shares that are missing."""
    missing = 0.0
    if budget.max_loss is not None:
        missing += max(candidate.loss - budget.max_loss, 0.0) / max(budget.max_loss, 1e-9)
    if budget.max_length_change is not None:
        missing += max(candidate.length_change - budget.max_length_change, 0.0) / max(budget.max_length_change, 1e-9)
    if budget.min_speedup is not None:
        missing += max(budget.min_speedup - (candidate.speedup or 0.0), 0.0) / budget.min_speedup
    if budget.max_bytes is not None:
        missing += max(candidate.bytes - budget.max_bytes, 0) / budget.max_bytes
    return missing
