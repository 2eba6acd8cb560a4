#!/usr/bin/env bash
# Question:  ONNX lets ConvInteger have a zero point per output channel, and MatMulInteger and QLinearMatMul one per row of A.
#            Does a graph that the checker accepts run so?
# Versions:  onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: the checker accepts all three, ONNX Runtime opens all three, and each fails at its first inference: the kernels
#            want a single zero point there. ONNX's own reference evaluator fails on them as well (NumPy cannot broadcast them).
#            A zero point per column of B of MatMulInteger does run, in both.
# Users:     write one zero point for ConvInteger's weight and for an A; use symmetric weights where channels need scales of
#            their own (this project does). Prove a file by an inference: opening it says nothing.
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

onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
signal, kernel = rng.integers(0, 255, (1, 2, 6)).astype(np.uint8), rng.integers(-9, 9, (3, 2, 3)).astype(np.int8)
a, b = rng.integers(0, 255, (2, 4)).astype(np.uint8), rng.integers(-9, 9, (4, 3)).astype(np.int8)


def real(*values):
    return np.array(values, np.float32).reshape(-1 if len(values) > 1 else ())


CASES = {
    "ConvInteger, zero point per channel of the weight": (
        "ConvInteger", ["x", "w", "", "z"], signal, {"w": kernel, "z": np.array([0, 1, 2], np.int8)}, TensorProto.INT32, [1, 3, 4]),
    "MatMulInteger, zero point per row of A": (
        "MatMulInteger", ["x", "w", "z"], a, {"w": b, "z": np.array([1, 2], np.uint8)}, TensorProto.INT32, [2, 3]),
    "QLinearMatMul, scale and zero point per row of A": (
        "QLinearMatMul", ["x", "s", "z", "w", "one", "none", "one", "middle"], a,
        {"s": real(0.1, 0.2), "z": np.zeros(2, np.uint8), "w": b, "one": real(1), "none": np.array(0, np.int8),
         "middle": np.array(128, np.uint8)}, TensorProto.UINT8, [2, 3]),
    "MatMulInteger, zero point per column of B": (
        "MatMulInteger", ["x", "w", "none", "z"], a,
        {"w": b, "none": np.array(0, np.uint8), "z": np.array([1, 2, 3], np.int8)}, TensorProto.INT32, [2, 3]),
}
for name, (op_type, inputs, x, constants, kind, shape) in CASES.items():
    node = helper.make_node(op_type, inputs, ["y"], name="product")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.UINT8, list(x.shape))],
        [helper.make_tensor_value_info("y", kind, shape)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = []
    for run in (lambda: session.run(None, {"x": x}), lambda: ReferenceEvaluator(model).run(None, {"x": x})):
        try:
            run()
            found.append("runs")
        except Exception:
            found.append("fails")
    print(f"{name}: checked, opened, ONNX Runtime {found[0]}, reference {found[1]}")
PY
PYTHONPATH=packages python3 run.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
ConvInteger, zero point per channel of the weight: checked, opened, ONNX Runtime fails, reference fails
MatMulInteger, zero point per row of A: checked, opened, ONNX Runtime fails, reference fails
QLinearMatMul, scale and zero point per row of A: checked, opened, ONNX Runtime fails, reference fails
MatMulInteger, zero point per column of B: checked, opened, ONNX Runtime runs, reference runs
SEEN
echo "as described"
