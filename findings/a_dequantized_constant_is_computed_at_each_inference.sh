#!/usr/bin/env bash
# Question:  A weight is stored as int8 to make a file smaller, and its node computes in float. Does ONNX Runtime restore the
#            float weight once, when it loads the model?
# Versions:  onnx 1.17.0; onnxruntime 1.19.2, 1.28.0 and 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: Not behind a DequantizeLinear, the operator made for this: constant folding leaves it out, so that it runs at each
#            inference, and the weight of a LSTM, Conv or MatMul is no constant any more that a kernel could pack beforehand.
#            Behind Cast and Mul, which say the same, it does: nothing of the two is left, and the weight is a float constant.
# Users:     a model of one LSTM step ran at 0.5 of fp32's speed behind DequantizeLinear, and at fp32's speed behind Cast and Mul,
#            with the same bytes. This project stores weights so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.17.0 numpy==1.26.4
versions="1.19.2 1.28.0 1.32.0"
for version in $versions; do install "ort-$version" "onnxruntime==$version" numpy==1.26.4; done

cat > make.py <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, INPUTS = 8, 6
values = np.arange(4 * HIDDEN * INPUTS, dtype=np.int64).reshape(1, 4 * HIDDEN, INPUTS) % 100 - 50
scales = np.full((1, 4 * HIDDEN, 1), 0.01, np.float32)
constants = {"int8": values.astype(np.int8), "R": np.full((1, 4 * HIDDEN, HIDDEN), 0.1, np.float32)}
forms = {
    "DequantizeLinear": ([helper.make_node("DequantizeLinear", ["int8", "scale"], ["W"])], np.float32(0.01)),
    "Cast and Mul": (
        [helper.make_node("Cast", ["int8"], ["c"], to=TensorProto.FLOAT), helper.make_node("Mul", ["c", "scale"], ["W"])],
        scales,
    ),
}
for name, (restoring, scale) in forms.items():
    lstm = helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=HIDDEN)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 1, INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 1, 1, HIDDEN])
    tensors = [numpy_helper.from_array(np.asarray(array), key) for key, array in (constants | {"scale": scale}).items()]
    graph = helper.make_graph([*restoring, lstm], "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
PY
cat > load.py <<'PY'
import numpy as np
import onnx
import onnxruntime

onnxruntime.set_default_logger_severity(3)
results = []
for name in ("DequantizeLinear", "Cast and Mul"):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = "loaded.onnx"
    session = onnxruntime.InferenceSession(f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    results.append(session.run(None, {"x": np.ones((3, 1, 6), np.float32)})[0])
    print(onnxruntime.__version__, f"{name}:", [node.op_type for node in onnx.load("loaded.onnx").graph.node])
print("the same values:", np.allclose(*results, atol=1e-6))
PY
PYTHONPATH=tools python3 make.py
for version in $versions; do PYTHONPATH="ort-$version:tools" python3 load.py; done | tee seen
diff seen - <<'SEEN'
1.19.2 DequantizeLinear: ['DequantizeLinear', 'LSTM']
1.19.2 Cast and Mul: ['LSTM']
the same values: True
1.28.0 DequantizeLinear: ['DequantizeLinear', 'LSTM']
1.28.0 Cast and Mul: ['LSTM']
the same values: True
1.32.0 DequantizeLinear: ['DequantizeLinear', 'LSTM']
1.32.0 Cast and Mul: ['LSTM']
the same values: True
SEEN
echo "as described"
