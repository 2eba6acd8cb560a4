"""Weights of nodes that must stay in float, as int16: half the bytes where int8 would change the length of the output.

What decides durations computes in float in every mode, since the rounding error of int8 is another length. 16 bits per
channel err 256 times less, and ONNX Runtime restores them when it loads the model (`weight_storage.py`), so that speed is that
of fp32. A predicted duration may still lie that close to the next frame: the lengths are compared on calibration samples, and
where one differs, the weights stay as they are.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.op_sets import STORABLE, weight_inputs
from pipeline.ptq.layer_order import stream
from pipeline.quantize.plan import DECIDES_LENGTH, DECIDES_SHAPES, FLOAT_BYTES, NODE_BYTES, Plan, Precision
from pipeline.quantize.weight_storage import bytes_as_integers, scale_shape, store_weights
from pipeline.sample import Sample

COMPARED = 8  # samples


def store_length_weights(model: onnx.ModelProto, plan: Plan, samples: Sequence[Sample], *, threads: int = 1) -> str | None:
    """Store the weights of nodes that a plan keeps since lengths follow from them as int16, in place.

    Args:
        model: the finished graph.
        plan: is told of the nodes whose weights are stored.
        samples: on a few of which outputs must keep their lengths.
        threads: intra-op threads.

    Returns:
        Why all stays as it was, where lengths differ; else None.
    """
    nodes = _storable(model, {kept.node for kept in plan.kept if kept.reason in (DECIDES_LENGTH, DECIDES_SHAPES)})
    if not nodes:
        return None
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    store_weights(stored, nodes, IntegerType.int16)
    outputs = [value.name for value in model.graph.output]
    given = samples[:COMPARED]
    pairs = zip(stream(model, outputs, given, threads), stream(stored, outputs, given, threads), strict=True)
    for sample, (before, after) in zip(given, pairs, strict=True):
        if any(before[name].shape != after[name].shape for name in outputs):
            return f"with weights of int16 the length of sample {sample.id!r} would change, so that they stay fp32"
    model.CopyFrom(stored)
    plan.kept = [kept for kept in plan.kept if kept.node not in nodes]
    plan.precisions.update(dict.fromkeys(nodes, Precision.weight_int16))
    return None


def _storable(model: onnx.ModelProto, kept: set[str]) -> set[str]:
    """Return the kept layers whose constant weights take less room as int16, and are read by such layers alone."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.name in kept and node.op_type in STORABLE and all(_is_large(node, at, constants) for at in weight_inputs(node)):
            layers[node.name] = [node.input[at] for at in weight_inputs(node)]
    readers: dict[str, set[str]] = {name: set() for weights in layers.values() for name in weights}
    for node in model.graph.node:
        for name in readers.keys() & set(node.input):
            as_weights = list(node.input).count(name) == layers.get(node.name, []).count(name)
            readers[name].add(node.name if as_weights else "")
    return {layer for layer, weights in layers.items() if all(readers[name] <= layers.keys() for name in weights)}


def _is_large(node: onnx.NodeProto, place: int, constants: Mapping[str, onnx.TensorProto]) -> bool:
    weight = constants.get(node.input[place]) if len(node.input) > place else None
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
        return False
    if not np.isfinite(numpy_helper.to_array(weight)).all():
        return False
    values = math.prod(weight.dims)
    scales = math.prod(scale_shape(node, tuple(weight.dims)))
    return bool(bytes_as_integers(values, scales, 2) + NODE_BYTES < FLOAT_BYTES * values)
