"""Along paths by measuring: the real loss and the real latency of whole graphs, until the budget holds.

A path (`path.py`) says in which order groups become integers; how far to go on it is measured. The furthest point whose loss
is allowed is found by bisection on every path, and these points are timed, each in the layouts that its nodes may take. On the
fastest path, groups beyond the point are tried one by one, since the first that costs too much need not be followed by others
that do. What was tried is kept.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from pipeline.evaluate.loss import LossEvaluator
from pipeline.graph.large_models import byte_size
from pipeline.graph.prepare import without_shapes
from pipeline.measure.relative_speed import speedups
from pipeline.mixed_precision.candidate_builder import Builder, most_integer
from pipeline.mixed_precision.candidates import Budget, Candidate, best_of, holds, keeps_quality
from pipeline.mixed_precision.first_answer import ALL_INTEGER
from pipeline.mixed_precision.greedy_knapsack import Step, choice_after
from pipeline.mixed_precision.time_limit import OutOfTimeError, TimeLimit
from pipeline.optimize.layouts import Layout, in_layout, layouts_of
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample

log = logging.getLogger(__name__)

TIMING_SECONDS = 1.5  # for each graph that is timed
SESSION_S = 0.1  # to open one
FEW_LAYOUTS = 1  # that the first candidates are timed in where the time is short
FIRST_SHARE = 0.05  # of the time, for each of them
PRODUCTS = frozenset({"MatMul", "Gemm"})
ORDERS = {
    "A": "best bargain first",
    "B": "best bargain among int8 first",
    "C": "from the front",
    "D": "most bytes per loss first",
}
TRIED_BEYOND = 24  # groups behind the furthest point, tried one by one
LOOKED_BACK = (0.85, 0.65)  # of the way
LEFT_OUT = 2  # groups at the front of a choice, tried without
REJECTED = 4  # in a row: those that follow cost more still


Path = Sequence[Step]


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
        inference_s: about what one inference of the original takes, on one of the samples.
    """

    original: onnx.ModelProto
    original_bytes: int
    builder: Builder
    evaluator: LossEvaluator
    samples: Sequence[Sample]
    threads: int
    layouts: Collection[str]
    limit: TimeLimit
    inference_s: float = 0.0

    def built(self, candidate: Candidate) -> onnx.ModelProto:
        """Return a candidate's graph, in no layout."""
        return built(self.builder, candidate)

    def graph_of(self, candidate: Candidate) -> onnx.ModelProto:
        """Return a candidate's graph, in its layout."""
        return graph_of(self.builder, candidate)


class CandidateSearch:
    """Candidates, each measured once: whole graphs first, then along paths.

    Args:
        trials: what they are measured with.
        budget: what is asked for.
    """

    def __init__(self, trials: TrialContext, budget: Budget) -> None:
        self._trials, self._budget = trials, budget
        self._paths: dict[str, list[Step]] = {}
        self._found: dict[tuple[object, ...], Candidate] = {}

    @property
    def candidates(self) -> list[Candidate]:
        """All that were tried, in the order of trial."""
        return list(self._found.values())

    def measure_wholes(self) -> None:
        """Measure the float graph, the one with integers wherever they can be, and the one with dynamic ranges in products.

        So there is an answer before anything that takes long; no limit of time ends this.
        """
        groups = self._trials.builder.groups
        dynamic = {
            group.name: Precision.dynamic_int8
            for group in groups
            if group.op_type in PRODUCTS and Precision.dynamic_int8 in group.precisions
        }
        wholes = {"float": {}, ALL_INTEGER: most_integer(groups)} | ({"all products dynamic": dynamic} if dynamic else {})
        self.time([self.evaluatord(choice, label) for label, choice in wholes.items()], always=True)

    def run(self, paths: Sequence[Path]) -> None:
        """Measure candidates along paths, and around the best of them.

        Args:
            paths: orders in which groups may become integers.

        Raises:
            OutOfTimeError: the time is over before everything was tried; `candidates` has what was measured.
        """
        self._paths = {chr(ord("A") + number): list(path) for number, path in enumerate(paths)}
        self.time([self.evaluatord({}, "float")])
        ends = {name: self._furthest(name) for name in self._paths}
        self.time([self.at(name, count) for name, count in ends.items()])
        fastest = max(ends, key=lambda name: self.at(name, ends[name]).speedup or 0.0)
        filled = self._filled(fastest, ends[fastest])
        self.time([*filled[len(filled) // 2 :][:1], *filled[-1:]])  # what breaks a region up may cost more than it gains
        fitting = [name for name, count in ends.items() if holds(self.at(name, count), self._budget)]
        back = fitting[0] if fitting and fastest not in fitting else fastest  # the fastest may not be small enough
        self._look_back(back, ends[back])
        best, met = best_of(self.candidates, self._budget)
        if not met and best.choice:
            corrected = self.evaluatord(best.choice, f"{best.label}, biases corrected", bias_correction=True)
            if corrected.loss < best.loss:
                self.keep(replace(corrected, speedup=best.speedup, layout=best.layout))  # the same kernels: the same speed
                best, met = best_of(self.candidates, self._budget)
        for refine in (self._leave_out_the_first, self._fix_scales):
            if met:
                refine(best)
                best, met = best_of(self.candidates, self._budget)

    def evaluatord(
        self, choice: dict[str, Precision], label: str, *, bias_correction: bool = False, fixed_scales: bool = False
    ) -> Candidate:
        """Return a candidate with its loss."""
        rounded = self._trials.builder.rounding
        key = _key(choice, bias_correction, fixed_scales, rounded)
        if key not in self._found:
            model = self._trials.builder.build(choice, bias_correction=bias_correction, fixed_scales=fixed_scales)
            verdict = self._trials.evaluator.loss(model)
            size = byte_size(without_shapes(model))
            candidate = Candidate(
                label, dict(choice), verdict.loss, verdict.length_change, size, size / self._trials.original_bytes,
                bias_correction=bias_correction, fixed_scales=fixed_scales, rounded=rounded,
            )  # fmt: skip
            log.info("%s: %s %.4g, %.2f of the size", label, self._budget.metric, candidate.loss, candidate.size_ratio)
            self._found[key] = candidate
        return self._found[key]

    def time(self, candidates: Sequence[Candidate], *, always: bool = False) -> None:
        """Measure the speed of candidates, in every layout that they may take: together, or where that takes long one by one.

        Args:
            candidates: those that have been measured are left out.
            always: whatever the time; where little is left, as they are.

        Raises:
            OutOfTimeError: there is no time for the next one.
        """
        self._trials.limit.check(0.0 if not always else -math.inf)
        waiting = {c.label: c for c in map(self._known, candidates) if not c.measured}
        forms: dict[tuple[str, Layout], onnx.ModelProto] = {}
        left = self._trials.limit.left
        for label, candidate in waiting.items():
            model = self._trials.built(candidate)
            forms[label, ()] = model
            layouts = layouts_of(model, self._trials.layouts)
            for layout in layouts[: FEW_LAYOUTS if always and self._takes(1 + len(layouts)) > FIRST_SHARE * left else None]:
                forms[label, layout] = in_layout(model, layout)
        if not forms:
            return
        if not always and self._takes(len(forms)) > left:
            if len(waiting) == 1:
                raise OutOfTimeError
            for candidate in waiting.values():
                self.time([candidate])
            return
        measured = speedups(
            self._trials.original,
            {key: without_shapes(form) for key, form in forms.items()},
            self._trials.samples,
            threads=self._trials.threads,
            seconds=min(TIMING_SECONDS, (2 * FIRST_SHARE if always else 1.0) * left / (len(forms) + 1)),
            until=self._trials.limit.end,
        )
        for label, candidate in waiting.items():
            layout = max((key[1] for key in forms if key[0] == label), key=lambda layout: measured[label, layout])
            log.info("%s: %.2f times as fast, %s", label, measured[label, layout], " ".join(layout) or "as it is")
            self.keep(replace(candidate, speedup=measured[label, layout], layout=layout))

    def _takes(self, forms: int) -> float:
        """Return what the first round of timing takes about, in seconds: sessions, and two inferences in each."""
        return (forms + 1) * (2 * self._trials.inference_s + SESSION_S)

    def at(self, name: str, count: int) -> Candidate:
        """Return the candidate after the first steps of a path."""
        return self.evaluatord(choice_after(self._paths[name], count), self._label(name, count) if count else "float")

    def _label(self, name: str, count: int) -> str:
        """Return what a candidate is in words: how many groups of nodes are int8, and in which order they were taken."""
        order = ORDERS.get(name, f"order {name}")
        return f"{count} of {len(self._paths[name])} groups int8, {order}"

    def keep(self, candidate: Candidate) -> None:
        """Put what is known of a candidate by now in the place of what was known before."""
        self._found[_key_of(candidate)] = candidate

    def _known(self, candidate: Candidate) -> Candidate:
        """Return what is known by now of a candidate."""
        return self._found[_key_of(candidate)]

    def _furthest(self, name: str) -> int:
        """Return how many steps of a path keep the quality that is asked for: by bisection, since losses grow."""
        low, high = 0, len(self._paths[name])
        if keeps_quality(self.at(name, high), self._budget):
            return high
        while high - low > 1:
            middle = self._guess(name, low, high)
            if keeps_quality(self.at(name, middle), self._budget):
                low = middle
            else:
                high = middle
        return low

    def _guess(self, name: str, low: int, high: int) -> int:
        """Return where to look next between two points: the middle, or nearer to where losses that add up would say."""
        sums = [0.0]
        for step in self._paths[name]:
            sums.append(sums[-1] + max(step.loss, 0.0))
        limit, above = self._budget.max_loss, self.at(name, high).loss
        if limit is None or not above > 0:
            return (low + high) // 2
        below = self.at(name, low).loss if low else 0.0
        share = (limit - below) / max(above - below, 1e-12)
        wanted = sums[low] + share * (sums[high] - sums[low])
        guess = next((count for count in range(low + 1, high) if sums[count] > wanted), high) - 1
        quarter = max((high - low) // 4, 1)
        return min(max(guess, low + quarter), high - quarter) if high - low > 2 else low + 1

    def _filled(self, name: str, count: int) -> list[Candidate]:
        """Return the furthest candidate with further steps that the quality allows, each on top of the others."""
        rejected = 0
        current = self.at(name, count)
        found: list[Candidate] = []
        for step in self._paths[name][count : count + TRIED_BEYOND]:
            if rejected == REJECTED or self._budget.max_loss is None:
                break
            choice = {**current.choice, step.group: step.precision}
            wider = self.evaluatord(choice, f"{self._label(name, count)}, and {len(found) + 1} more, {step.group}")
            if keeps_quality(wider, self._budget):
                current, rejected = wider, 0
                found.append(wider)
            else:
                rejected += 1
        return found

    def _look_back(self, name: str, count: int) -> None:
        """Time points before the furthest one: a gain that was measured alone may not come true in the whole."""
        if self._budget.max_loss is None and (self._budget.min_speedup or self._budget.max_bytes):
            low, high = 0, count  # the least loss that is fast and small enough
            while high - low > 1:
                middle = (low + high) // 2
                self.time([self.at(name, middle)])
                if holds(self.at(name, middle), self._budget):
                    high = middle
                else:
                    low = middle
            return
        for share in LOOKED_BACK:
            if (before := int(share * count)) > 0:
                self.time([self.at(name, before)])

    def _leave_out_the_first(self, best: Candidate) -> None:
        """Time a choice without the Convs at its border to what is float in front of it.

        What comes first has the fewest channels and the longest rows: integers gain least there, and turning rows to channels
        last costs most. Measured alone, a float Conv pays for its own layout; beside another one it does not.
        """
        ends = [
            group.name
            for group in self._trials.builder.groups
            if group.op_type == "Conv" and best.choice.get(group.name) is Precision.static_int8
        ]
        shorter = []
        for count in range(1, min(LEFT_OUT, len(ends)) + 1):
            choice = {name: precision for name, precision in best.choice.items() if name not in ends[:count]}
            shorter.append(self.evaluatord(choice, f"{best.label}, first {count} Conv float"))
        self.time([candidate for candidate in shorter if keeps_quality(candidate, self._budget)])

    def _fix_scales(self, best: Candidate) -> None:
        """Time a choice with scales from calibration for products of matrices, where that loses no more than is allowed."""
        own_operators = "integer_channels_last" in self._trials.layouts  # of ONNX Runtime, not of ONNX
        if own_operators and Precision.dynamic_int8 in best.choice.values():
            fixed = self.evaluatord(best.choice, f"{best.label}, MatMuls with scales from calibration", fixed_scales=True)
            if keeps_quality(fixed, self._budget):
                self.time([fixed])


def built(builder: Builder, candidate: Candidate) -> onnx.ModelProto:
    """Return a candidate's graph, in no layout."""
    return builder.build(
        candidate.choice, rounding=candidate.rounded, bias_correction=candidate.bias_correction,
        fixed_scales=candidate.fixed_scales,
    )  # fmt: skip


def graph_of(builder: Builder, candidate: Candidate) -> onnx.ModelProto:
    """Return a candidate's graph, in its layout."""
    return in_layout(built(builder, candidate), candidate.layout)


def _key(
    choice: Mapping[str, Precision], bias_correction: bool = False, fixed_scales: bool = False, rounded: bool = True
) -> tuple[object, ...]:
    precisions = tuple(sorted((name, precision.name) for name, precision in choice.items()))
    return (precisions, bias_correction, fixed_scales, rounded or not choice)


def _key_of(candidate: Candidate) -> tuple[object, ...]:
    return _key(candidate.choice, candidate.bias_correction, candidate.fixed_scales, candidate.rounded)
