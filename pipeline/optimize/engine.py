"""Changes to a graph that are exact in float, each kept only where it measures faster on this machine.

A rewrite states its equation and where it comes from in its docstring. `apply` tries them one after the other: a rewrite that
finds a place is checked on real inputs (every output within 1e-4 of its scale) and timed against the graph before it, pair by
pair; it stays where it is faster, else the graph goes on without it. Those that only take a little work away are timed
together first. What was refused is tried once more at the end, since one rewrite opens the way to another.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph
from pipeline.graph.shorten_samples import shorten
from pipeline.measure.rewrite_gain import Gain, Measure, measure_gain
from pipeline.optimize.equivalence import LIMIT, Reference
from pipeline.optimize.rewrite_registry import LAYOUTS, OPERATORS, REWRITES, Rewrite, check_names
from pipeline.sample import Sample

__all__ = ["LAYOUTS", "OPERATORS", "REWRITES", "Applied", "Gain", "Measure", "Rewrite", "Rewritten", "apply", "check_names"]

SLOWER = "not faster here"
PASSES = 4  # of one rewrite over a graph: a length that became known makes others known


@dataclass(frozen=True)
class Applied:
    """A rewrite that was kept.

    Attributes:
        name: of the rewrite.
        sites: how many places it changed.
        speedup: against the graph before it: the median of the paired ratios; of all that were timed together.
        max_difference: of any output from the original's, relative to the scale of that output, with all rewrites so far.
        together: the names of all that were timed together, where it was not alone.
    """

    name: str
    sites: int
    speedup: float
    max_difference: float
    together: tuple[str, ...] = ()


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


def apply(
    model: onnx.ModelProto,
    probe: Sequence[Sample],
    *,
    threads: int = 1,
    only: Sequence[str] | None = None,
    measure: Measure | None = None,
    max_seconds: float | None = None,
) -> Rewritten:
    """Return the graph with every rewrite that is exact and faster.

    Args:
        model: the original; it stays as it is.
        probe: real inputs, a few: all are checked, the shortest are timed; where the graph takes inputs of any length, each
            rewrite is checked and timed on their beginnings, and all together are checked on the whole of them.
        threads: intra-op threads that the model will run with, which decides what is faster.
        only: names of the rewrites to try; None: all.
        measure: how to time two graphs; None: paired and interleaved, a second or two for each rewrite.
        max_seconds: begin no further rewrite after these; None: try all.

    Raises:
        KeyError: `only` names a rewrite that there is not.
    """
    known = {rewrite.name: rewrite for rewrite in REWRITES}
    waiting = [known[name] for name in only] if only is not None else list(REWRITES)
    end = time.monotonic() + (np.inf if max_seconds is None else max_seconds)
    short = shorten(model, probe, threads)
    search = _Search(model, short, threads, measure or measure_gain)
    for _, neighbours in groupby(waiting, key=lambda rewrite: rewrite.timed_with or rewrite.name):
        group = list(neighbours)
        if time.monotonic() < end:
            search.attempt(group)
        else:
            search.rejected |= {
                rewrite.name: f"not tried: the {max_seconds:g} s for rewrites were used up" for rewrite in group
            }
    for rewrite in waiting:
        if search.may_succeed_now(rewrite) and time.monotonic() < end:
            search.attempt([rewrite])
    if any(whole is not part for whole, part in zip(probe, short, strict=True)):
        search.confirm(Reference(model, probe, threads))
    return Rewritten(search.steps[-1].model, search.applied, tuple(search.rejected.items()))


@dataclass(frozen=True)
class _Step:
    """A graph, and the rewrites by which it differs from the one before."""

    model: onnx.ModelProto
    applied: tuple[Applied, ...] = ()


class _Search:
    """What was kept and refused so far.

    Attributes:
        steps: the original, and each graph that was kept.
        rejected: rewrite -> why it was not kept.
    """

    def __init__(self, model: onnx.ModelProto, probe: Sequence[Sample], threads: int, measure: Measure) -> None:
        self.steps = [_Step(model)]
        self.rejected: dict[str, str] = {}
        self._probe, self._threads, self._measure = probe, threads, measure
        self._reference = Reference(model, probe, threads)
        self._tried_on: dict[str, int] = {}  # how many steps there were when a rewrite was refused for its speed

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What was kept, in order."""
        return tuple(applied for step in self.steps for applied in step.applied)

    def attempt(self, rewrites: Sequence[Rewrite]) -> None:
        """Keep rewrites if they find places, are exact, and together faster than the graph so far."""
        before = candidate = self.steps[-1].model
        sites: dict[str, int] = {}
        for rewrite in rewrites:
            found, candidate = _change(rewrite, candidate)
            if isinstance(found, str):
                self.rejected[rewrite.name] = found
            else:
                sites[rewrite.name] = found
        if not sites:
            return
        reason, speedup, difference = self._judge(before, candidate)
        if reason.startswith(SLOWER):
            at = f"at {sum(sites.values())} places" + (f" of {', '.join(sites)} together" if len(sites) > 1 else "")
            self.rejected |= dict.fromkeys(sites, f"{reason} {at}")
            # One among several may yet be faster alone, on whatever the graph is then.
            self._tried_on |= dict.fromkeys(sites, len(self.steps) if len(sites) == 1 else 0)
        elif reason and len(sites) > 1:
            for rewrite in rewrites:
                self.attempt([rewrite])
        elif reason:
            self.rejected |= dict.fromkeys(sites, reason)
        else:
            together = tuple(sites) if len(sites) > 1 else ()
            kept = [Applied(name, places, speedup, difference, together) for name, places in sites.items()]
            self.steps.append(_Step(candidate, tuple(kept)))
            self.rejected = {name: why for name, why in self.rejected.items() if name not in sites}

    def _judge(self, before: onnx.ModelProto, candidate: onnx.ModelProto) -> tuple[str, float, float]:
        """Return why a graph is not kept, or "", its speed-up, and its difference from the original."""
        difference = self._reference.difference(candidate)
        if difference > self._reference.limit(difference):
            return _differs(difference), 0.0, difference
        gain = self._measure(before, candidate, self._probe, self._threads)
        return "" if gain.faster else f"{SLOWER}: {gain.speedup:.2f} times the speed", gain.speedup, difference

    def may_succeed_now(self, rewrite: Rewrite) -> bool:
        """Return whether a rewrite was refused for its speed alone, on a graph that has changed since."""
        return self.rejected.get(rewrite.name, "").startswith(SLOWER) and self._tried_on[rewrite.name] < len(self.steps)

    def confirm(self, reference: Reference) -> None:
        """Take back the latest steps until the graph is exact on other inputs as well."""
        while len(self.steps) > 1:
            model, applied = self.steps[-1].model, self.steps[-1].applied
            difference = reference.difference(model)
            if difference <= reference.limit(difference):
                self.steps[-1] = _Step(model, tuple(dataclasses.replace(one, max_difference=difference) for one in applied))
                return
            self.steps.pop()
            self.rejected |= {one.name: _differs(difference) for one in applied}


def _differs(difference: float) -> str:
    return f"differs by {difference:.1e} of the output's scale, more than {LIMIT:.0e}"


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
