"""How far each tensor of a quantized graph has moved from fp32's: where along the graph the error comes from.

Both graphs run on the same samples and the same noise, as saved, without ONNX Runtime's fusions. Tensors are fetched
in batches of bounded size, so that memory does not grow with the graph; the price is that each batch runs what it depends on.

A tensor that the quantized graph rounds is compared after rounding, since that is what is read. Equalization and SmoothQuant
move a factor per channel out of activations into weights, which changes such tensors and no result: where a factor per channel
explains most of a difference, it is taken out first.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from pipeline.calibration.derived_tensors import MOVES, infer
from pipeline.calibration.segments import open_segment, run_session
from pipeline.errors import ModelError
from pipeline.graph.noise_inputs import NoisyGraph, with_noise_inputs
from pipeline.graph.session import ORT_ERRORS, inputs_for
from pipeline.graph.subgraph import upstream_of
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.graph.value_info import FLOAT_TYPES
from pipeline.record.results import NodeError
from pipeline.sample import Array, Float32Array, FloatArray, Sample

LOWEST_DB = -200.0  # where the quantized graph has no number at all: a report has no infinity below
BUDGET_BYTES = 32 << 20  # of one graph's tensors that are fetched at once, where one alone is not larger
EXPLAINS_MOST = 4.0  # times less difference with a factor per channel than without: 6 dB
SUMMED_AT_ONCE = 1 << 14  # values in float32; the sums of these are added in float64
VALUES_PER_CHANNEL = 16  # at least, before a factor per channel is anything but a fit to noise


def errors_along(
    original: onnx.ModelProto,
    quantized: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    threads: int = 1,
    rescaled: bool = False,
    budget_bytes: int = BUDGET_BYTES,
) -> list[NodeError]:
    """Return the error of each computed float tensor that both graphs have, in the order of the original.

    Left out are tensors that are moved and not computed, that are zero, and whose lengths differ in all samples because the
    quantized graph has predicted other ones.

    Args:
        original: the fp32 graph.
        quantized: the graph made from it.
        samples: a few inputs.
        seed: of the noise that both are given, where they draw any.
        threads: intra-op threads.
        rescaled: whether channels of activations may have been rescaled on the way.
        budget_bytes: what the tensors that are fetched at once may take in one graph.

    Raises:
        ModelError: a graph does not give out its tensors.
        DataError: a sample does not fit the graph.
    """
    before, after = with_noise_inputs(original), with_noise_inputs(quantized)
    nodes = {node.output[0]: node for node in before.model.graph.node if node.op_type not in MOVES and node.output}
    rounded = _rounded(after.model)
    pairs = {name: rounded.get(name, name) for name in _shared(before.model, after.model) if name in nodes}
    inputs = [_with_noise(before, sample, [seed, number]) for number, sample in enumerate(samples)]
    sizes = _sizes(before.model, pairs, inputs[0], threads) if pairs and inputs else {}
    differences = {name: _Difference(rescaled) for name in pairs}
    for batch in _batches(list(sizes), sizes, budget_bytes):
        sessions = [_exposing(before.model, batch, threads), _exposing(after.model, [pairs[n] for n in batch], threads)]
        for sample in inputs:
            fetched = [
                run_session(session, names, inputs_for(session, sample.inputs), sample)
                for session, names in zip(sessions, (batch, [pairs[name] for name in batch]), strict=True)
            ]
            for name, reference, test in zip(batch, *fetched, strict=True):
                differences[name].add(reference, test)
    found = [(nodes[name], difference.sqnr_db()) for name, difference in differences.items()]
    return [NodeError(node.name, node.op_type, sqnr_db) for node, sqnr_db in found if sqnr_db is not None]


@dataclass
class _Difference:
    """What two versions of a tensor have in common, summed over samples: by channel of each axis that may have factors."""

    rescaled: bool
    signal: float = 0.0
    noise: float = 0.0
    sums: dict[int, FloatArray] = field(default_factory=dict)  # axis -> (3, channels): sums of a², ab, b²
    no_channels: set[int] = field(default_factory=set)  # axes along which samples differ in length, or short ones
    seen: bool = False

    def add(self, reference: Array, test: Array) -> None:
        if reference.shape != test.shape or not reference.size:
            return
        a, b = np.asarray(reference, np.float32), np.asarray(test, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            signal, noise = _power(a), _power(a - b)
            if not math.isfinite(signal + noise):  # masks hold minus infinity on purpose
                usual = np.isfinite(a)
                a, b = np.where(usual, a, np.float32(0)), np.where(usual, b, np.float32(0))
                # squares of large values do not fit in float32
                signal = float(np.sum(np.square(a, dtype=np.float64)))
                noise = float(np.sum(np.square(np.subtract(a, b, dtype=np.float64)))) if np.isfinite(b).all() else math.inf
        self.seen = True
        self.signal += signal
        self.noise += noise
        if self.rescaled and a.ndim > 1 and math.isfinite(self.noise):
            for axis in {1, a.ndim - 1} - self.no_channels:
                self._add_channels(axis, a, b)

    def _add_channels(self, axis: int, a: Float32Array, b: Float32Array) -> None:
        others = tuple(other for other in range(a.ndim) if other != axis)
        sums = np.stack([np.sum(x * y, axis=others, dtype=np.float64) for x, y in ((a, a), (a, b), (b, b))])
        known = self.sums.pop(axis, np.zeros_like(sums))
        if known.shape == sums.shape and a.size >= VALUES_PER_CHANNEL * a.shape[axis]:
            self.sums[axis] = known + sums
        else:
            self.no_channels.add(axis)

    def sqnr_db(self) -> float | None:
        """Return the ratio; None where nothing could be compared."""
        if not self.seen or self.signal == 0.0:
            return None
        if not math.isfinite(self.noise):  # NaN or infinity where fp32 has a number
            return LOWEST_DB
        noise, exact = self.noise, float(np.finfo(np.float32).eps) ** 2 * self.signal
        for aa, ab, bb in self.sums.values():
            left = float(np.sum(aa - np.divide(ab**2, bb, out=np.zeros_like(bb), where=bb > 0)))
            if EXPLAINS_MOST * max(left, exact) < self.noise:
                noise = min(noise, max(left, exact))
        return 10.0 * math.log10(self.signal / noise) if noise else math.inf


def _power(values: Float32Array) -> float:
    """Return the sum of squares; not finite where a value is not."""
    flat = values.reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(sum(float(np.dot(part, part)) for part in np.array_split(flat, 1 + flat.size // SUMMED_AT_ONCE)))


def _rounded(model: onnx.ModelProto) -> dict[str, str]:
    """Return tensor -> the same tensor after its QuantizeLinear and DequantizeLinear, where it is rounded."""
    integers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    pairs = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers]
    return {integers[node.input[0]]: node.output[0] for node in pairs}


def _shared(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """Return the float tensors that nodes of both graphs compute, in the order of the first."""
    made = {name for node in after.graph.node for name in node.output if name}
    types = {name: found.elem_type for name, found in infer(before).items()}
    constants = {tensor.name for tensor in before.graph.initializer}
    found = []
    for node in before.graph.node:
        if node.op_type == "Constant" or (node.input and constants.issuperset(input_tensors(node))):
            constants.update(node.output)
        elif node.output and types.get(node.output[0]) in FLOAT_TYPES and node.output[0] in made:
            found.append(node.output[0])
    return found


def _with_noise(noisy: NoisyGraph, sample: Sample, seed: list[int]) -> Sample:
    return Sample(sample.id, {**sample.inputs, **noisy.noise(np.random.default_rng(seed))})


def _sizes(model: onnx.ModelProto, tensors: Collection[str], sample: Sample, threads: int) -> dict[str, int]:
    """Return how many bytes each tensor takes for one sample, without keeping any of them."""
    survey = onnx.ModelProto()
    survey.CopyFrom(model)
    nodes, wanted = list(survey.graph.node), set(tensors)
    del survey.graph.node[:], survey.graph.output[:]
    sized: list[str] = []
    for node in nodes:
        survey.graph.node.append(node)
        for name in wanted.intersection(node.output):
            survey.graph.node.append(helper.make_node("Size", [name], [f"{name}/size"]))
            survey.graph.output.append(onnx.ValueInfoProto(name=f"{name}/size"))
            sized.append(name)
    if not sized:
        return {}
    session = open_segment(survey, threads, optimize=False)
    counts = run_session(session, [f"{name}/size" for name in sized], sample.inputs, sample)
    return {name: 4 * int(count) for name, count in zip(sized, counts, strict=True)}


def _batches(names: Sequence[str], sizes: dict[str, int], budget_bytes: int) -> Iterator[list[str]]:
    batch: list[str] = []
    together = 0
    for name in names:
        if batch and together + sizes[name] > budget_bytes:
            yield batch
            batch, together = [], 0
        batch.append(name)
        together += sizes[name]
    if batch:
        yield batch


def _exposing(model: onnx.ModelProto, tensors: Collection[str], threads: int) -> onnxruntime.InferenceSession:
    """Return a session of the part of the graph that computes these tensors, which are its outputs."""
    try:
        return open_segment(upstream_of(model, tensors), threads, optimize=False)
    except ORT_ERRORS as error:
        raise ModelError(f"ONNX Runtime does not give out tensors from inside of the graph: {error}") from error
