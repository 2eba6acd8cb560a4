"""Time of the static rewrite against ONNX Runtime's quantizer, on chains of Conv nodes.

    python benchmarks/qdq_insertion_speed.py

Prints processor seconds, which other processes on the machine hardly change. ONNX Runtime's quantizer searches all nodes
for each tensor, so that its chains are kept short; ours are as long as a large exported model.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.quantize.ort_quantizer import quiet
from pipeline.quantize.qdq_placement import PairSettings
from pipeline.quantize.qdq_writer import Ranges, insert_pairs

# after the package, which turns ONNX Runtime's telemetry off
from onnxruntime.quantization import CalibrationMethod, QuantType  # isort: skip
from onnxruntime.quantization.calibrate import TensorData, TensorsData  # isort: skip
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # isort: skip

CHANNELS = 8
COMPARED = (250, 500)
ALONE = (2000, 4000)


def chain(length: int) -> tuple[onnx.ModelProto, Ranges]:
    """Return a graph of `length` Conv nodes one behind the other, and a range of each of its tensors."""
    rng = np.random.default_rng(0)
    tensors = [f"t{index}" for index in range(length + 1)]
    nodes, constants = [], []
    for index in range(length):
        weight = rng.standard_normal((CHANNELS, CHANNELS, 3)).astype(np.float32)
        bias = rng.standard_normal(CHANNELS).astype(np.float32)
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        inputs = [tensors[index], f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", inputs, [tensors[index + 1]], name=f"conv{index}", pads=[1, 1]))
    values = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, CHANNELS, "time"]) for tensor in tensors]
    graph = helper.make_graph(nodes, "chain", values[:1], values[-1:], constants, value_info=values[1:-1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, Ranges(dict.fromkeys(tensors, (-3.0, 5.0)))


def ours(model: onnx.ModelProto, ranges: Ranges) -> None:
    """Quantize every node with this project's rewrite."""
    insert_pairs(model, [node.name for node in model.graph.node], PairSettings(), ranges)


def theirs(model: onnx.ModelProto, ranges: Ranges) -> None:
    """Quantize every node with ONNX Runtime's quantizer."""
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    measured = TensorsData(CalibrationMethod.MinMax, data)
    nodes = [node.name for node in model.graph.node]
    with quiet():
        QDQQuantizer(model, True, False, QuantType.QInt8, QuantType.QUInt8, measured, nodes, [], ["Conv"], {}).quantize_model()


def seconds(rewrite: Callable[[onnx.ModelProto, Ranges], None], length: int, runs: int) -> float:
    """Return the processor time of one rewrite of a chain, the fastest of some runs."""
    times = []
    for _ in range(runs):
        model, ranges = chain(length)
        start = time.process_time()
        rewrite(model, ranges)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    print("| Conv nodes | ours, s | ONNX Runtime, s | ratio |")
    print("|---|---|---|---|")
    for length in COMPARED:
        here, there = seconds(ours, length, 5), seconds(theirs, length, 1)
        print(f"| {length} | {here:.3f} | {there:.2f} | {there / here:.0f} |")
    alone = [seconds(ours, length, 5) for length in ALONE]
    for length, here in zip(ALONE, alone, strict=True):
        print(f"| {length} | {here:.3f} | | |")
    print(f"\n{ALONE[1]} nodes take {alone[1] / alone[0]:.2f} times as long as {ALONE[0]}.")


if __name__ == "__main__":
    main()
