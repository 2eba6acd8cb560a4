"""ONNX Runtime's own quantizer, for operators and formats that only it writes.

Its import takes 50 MB, which calibration should not have to hold as well: so callers import this module where they use it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.registry import QLinearOpsRegistry

from pipeline.config.choices import IntegerType

INTEGER_OPERATORS = frozenset(QLinearOpsRegistry)
QUANT_TYPES = {kind: getattr(QuantType, f"Q{kind.name.replace('int', 'Int').replace('u', 'U', 1)}") for kind in IntegerType}


def with_integer_operators(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    *,
    weights: IntegerType,
    activations: IntegerType,
    ranges: Mapping[str, tuple[float, float]] | None,
    per_channel: bool,
    reduce_range: bool,
    **options: Any,  # noqa: ANN401
) -> tuple[onnx.ModelProto, list[str]]:
    """Return the graph with nodes as integer operators, and the names of those that were left as they were.

    Args:
        model: is changed.
        nodes: their names.
        weights: type of constants.
        activations: type of all else.
        ranges: of the tensors that they touch; None: dynamic.
        per_channel: weights get a scale per output channel.
        reduce_range: weights use one bit less than their type has.
        options: of the quantizer, under its own names.
    """
    wanted = set(nodes)
    before = {node.name: tuple(node.input) for node in model.graph.node if node.name in wanted}
    data = {name: _data(*ends) for name, ends in (ranges or {}).items()}
    quantizer = ONNXQuantizer(
        model,
        per_channel,
        reduce_range,
        QuantizationMode.IntegerOps if ranges is None else QuantizationMode.QLinearOps,
        ranges is not None,  # static
        QUANT_TYPES[weights],
        QUANT_TYPES[activations],
        None if ranges is None else TensorsData(CalibrationMethod.MinMax, data),
        list(nodes),
        [],
        sorted({node.op_type for node in model.graph.node if node.name in before}),
        options,
    )
    with quiet():
        quantizer.quantize_model()
    quantized = quantizer.model.model
    assert isinstance(quantized, onnx.ModelProto)
    return quantized, [node.name for node in quantized.graph.node if before.get(node.name) == tuple(node.input)]


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
