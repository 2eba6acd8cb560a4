#!/usr/bin/env bash
# Question:  quantize_dynamic has per_channel=True, "quantize weights per channel". Does a Conv then get a scale for each output
#            channel, and an embedding one for each entry or column, as a MatMul does?
# Versions:  onnxruntime 1.28.0 and 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: no. The file of a Conv or a Gather is the same to the byte with and without it, with int8 and with uint8 weights, and
#            no word is said. Of a MatMul and an LSTM the weights do get scales of their own. Where channels differ in size by a
#            factor of 100, the smallest channel of the Conv is left with less than 10 dB; that of the MatMul has more than 30.
# Users:     do not count on it for models of convolutions; compare the two files, and the outputs. ConvInteger itself has no scale:
#            those of the channels could stand in the Mul behind it, with one zero point for all. quantize_static gives a Conv one
#            each. (This project's mode=dynamic has one for a Conv too: more gained nothing on a HiFi-GAN, whose loss is that
#            of 8-bit activations.)
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 onnx-ir==1.1.0
install ort-1.28.0 --no-deps onnxruntime==1.28.0
mkdir ort-1.32.0

cat > run.py <<'PY'
import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
CHANNELS = 32
sizes = np.logspace(0, -2, CHANNELS, dtype=np.float32)  # of the channels: 1 to 1/100
GRAPHS = {
    "Conv": (["x", "w"], rng.normal(size=(CHANNELS, 16, 3)) * sizes[:, None, None], [1, 16, 50], {"pads": [1, 1]}),
    "Gather": (["w", "x"], rng.normal(size=(100, CHANNELS)) * sizes, [20], {}),
    "MatMul": (["x", "w"], rng.normal(size=(64, CHANNELS)) * sizes, [16, 64], {}),
    "LSTM": (
        ["x", "w", "r"], rng.normal(size=(1, 4 * CHANNELS, 16)) * np.tile(sizes, 4)[:, None], [9, 1, 16],
        {"hidden_size": CHANNELS},
    ),
}


def save(op_type):
    inputs, weight, shape, attributes = GRAPHS[op_type]
    constants = {"w": weight.astype(np.float32), "r": np.full((1, 4 * CHANNELS, CHANNELS), 0.01, np.float32)}
    kind = TensorProto.INT64 if op_type == "Gather" else TensorProto.FLOAT
    rank = 4 if op_type == "LSTM" else 3 if op_type == "Conv" else 2
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, ["y"], name="it", **attributes)], "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(constants[name], name) for name in inputs if name in constants],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "float.onnx")
    values = rng.integers(0, 100, shape) if op_type == "Gather" else rng.normal(size=shape).astype(np.float32)
    return {"x": values}


def outputs(name, feeds):
    values = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"]).run(["y"], feeds)[0]
    return np.moveaxis(values, 1, -1) if values.ndim == 3 else values  # channels last


print("onnxruntime", onnxruntime.__version__)
for op_type in GRAPHS:
    feeds = save(op_type)
    told = []
    for kind in (QuantType.QInt8, QuantType.QUInt8):
        for per_channel in (False, True):
            quantize_dynamic("float.onnx", f"{per_channel}.onnx", per_channel=per_channel, weight_type=kind)
        told.append("the same" if Path("False.onnx").read_bytes() == Path("True.onnx").read_bytes() else "another")
    line = f"  {op_type}: with per_channel=True {told[0]} file with int8 weights, {told[1]} file with uint8 weights"
    if op_type != "LSTM":
        exact, rounded = outputs("float.onnx", feeds)[..., -1], outputs("True.onnx", feeds)[..., -1]
        ratio = 10 * np.log10((exact**2).sum() / ((rounded - exact) ** 2).sum())
        line += f"; its smallest channel has {'more than 30' if ratio > 30 else 'less than 10'} dB"
    print(line)
PY
for version in 1.28.0 1.32.0; do PYTHONPATH="ort-$version:tools" ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null; done | tee seen
diff seen - <<'SEEN'
onnxruntime 1.28.0
  Conv: with per_channel=True the same file with int8 weights, the same file with uint8 weights; its smallest channel has less than 10 dB
  Gather: with per_channel=True the same file with int8 weights, the same file with uint8 weights; its smallest channel has less than 10 dB
  MatMul: with per_channel=True another file with int8 weights, another file with uint8 weights; its smallest channel has more than 30 dB
  LSTM: with per_channel=True another file with int8 weights, another file with uint8 weights
onnxruntime 1.32.0
  Conv: with per_channel=True the same file with int8 weights, the same file with uint8 weights; its smallest channel has less than 10 dB
  Gather: with per_channel=True the same file with int8 weights, the same file with uint8 weights; its smallest channel has less than 10 dB
  MatMul: with per_channel=True another file with int8 weights, another file with uint8 weights; its smallest channel has more than 30 dB
  LSTM: with per_channel=True another file with int8 weights, another file with uint8 weights
SEEN
echo "as described"
