#!/usr/bin/env bash
# Question:  a product of two integer matrices is exact: does every release of ONNX Runtime give the same sums on a processor with
#            AMX (Intel Xeon from Sapphire Rapids on)?
# Versions:  onnxruntime 1.20.1, 1.21.1, 1.24.4, 1.25.1; onnx 1.23.2; CPython 3.11, Linux x86-64 with amx_int8.
# Behaviour: no. 1.21 to 1.24 are wrong in a few elements, without an error: in the last row of each 32, in the last columns,
#            where there are 64 rows and the number of columns is no multiple of 16. MatMulInteger is, and ConvInteger, whose
#            columns are frames: a convolution in a file with dynamic ranges is wrong at the end of nearly every utterance.
#            1.20 and 1.25 are right everywhere, and so are 1.21 to 1.24 on processors without AMX.
# Users:     do not measure or ship files with dynamic ranges for such servers on 1.21 to 1.24. This project asks for 1.25 or
#            later, and warns where `benchmark.runtime` or `mode.runtime` names one of these.
# On a processor without AMX there is nothing to see, and this says so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
if ! grep -qw amx_int8 /proc/cpuinfo; then
  echo "no AMX here: nothing to see"
  exit 0
fi
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target onnx onnx==1.23.2
cat > run.py <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
wrong = []
for rows, columns in ((64, 48), (64, 50), (64, 20), (8, 50)):
    depth = 192
    a = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    b = rng.integers(0, 256, (depth, columns)).astype(np.uint8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "za", "zb"], ["y"])], "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, columns])], [
            numpy_helper.from_array(b, "b"), numpy_helper.from_array(np.array(100, np.uint8), "za"),
            numpy_helper.from_array(np.array(128, np.uint8), "zb"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.argwhere(session.run(None, {"a": a})[0] != (a.astype(np.int64) - 100) @ (b.astype(np.int64) - 128))
    if len(found):
        wrong.append(f"{rows} x {columns} in rows {sorted(set(found[:, 0].tolist()))}")
print(f"{onnxruntime.__version__}: {'wrong: ' + '; '.join(wrong) if wrong else 'right'}")
PY
for version in 1.20.1 1.21.1 1.24.4 1.25.1; do
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "at-$version" "onnxruntime==$version" 2>/dev/null
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="at-$version:onnx" python3 run.py 2>/dev/null
done | tee seen
diff seen - <<'SEEN'
1.20.1: right
1.21.1: wrong: 64 x 50 in rows [31, 63]; 64 x 20 in rows [31, 63]
1.24.4: wrong: 64 x 50 in rows [31, 63]; 64 x 20 in rows [31, 63]
1.25.1: right
SEEN
echo "as described"
