#!/usr/bin/env bash
# Question:  QuantizeLinear saturates. Is an infinite activation (an additive mask, an overflow) the largest integer, whoever
#            computes it?
# Versions:  onnx 1.23.2 (its ReferenceEvaluator), onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: no. ONNX Runtime gives 255 for +inf and 0 for -inf. The reference evaluator converts to int32 before it saturates,
#            which wraps: +inf becomes 0, the smallest value, as -inf does, with a RuntimeWarning only. Of an input that is
#            all zero, DynamicQuantizeLinear has the scale 1 in ONNX Runtime, and 1/255 in the reference.
# Users:     do not judge a quantized graph with infinite activations by the reference evaluator; keep such tensors in float
#            (this project does, and says so).
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
from onnx.reference import ReferenceEvaluator


def graph_of(nodes, outputs, constants=()):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, ends, constants), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model


scale, zero = numpy_helper.from_array(np.array(0.1, np.float32), "s"), numpy_helper.from_array(np.array(3, np.uint8), "z")
fixed = graph_of([helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])], [("q", TensorProto.UINT8, ["n"])], [scale, zero])
dynamic = graph_of(
    [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
    [("q", TensorProto.UINT8, ["n"]), ("s", TensorProto.FLOAT, []), ("z", TensorProto.UINT8, [])],
)
for name, model, values, which in (
    ("QuantizeLinear of inf, -inf, 1", fixed, [np.inf, -np.inf, 1.0], 0),
    ("scale of zeros", dynamic, [0.0, 0.0, 0.0], 1),
):
    feeds = {"x": np.array(values, np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for who, run in (("ONNX Runtime", session.run), ("reference", ReferenceEvaluator(model).run)):
        print(f"{name}, {who}: {np.round(np.asarray(run(None, feeds)[which], np.float64), 6).tolist()}")
PY
PYTHONPATH=packages python3 run.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
QuantizeLinear of inf, -inf, 1, ONNX Runtime: [255.0, 0.0, 13.0]
QuantizeLinear of inf, -inf, 1, reference: [0.0, 0.0, 13.0]
scale of zeros, ONNX Runtime: 1.0
scale of zeros, reference: 0.003922
SEEN
echo "as described"
