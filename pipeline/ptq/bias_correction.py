"""Bias correction: compensate what quantization adds to the mean of each channel.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721), section 4.2,
in its empirical form: the mean of a node's output over calibration data is made the same in the quantized graph as in the
float one, by changing the bias. It has to be sequential: a node is corrected with the part upstream already quantized
and corrected. All at once, every node would correct the errors of those before it once more, which does harm.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.config.mode_settings import StaticConfig
from pipeline.graph.attributes import float_attribute, int_attribute
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.ptq.layer_order import levels, stream
from pipeline.ptq.simulate import simulate, weighted_nodes
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import Ranges
from pipeline.sample import FloatArray, Sample

ChannelMeans = dict[str, FloatArray]


@dataclass(frozen=True)
class Bias:
    """A constant that is added to each channel of a node's output.

    Attributes:
        node: whose output it is added to.
        constant: the name of the constant.
        tensor: the sum.
        axis: of its channels.
    """

    node: str
    constant: str
    tensor: str
    axis: int


def correct_biases(
    model: onnx.ModelProto,
    plan: Plan,
    mode: StaticConfig,
    ranges: Ranges,
    samples: Sequence[Sample],
    *,
    reference: onnx.ModelProto | None = None,
    threads: int = 1,
) -> onnx.ModelProto:
    """Return the float graph with biases that give the quantized graph the channel means of the float one.

    A node without a constant bias stays as it is. A bias that several nodes share (the steps of an unrolled flow) gets the
    mean of their corrections when the last of them is reached.

    Args:
        model: the float graph that will be quantized, perhaps with rounded weights; it is not changed.
        plan: which node becomes what.
        mode: types of weights and activations.
        ranges: of the tensors that static nodes read and write.
        samples: calibration data, read once for each level of the graph (`levels`), and once more.
        reference: the graph whose means are right, with tensors of the same names; None: `model`.
        threads: of ONNX Runtime.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    biases = find_biases(model, {node.name for node in weighted_nodes(model, plan)})
    missing = Counter(bias.constant for bias in biases.values())
    right = channel_means(reference or model, biases.values(), samples, threads)
    corrections: dict[str, list[FloatArray]] = defaultdict(list)
    for level in levels(model, biases):
        here = [biases[node.name] for node in level]
        found = channel_means(simulate(corrected, plan, mode, ranges), here, samples, threads)
        constants = initializers_of(corrected)
        for bias in here:
            corrections[bias.constant].append(_correction(right[bias.tensor], found[bias.tensor]))
            missing[bias.constant] -= 1
            if not missing[bias.constant]:
                old = numpy_helper.to_array(constants[bias.constant])
                new = old + np.mean(corrections[bias.constant], axis=0).reshape(old.shape)
                constants[bias.constant].CopyFrom(numpy_helper.from_array(new.astype(np.float32), bias.constant))
    return corrected


def _correction(right: FloatArray, found: FloatArray) -> FloatArray:
    """Return what each channel lacks to its right mean: nothing where that is infinite, as of tokens that are suppressed."""
    known = np.isfinite(right) & np.isfinite(found)
    return np.subtract(right, found, out=np.zeros_like(right), where=known)


def find_biases(model: onnx.ModelProto, nodes: Collection[str]) -> dict[str, Bias]:
    """Return the biases of the named nodes: their own input, or the constant of the Add that alone reads a MatMul."""
    constants = initializers_of(model)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for tensor in input_tensors(node):
            readers[tensor].append(node)
    outputs = {output.name for output in model.graph.output}
    found: dict[str, Bias] = {}
    for node in model.graph.node:
        if node.name not in nodes:
            continue
        target = node.output[0]
        if node.op_type != "MatMul":
            candidates, axis = list(node.input[2:3]), 1
        else:
            adds = readers[target] if target not in outputs and [n.op_type for n in readers[target]] == ["Add"] else []
            candidates, axis = [name for add in adds for name in add.input if name != target], -1
            target = adds[0].output[0] if adds else target
        channels = _channels(node, constants[node.input[1]].dims)
        for name in candidates:
            shape = list(constants[name].dims) if name in constants else []
            # one value per channel, as it is added, and not shared with anything that is not a bias of this kind
            if shape and int(np.prod(shape)) == shape[-1] == channels and float_attribute(node, "beta", 1.0) == 1:
                found[node.name] = Bias(node.name, name, target, axis)
    uses = Counter(bias.constant for bias in found.values())
    return {
        name: bias
        for name, bias in found.items()
        if uses[bias.constant] == len(readers[bias.constant]) and bias.constant not in outputs
    }


def _channels(node: onnx.NodeProto, weight: Sequence[int]) -> int:
    """Return how many channels a node makes, given the shape of its weight."""
    match node.op_type:
        case "Conv":
            return weight[0]
        case "ConvTranspose":
            return weight[1] * int_attribute(node, "group", 1)
        case "Gemm" if int_attribute(node, "transB", 0):
            return weight[0]
        case _:
            return weight[-1]


def channel_means(model: onnx.ModelProto, biases: Collection[Bias], samples: Sequence[Sample], threads: int) -> ChannelMeans:
    """Return the mean of each channel of the biased tensors over all samples and positions: tensor -> float64 (channels,)."""
    totals: ChannelMeans = {bias.tensor: np.zeros(1) for bias in biases}
    counts: Counter[str] = Counter()
    for tensors in stream(model, totals, samples, threads) if biases else ():
        for bias in biases:
            array = tensors[bias.tensor]
            others = tuple(axis for axis in range(array.ndim) if axis != bias.axis % array.ndim)
            totals[bias.tensor] = totals[bias.tensor] + array.sum(axis=others, dtype=np.float64)
            counts[bias.tensor] += array.size // array.shape[bias.axis]
    return {tensor: total / max(counts[tensor], 1) for tensor, total in totals.items()}
