#!/usr/bin/env bash
# Question:  A Relu behind a Conv, and a second node that reads the Conv before the Relu (a residual branch). Does static
#            quantization in the QOperator format keep both?
# Versions:  onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: no. quantize_static takes the Relu away, as if the range of the Conv's output clipped it, and gives both readers the
#            same tensor: the branch behind the Relu has negative values. QDQ of the same model keeps the Relu.
# Users:     use QDQ for graphs with residual branches, or compare outputs with fp32 (this project keeps such a Relu).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages \
  onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 onnx-ir==1.1.0

cat > run.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

rng = np.random.default_rng(0)
weight = numpy_helper.from_array(rng.standard_normal((8, 8, 3)).astype(np.float32), "w")
nodes = [
    helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1]),
    helper.make_node("Relu", ["c"], ["positive"], name="relu"),
    helper.make_node("Neg", ["c"], ["other"], name="other_reader"),
]
shape = [1, 8, 40]
ends = [helper.make_tensor_value_info(name, 1, shape) for name in ("positive", "other")]
graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, shape)], ends, [weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
samples = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]


class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = iter(samples)

    def get_next(self):
        return next(self.left, None)


for kind in (QuantFormat.QDQ, QuantFormat.QOperator):
    quantize_static("model.onnx", f"{kind.name}.onnx", Reader(), quant_format=kind)
for name in ("model", "QDQ", "QOperator"):
    relus = sum(node.op_type == "Relu" for node in onnx.load(f"{name}.onnx").graph.node)
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    lowest = float(session.run(["positive"], samples[0])[0].min())
    print(f"{name}: {relus} Relu, behind it {'negative values' if lowest < 0 else 'none below zero'}")
PY
PYTHONPATH=packages ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
model: 1 Relu, behind it none below zero
QDQ: 1 Relu, behind it none below zero
QOperator: 0 Relu, behind it negative values
SEEN
echo "as described"
