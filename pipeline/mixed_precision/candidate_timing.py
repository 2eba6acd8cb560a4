"""How fast candidates are, each in the layouts that it may take.

A graph may take a dozen layouts. The first candidates are timed in all of them; what was about the fastest of any is what later
ones, which differ from these in some nodes, are timed in. Where there is no time for that, candidates are timed in what was the
fastest for whole graphs: the layout of integers that suits the one, with that of float operators that suits the other.
"""

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from pipeline.evaluate.loss import LossEvaluator
from pipeline.graph.prepare import without_shapes
from pipeline.measure.relative_speed import speedups
from pipeline.measure.timing_place import HERE, Place
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidates import Candidate
from pipeline.mixed_precision.precision_groups import plan_of, stored_only
from pipeline.mixed_precision.time_limit import OutOfTimeError, TimeLimit
from pipeline.optimize.layouts import INTEGERS, Layout, float_kept, further_forms, in_layout, starts_of
from pipeline.own_time import own_time
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import store_planned
from pipeline.quantize.stored_constants import layers_of_stored, store_chosen
from pipeline.sample import Sample

log = logging.getLogger(__name__)

TIMING_SECONDS = 1.0  # at most, for each graph that is timed
SESSION_S = 0.1  # to open one, at least
LEAST_SECONDS, ENOUGH_RUNS = 0.3, 60  # below which it is not shortened, and inferences that tell graphs apart
FEW_LAYOUTS = 1  # that the first candidates are timed in where the time is short
FIRST_SHARE = 0.05  # of the time, for each of them
ALL_SHARE = 0.3  # of the time that is left, for the first mixtures in all layouts: more is better spent on further ones
SCREENED = 2  # candidates with integers and floats, at least, are timed in all layouts; later ones in those that were fast
FAST_LAYOUT = 0.95  # of the speed of the fastest
# What is timed again is opened more often, and left out only where it is clearly slower: where weights happen to lie in memory
# moves the speed of one session of a small conformer by a tenth.
ROUNDS_AGAIN, CLEARLY_SLOWER = 6, 0.85
MOST_LAYOUTS = 16  # about, that a graph may take

Forms = dict[Layout, onnx.ModelProto]


@dataclass
class TrialContext:
    """What candidates are measured with.

    Attributes:
        original: the graph as the user gave it.
        original_bytes: the size of its file.
        builder: makes candidates.
        evaluator: scores them.
        samples: what they are timed on.
        threads: intra-op threads.
        layouts: names of the rewrites that may give nodes another layout.
        limit: of time; behind it nothing is begun.
        parts: of these, on which what is slow is left out, where they take long.
        inference_s: about what one inference of the original takes, on one of the parts, or of the samples.
        session_s: and what it takes to open it.
        place: where they are timed.
    """

    original: onnx.ModelProto
    original_bytes: int
    builder: Builder
    evaluator: LossEvaluator
    samples: Sequence[Sample]
    threads: int
    layouts: Collection[str]
    limit: TimeLimit
    parts: Sequence[Sample] = ()
    inference_s: float = 0.0
    session_s: float = 0.0
    place: Place = HERE

    @property
    def shortest(self) -> Sample:
        """What one kernel after the other is timed on: a part, where there is one."""
        return [*self.parts, *self.samples][0]

    def built(self, candidate: Candidate) -> onnx.ModelProto:
        """Return a candidate's graph, in no layout."""
        return built(self.builder, candidate)

    def graph_of(self, candidate: Candidate) -> onnx.ModelProto:
        """Return a candidate's graph, in its layout."""
        return graph_of(self.builder, candidate)


class CandidateTimer:
    """Times candidates; learns which layouts are fast, and how long a graph takes.

    Args:
        trials: what they are measured with.
    """

    def __init__(self, trials: TrialContext) -> None:
        self._trials = trials
        self._screened: list[set[Layout]] = []  # of each candidate that was timed, the layouts that were fast
        self._of_wholes: list[Layout] = []  # the fastest of each whole graph
        self._seen_s: list[float] = []  # that each graph took: its making, sessions, and the first runs

    @property
    def hurried(self) -> bool:
        """Whether there is no time to time each of the first candidates in all layouts."""
        return self._fast_layouts is None and self._takes(MOST_LAYOUTS) >= ALL_SHARE * self._trials.limit.left / SCREENED

    def timed(self, candidates: Sequence[Candidate], *, always: bool = False, near: Layout | None = None) -> list[Candidate]:
        """Return candidates with their speed: together, or where that takes long as many as there is time for, one by one.

        Args:
            candidates: of unknown speed, with labels of their own.
            always: whatever the time; where little is left, as they are.
            near: only in this layout, or as far as they can take it; None: in all that may be fast.

        Raises:
            OutOfTimeError: there is no time for the first one.
        """
        left = self._trials.limit.left
        forms = max(len(self._fast_layouts or ()), 1)
        if not always and self._takes(forms * len(candidates)) > left:
            if len(candidates) == 1:
                raise OutOfTimeError
            return self.timed(candidates[:1])
        return self._measured(candidates, left, always=always, near=near)

    def timed_again(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates with a speed that was measured of all of them together, each in its layout.

        Raises:
            OutOfTimeError: there is no time for it.
        """
        self._trials.limit.check(self._takes(2 * len(candidates)))
        measured = speedups(
            self._trials.original,
            {candidate.label: without_shapes(self._trials.graph_of(candidate)) for candidate in candidates},
            self._trials.samples,
            threads=self._trials.threads,
            seconds=2 * self._timing_s,
            hopeless=(CLEARLY_SLOWER,) * ROUNDS_AGAIN,
            until=self._trials.limit.end,
            place=self._trials.place,
        )
        for candidate in candidates:
            log.info("%s: %.2f times as fast, timed again", candidate.label, measured[candidate.label])
        return [replace(candidate, speedup=measured[candidate.label]) for candidate in candidates]

    def _measured(self, candidates: Sequence[Candidate], left: float, *, always: bool, near: Layout | None) -> list[Candidate]:
        begun = own_time()
        allowed, fast = self._trials.layouts, self._fast_layouts
        if near is not None:
            fast = {near[:length] for length in range(len(near) + 1)}
        starts = {c.label: starts_of(self._trials.built(c), allowed) for c in candidates}
        room = FIRST_SHARE if always else 1 / len(candidates)
        if fast is None and self._takes(MOST_LAYOUTS) < (room if always else ALL_SHARE * room) * left:
            starts = self._fast_starts(starts)
        elif fast is None and self._of_wholes:
            fast = self._mixed_layouts
        forms: dict[tuple[str, Layout], onnx.ModelProto] = {}
        for label, found in starts.items():
            begun_with = {at: form for at, form in found.items() if fast is None or at in fast}
            further = itertools.chain.from_iterable(further_forms(form, at, allowed, fast) for at, form in found.items())
            taken = {at: without_shapes(float_kept(form) if at else form) for at, form in begun_with.items()}
            for layout, form in further:
                if len(taken) > FEW_LAYOUTS and self._takes(1 + len(taken)) > room * left:
                    break
                taken[layout] = without_shapes(form)
            if not taken:  # it takes none of these
                at, form = list(found.items())[-1]
                taken = {at: without_shapes(float_kept(form) if at else form)}
            forms |= {(label, layout): form for layout, form in taken.items()}
        measured = speedups(
            self._trials.original,
            forms,
            self._trials.samples,
            parts=self._trials.parts,
            threads=self._trials.threads,
            seconds=min(self._timing_s, (2 * FIRST_SHARE if always else 1.0) * left / (len(forms) + 1)),
            until=self._trials.limit.end,
            place=self._trials.place,
        )
        self._seen_s.append((own_time() - begun) / len(forms) - self._timing_s)
        timed = []
        for candidate in candidates:
            speeds = {layout: measured[label, layout] for label, layout in forms if label == candidate.label}
            layout = max(speeds, key=lambda layout: speeds[layout])
            log.info("%s: %.2f times as fast, %s", candidate.label, speeds[layout], " ".join(layout) or "as it is")
            timed.append(replace(candidate, speedup=speeds[layout], layout=layout))
            if always:
                self._of_wholes.append(layout)
            elif candidate.choice:
                best = max(speeds.values())
                self._screened.append({layout for layout, speed in speeds.items() if speed >= FAST_LAYOUT * best})
        return timed

    @property
    def _timing_s(self) -> float:
        """For how long a graph is timed: a small one needs less."""
        return min(TIMING_SECONDS, max(LEAST_SECONDS, ENOUGH_RUNS * self._trials.inference_s))

    def _fast_starts(self, starts: Mapping[str, Forms]) -> dict[str, Forms]:
        """Return the starts without those that are clearly slower than the other start of the same candidate.

        What is faster with its integers in their layout is so in any layout of what is float.
        """
        forms = {(label, at): without_shapes(float_kept(form)) for label, found in starts.items() for at, form in found.items()}
        if len(forms) == len(starts):
            return dict(starts)
        trials = self._trials
        measured = speedups(
            trials.original,
            forms,
            trials.parts or trials.samples,
            threads=trials.threads,
            seconds=0.0,
            hopeless=(),
            place=trials.place,
        )
        best = {label: max(measured[label, at] for at in found) for label, found in starts.items()}
        return {
            label: {at: form for at, form in found.items() if measured[label, at] >= FAST_LAYOUT * best[label]}
            for label, found in starts.items()
        }

    @property
    def _fast_layouts(self) -> set[Layout] | None:
        """The layouts that were about the fastest of a candidate, once enough of them have been timed in all; None: all."""
        return set().union(*self._screened) if len(self._screened) >= SCREENED else None

    @property
    def _mixed_layouts(self) -> set[Layout]:
        """What is probably fast for a graph of integers and floats: what was so for whole graphs, put together."""
        integers = {layout[:1] for layout in self._of_wholes if layout[:1] == (INTEGERS,)} or {(), (INTEGERS,)}
        floats = {layout[1:] if layout[:1] == (INTEGERS,) else layout for layout in self._of_wholes} | {()}
        return {(*begun, *rest) for begun in integers for rest in floats}

    def _takes(self, forms: int) -> float:
        """Return what graphs take about, in seconds, before any of them is timed in rounds; at best, since others may wait."""
        usual = 2 * self._trials.inference_s + max(self._trials.session_s, SESSION_S)
        return (forms + 1) * max(usual, min(self._seen_s, default=usual))


def built(builder: Builder, candidate: Candidate) -> onnx.ModelProto:
    """Return a candidate's graph, in no layout, with the weights of what computes in float as floats; it may be changed.

    Layouts rearrange weights, which they can only while these are constants. As fast as with them stored: see `graph_of`.
    """
    if candidate.learned is not None:
        copy = onnx.ModelProto()
        copy.CopyFrom(candidate.learned)
        return copy
    return builder.build(
        candidate.choice, rounding=candidate.rounded, bias_correction=candidate.bias_correction,
        fixed_scales=candidate.fixed_scales, stored=False,
    )  # fmt: skip


def graph_of(builder: Builder, candidate: Candidate) -> onnx.ModelProto:
    """Return a candidate's graph, in its layout, with all weights stored that are to be."""
    model = in_layout(built(builder, candidate), candidate.layout)
    store_planned(model, plan_of(builder.groups, stored_only(candidate.choice)))
    store_chosen(model, candidate.constants, builder.model)
    return model


def plan_of_graph(builder: Builder, candidate: Candidate, model: onnx.ModelProto) -> Plan:
    """Return the plan of a candidate's finished graph, in which layers may store weights that no group of the choice has."""
    alone = layers_of_stored(model) if candidate.constants else {}
    return Plan({**alone, **plan_of(builder.groups, candidate.choice).precisions})
