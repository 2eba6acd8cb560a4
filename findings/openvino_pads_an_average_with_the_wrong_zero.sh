#!/usr/bin/env bash
# Question:  An AveragePool that counts its padding (torch's default: count_include_pad=1) stands between DequantizeLinear and
#            QuantizeLinear, as every quantizer writes it. Does OpenVINO pad with the number 0?
# Versions:  openvino 2024.6.0 and 2026.4.1; onnxruntime 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: no. It makes the pool an integer one, and pads with the integer 0, which stands for -zero_point * scale. With a zero
#            point of 40 and steps of 1/64 the mean of 1, 2 and the padding is 0.8 in the place of 1.0; with int8 and -100 it is
#            1.5. Every first and last frame is wrong, in silence; padding that is not counted, or a zero point of 0, is right.
# Users:     leave an AveragePool with padding in float in a file that OpenVINO will read (do not put QuantizeLinear behind it),
#            or take symmetric int8 activations there; compare the ends of the output with the float graph.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0
versions="2024.6.0 2026.4.1"
for version in $versions; do install "ov-$version" "openvino==$version"; done

cat > run.py <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

x = np.array([[[1, 2, 3, 2, 1, 2]]], np.float32)
node = helper.make_node


def model(zero, counted):
    """Return x -> rounded to steps of 1/64 -> the mean of three, beyond the ends too -> rounded."""
    constants = {"step": np.float32(1 / 64), "zero": zero}
    attributes = {"kernel_shape": [3], "pads": [1, 1]} | ({"count_include_pad": 1} if counted else {})
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]), node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("AveragePool", ["d"], ["o"], **attributes),
        node("QuantizeLinear", ["o", "step", "zero"], ["r"]), node("DequantizeLinear", ["r", "step", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def said(values):
    return " ".join(f"{value:.1f}" for value in np.ravel(values))


core = openvino.Core()
for label, zero, counted in (
    ("uint8, zero point 0", np.uint8(0), True), ("uint8, zero point 40", np.uint8(40), True),
    ("int8, zero point -100", np.int8(-100), True), ("uint8, zero point 40, padding not counted", np.uint8(40), False),
):
    file = model(zero, counted)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    print(f"  {label}: ONNX Runtime {said(session.run(None, {'x': x})[0])}; OpenVINO {said(list(compiled({'x': x}).values())[0])}")
PY
for version in $versions; do
  echo "openvino $version"
  PYTHONPATH="ov-$version:tools" ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null
done | tee seen
diff seen - <<'SEEN'
openvino 2024.6.0
  uint8, zero point 0: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 1.0 2.0 2.3 2.0 1.7 1.0
  uint8, zero point 40: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 0.8 2.0 2.3 2.0 1.7 0.8
  int8, zero point -100: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 1.5 2.0 2.3 2.0 1.7 1.5
  uint8, zero point 40, padding not counted: ONNX Runtime 1.5 2.0 2.3 2.0 1.7 1.5; OpenVINO 1.5 2.0 2.3 2.0 1.7 1.5
openvino 2026.4.1
  uint8, zero point 0: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 1.0 2.0 2.3 2.0 1.7 1.0
  uint8, zero point 40: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 0.8 2.0 2.3 2.0 1.7 0.8
  int8, zero point -100: ONNX Runtime 1.0 2.0 2.3 2.0 1.7 1.0; OpenVINO 1.5 2.0 2.3 2.0 1.7 1.5
  uint8, zero point 40, padding not counted: ONNX Runtime 1.5 2.0 2.3 2.0 1.7 1.5; OpenVINO 1.5 2.0 2.3 2.0 1.7 1.5
SEEN
echo "as described"
