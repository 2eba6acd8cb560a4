#!/usr/bin/env bash
# Question:  nncf.quantize takes an ONNX model and gives one back, in Q/DQ form. Does ONNX Runtime run it?
# Versions:  nncf 3.4.0, onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: not with a depthwise Conv behind a Conv, as MobileNet and the encoders made after it have. NNCF gives the input of a
#            depthwise Conv a scale per channel (by default, for a CPU and for an NPU); the Conv before it is then fused with a
#            scale per channel at its output, which QLinearConv does not have, and the first inference raises. Without
#            optimizations the same file runs and is right. NNCF says nothing, and the file opens.
# Users:     ask for one scale: AdvancedQuantizationParameters(activations_quantization_params=
#            QuantizationParameters(per_channel=False)); it runs then, with all optimizations. Prove a file by an inference.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages \
  nncf==3.4.0 onnx==1.23.2 onnxruntime==1.32.0

cat > run.py <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import nncf
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

logging.disable(logging.CRITICAL)
onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
samples = rng.normal(size=(20, 1, 16, 64)).astype(np.float32)
node = helper.make_node


def weight(*shape):
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


constants = {"first": weight(16, 16, 3), "depthwise": weight(16, 1, 7), "last": weight(8, 16, 1)}
nodes = [
    node("Conv", ["x", "first"], ["a"], name="before", pads=[1, 1]), node("Relu", ["a"], ["b"], name="relu"),
    node("Conv", ["b", "depthwise"], ["c"], name="depthwise", pads=[3, 3], group=16),
    node("Conv", ["c", "last"], ["y"], name="after"),
]
graph = helper.make_graph(
    nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 64])],
    [numpy_helper.from_array(value, key) for key, value in constants.items()],
)
model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
onnx.checker.check_model(model, full_check=True)


def outputs(file, optimized=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": sample})[0] for sample in samples])


expected = outputs(model)


def told(file, optimized=True):
    try:
        error = outputs(file, optimized) - expected
    except Exception:
        return "fails at its first inference"
    return "runs and is right" if 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20 else "runs and is wrong"


one_scale = AdvancedQuantizationParameters(activations_quantization_params=QuantizationParameters(per_channel=False))
for label, settings in (
    ("default", {}), ("CPU", {"target_device": nncf.TargetDevice.CPU}), ("NPU", {"target_device": nncf.TargetDevice.NPU}),
    ("one scale", {"advanced_parameters": one_scale}),
):
    data = nncf.Dataset([{"x": sample} for sample in samples])
    made = nncf.quantize(model, data, subset_size=len(samples), **settings)
    onnx.checker.check_model(made, full_check=True)
    print(f"{label}: without optimizations {told(made, optimized=False)}; with them {told(made)}")
PY
PYTHONPATH=packages ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null | grep optimizations | tee seen
diff seen - <<'SEEN'
default: without optimizations runs and is right; with them fails at its first inference
CPU: without optimizations runs and is right; with them fails at its first inference
NPU: without optimizations runs and is right; with them fails at its first inference
one scale: without optimizations runs and is right; with them runs and is right
SEEN
echo "as described"
