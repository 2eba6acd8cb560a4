#!/usr/bin/env bash
# Question:  Opset 21 brought 4-bit integers to QuantizeLinear and DequantizeLinear. Does an ONNX Runtime that loads opset 21
#            run a weight of 4 bits?
# Versions:  onnx 1.17.0; onnxruntime 1.18.1 (the first with opset 21), 1.19.2; CPython 3.11, Linux x86-64.
# Behaviour: 1.18 loads opset 21 and runs its 16-bit integers, but has no kernel for 4 bits: NOT_IMPLEMENTED when the session is
#            opened. 1.19 is the first that runs them.
# Users:     a device with 1.18 takes weights of 8 or 16 bits, or MatMulNBits (4 bits, since 1.16) instead of DequantizeLinear.
#            The opset of a file does not tell which runtime it needs; this project names the runtime in its report.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.17.0 numpy==1.26.4
for version in 1.18.1 1.19.2; do install "ort-$version" "onnxruntime==$version" numpy==1.26.4; done

cat > make.py <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

for name, kind in (("int16", TensorProto.INT16), ("int4", TensorProto.INT4)):
    weight = helper.make_tensor("weight", kind, [8, 4], [1, -2, 3, -4] * 8)
    scale = numpy_helper.from_array(np.full(4, 0.5, np.float32), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["real"], axis=1, name="dequantize"),
        helper.make_node("MatMul", ["x", "real"], ["y"], name="product"),
    ]
    ends = [helper.make_tensor_value_info("x", 1, [2, 8])], [helper.make_tensor_value_info("y", 1, [2, 4])]
    graph = helper.make_graph(nodes, name, *ends, [weight, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
PY
cat > load.py <<'PY'
import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(4)
for name in ("int16", "int4"):
    try:
        session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
        print(onnxruntime.__version__, name, session.run(None, {"x": np.ones((2, 8), np.float32)})[0][0].tolist())
    except Exception as error:
        print(onnxruntime.__version__, name, "refused:", type(error).__name__)
PY
PYTHONPATH=tools python3 make.py
for version in 1.18.1 1.19.2; do PYTHONPATH="ort-$version" python3 load.py; done | tee seen
diff seen - <<'SEEN'
1.18.1 int16 [4.0, -8.0, 12.0, -16.0]
1.18.1 int4 refused: NotImplemented
1.19.2 int16 [4.0, -8.0, 12.0, -16.0]
1.19.2 int4 [4.0, -8.0, 12.0, -16.0]
SEEN
echo "as described"
