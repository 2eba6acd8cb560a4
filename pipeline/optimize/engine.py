"""Rewrites of a graph that compute the same, each kept only where it measures faster, here or on a device.

A rewrite states its equation and its source in its docstring, and how exact it is in `rewrite_registry.py`. `apply` tries them
one after the other: a rewrite that finds a place is checked on real inputs (every output within 1e-4 of its scale) and timed
against the graph before it in interleaved pairs; it is kept where it is faster. Rewrites that save little are timed together
first. A rewrite that was not faster is tried once more at the end, since one rewrite opens places for another.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import onnx

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import GRAPH_REWRITES
from pipeline.cache.recall import Form, remembered
from pipeline.graph.graph_editor import Graph
from pipeline.graph.large_models import is_large
from pipeline.graph.model_digest import digest_of
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.shorten_samples import shorten
from pipeline.measure.rewrite_gain import Measure, measure_gain
from pipeline.measure.timing_place import HERE, Place
from pipeline.optimize.equivalence import LIMIT, Reference
from pipeline.optimize.outcome import Outcome, Refusal, Sites
from pipeline.optimize.rewrite_registry import REWRITES, Exactness, Rewrite
from pipeline.own_time import own_time
from pipeline.record.results import Applied
from pipeline.sample import Sample, digests_of
from pipeline.typed_json import from_json

SLOWER = "not faster here"
PASSES = 4  # of one rewrite over a graph: a dimension that became known makes others known


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
    assume: bool = False,
    measure: Measure | None = None,
    max_seconds: float | None = None,
    place: Place = HERE,
) -> Rewritten:
    """Return the graph with every rewrite that computes the same and is faster.

    Args:
        model: the original; it stays as it is.
        probe: real inputs, a few: all are checked, the shortest are timed; where the graph takes inputs of any length, each
            rewrite is checked and timed on their beginnings, and all together are checked on the whole of them.
        threads: intra-op threads that the model will run with, which decides what is faster.
        only: names of the rewrites to try; None: all.
        assume: also change places that rest on an assumption about the inputs (`Rewrite.assumption`).
        measure: how to time two graphs; None: paired and interleaved, a second or two for each rewrite.
        max_seconds: begin no further rewrite after these; None: try all.
        place: where they are timed.

    Raises:
        KeyError: `only` names an unknown rewrite.
    """
    known = {rewrite.name: rewrite for rewrite in REWRITES}
    waiting = [known[name] for name in only] if only is not None else list(REWRITES)

    def tried() -> Rewritten:
        return _tried(model, probe, threads, waiting, assume, measure, max_seconds, place)

    if measure is not None or place is not HERE:  # another clock
        return tried()
    names = [rewrite.name for rewrite in waiting]
    end = own_time() + (np.inf if max_seconds is None else max_seconds)
    form = Form[Rewritten](lambda found: _entry_of(found) if own_time() < end else None, _rewritten_of)
    return remembered(GRAPH_REWRITES, lambda: (digest_of(model), digests_of(probe), threads, names, assume), form, tried)


def _entry_of(found: Rewritten) -> Entry | None:
    if is_large(found.model):
        return None
    facts = {"applied": [dataclasses.asdict(one) for one in found.applied], "rejected": found.rejected}
    return Entry(facts, {"model": np.frombuffer(found.model.SerializeToString(), np.uint8)})


def _rewritten_of(entry: Entry) -> Rewritten:
    applied = [from_json(Applied, one, strict=True) for one in entry.facts["applied"]]
    rejected = [(str(name), str(reason)) for name, reason in entry.facts["rejected"]]
    return Rewritten(onnx.ModelProto.FromString(entry.arrays["model"].tobytes()), tuple(applied), tuple(rejected))


def _tried(
    model: onnx.ModelProto,
    probe: Sequence[Sample],
    threads: int,
    waiting: Sequence[Rewrite],
    assume: bool,
    measure: Measure | None,
    max_seconds: float | None,
    place: Place,
) -> Rewritten:
    end = own_time() + (np.inf if max_seconds is None else max_seconds)
    short = shorten(model, probe, threads)
    search = _Search(model, short, threads, measure or partial(measure_gain, until=end, place=place), assume=assume)
    for _, neighbours in groupby(waiting, key=lambda rewrite: rewrite.timed_with or rewrite.name):
        group = list(neighbours)
        if own_time() < end:
            search.attempt(group)
        else:
            search.rejected |= {
                rewrite.name: f"not tried: the {max_seconds:g} s for rewrites were used up" for rewrite in group
            }
    for rewrite in waiting:
        if search.may_succeed_now(rewrite) and own_time() < end:
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
    """What was kept and rejected so far.

    Attributes:
        steps: the original, and each graph that was kept.
        rejected: rewrite -> why it was not kept.
    """

    def __init__(
        self, model: onnx.ModelProto, probe: Sequence[Sample], threads: int, measure: Measure, *, assume: bool
    ) -> None:
        self.steps = [_Step(model)]
        self.rejected: dict[str, str] = {}
        self._probe, self._threads, self._measure, self._assume = probe, threads, measure, assume
        self._reference = Reference(model, probe, threads)
        self._tried_on: dict[str, int] = {}  # how many steps there were when a rewrite was not faster

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What was kept, in order."""
        return tuple(applied for step in self.steps for applied in step.applied)

    def attempt(self, rewrites: Sequence[Rewrite]) -> None:
        """Keep rewrites if they find places, compute the same, and are together faster than the graph so far."""
        before = candidate = self.steps[-1].model
        sites: dict[str, Sites] = {}
        for rewrite in rewrites:
            found, candidate = _change(rewrite, candidate, assume=self._assume)
            if isinstance(found, Refusal):
                self.rejected[rewrite.name] = _reason(rewrite, found)
            else:
                sites[rewrite.name] = found
        if not sites:
            return
        reason, speedup, difference = self._judge(before, candidate)
        if reason.startswith(SLOWER):
            at = f"at {sum(found.count for found in sites.values())} places" + (
                f" of {', '.join(sites)} together" if len(sites) > 1 else ""
            )
            self.rejected |= dict.fromkeys(sites, f"{reason} {at}")
            # One of several may still be faster alone, on the graph as it is then.
            self._tried_on |= dict.fromkeys(sites, len(self.steps) if len(sites) == 1 else 0)
        elif reason and len(sites) > 1:
            for rewrite in rewrites:
                self.attempt([rewrite])
        elif reason:
            self.rejected |= dict.fromkeys(sites, reason)
        else:
            together = list(sites) if len(sites) > 1 else []
            kept = [
                _applied(rewrite, sites[rewrite.name], speedup, difference, together)
                for rewrite in rewrites
                if rewrite.name in sites
            ]
            self.steps.append(_Step(candidate, tuple(kept)))
            self.rejected = {name: why for name, why in self.rejected.items() if name not in sites}

    def _judge(self, before: onnx.ModelProto, candidate: onnx.ModelProto) -> tuple[str, float, float]:
        """Return why a graph is not kept, or "", its speed-up, and its difference from the original."""
        try:
            difference = self._reference.difference(candidate)
        except EndedError as error:
            return f"ONNX Runtime does not survive it: {error.how}", 0.0, np.inf
        if difference > self._reference.limit(difference):
            return _differs(difference), 0.0, difference
        gain = self._measure(before, candidate, self._probe, self._threads)
        return "" if gain.faster else f"{SLOWER}: {gain.speedup:.2f} times the speed", gain.speedup, difference

    def may_succeed_now(self, rewrite: Rewrite) -> bool:
        """Return whether a rewrite was rejected for its speed alone, on a graph that has changed since."""
        return self.rejected.get(rewrite.name, "").startswith(SLOWER) and self._tried_on[rewrite.name] < len(self.steps)

    def confirm(self, reference: Reference) -> None:
        """Revert the latest steps until the graph computes the same on other inputs as well."""
        while len(self.steps) > 1:
            model, applied = self.steps[-1].model, self.steps[-1].applied
            try:
                difference = reference.difference(model)
            except EndedError:
                difference = np.inf
            if difference <= reference.limit(difference):
                self.steps[-1] = _Step(model, tuple(dataclasses.replace(one, max_difference=difference) for one in applied))
                return
            self.steps.pop()
            self.rejected |= {one.name: _differs(difference) for one in applied}


def _differs(difference: float) -> str:
    return f"differs by {difference:.1e} of the output's scale, more than {LIMIT:.0e}"


def _applied(rewrite: Rewrite, sites: Sites, speedup: float, difference: float, together: list[str]) -> Applied:
    exactness = Exactness.assumed if sites.assumed else rewrite.exactness
    assumption = rewrite.assumption if sites.assumed else ""
    return Applied(
        rewrite.name, sites.count, speedup, difference, together, exactness.value, assumption, sites.assumed, sites.withheld
    )


def _reason(rewrite: Rewrite, refusal: Refusal) -> str:
    if not refusal.withheld:
        return refusal.reason
    places = f"{refusal.withheld} place{'s' if refusal.withheld > 1 else ''}"
    return f"{refusal.reason}; mode.assume=true would allow {places}, on the assumption that {rewrite.assumption}"


def _change(rewrite: Rewrite, model: onnx.ModelProto, *, assume: bool) -> tuple[Outcome, onnx.ModelProto]:
    """Return what a rewrite found, and the changed graph; places that a change opens are changed as well."""
    count = assumed = withheld = 0
    for _ in range(PASSES):
        graph = Graph(model)
        found = rewrite.apply(graph, assume=assume)
        withheld = found.withheld
        if isinstance(found, Refusal):
            return Sites(count, assumed, withheld) if count else found, model
        count, assumed, model = count + found.count, assumed + found.assumed, graph.finish()
    return Sites(count, assumed, withheld), model
