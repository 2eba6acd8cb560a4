#!/usr/bin/env bash
# Question:  QuantizeLinear and DequantizeLinear may have a scale per channel, for activations as well as for weights. Does ONNX
#            Runtime compute such a graph alike with and without its optimizations, as it does with one scale?
# Versions:  onnxruntime 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64. In 1.20.1 and 1.28.0 Add does not open either.
# Behaviour: without optimizations every graph here runs. With them (the default) an operator between the two is fused into an
#            integer kernel that knows one scale only: Conv fails at its first inference, LeakyRelu, Sigmoid and AveragePool when
#            the file is opened, and Softmax runs and is wrong without a word. Add, MaxPool and Relu give the same numbers.
# Users:     one scale for an activation, in any file for ONNX Runtime; fold a scale per channel into the weights beside it
#            instead (cross-layer equalization; this project does). A Softmax is to be compared with what the float graph gives:
#            that a file opens and runs says nothing.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages onnx==1.23.2 onnxruntime==1.32.0

cat > run.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
x = rng.normal(size=(1, 4, 32)).astype(np.float32)
kernel = rng.integers(-99, 99, (4, 4, 3)).astype(np.int8)
FUSED = {
    "Conv": {"pads": [1, 1]}, "LeakyRelu": {}, "Sigmoid": {}, "AveragePool": {"kernel_shape": [3], "pads": [1, 1]},
    "Softmax": {"axis": -1}, "Add": {}, "MaxPool": {"kernel_shape": [3], "pads": [1, 1]}, "Relu": {},
}


def model(op_type, attributes, channels):
    """Return x -> rounded -> the operator -> rounded -> y; the second rounding with so many scales."""
    scales = np.float32(0.03) if channels == 1 else np.linspace(0.002, 0.05, channels).astype(np.float32)
    constants = {
        "one": np.float32(0.03), "middle": np.uint8(128), "scales": scales,
        "zeros": np.full(np.shape(scales), 128, np.uint8), "w": kernel, "none": np.int8(0),
    }
    axis = {} if channels == 1 else {"axis": 1}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "middle"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "middle"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "one", "none"], ["dw"]),
        helper.make_node(op_type, {"Conv": ["d", "dw"], "Add": ["d", "d"]}.get(op_type, ["d"]), ["o"], **attributes),
        helper.make_node("QuantizeLinear", ["o", "scales", "zeros"], ["r"], **axis),
        helper.make_node("DequantizeLinear", ["r", "scales", "zeros"], ["y"], **axis),
    ]
    if op_type != "Conv":
        del nodes[2]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 32])],
        [numpy_helper.from_array(np.array(value), key) for key, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def result(file, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception:
        return "does not open"
    try:
        return session.run(None, {"x": x})[0]
    except Exception:
        return "fails at its first inference"


for op_type, attributes in FUSED.items():
    for channels in (1, 4):
        file = model(op_type, attributes, channels)
        plain = result(file, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        optimized = result(file, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        if not isinstance(optimized, str):
            # kernels round a half differently: a step of the coarsest scale is the same number here
            optimized = "the same" if np.abs(optimized - plain).max() < 0.051 else "other numbers"
        print(f"{op_type}, {channels} scale(s): not optimized runs, optimized: {optimized}")
PY
PYTHONPATH=packages python3 run.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
Conv, 1 scale(s): not optimized runs, optimized: the same
Conv, 4 scale(s): not optimized runs, optimized: fails at its first inference
LeakyRelu, 1 scale(s): not optimized runs, optimized: the same
LeakyRelu, 4 scale(s): not optimized runs, optimized: does not open
Sigmoid, 1 scale(s): not optimized runs, optimized: the same
Sigmoid, 4 scale(s): not optimized runs, optimized: does not open
AveragePool, 1 scale(s): not optimized runs, optimized: the same
AveragePool, 4 scale(s): not optimized runs, optimized: does not open
Softmax, 1 scale(s): not optimized runs, optimized: the same
Softmax, 4 scale(s): not optimized runs, optimized: other numbers
Add, 1 scale(s): not optimized runs, optimized: the same
Add, 4 scale(s): not optimized runs, optimized: the same
MaxPool, 1 scale(s): not optimized runs, optimized: the same
MaxPool, 4 scale(s): not optimized runs, optimized: the same
Relu, 1 scale(s): not optimized runs, optimized: the same
Relu, 4 scale(s): not optimized runs, optimized: the same
SEEN
echo "as described"
