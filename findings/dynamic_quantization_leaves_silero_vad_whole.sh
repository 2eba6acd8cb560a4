#!/usr/bin/env bash
# Question:  Does quantize_dynamic make the most used voice activity detector, Silero VAD, smaller?
# Versions:  silero-vad 6.2.3, onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: no. The graph is one If (8 or 16 kHz) whose branches hold all layers, and their weights as Constant nodes. Without
#            extra_options nothing inside a branch is looked at: the "int8" file is 2 % larger than the original, holds no
#            integer weight, and no word is said. With EnableSubgraph=True, the option for it, the quantizer ends with a
#            ValueError, since it wants each weight to be an initializer.
# Users:     look at the size of what is called int8. Turn Constant nodes of branches into initializers first, or fix the rate so
#            that the If folds away; this project does both (`model.fixed_inputs={sr: 16000}`).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages \
  onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 onnx-ir==1.1.0
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages --no-deps silero-vad==6.2.3

cat > look.py <<'PY'
import contextlib
import io
import logging
import os

import numpy as np
import onnx
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)
FILE, LARGE = "packages/silero_vad/data/silero_vad.onnx", 1000
NAMES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8"}


def weights(graph):
    """Count the values of large weights by type, those of branches included."""
    found = {}
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensors.append(attribute.t)
            if attribute.HasField("g"):
                for kind, count in weights(attribute.g).items():
                    found[kind] = found.get(kind, 0) + count
    for tensor in tensors:
        if np.prod(tensor.dims) > LARGE:
            kind = NAMES.get(tensor.data_type, "another")
            found[kind] = found.get(kind, 0) + int(np.prod(tensor.dims))
    return found


before = onnx.load(FILE).graph
print(f"outermost layers: {sorted({node.op_type for node in before.node})}; large weights: {weights(before)}")
quantize_dynamic(FILE, "plain.onnx")
after = weights(onnx.load("plain.onnx").graph)
size = os.path.getsize("plain.onnx") / os.path.getsize(FILE)
print(f"quantize_dynamic: {size:.2f} of the bytes; large weights: {after}")
try:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the names and types of a node
        quantize_dynamic(FILE, "inside.onnx", extra_options={"EnableSubgraph": True})
    told = "no error"
except ValueError as error:
    told = f"ValueError: {' '.join(str(error).split())[-60:]}"
print(f"with EnableSubgraph=True: {told}")
assert size > 1 and set(after) == {"float32"} and told.endswith("to be an initializer"), "it has changed"
PY
PYTHONPATH=packages python3 look.py 2> /dev/null
