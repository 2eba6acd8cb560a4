#!/usr/bin/env bash
# Question:  A recurrent layer whose direction is "reverse" reads its frames from the last to the first: half of a bidirectional
#            layer that an exporter wrote as two. Does tract, a runtime for small devices, read them so?
# Versions:  tract 0.23.0 and 0.23.9, openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: no. LSTM, GRU and RNN load, run, and give what the same layer gives with direction "forward": no error, no message,
#            the right shapes. ONNX Runtime and OpenVINO go backwards. In one node with direction "bidirectional" tract's second
#            half goes backwards as well; it is "reverse" alone that is not read.
# Users:     for tract write the two halves as one bidirectional node, and compare one sample with ONNX Runtime: forward layers
#            are right, which says nothing of the others.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
install openvino-2026.4.1 openvino==2026.4.1 numpy==2.4.6
for version in 0.23.0 0.23.9; do install "tract-$version" --no-deps "tract==$version"; done

cat > make.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HIDDEN, INPUTS, FRAMES = 4, 3, 5
rng = np.random.default_rng(0)
x = rng.normal(size=(FRAMES, 1, INPUTS)).astype(np.float32)
start = {name: rng.normal(size=(2, 1, HIDDEN)).astype(np.float32) for name in ("h", "c")}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
for op_type, gates in GATES.items():
    weights = {
        "W": rng.normal(size=(2, gates * HIDDEN, INPUTS)), "R": rng.normal(size=(2, gates * HIDDEN, HIDDEN)),
        "B": rng.normal(size=(2, 2 * gates * HIDDEN)),
    }
    for direction in ("forward", "reverse", "bidirectional"):
        halves = 2 if direction == "bidirectional" else 1
        states = ["h", "c"] if op_type == "LSTM" else ["h"]
        attributes = {"hidden_size": HIDDEN, "direction": direction}
        if op_type == "GRU":
            attributes["linear_before_reset"] = 1  # as PyTorch exports it
        feeds = {"x": x} | {name: start[name][:halves] for name in states}
        graph = helper.make_graph(
            [helper.make_node(op_type, ["x", "W", "R", "B", "", *states], ["y"], name="layer", **attributes)], "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in feeds.items()],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [FRAMES, halves, 1, HIDDEN])],
            [numpy_helper.from_array(value[:halves].astype(np.float32), key) for key, value in weights.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        onnx.save(made, f"{op_type}-{direction}.onnx")
        session = onnxruntime.InferenceSession(f"{op_type}-{direction}.onnx", providers=["CPUExecutionProvider"])
        np.savez(f"{op_type}-{direction}.npz", y=session.run(None, feeds)[0], **feeds)
PY
cat > run.py <<'PY'
import sys

import numpy as np

runtime = sys.argv[1]


def of_tract(name, feeds):
    import tract

    return tract.onnx().load(f"{name}.onnx").into_model().into_runnable().run(list(feeds.values()))[0].to_numpy()


def of_openvino(name, feeds):
    import openvino

    compiled = openvino.Core().compile_model(f"{name}.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return next(iter(compiled(feeds).values()))


RUN = {"tract": of_tract, "openvino": of_openvino}
for op_type in ("LSTM", "GRU", "RNN"):
    told = []
    for direction in ("forward", "reverse", "bidirectional"):
        name = f"{op_type}-{direction}"
        feeds = dict(np.load(f"{name}.npz"))
        expected = feeds.pop("y")
        output = RUN[runtime](name, feeds)
        if np.allclose(output, expected, atol=1e-4):
            told.append(f"{direction} as ONNX Runtime")
        elif direction == "reverse" and np.allclose(output, np.load(f"{op_type}-forward.npz")["y"], atol=1e-4):
            told.append("reverse as forward")
        else:
            told.append(f"{direction} otherwise")
    print(f"  {op_type}: {', '.join(told)}")
PY
PYTHONPATH=tools ORT_DISABLE_TELEMETRY=1 python3 make.py 2>/dev/null
for runtime in tract-0.23.0 tract-0.23.9 openvino-2026.4.1; do
  echo "$runtime"
  PYTHONPATH="$runtime:tools" python3 run.py "${runtime%%-*}" 2>complained | grep '^  '
done | tee seen
diff seen - <<'SEEN'
tract-0.23.0
  LSTM: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
  GRU: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
  RNN: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
tract-0.23.9
  LSTM: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
  GRU: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
  RNN: forward as ONNX Runtime, reverse as forward, bidirectional as ONNX Runtime
openvino-2026.4.1
  LSTM: forward as ONNX Runtime, reverse as ONNX Runtime, bidirectional as ONNX Runtime
  GRU: forward as ONNX Runtime, reverse as ONNX Runtime, bidirectional as ONNX Runtime
  RNN: forward as ONNX Runtime, reverse as ONNX Runtime, bidirectional as ONNX Runtime
SEEN
echo "as described"
