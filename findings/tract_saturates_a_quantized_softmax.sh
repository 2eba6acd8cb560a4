#!/usr/bin/env bash
# Question:  quantize_static puts QuantizeLinear behind a Softmax as behind most operators (the weights of an attention, the
#            probabilities of a recogniser). Does tract, a runtime for small devices, compute the same as ONNX Runtime?
# Versions:  tract 0.23.0 and 0.23.9; onnxruntime 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: no. Between DequantizeLinear and QuantizeLinear it makes an integer Softmax, and every probability is the largest
#            value that the type holds: 0.996 four times, which adds up to 4. No error, no message. LogSoftmax is wrong as well.
#            Sigmoid is right there, and so is a Softmax that no QuantizeLinear follows.
# Users:     leave Softmax and LogSoftmax in float in a file for tract (op_types_to_quantize, nodes_to_exclude), and look at what
#            it gives for one sample: a model that loads and runs says nothing.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0
versions="0.23.0 0.23.9"
for version in $versions; do install "tract-$version" --no-deps "tract==$version"; done

cat > run.py <<'PY'
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper, numpy_helper

x = np.array([[1, 2, 3, 0.5]], np.float32)
STEPS = {"Softmax": (1 / 256, 0), "LogSoftmax": (1 / 64, 255), "Sigmoid": (1 / 256, 0)}
node = helper.make_node


def model(op_type, rounded):
    """Return x -> rounded to steps of 1/32 -> the operator -> rounded, if asked for."""
    step, zero = STEPS[op_type]
    constants = {
        "step": np.float32(1 / 32), "zero": np.uint8(30), "end_step": np.float32(step), "end_zero": np.uint8(zero)
    }
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]), node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node(op_type, ["d"], ["o" if rounded else "y"]),
    ]
    if rounded:
        nodes += [
            node("QuantizeLinear", ["o", "end_step", "end_zero"], ["r"]),
            node("DequantizeLinear", ["r", "end_step", "end_zero"], ["y"]),
        ]
    used = {name for one in nodes for name in one.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items() if key in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")


def said(values):
    return " ".join(f"{value:.2f}" for value in np.ravel(values))


for op_type, rounded in (("Softmax", True), ("LogSoftmax", True), ("Sigmoid", True), ("Softmax", False)):
    model(op_type, rounded)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    of_tract = tract.onnx().load("model.onnx").into_model().into_runnable().run([x])[0].to_numpy()
    print(f"  {op_type}{', then QuantizeLinear' if rounded else ''}: ONNX Runtime {said(session.run(None, {'x': x})[0])};",
          f"tract {said(of_tract)}")
PY
for version in $versions; do
  echo "tract $version"
  PYTHONPATH="tract-$version:tools" ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null
done | tee seen
diff seen - <<'SEEN'
tract 0.23.0
  Softmax, then QuantizeLinear: ONNX Runtime 0.09 0.23 0.63 0.05; tract 1.00 1.00 1.00 1.00
  LogSoftmax, then QuantizeLinear: ONNX Runtime -2.45 -1.45 -0.45 -2.95; tract 0.00 0.00 0.00 0.00
  Sigmoid, then QuantizeLinear: ONNX Runtime 0.73 0.88 0.95 0.62; tract 0.73 0.88 0.95 0.62
  Softmax: ONNX Runtime 0.09 0.23 0.63 0.05; tract 0.09 0.23 0.63 0.05
tract 0.23.9
  Softmax, then QuantizeLinear: ONNX Runtime 0.09 0.23 0.63 0.05; tract 1.00 1.00 1.00 1.00
  LogSoftmax, then QuantizeLinear: ONNX Runtime -2.45 -1.45 -0.45 -2.95; tract 0.00 0.00 0.00 0.00
  Sigmoid, then QuantizeLinear: ONNX Runtime 0.73 0.88 0.95 0.62; tract 0.73 0.88 0.95 0.62
  Softmax: ONNX Runtime 0.09 0.23 0.63 0.05; tract 0.09 0.23 0.63 0.05
SEEN
echo "as described"
