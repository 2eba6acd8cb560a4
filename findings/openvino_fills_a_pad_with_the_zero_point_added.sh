#!/usr/bin/env bash
# Question:  A causal convolution is a Pad and a Conv. Where a quantizer puts the Pad between DequantizeLinear and QuantizeLinear,
#            one scale and one zero point on both sides, does OpenVINO fill it with what the file says?
# Versions:  openvino 2024.6.0 and 2026.4.1; onnxruntime 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: not where the fill is the default (0) or a float constant: it adds zero_point * scale to it. With a zero point of 40
#            and steps of 1/64 silence is 0.625, and with int8 and -100 it is -1.5625; such a layer begins with that, and no
#            word is said. The same fill behind a DequantizeLinear of its own is right, and so is a zero point of 0, and a Pad
#            that no QuantizeLinear follows. (Its AveragePool is wrong too, but by as much to the other side.)
#            quantize_static of ONNX Runtime leaves out a fill that is not written in the graph, and so the wrong file is the
#            one it writes of a Pad without a third input; a fill that is written it stores as an integer, and that is right.
# Users:     write the fill of a Pad into the graph before it is quantized, so that it becomes an integer behind a
#            DequantizeLinear, or take symmetric activations (zero point 0); compare the first frames with the float graph.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 onnx-ir==1.1.0
versions="2024.6.0 2026.4.1"
for version in $versions; do install "ov-$version" "openvino==$version"; done

cat > run.py <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.CRITICAL)
x = np.array([[[1, 2, 1.5, 1]]], np.float32)
node = helper.make_node


def model(nodes, constants, frames):
    used = {name for one in nodes for name in one.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, frames])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items() if key in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def rounded(zero, fill, behind):
    """Return x -> rounded to steps of 1/64 -> two frames more -> rounded, if asked for."""
    constants = {"step": np.float32(1 / 64), "zero": zero, "pads": np.array([0, 0, 2, 0, 0, 0]), "float": np.float32(0)}
    nodes = [node("QuantizeLinear", ["x", "step", "zero"], ["q"]), node("DequantizeLinear", ["q", "step", "zero"], ["d"])]
    if fill == "integer":
        constants["same"] = zero
        nodes.append(node("DequantizeLinear", ["same", "step", "zero"], ["integer"]))
    nodes.append(node("Pad", ["d", "pads"] + ([] if fill == "default" else [fill]), ["o" if behind else "y"]))
    if behind:
        nodes += [
            node("QuantizeLinear", ["o", "step", "zero"], ["r"]), node("DequantizeLinear", ["r", "step", "zero"], ["y"])
        ]
    return model(nodes, constants, 6)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = iter([{"x": x}, {"x": x - 2}])  # from -1 to 2, so that the zero point is not 0

    def get_next(self):
        return next(self.left, None)


def by_quantizer(fill):
    """Return a Pad and a Conv that adds three frames, as quantize_static writes them."""
    constants = {
        "pads": np.array([0, 0, 2, 0, 0, 0]), "float": np.float32(0), "ones": np.ones((1, 1, 3), np.float32),
    }
    nodes = [
        node("Pad", ["x", "pads"] + ([] if fill == "default" else [fill]), ["o"], name="pad"),
        node("Conv", ["o", "ones"], ["y"], name="conv"),
    ]
    onnx.save(model(nodes, constants, 4), "float.onnx")
    quantize_static(
        "float.onnx", "int8.onnx", Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
        extra_options={"ForceQuantizeNoInputCheck": True},
    )
    return onnx.load("int8.onnx")


def said(values):
    return " ".join(f"{value:.1f}" for value in np.ravel(values))


core = openvino.Core()
CASES = {
    f"{np.dtype(type(zero))} and {zero}, {fill} fill{'' if behind else ', nothing behind'}": rounded(zero, fill, behind)
    for zero, fill, behind in (
        (np.uint8(0), "default", True), (np.uint8(40), "default", True), (np.uint8(40), "float", True),
        (np.uint8(40), "integer", True), (np.uint8(40), "default", False), (np.int8(-100), "default", True),
        (np.int8(-100), "integer", True),
    )
} | {f"quantize_static, sums of three, {fill} fill": by_quantizer(fill) for fill in ("default", "float")}
for name, made in CASES.items():
    file = made.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    print(f"  {name}: ONNX Runtime {said(session.run(None, {'x': x})[0])}; OpenVINO {said(list(compiled({'x': x}).values())[0])}")
PY
for version in $versions; do
  echo "openvino $version"
  PYTHONPATH="ov-$version:tools" ORT_DISABLE_TELEMETRY=1 python3 run.py 2>complained
done | tee seen
diff seen - <<'SEEN'
openvino 2024.6.0
  uint8 and 0, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  uint8 and 40, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.6 0.6 1.0 2.0 1.5 1.0
  uint8 and 40, float fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.6 0.6 1.0 2.0 1.5 1.0
  uint8 and 40, integer fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  uint8 and 40, default fill, nothing behind: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  int8 and -100, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO -1.6 -1.6 1.0 2.0 1.5 1.0
  int8 and -100, integer fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  quantize_static, sums of three, default fill: ONNX Runtime 1.0 3.0 4.5 4.5; OpenVINO 3.0 4.0 4.5 4.5
  quantize_static, sums of three, float fill: ONNX Runtime 1.0 3.0 4.5 4.5; OpenVINO 1.0 3.0 4.5 4.5
openvino 2026.4.1
  uint8 and 0, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  uint8 and 40, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.6 0.6 1.0 2.0 1.5 1.0
  uint8 and 40, float fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.6 0.6 1.0 2.0 1.5 1.0
  uint8 and 40, integer fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  uint8 and 40, default fill, nothing behind: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  int8 and -100, default fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO -1.6 -1.6 1.0 2.0 1.5 1.0
  int8 and -100, integer fill: ONNX Runtime 0.0 0.0 1.0 2.0 1.5 1.0; OpenVINO 0.0 0.0 1.0 2.0 1.5 1.0
  quantize_static, sums of three, default fill: ONNX Runtime 1.0 3.0 4.5 4.5; OpenVINO 3.0 4.0 4.5 4.5
  quantize_static, sums of three, float fill: ONNX Runtime 1.0 3.0 4.5 4.5; OpenVINO 1.0 3.0 4.5 4.5
SEEN
echo "as described"
