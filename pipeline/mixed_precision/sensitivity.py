"""What each group costs when it alone is quantized, in the metric that the user cares about.

The error that a node makes says little about what is heard of it: a hiss of the last convolution costs nothing in SQNR, and
a phase error costs much in SQNR and is not heard. Ranked by the error of its own output, a node's place is next to random. So
the graph is quantized for real, one group at a time, and scored by the metric. That is affordable because ranges come from
one calibration, samples are short, and only what lies downstream of the group runs again: all other tensors that this part
reads are those of the float graph.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx
from onnx import helper

from pipeline.cache.cache_key import key_of
from pipeline.cache.current_cache import current
from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import SENSITIVITIES
from pipeline.cache.recall import Form, keep, recalled
from pipeline.evaluate.loss import LossEvaluator
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.noise_inputs import NoisyGraph, with_noise_inputs
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import infer, inputs_for, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.subgraph import downstream_of, upstream_of
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.own_time import own_time
from pipeline.quantize.plan import Precision
from pipeline.sample import Array, Outputs, Sample

log = logging.getLogger(__name__)

AT_ONCE = 12  # groups whose inputs are held in memory together

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
    on_group: Callable[[], None] = lambda: None,
) -> Losses:
    """Return what groups cost, each alone.

    Args:
        builder: makes the graphs.
        evaluator: scores them, on samples that should be short.
        wanted: (group, precision) to measure, the most promising groups first; what would not be chosen need not be measured.
        threads: intra-op threads.
        until: on the clock of `own_time`: groups that are not measured by then are left out.
        on_group: called after each group.
    """
    known: Losses = {}
    keys: dict[tuple[str, Precision], str] = {}
    if current().store is not None:
        basis = key_of(SENSITIVITIES, builder.identity, evaluator.identity, threads)
        keys = {(name, precision): key_of(SENSITIVITIES, basis, name, precision) for name, precision in wanted}
        found = {one: recalled(SENSITIVITIES, key, NUMBER) for one, key in keys.items()}
        known = {one: loss for one, loss in found.items() if loss is not None}
    left = [one for one in wanted if one not in known]
    losses = known | _measured(builder, evaluator, left, threads, until, on_group, keys)
    groups = {group.name: group for group in builder.groups}
    order = ((name, precision) for name in dict.fromkeys(name for name, _ in wanted) for precision in groups[name].precisions)
    return {one: losses[one] for one in order if one in losses}


NUMBER = Form[float](Entry, lambda entry: float(entry.facts))


def _measured(
    builder: Builder,
    evaluator: LossEvaluator,
    wanted: Sequence[tuple[str, Precision]],
    threads: int,
    until: float,
    on_group: Callable[[], None],
    keys: Mapping[tuple[str, Precision], str],
) -> Losses:
    """Measure what groups cost, and keep each under its key, where there are some."""
    losses: Losses = {}
    simple = evaluator.of_single_calls
    noisy = with_noise_inputs(builder.model)
    base = replace(noisy, model=with_shapes(noisy.model))
    known = {group.name: group for group in builder.groups}
    groups = [known[name] for name in dict.fromkeys(name for name, _ in wanted)]
    chosen = set(wanted)
    for start in range(0, len(groups), AT_ONCE):
        chunk = groups[start : start + AT_ONCE]
        parts = {group.name: downstream_of(base.model, group.outermost) for group in chunk} if simple else {}
        read = dict.fromkeys(tensor for _, inputs in parts.values() for tensor in inputs)
        tensors = list(_float_tensors(base, list(read), evaluator, threads))
        # a sequence of tensors, which a Loop collects, cannot be handed to a part of the graph: then all of it runs
        arrays = {name for name in read if all(name in found for found in tensors)}
        for group in chunk:
            if own_time() >= until:
                return losses
            for precision in (p for p in group.precisions if (group.name, p) in chosen):
                choice, began = {group.name: precision}, time.perf_counter()
                part, inputs = parts.get(group.name, (None, []))
                try:
                    if part is not None and arrays.issuperset(inputs):
                        outputs = _outputs_behind(builder.build(choice, of=part), inputs, tensors, evaluator, threads)
                        loss = evaluator.loss_of_outputs(outputs).loss
                    else:
                        loss = evaluator.loss(builder.build(choice)).loss
                except EndedError as error:  # a choice that no process survives is none
                    log.info("%s as %s: %s", group.name, precision.name, error.how)
                    continue
                losses[group.name, precision] = max(loss, 0.0)
                if key := keys.get((group.name, precision)):
                    keep(SENSITIVITIES, key, NUMBER, max(loss, 0.0), seconds=time.perf_counter() - began)
            on_group()
    return losses


def _float_tensors(base: NoisyGraph, names: Sequence[str], evaluator: LossEvaluator, threads: int) -> Iterator[Tensors]:
    """Yield the named tensors of the float graph, for one sample after the other."""
    if not names:
        return
    given = {value.name for value in base.model.graph.input}
    made = [name for name in names if name not in given]
    session = open_session(upstream_of(base.model, made), threads) if made else None
    for number, calls in enumerate(evaluator.calls):
        feeds: Tensors = {**calls[0].sample.inputs, **base.noise(evaluator.rng(number))}
        found: Tensors = {name: feeds[name] for name in names if name in feeds}
        if session is not None:
            found |= infer(session, Sample(calls[0].sample.id, inputs_for(session, feeds)))
        yield found


def _outputs_behind(
    part: onnx.ModelProto, inputs: Sequence[str], tensors: Sequence[Tensors], evaluator: LossEvaluator, threads: int
) -> Callable[[int, Sample], Outputs]:
    """Return a function that runs the part of a graph that differs from the float graph, and takes the rest from there."""
    for value in part.graph.input:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(tensors[0][value.name].dtype)
        value.type.tensor_type.ClearField("shape")
    first = Sample(evaluator.calls[0][0].sample.id, {name: tensors[0][name] for name in inputs})
    session = open_session(with_uint8_weights(part) if evaluator.exact_products else part, threads, sample=first)

    def outputs(number: int, sample: Sample) -> Outputs:
        feeds = {name: tensors[number][name] for name in inputs}
        return evaluator.calls[number][0].outputs | infer(session, Sample(sample.id, feeds))

    return outputs
