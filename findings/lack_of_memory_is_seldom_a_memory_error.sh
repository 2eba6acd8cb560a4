#!/usr/bin/env bash
# Question:  A program reads ONNX files and runs them with ONNX Runtime, under a limit of memory. Does `except MemoryError` see
#            that the limit was met?
# Versions:  onnxruntime 1.32.0, protobuf 7.36.2, onnx 1.23.2, numpy 2.4.6; CPython 3.11, Linux.
# Behaviour: Of numpy alone. protobuf raises the DecodeError of a damaged file ("Error parsing message ... Arena alloc failed").
#            ONNX Runtime raises Fail ("FAIL"), as for a graph that is wrong, and names the node that was running. A shared
#            library that cannot be mapped is an OSError without a number (errno is None) from ctypes.
# Users:     a whole model was said to be no ONNX file, and a node was to be excluded that was not at fault. This project looks
#            for the words in the whole chain of causes (pipeline/outside_errors.py).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target tools \
  onnxruntime==1.32.0 protobuf==7.36.2 onnx==1.23.2 numpy==2.4.6

cat > short.py <<'PY'
import ctypes
import resource

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

nodes = [helper.make_node("Identity", ["x"], ["y"])] * 200_000
parsed = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
value = helper.make_tensor_value_info
expand = helper.make_graph(
    [helper.make_node("Expand", ["one", "shape"], ["y"], name="blamed")], "g", [value("shape", 7, [1])], [value("y", 1, ["n"])],
    [helper.make_tensor("one", 1, [1], [1.0])],
)
model = helper.make_model(expand, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = ort.InferenceSession(model.SerializeToString())


def now(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


open("no_room.so", "wb").write(open(ort.capi.onnxruntime_pybind11_state.__file__, "rb").read())
resource.setrlimit(resource.RLIMIT_DATA, (now("VmData:") + (4 << 20),) * 2)


def tell(what, act):
    try:
        act()
    except Exception as error:
        said, number = str(error), error.errno if isinstance(error, OSError) else "-"
        words = ("Unable to allocate", "Arena alloc failed", "Failed to allocate memory", "failed to map segment")
        known = next(known for known in words if known in said)
        print(f"{what}: {type(error).__name__} MemoryError={isinstance(error, MemoryError)} errno={number} "
              f"node={'blamed' in said}: {known}")


tell("numpy", lambda: np.zeros(10**8))
tell("protobuf", lambda: onnx.ModelProto().ParseFromString(parsed))
tell("onnxruntime", lambda: session.run(None, {"shape": np.array([10**8])}))
resource.setrlimit(resource.RLIMIT_AS, (now("VmSize:") + (4 << 20),) * 2)  # as `ulimit -v` does
tell("ctypes", lambda: ctypes.CDLL("./no_room.so"))
PY
PYTHONPATH=tools ORT_DISABLE_TELEMETRY=1 python3 short.py 2> complained | tee seen
diff seen - <<'SEEN'
numpy: MemoryError MemoryError=True errno=- node=False: Unable to allocate
protobuf: DecodeError MemoryError=False errno=- node=False: Arena alloc failed
onnxruntime: Fail MemoryError=False errno=- node=True: Failed to allocate memory
ctypes: OSError MemoryError=False errno=None node=False: failed to map segment
SEEN
echo "as described"
