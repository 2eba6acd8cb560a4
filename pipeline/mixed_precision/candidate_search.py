"""Along paths by measuring: the real loss and the real latency of whole graphs, until the budget holds.

A path (`path.py`) says in which order groups become integers; how far to go on it is measured. The furthest point whose loss
is allowed is found by bisection on every path, and these points are timed, each in the layouts that its nodes may take. On the
fastest path, groups beyond the point are tried as well, since the first that costs too much need not be followed by others
that do. What was tried is kept.
"""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.evaluate.loss import ANYTHING, Allowed
from pipeline.graph.large_models import byte_size
from pipeline.graph.prepare import without_shapes
from pipeline.mixed_precision.bisection import Bisection
from pipeline.mixed_precision.candidate_builder import dynamic_products, largest_stored, most_integer
from pipeline.mixed_precision.candidate_timing import CandidateTimer, TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, best_of, holds, keeps_quality, worth
from pipeline.mixed_precision.first_answer import ALL_INTEGER
from pipeline.mixed_precision.greedy_knapsack import Step, choice_after
from pipeline.optimize.layouts import Layout
from pipeline.quantize.plan import Precision

log = logging.getLogger(__name__)

ORDERS = {
    "A": "best bargain first",
    "B": "best bargain among int8 first",
    "C": "from the front",
    "D": "most bytes per loss first",
}
STEPS = (
    "how many groups can be integers in each order", "the speed of these", "further groups", "fewer groups",
    "all products as integers", "the first Convs as float", "scales from calibration for products",
    "the fastest once more, together",
)  # fmt: skip
TRIED_BEYOND = 24  # groups behind the furthest point, tried on top of it
HARDLY = 1.02  # times what is allowed, that a group is expected to lead to which is not worth a trial
LITTLE_GAIN = 0.001  # of a path, for which a group is not worth a trial of its own
OF_FLOAT = 2  # samples: it was equalized, and loses nothing but rounding
NEARLY_ALL = 0.9  # of the groups of the whole graph: who ends there loses about as much
COMPETES = 0.5  # of what the same groups' best bargains gain, that those from the front must to be followed
FAR = 1.5  # times what is allowed, beyond which the end of a path is not measured again
LOOKED_BACK = (0.85, 0.65)  # of the way
LEFT_OUT = 2  # groups at the front of a choice, tried without
REJECTED = 4  # in a row: those that follow cost more still
FINALISTS, CLOSE = 4, 0.93  # candidates that are timed once more, and of what the fastest is worth
SLOWER = 0.98  # of the speed of another one: clearly slower, given the noise of a quick measurement


Path = Sequence[Step]


class CandidateSearch:
    """Candidates, each measured once: whole graphs first, then along paths.

    Attributes:
        untried: what is left to be done, in words.

    Args:
        trials: what they are measured with.
        budget: what is asked for.
    """

    def __init__(self, trials: TrialContext, budget: Budget) -> None:
        self._trials, self._budget = trials, budget
        self._timer = CandidateTimer(trials)
        self.untried = list(STEPS)
        self._paths: dict[str, list[Step]] = {}
        self._scale: float | None = None  # of real losses, relative to the sums of those of single groups
        self._found: dict[tuple[object, ...], Candidate] = {}

    @property
    def candidates(self) -> list[Candidate]:
        """All that were tried, in the order of trial."""
        return list(self._found.values())

    def measure_wholes(self, *, stored: bool = False) -> None:
        """Measure the float graph, the one with integers wherever they can be, and the one with dynamic ranges in products.

        So there is an answer before anything that takes long; no limit of time ends this.

        Args:
            stored: also one that computes in float and stores the largest weights as int8: small, where there may be no time
                to find more.
        """
        groups = self._trials.builder.groups
        dynamic = dynamic_products(groups)
        wholes = {"float": {}, ALL_INTEGER: most_integer(groups)} | ({"all products dynamic": dynamic} if dynamic else {})
        scored = [
            self.scored(choice, label, allowed=ANYTHING, samples=None if choice else OF_FLOAT)
            for label, choice in wholes.items()
        ]
        self.time(scored[:1] if stored else scored, always=True)  # where time is short, others are timed in what suits it
        self.time(scored, always=True)
        if stored and (large := largest_stored(self._trials.builder)):
            small = self.scored(large, "the largest weights stored as int8")
            if keeps_quality(small, self._budget):  # what computes is float: it is fast in the layout of the float graph
                self.time([small], always=True, near=self._known(scored[0]).layout)

    def all_keep_quality(self, choices: Sequence[dict[str, Precision]]) -> bool:
        """Return whether the quality that is asked for is kept by each of some choices, which paths end with."""
        if self._budget.max_loss is None or not all(choices):
            return False
        for choice, order in zip(choices, "ABD", strict=False):
            whole = self._whole_of(choice)
            if whole is not None and whole.loss > FAR * self._budget.max_loss:
                return False
            label = f"all {len(choice)} groups that gain anything, {ORDERS[order]}"
            if not keeps_quality(self.scored(choice, label), self._budget):
                return False
        return True

    def run_within(self, budget: Budget, paths: Sequence[Path]) -> None:
        """Measure candidates along paths as `run` does, for another budget."""
        own, self._budget = self._budget, budget
        try:
            self.run(paths)
        finally:
            self._budget = own

    def run(self, paths: Sequence[Path]) -> None:
        """Measure candidates along paths, and around the best of them.

        Args:
            paths: orders in which groups may become integers.

        Raises:
            OutOfTimeError: the time is over before everything was tried; `candidates` has what was measured.
        """
        self._paths = {chr(ord("A") + number): list(path) for number, path in enumerate(paths)}
        self.untried = list(STEPS)
        self.time([self.scored({}, "float", allowed=ANYTHING)])
        ends: dict[str, int] = {}
        for name in self._paths:
            same_gains = COMPETES * sum(step.gain for step in self._paths["B"][: ends["B"]]) if name == "C" else 0.0
            ends[name] = self._furthest(name, same_gains)
            if self._timer.hurried:  # the next path may not be reached
                self.time([self.at(name, ends[name])])
        self.untried.pop(0)
        self.time([self.at(name, count) for name, count in ends.items()])
        self.untried.pop(0)
        fastest = max(ends, key=lambda name: self.at(name, ends[name]).speedup or 0.0)
        filled = self._filled(fastest, ends[fastest])
        self.time([*filled[len(filled) // 2 :][:1], *filled[-1:]])  # what breaks a region up may cost more than it gains
        self.untried.pop(0)
        fitting = [name for name, count in ends.items() if holds(self.at(name, count), self._budget)]
        back = fitting[0] if fitting and fastest not in fitting else fastest  # the fastest may not be small enough
        unlimited = [
            name for name, path in self._paths.items() if ends[name] == len(path) and self._budget.max_loss is not None
        ]
        by_end = {_key_of(self.at(name, ends[name])): name for name in reversed((back, *unlimited))}
        for name in reversed(by_end.values()):  # a path that no limit ends goes on to what hardly gains
            self._look_back(name, ends[name])
        self.untried.pop(0)
        best, met = best_of(self.candidates, self._budget)
        if not met and best.choice:
            label = f"{best.label}, biases corrected"
            corrected = self.scored(best.choice, label, bias_correction=True, allowed=ANYTHING)
            if corrected.loss < best.loss:
                self.keep(replace(corrected, speedup=best.speedup, layout=best.layout))  # the same kernels: the same speed
                best, met = best_of(self.candidates, self._budget)
        for refine in (self._all_products, self._leave_out_the_first, self._fix_scales):
            if met:
                refine(best)
                best, met = best_of(self.candidates, self._budget)
            self.untried.pop(0)
        self._time_the_fastest_again()
        self.untried.pop(0)

    def scored(
        self,
        choice: dict[str, Precision],
        label: str,
        *,
        bias_correction: bool = False,
        fixed_scales: bool = False,
        allowed: Allowed | None = None,
        samples: int | None = None,
    ) -> Candidate:
        """Return a candidate with its loss: of all samples where it may keep the quality, of a few where it surely does not.

        Args:
            choice: what becomes an integer.
            label: in words.
            bias_correction: with biases corrected.
            fixed_scales: with scales from calibration for products of matrices.
            allowed: what it may lose to be scored on all samples; None: what the budget allows.
            samples: on the first so many; None: on all.
        """
        rounded = self._trials.builder.rounding
        key = _key(choice, bias_correction, fixed_scales, rounded)
        known = self._found.get(key)
        if known is None or (samples is None and choice and self._on_too_few(known)):
            model = self._trials.builder.build(choice, bias_correction=bias_correction, fixed_scales=fixed_scales)
            limits = Allowed(self._budget.max_loss, self._budget.max_length_change) if allowed is None else allowed
            verdict = self._trials.evaluator.loss(model, samples, allowed=limits)
            size = byte_size(without_shapes(model))
            candidate = Candidate(
                label, dict(choice), verdict.loss, verdict.length_change, size, size / self._trials.original_bytes,
                bias_correction=bias_correction, fixed_scales=fixed_scales, rounded=rounded, samples=verdict.samples,
                speedup=known.speedup if known else None, layout=known.layout if known else (),
            )  # fmt: skip
            few = f" on {verdict.samples} samples" if verdict.samples < len(self._trials.evaluator.items) else ""
            loss = f"{self._budget.metric} {candidate.loss:.4g}{few}"
            log.info("%s: %s, %.2f of the size", label, loss, candidate.size_ratio)
            self._found[key] = candidate
        return self._found[key]

    def _on_too_few(self, candidate: Candidate) -> bool:
        """Return whether a loss is of some samples alone, which was enough for a smaller budget than that of now."""
        limit = self._budget.max_loss
        return candidate.samples < len(self._trials.evaluator.items) and (limit is None or candidate.loss <= FAR * limit)

    def time(self, candidates: Sequence[Candidate], *, always: bool = False, near: Layout | None = None) -> None:
        """Measure the speed of candidates, in every layout that they may take: together, or where that takes long one by one.

        Args:
            candidates: those that have been measured are left out.
            always: whatever the time; where little is left, as they are.
            near: only in this layout, or as far as they can take it; None: in all that may be fast.

        Raises:
            OutOfTimeError: there is no time for the next one.
        """
        self._trials.limit.check(0.0 if not always else -math.inf)
        while waiting := [candidate for candidate in map(self._known, candidates) if not candidate.measured]:
            each = {candidate.label: candidate for candidate in waiting}  # one that several paths lead to once
            for candidate in self._timer.timed(list(each.values()), always=always, near=near):
                self.keep(candidate)

    def at(self, name: str, count: int) -> Candidate:
        """Return the candidate after the first steps of a path."""
        return self.scored(choice_after(self._paths[name], count), self._label(name, count) if count else "float")

    def _label(self, name: str, count: int) -> str:
        """Return what a candidate is in words: how many groups of nodes are int8, and in which order they were taken."""
        order = ORDERS.get(name, f"order {name}")
        return f"{count} of {len(self._paths[name])} groups int8, {order}"

    def keep(self, candidate: Candidate) -> None:
        """Put what is known of a candidate by now in the place of what was known before."""
        self._found[_key_of(candidate)] = candidate

    def _slower(self, candidate: Candidate, other: Candidate) -> bool:
        """Return whether a candidate was clearly slower than another one, so that going on in its direction is of no use."""
        return (self._known(candidate).speedup or 0.0) < SLOWER * (self._known(other).speedup or 0.0)

    def _known(self, candidate: Candidate) -> Candidate:
        """Return what is known by now of a candidate."""
        return self._found[_key_of(candidate)]

    def _furthest(self, name: str, least_gain: float) -> int:
        """Return how many steps of a path keep the quality that is asked for: by bisection, since losses grow.

        It ends where the steps that are left gain next to nothing: `_filled` tries them one by one. None, where those that keep
        the quality gain less than `least_gain`.
        """
        path = self._paths[name]
        bisection = Bisection(path, self._budget.max_loss, self._scale)
        bisection.know(0, 0.0, kept=True)
        far = self._whole_of(choice_after(path, len(path)))
        if far is None or far.loss <= FAR * (self._budget.max_loss or math.inf):
            far = self.at(name, len(path))
        bisection.know(len(path), far.loss, kept=keeps_quality(far, self._budget))
        least = next((n for n, gain in enumerate(itertools.accumulate(s.gain for s in path), 1) if gain >= least_gain > 0), 0)
        if 0 < least < bisection.high:
            candidate = self.at(name, least)
            bisection.know(least, candidate.loss, kept=keeps_quality(candidate, self._budget))
            if bisection.high == least:
                return 0
        while (middle := bisection.next()) is not None:
            candidate = self.at(name, middle)
            bisection.know(middle, candidate.loss, kept=keeps_quality(candidate, self._budget))
        self._scale = bisection.scale or self._scale
        return bisection.low

    def _whole_of(self, choice: dict[str, Precision]) -> Candidate | None:
        """Return the first whole quantized graph, where a choice is as good as all of it; None where it is not."""
        whole = next((c for c in self.candidates if c.label == ALL_INTEGER), None)
        return whole if whole is not None and len(choice) >= NEARLY_ALL * len(whole.choice) else None

    def _filled(self, name: str, count: int) -> list[Candidate]:
        """Return candidates with ever more of the further steps that the quality allows, each on top of the one before.

        Steps are tried together: twice as many as the last time where these were allowed, and half as many where not. A step
        that is not allowed by itself is left out.
        """
        limit = self._budget.max_loss
        total = sum(step.gain for step in self._paths[name])
        waiting = [step for step in self._paths[name][count:] if step.gain > LITTLE_GAIN * total][:TRIED_BEYOND]
        current = self.at(name, count)
        found: list[Candidate] = []
        taken = rejected = 0
        width = 1
        while waiting and rejected < REJECTED and limit is not None:
            room = HARDLY * limit - current.loss
            expected = itertools.accumulate((self._scale or 0.0) * max(step.loss, 0.0) for step in waiting[:width])
            together = waiting[: sum(loss <= room for loss in expected)]
            if not together:
                waiting, rejected = waiting[1:], rejected + 1
                continue
            choice = {**current.choice, **{step.group: step.precision for step in together}}
            label = f"{self._label(name, count)}, and {taken + len(together)} more, to {together[-1].group}"
            wider = self.scored(choice, label)
            if keeps_quality(wider, self._budget):
                current, rejected, taken = wider, 0, taken + len(together)
                found.append(wider)
                waiting, width = waiting[len(together) :], 2 * width
            elif len(together) == 1:
                waiting, rejected, width = waiting[1:], rejected + 1, 1
            else:
                width = len(together) // 2
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
        latest = self.at(name, count)
        for share in LOOKED_BACK:
            before = self.at(name, int(share * count))
            if before.choice and keeps_quality(before, self._budget):
                self.time([before])
                if self._slower(before, latest):
                    return

    def _all_products(self, best: Candidate) -> None:
        """Time a choice with all products of matrices as integers with dynamic ranges.

        Products that read one tensor (queries, keys, values) share its quantization, which each pays for when measured alone.
        """
        products = dynamic_products(self._trials.builder.groups)
        if products.keys() - best.choice.keys():
            wider = self.scored(products | best.choice, f"{best.label}, all {len(products)} products int8")
            if keeps_quality(wider, self._budget):
                self.time([wider])

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
        for count in range(1, min(LEFT_OUT, len(ends)) + 1):
            choice = {name: precision for name, precision in best.choice.items() if name not in ends[:count]}
            shorter = self.scored(choice, f"{best.label}, first {count} Conv float")
            if keeps_quality(shorter, self._budget):
                self.time([shorter])
                if self._slower(shorter, best):
                    return

    def _time_the_fastest_again(self) -> None:
        """Time the best few once more, together: of many quick timings, the highest one flatters."""
        fine = [c for c in self.candidates if c.measured and c.choice and holds(c, self._budget)]
        ordered = sorted(fine, key=lambda c: -worth(c, self._budget))[:FINALISTS]
        close = [c for c in ordered if worth(c, self._budget) >= CLOSE * worth(ordered[0], self._budget)]
        if len(close) > 1:
            for candidate in self._timer.timed_again(close):
                self.keep(candidate)

    def _fix_scales(self, best: Candidate) -> None:
        """Time a choice with scales from calibration for products of matrices, where that loses no more than is allowed."""
        own_operators = "integer_channels_last" in self._trials.layouts  # of ONNX Runtime, not of ONNX
        if own_operators and Precision.dynamic_int8 in best.choice.values():
            fixed = self.scored(best.choice, f"{best.label}, MatMuls with scales from calibration", fixed_scales=True)
            if keeps_quality(fixed, self._budget):
                self.time([fixed])


def _key(
    choice: Mapping[str, Precision], bias_correction: bool = False, fixed_scales: bool = False, rounded: bool = True
) -> tuple[object, ...]:
    precisions = tuple(sorted((name, precision.name) for name, precision in choice.items()))
    return (precisions, bias_correction, fixed_scales, rounded or not choice)


def _key_of(candidate: Candidate) -> tuple[object, ...]:
    key = _key(candidate.choice, candidate.bias_correction, candidate.fixed_scales, candidate.rounded)
    key = (*key, *candidate.constants.items())
    return (*key, candidate.label) if candidate.learned is not None else key
