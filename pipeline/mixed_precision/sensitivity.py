"""What each group costs when it alone is quantized, in the metric that the user cares about.

The error that a node makes says little about what is heard of it: a hiss of the last convolution costs nothing in SQNR, and
a phase error costs much in SQNR and is not heard. Ranked by the error of its own output, a node's place is next to random. So
the graph is quantized for real, one group at a time, and scored by the metric. That is affordable because ranges come from
one calibration, samples are short, and only what lies downstream of the group runs again: the part of the graph that holds
it is opened anew, and the parts behind are sessions of the float graph, which all groups share (`consecutive_parts.py`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime

from pipeline.cache.cache_key import key_of
from pipeline.cache.current_cache import current
from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import SENSITIVITIES
from pipeline.cache.recall import Form, keep, recalled
from pipeline.evaluate.loss import Loss, LossEvaluator
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.noise_inputs import NoisyGraph, with_noise_inputs
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import infer, inputs_for, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.subgraph import downstream_of, upstream_of
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.consecutive_parts import ConsecutiveParts, typed_by
from pipeline.mixed_precision.precision_groups import Choice, Group
from pipeline.own_time import own_time
from pipeline.quantize.plan import Precision
from pipeline.sample import Array, Outputs, Sample

log = logging.getLogger(__name__)

AT_ONCE = 12  # groups whose inputs are held in memory together
FIRST = 4  # groups that are measured on all samples, to know how many are needed
EXACT = 0.1  # relative standard error of a loss, with which groups can be told apart
FEWEST = 2
LEAST = 1e-6  # of what groups lose on average, on a sample

Tensors = dict[str, Array]
Losses = dict[tuple[str, Precision], float]
"""(group, precision) -> loss of this group alone."""


def sensitivities(
    builder: Builder,
    evaluator: LossEvaluator,
    wanted: Sequence[tuple[str, Precision]],
    threads: int,
    *,
    until: float = math.inf,
    samples: int | None = None,
    on_group: Callable[[], None] = lambda: None,
) -> Losses:
    """Return what groups cost, each alone.

    Args:
        builder: makes the graphs.
        evaluator: scores them, on samples that should be short.
        wanted: (group, precision) to measure, the most promising groups first; what would not be chosen need not be measured.
        threads: intra-op threads.
        until: on the clock of `own_time`: groups that are not measured by then are left out.
        samples: on the first so many; None: on as many as tell groups apart.
        on_group: called after each group.
    """
    found: dict[tuple[str, Precision], Loss] = {}
    count = samples  # that are needed: known after the first groups
    known = _Known(builder, evaluator, threads)
    base = with_noise_inputs(builder.model)
    base = replace(base, model=with_shapes(base.model))
    parts = ConsecutiveParts(base.model, threads)
    groups = {group.name: group for group in builder.groups}
    chosen, names = set(wanted), list(dict.fromkeys(name for name, _ in wanted))
    for start, end in pairwise((0, *range(min(FIRST, len(names)), len(names), AT_ONCE), len(names))):
        if start and count is None:
            count = samples_needed([loss.of_samples for loss in found.values()], len(evaluator.items))
        pairs = {name: [p for p in groups[name].precisions if (name, p) in chosen] for name in names[start:end]}
        recalled_ones = {(name, p): known.get(name, p, count) for name, precisions in pairs.items() for p in precisions}
        new = [groups[name] for name, precisions in pairs.items() if any(recalled_ones[name, p] is None for p in precisions)]
        measure = _Chunk(builder, evaluator, base, parts, new, threads, count)
        for name, precisions in pairs.items():
            if groups[name] in new and own_time() >= until:
                return _means(found, count)
            for precision in precisions:
                loss, began = recalled_ones[name, precision], time.perf_counter()
                if loss is None:
                    try:
                        loss = measure.loss(name, precision)
                    except EndedError as error:  # a choice that no process survives is none
                        log.info("%s as %s: %s", name, precision.name, error.how)
                        continue
                    known.keep(name, precision, loss, time.perf_counter() - began)
                found[name, precision] = loss
            on_group()
    return _means(found, count)


class _Known:
    """What the cache knows of the losses of groups alone."""

    def __init__(self, builder: Builder, evaluator: LossEvaluator, threads: int) -> None:
        self._all = len(evaluator.items)
        self._basis: str | None = None
        if current().store is not None:
            self._basis = key_of(SENSITIVITIES, builder.identity, evaluator.identity, threads)

    def get(self, group: str, precision: Precision, count: int | None) -> Loss | None:
        """Return a loss that was measured on so many samples, or on more that can be told apart; None where none was."""
        needed = self._all if count is None else count
        loss = None if self._basis is None else recalled(SENSITIVITIES, self._key(group, precision), OF_SAMPLES)
        if loss is None or not (loss.loss == math.inf or loss.samples == needed or len(loss.of_samples) >= needed):
            return None
        return loss

    def keep(self, group: str, precision: Precision, loss: Loss, seconds: float) -> None:
        """Keep a loss."""
        if self._basis is not None:
            keep(SENSITIVITIES, self._key(group, precision), OF_SAMPLES, loss, seconds=seconds)

    def _key(self, group: str, precision: Precision) -> str:
        return key_of(SENSITIVITIES, self._basis, group, precision)


OF_SAMPLES = Form[Loss](
    lambda loss: Entry([loss.loss, loss.samples, list(loss.of_samples)]),
    lambda entry: Loss(float(entry.facts[0]), 0.0, None, int(entry.facts[1]), tuple(map(float, entry.facts[2]))),
)


class _Chunk:
    """Some groups, whose inputs in the float graph are held together."""

    def __init__(
        self,
        builder: Builder,
        evaluator: LossEvaluator,
        base: NoisyGraph,
        consecutive: ConsecutiveParts,
        groups: Sequence[Group],
        threads: int,
        count: int | None,
    ) -> None:
        self._builder, self._evaluator, self._threads, self._count = builder, evaluator, threads, count
        self._consecutive, self._groups = consecutive, {group.name: group for group in groups}
        self._parts: dict[str, tuple[int, onnx.ModelProto, list[str]]] = {}
        if evaluator.of_single_calls:
            for group in groups:
                first = consecutive.first_of(group.outermost)
                self._parts[group.name] = (first, *downstream_of(consecutive.parts[first].model, group.outermost))
        read = dict.fromkeys(tensor for _, _, inputs in self._parts.values() for tensor in inputs)
        read |= dict.fromkeys(consecutive.crossing if self._parts else ())
        self._tensors = list(_float_tensors(base, list(read), evaluator, threads, count))
        # a sequence of tensors, which a Loop collects, cannot be handed to a part of the graph: then all of it runs
        self._arrays = {name for name in read if all(name in given for given in self._tensors)}

    def loss(self, group: str, precision: Precision) -> Loss:
        """Measure one group in one precision.

        Raises:
            EndedError: no process survives it.
        """
        choice, evaluator = {group: precision}, self._evaluator
        first, part, inputs = self._parts.get(group, (0, None, []))
        behind = self._consecutive.parts[first + 1 :]
        read = [*inputs, *(name for each in behind for name in each.inputs)]
        if part is None or not self._arrays.issuperset(read):
            return evaluator.loss(self._builder.build(choice), self._count)
        nodes = self._groups[group].outermost
        changed = {first: (self._opened(choice, part, inputs), tuple(inputs))}
        for number, each in enumerate(behind, start=first + 1):
            if not each.nodes.isdisjoint(nodes):
                copy = onnx.ModelProto()
                copy.CopyFrom(each.model)
                changed[number] = (self._opened(choice, copy, each.inputs), each.inputs)

        def outputs(number: int, sample: Sample) -> Outputs:
            tensors, found = self._tensors[number], dict[str, Array]()
            for place, each in enumerate(self._consecutive.parts[first:], start=first):
                if place not in changed and found.keys().isdisjoint(each.inputs):
                    continue
                names = changed[place][1] if place in changed else each.inputs
                feeds = {name: found.get(name, tensors[name]) for name in names}
                session = changed[place][0] if place in changed else self._consecutive.session(place, feeds)
                found |= infer(session, Sample(sample.id, feeds))
            before = evaluator.calls[number][0].outputs
            return before | {name: found[name] for name in before if name in found}

        return evaluator.loss_of_outputs(outputs, self._count)

    def _opened(self, choice: Choice, part: onnx.ModelProto, inputs: Sequence[str]) -> onnxruntime.InferenceSession:
        """Return a session of a part with its groups quantized; the part is changed."""
        first = {name: self._tensors[0][name] for name in inputs}
        graph = typed_by(self._builder.build(choice, of=part), first)
        if self._evaluator.exact_products:
            graph = with_uint8_weights(graph)
        sample = Sample(self._evaluator.calls[0][0].sample.id, first)
        return open_session(graph, self._threads, sample=sample)


def samples_needed(losses: Sequence[Sequence[float]], most: int) -> int | None:
    """Return on how many samples groups can be told apart, by what some lose on each; None: not known.

    Of a sample on which every group loses more, nothing follows for their order. What counts is by how much the loss of one
    group moves relative to those of the others, from sample to sample: its standard deviation, of the group in the middle.

    Args:
        losses: of each group, on all samples; empty where they are not known.
        most: the number of samples.
    """
    rows = np.asarray([row for row in losses if len(row) == most and np.mean(row) > 0], np.float64)
    if most <= FEWEST or len(rows) < FEWEST:
        return None
    relative = rows / rows.mean(axis=1, keepdims=True)
    moved = relative / np.maximum(np.median(relative, axis=0), LEAST) - 1.0
    deviation = float(np.median(moved.std(axis=1, ddof=1)))
    needed = min(max(math.ceil((deviation / EXACT) ** 2), FEWEST), most)
    log.info("nodes are told apart on %d of %d samples", needed, most)
    return needed


def _means(found: dict[tuple[str, Precision], Loss], count: int | None) -> Losses:
    """Return the loss of each group on the same samples, of those that are known of all of them."""
    first = {key: loss.of_samples[:count] for key, loss in found.items()}
    return {key: max(float(np.mean(first[key])) if first[key] else loss.loss, 0.0) for key, loss in found.items()}


def _float_tensors(
    base: NoisyGraph, names: Sequence[str], evaluator: LossEvaluator, threads: int, count: int | None
) -> Iterator[Tensors]:
    """Yield the named tensors of the float graph, for one sample after the other, up to a count."""
    if not names:
        return
    given = {value.name for value in base.model.graph.input}
    made = [name for name in names if name not in given]
    session = open_session(upstream_of(base.model, made), threads) if made else None
    for number, calls in enumerate(evaluator.calls[:count]):
        feeds: Tensors = {**calls[0].sample.inputs, **base.noise(evaluator.rng(number))}
        found: Tensors = {name: feeds[name] for name in names if name in feeds}
        if session is not None:
            found |= infer(session, Sample(calls[0].sample.id, inputs_for(session, feeds)))
        yield found
