"""Changes to a graph that are exact in float, each kept only where it measures faster on this machine.

A rewrite states its equation and where it comes from in its docstring. `apply` tries them one after the other: a rewrite that
finds a place is checked on real inputs (every output within 1e-4 of its scale) and timed against the graph before it, pair by
pair; it stays where it is faster, else the graph goes on without it. What was refused is tried once more at the end, since
one rewrite opens the way to another.

mish.py           tanh(softplus(x)) by one sigmoid
lengths.py        numbers that follow from known lengths, as constants
reshape.py        the shape of a Reshape as a constant
square.py         x ** 2 as x * x, division by a constant as multiplication
scale.py          a constant factor after a linear layer, inside its weights
batch_norm.py     a batch norm after a linear layer, inside its weights
scatter.py        an update of a whole range as Slice and Concat
layer_norm.py     layer norm over channels as LayerNormalization between transpositions
mask.py           masks that are applied again further on, dropped
conv2d.py         Conv over time as Conv over an image of height 1
fold.py           several moments at once in Convs with few output channels
affine.py         a factor and a shift of each channel in one pass
transposed.py     ConvTranspose as Conv, its output interleaved
blocked.py        residual blocks in the layout of their Convs
graph.py          the graph that they see; order.py: its nodes in order; exact.py, timing.py: the two checks
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from pipeline.rewrite import (
    affine,
    batch_norm,
    blocked,
    conv2d,
    fold,
    layer_norm,
    lengths,
    mask,
    mish,
    reshape,
    scale,
    scatter,
    square,
    transposed,
)
from pipeline.rewrite.exact import LIMIT, Reference
from pipeline.rewrite.graph import Graph
from pipeline.rewrite.timing import Gain, Measure, measure_gain
from pipeline.samples import Sample

__all__ = ["REWRITES", "Applied", "Gain", "Measure", "Rewrite", "Rewritten", "apply"]

SLOWER = "not faster here"
PASSES = 4  # of one rewrite over a graph: a length that became known makes others known


@dataclass(frozen=True)
class Rewrite:
    """One kind of change.

    Attributes:
        name: in settings and reports.
        change: does it to a graph, and returns the number of places, or the reason why there is none.
        summary: what it does, in one line.
    """

    name: str
    change: Callable[[Graph], int | str]
    summary: str


@dataclass(frozen=True)
class Applied:
    """A rewrite that was kept.

    Attributes:
        name: of the rewrite.
        sites: how many places it changed.
        speedup: against the graph before it: the median of the paired ratios.
        max_difference: of any output from the original's, relative to the scale of that output, with all rewrites so far.
    """

    name: str
    sites: int
    speedup: float
    max_difference: float


@dataclass(frozen=True)
class Rewritten:
    """A graph after the rewrites.

    Attributes:
        model: computes what the original does.
        applied: what was kept, in order.
        rejected: (name, reason) of what was not.
    """

    model: onnx.ModelProto
    applied: tuple[Applied, ...]
    rejected: tuple[tuple[str, str], ...]


REWRITES: tuple[Rewrite, ...] = (
    Rewrite("mish", mish.rewrite, "tanh(softplus(x)) by one sigmoid"),
    Rewrite("lengths", lengths.rewrite, "numbers that follow from known lengths, as constants"),
    Rewrite("reshape", reshape.rewrite, "the shape of a Reshape as a constant"),
    Rewrite("scatter", scatter.rewrite, "an update of a whole range as Slice and Concat"),
    Rewrite("batch_norm", batch_norm.rewrite, "a batch norm inside the weights before it"),
    Rewrite("square", square.rewrite, "x ** 2 as x * x, x / c as x * (1 / c)"),
    Rewrite("scale", scale.rewrite, "a constant factor inside the weights beside it"),
    Rewrite("layer_norm", layer_norm.rewrite, "layer norm over channels as LayerNormalization between transpositions"),
    Rewrite("mask", mask.rewrite, "masks that are applied again further on, dropped"),
    Rewrite("conv2d", conv2d.rewrite, "Conv over time as Conv over an image of height 1, in whole regions"),
    Rewrite("conv2d_wide", conv2d.rewrite_wide, "the same for Convs of several taps and many channels, each alone"),
    Rewrite("fold", fold.rewrite, "several moments at once in Convs with few output channels"),
    Rewrite("affine", affine.rewrite, "a factor and a shift of each channel in one pass"),
    Rewrite("transposed", transposed.rewrite, "ConvTranspose as Conv, its output interleaved"),
    Rewrite("blocked", blocked.rewrite, "residual blocks in the layout of their Convs"),
)


def apply(
    model: onnx.ModelProto,
    probe: Sequence[Sample],
    *,
    threads: int = 1,
    only: Sequence[str] | None = None,
    measure: Measure | None = None,
) -> Rewritten:
    """Return the graph with every rewrite that is exact and faster.

    Args:
        model: the original; it stays as it is.
        probe: real inputs, a few: all are checked, the shortest are timed.
        threads: intra-op threads that the model will run with, which decides what is faster.
        only: names of the rewrites to try; None: all.
        measure: how to time two graphs; None: paired and interleaved, a few seconds for each rewrite.

    Raises:
        KeyError: `only` names a rewrite that there is not.
    """
    known = {rewrite.name: rewrite for rewrite in REWRITES}
    waiting = [known[name] for name in only] if only is not None else list(REWRITES)
    measure = measure or measure_gain
    reference = Reference(model, probe, threads)
    applied: list[Applied] = []
    rejected: dict[str, str] = {}
    tried_on: dict[str, int] = {}  # how many rewrites the graph had when this one was refused for its speed

    def attempt(rewrite: Rewrite, current: onnx.ModelProto) -> onnx.ModelProto:
        sites, candidate = _change(rewrite, current)
        if isinstance(sites, str):
            rejected[rewrite.name] = sites
            return current
        difference = reference.difference(candidate)
        if difference > reference.limit(difference):
            rejected[rewrite.name] = f"differs by {difference:.1e} of the output's scale, more than {LIMIT:.0e}"
            return current
        gain = measure(current, candidate, probe, threads)
        if not gain.faster:
            rejected[rewrite.name] = f"{SLOWER}: {gain.speedup:.2f} times the speed at {sites} places"
            tried_on[rewrite.name] = len(applied)
            return current
        applied.append(Applied(rewrite.name, sites, gain.speedup, difference))
        rejected.pop(rewrite.name, None)
        return candidate

    current = model
    for rewrite in waiting:
        current = attempt(rewrite, current)
    for rewrite in waiting:
        if rejected.get(rewrite.name, "").startswith(SLOWER) and tried_on[rewrite.name] < len(applied):
            current = attempt(rewrite, current)
    return Rewritten(current, tuple(applied), tuple(rejected.items()))


def _change(rewrite: Rewrite, model: onnx.ModelProto) -> tuple[int | str, onnx.ModelProto]:
    """Return the number of places, or why there are none, and the changed graph; what a change opens is changed as well."""
    total = 0
    for _ in range(PASSES):
        graph = Graph(model)
        sites = rewrite.change(graph)
        if isinstance(sites, str):
            return total or sites, model
        total, model = total + sites, graph.finish()
    return total, model
