#!/usr/bin/env bash
# Question:  ONNX lets nodes go without names. Does a valid graph of unnamed Slice nodes load in every ONNX Runtime?
# Versions:  onnx 1.17.0; onnxruntime 1.17.3, 1.18.1, 1.21.1, 1.22.1; CPython 3.11, Linux x86-64.
# Behaviour: 1.17 and 1.22 load it. 1.18 and 1.21 (and those between) do not: "This is an invalid model. Error: two nodes with
#            same node name (/GatherSliceToSplitFusion/)". Slices that cut one tensor into parts are fused to a Split, which is
#            named after the Slice; two groups of unnamed ones get one name. With names the same graph loads everywhere.
# Users:     give every node a name before a graph goes to a device with 1.18 to 1.21 (this project does), or switch off the
#            optimizer GatherSliceToSplitFusion there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.17.0 numpy==1.26.4
for version in 1.17.3 1.18.1 1.21.1 1.22.1; do install "ort-$version" "onnxruntime==$version" numpy==1.26.4; done

cat > make.py <<'PY'
import numpy as np
import onnx
from onnx import helper, numpy_helper

for named in (False, True):
    nodes, inputs, outputs, constants = [], [], [], []
    for group in "ab":  # each is cut into two halves
        inputs.append(helper.make_tensor_value_info(group, 1, [2, 8]))
        for start in (0, 4):
            ends = []
            for kind, value in (("from", start), ("to", start + 4), ("axis", 1)):
                ends.append(f"{group}{start}{kind}")
                constants.append(numpy_helper.from_array(np.array([value]), ends[-1]))
            part = f"{group}{start}"
            nodes.append(helper.make_node("Slice", [group, *ends], [part], name=f"slice_{part}" if named else None))
            nodes.append(helper.make_node("Relu", [part], [f"{part}_out"], name=f"relu_{part}" if named else None))
            outputs.append(helper.make_tensor_value_info(f"{part}_out", 1, [2, 4]))
    graph = helper.make_graph(nodes, "halves", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "named.onnx" if named else "unnamed.onnx")
PY
cat > load.py <<'PY'
import sys

import onnxruntime

onnxruntime.set_default_logger_severity(4)
for name in ("unnamed", "named"):
    try:
        onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
        print(onnxruntime.__version__, name, "loads")
    except Exception as error:
        print(onnxruntime.__version__, name, "refused:", "two nodes with same node name" in str(error))
PY
PYTHONPATH=tools python3 make.py
for version in 1.17.3 1.18.1 1.21.1 1.22.1; do PYTHONPATH="ort-$version" python3 load.py; done | tee seen
diff seen - <<'SEEN'
1.17.3 unnamed loads
1.17.3 named loads
1.18.1 unnamed refused: True
1.18.1 named loads
1.21.1 unnamed refused: True
1.21.1 named loads
1.22.1 unnamed loads
1.22.1 named loads
SEEN
echo "as described"
