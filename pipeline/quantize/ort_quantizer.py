"""ONNX Runtime's own quantizer, for operators and formats that only it writes.

Its import takes 50 MB, which calibration should not have to hold as well: so callers import this module where they use it.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.registry import QLinearOpsRegistry

from pipeline.config.choices import IntegerType
from pipeline.errors import StageError
from pipeline.graph.attributes import int_attribute
from pipeline.graph.session import open_session
from pipeline.graph.subgraph_scopes import Names, drop_unread, graphs_of
from pipeline.outside_errors import unless_memory_is_used_up
from pipeline.quantize.names_put_aside import put_aside
from pipeline.quantize.operators import number_of

INTEGER_OPERATORS = frozenset(QLinearOpsRegistry)
QUANT_TYPES = {kind: getattr(QuantType, f"Q{kind.name.replace('int', 'Int').replace('u', 'U', 1)}") for kind in IntegerType}


@dataclass(frozen=True)
class IntegerOperators:
    """How ONNX Runtime's quantizer writes integer operators.

    Attributes:
        weights: type of constants.
        activations: type of all else.
        ranges: of the tensors that nodes touch; None: dynamic.
        per_channel: weights get a scale per output channel.
        reduce_range: weights use one bit less than their type has.
        options: of the quantizer, under its own names.
    """

    weights: IntegerType
    activations: IntegerType
    ranges: Mapping[str, tuple[float, float]] | None
    per_channel: bool
    reduce_range: bool
    options: Mapping[str, Any]


def with_integer_operators(
    model: onnx.ModelProto, nodes: Sequence[str], settings: IntegerOperators
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the graph with nodes as integer operators.

    ONNX Runtime's quantizer may raise anything at a node that it does not expect, or write a graph that does not load. Then
    the nodes that it cannot quantize are found by halving, and stay.

    Args:
        model: is not changed.
        nodes: their names.
        settings: types and scales.

    Returns:
        The graph, and the nodes that were left as they were, with the reason.

    Raises:
        StageError: nodes that it can quantize alone cannot be quantized together.
    """
    refused: dict[str, str] = {}
    try:
        quantized = _attempt(model, nodes, settings)
    except Exception as error:  # of any kind, in ONNX Runtime's quantizer
        unless_memory_is_used_up(error)
        refused = _refused(model, nodes, settings)
        fitting = [name for name in nodes if name not in refused]
        try:
            quantized = _attempt(model, fitting, settings)
        except Exception as other:
            raise StageError(
                f"ONNX Runtime's quantizer fails on {len(fitting)} nodes together, {fitting[0]} among them ({other}). Exclude "
                "some with mode.nodes_to_exclude."
            ) from other
    before = {node.name: tuple(node.input) for node in model.graph.node if node.name in set(nodes)}
    left = [node.name for node in quantized.graph.node if before.get(node.name) == tuple(node.input)]
    return quantized, dict.fromkeys(left, "left as it was by ONNX Runtime's quantizer of integer operators") | refused


def _refused(model: onnx.ModelProto, nodes: Sequence[str], settings: IntegerOperators) -> dict[str, str]:
    """Return the nodes that cannot be quantized even alone, and why."""
    try:
        _attempt(model, nodes, settings)
    except Exception as error:
        unless_memory_is_used_up(error)
        if len(nodes) == 1:
            said = str(error).split("\n")[0][:200] or type(error).__name__
            return {nodes[0]: f"ONNX Runtime's quantizer of integer operators fails at it ({said})"}
        middle = len(nodes) // 2
        return _refused(model, nodes[:middle], settings) | _refused(model, nodes[middle:], settings)
    return {}


def _attempt(model: onnx.ModelProto, nodes: Sequence[str], settings: IntegerOperators) -> onnx.ModelProto:
    """Return the graph with nodes as integer operators, as ONNX Runtime's quantizer writes it; it loads."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not nodes:
        return copy
    aside = put_aside(copy)
    wanted = {aside.nodes.get(name, name) for name in nodes}
    chosen = [node for node in copy.graph.node if node.name in wanted]
    for node in chosen:  # the quantizer takes an input that is left out by an empty name for a tensor
        while node.input and not node.input[-1]:
            node.input.pop()
        if node.op_type == "Gemm":
            _fold_factors(copy.graph, node)
    _give_own_biases(copy.graph, chosen)
    ranges = settings.ranges
    data = {aside.tensors.get(name, name): _data(*ends) for name, ends in (ranges or {}).items()}
    quantizer = _Quantizer(
        copy,
        settings.per_channel,
        settings.reduce_range,
        QuantizationMode.IntegerOps if ranges is None else QuantizationMode.QLinearOps,
        ranges is not None,  # static
        QUANT_TYPES[settings.weights],
        QUANT_TYPES[settings.activations],
        None if ranges is None else TensorsData(CalibrationMethod.MinMax, data),
        [node.name for node in chosen],
        [],
        sorted({node.op_type for node in chosen}),
        dict(settings.options),
    )
    with quiet():
        quantizer.quantize_model()
    quantized = quantizer.model.model
    assert isinstance(quantized, onnx.ModelProto)
    aside.restore(quantized)
    open_session(quantized, optimization="none")
    return quantized


class _Quantizer(ONNXQuantizer):  # type: ignore[misc]  # ONNX Runtime has no types
    """ONNX Runtime's quantizer, but for Softmax, which it gives the range from 0 to 1.

    Over 300 frames, probabilities are of one or two steps of that range; with the measured one, QLinearSoftmax is as exact as
    8 bits allow (13 dB and 40 dB on normally distributed scores).
    """

    def adjust_tensor_ranges(self) -> None:
        measured = dict(self.tensors_range.items()) if self.tensors_range is not None else {}
        super().adjust_tensor_ranges()
        for node in self.model.nodes():
            if node.op_type == "Softmax" and node.output[0] in measured:
                self.tensors_range[node.output[0]] = measured[node.output[0]]

    def _get_quantization_params(
        self, param_name: str, use_scale: float | None = None, use_zeropoint: int | None = None
    ) -> tuple[bool, str, str, str, str]:
        known = self.tensors_range is not None and param_name in self.tensors_range
        fixed = () if known else (use_scale, use_zeropoint)
        found: tuple[bool, str, str, str, str] = super()._get_quantization_params(param_name, *fixed)
        return found


def _fold_factors(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Give a Gemm constants that need no alpha and beta, and a bias with a value per column, in place.

    ONNX Runtime's QGemm multiplies the bias with alpha and knows no beta, and its quantizer takes each bias for a vector.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if node.input[1] not in constants or (len(node.input) > 2 and node.input[2] not in constants):
        return
    weight = numpy_helper.to_array(constants[node.input[1]])
    found = [weight * np.float32(number_of(node, "alpha"))]
    if len(node.input) > 2:
        columns = weight.shape[0 if int_attribute(node, "transB", 0) else 1]
        bias = numpy_helper.to_array(constants[node.input[2]]) * np.float32(number_of(node, "beta"))
        vector = bias.size in (1, columns) and bias.shape[-1:] in ((), (bias.size,))
        found.append(np.broadcast_to(bias.reshape(-1), (columns,)) if vector else bias)
    names, before = Names(graph), set(node.input)
    for place, values in enumerate(found, start=1):
        old = numpy_helper.to_array(constants[node.input[place]])
        if old.shape != values.shape or not np.array_equal(old, values):
            name = names.fresh(f"{node.input[place]}_{node.name}")
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
            node.input[place] = name
    kept = [entry for entry in node.attribute if entry.name not in ("alpha", "beta")]
    del node.attribute[:]
    node.attribute.extend(kept)
    drop_unread(graph, before.intersection(constants))


def _give_own_biases(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give each node a bias that nothing else reads, in place.

    The quantizer makes a bias an integer with the scale of one node: a second one then finds no bias, and an output is rounded.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for scope in graphs_of(graph) for node in scope.node for name in node.input)
    readers.update(output.name for scope in graphs_of(graph) for output in scope.output)
    names = Names(graph)
    shared = set()
    for node in nodes:
        if (
            node.op_type in ("Conv", "Gemm")
            and len(node.input) > 2
            and readers[node.input[2]] > 1
            and node.input[2] in constants
        ):
            shared.add(node.input[2])
            own = graph.initializer.add()
            own.CopyFrom(constants[node.input[2]])
            node.input[2] = own.name = names.fresh(f"{node.input[2]}_{node.name}")
    drop_unread(graph, shared)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what ONNX Runtime's quantizer logs to the root logger from users.

    It asks whether the model is already quantized as soon as another of our own passes has been there.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _data(low: float, high: float) -> TensorData:
    return TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
