"""What each group costs when it alone is quantized, in the metric that the user cares about.

The error that a node makes says little about what is heard of it: a hiss of the last convolution costs nothing in SQNR, and
a phase error costs much that nobody hears (ranked by the error of its own output, a node's place is next to random). So the
graph is quantized for real, one group at a time, and scored by the metric. That is affordable because ranges come from one
calibration, samples are short, and only what lies behind the group runs again: all other tensors that this part reads are
those of the float graph.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pipeline.algorithms.sequence import leading_to
from pipeline.evaluate.judge import Judge
from pipeline.graph.noise import NoisyGraph, with_noise_inputs
from pipeline.models import Outputs
from pipeline.quantize.plan import Precision
from pipeline.samples import Sample
from pipeline.search.behind import changed_nodes, part_behind
from pipeline.search.builder import Builder
from pipeline.session import infer, open_session

AT_ONCE = 12  # groups whose inputs are held in memory together

Tensors = dict[str, npt.NDArray[np.generic]]
Losses = dict[tuple[str, Precision], float]
"""(group, precision) -> loss of this group alone."""


def sensitivities(builder: Builder, judge: Judge, threads: int, on_group: Callable[[], None] = lambda: None) -> Losses:
    """Return what each group costs in each precision that it may have.

    Args:
        builder: makes the graphs.
        judge: scores them, on samples that should be short.
        threads: intra-op threads.
        on_group: called after each group.
    """
    losses: Losses = {}
    simple = all(len(calls) == 1 for calls in judge.calls)
    base = with_noise_inputs(builder.model)
    for start in range(0, len(builder.groups), AT_ONCE):
        chunk = builder.groups[start : start + AT_ONCE]
        inputs = {group.name: part_behind(base.model, group.nodes)[1] for group in chunk} if simple else {}
        tensors = list(_float_tensors(base, list(dict.fromkeys(t for names in inputs.values() for t in names)), judge, threads))
        for group in chunk:
            for precision in group.precisions:
                quantized = builder.build({group.name: precision})
                verdict = (
                    judge.loss_of_outputs(_outputs_behind(base, quantized, tensors, judge, threads))
                    if simple
                    else judge.loss(quantized)
                )
                losses[group.name, precision] = max(verdict.loss, 0.0)
            on_group()
    return losses


def _float_tensors(base: NoisyGraph, names: Sequence[str], judge: Judge, threads: int) -> Iterator[Tensors]:
    """Yield the named tensors of the float graph, for one sample after the other."""
    if not names:
        return
    given = {value.name for value in base.model.graph.input}
    made = [name for name in names if name not in given]
    session = open_session(leading_to(base.model, made), threads) if made else None
    for number, calls in enumerate(judge.calls):
        feeds: Tensors = {**calls[0].sample.inputs, **base.noise(judge.rng(number))}
        found: Tensors = {name: feeds[name] for name in names if name in feeds}
        if session is not None:
            wanted = {value.name for value in session.get_inputs()}
            inputs = {name: array for name, array in feeds.items() if name in wanted}
            found |= infer(session, Sample(calls[0].sample.id, inputs))
        yield found


def _outputs_behind(
    base: NoisyGraph, quantized: onnx.ModelProto, tensors: Sequence[Tensors], judge: Judge, threads: int
) -> Callable[[int, Sample], Outputs]:
    """Return a function that runs what differs from the float graph, and takes the other outputs from there."""
    noisy = with_noise_inputs(quantized).model
    part, inputs = part_behind(noisy, changed_nodes(base.model, noisy))
    kinds = {name: helper.np_dtype_to_tensor_dtype(tensors[0][name].dtype) for name in inputs}
    part.graph.input.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items())
    session = open_session(part, threads)

    def outputs(number: int, sample: Sample) -> Outputs:
        feeds = {name: tensors[number][name] for name in inputs}
        return judge.calls[number][0].outputs | infer(session, Sample(sample.id, feeds))

    return outputs
