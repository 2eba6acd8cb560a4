#!/usr/bin/env bash
# Question:  QLinearConv (static ranges) and ConvInteger (ranges at run time) multiply the same uint8 activations by the same 8-bit
#            weights. Is one type of weight, int8 or uint8, the fast one for both?
# Versions:  onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64, one thread.
# Behaviour: no, they want opposite types. A static Conv is 1.4 (AVX2) to 3 times (AMX) as fast with int8 weights as with uint8,
#            whose kernel hardly beats fp32. ConvInteger is 3 to 4 times as fast with uint8 weights as with int8, which take
#            three times as long as fp32. A file whose weights have one type throughout is slow in one of its modes.
# Users:     write int8 weights for static convolutions and uint8 ones for dynamic convolutions (this project does).
#            quantize_dynamic's default, QInt8, is the slow one.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages onnx==1.23.2 onnxruntime==1.32.0

cat > run.py <<'PY'
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CHANNELS, KERNEL, FRAMES = 64, 7, 800
rng = np.random.default_rng(0)
signed = rng.integers(-127, 128, (CHANNELS, CHANNELS, KERNEL)).astype(np.int8)
weights = {"int8": (signed, np.int8(0)), "uint8": ((signed.astype(int) + 128).astype(np.uint8), np.uint8(128))}
nodes = {
    "QLinearConv": ["x", "s", "zx", "w", "sw", "zw", "s", "zx"],
    "ConvInteger": ["x", "w", "zx", "zw"],
}


def session(op_type, kind):
    weight, zero = weights[kind]
    constants = {"s": np.float32(0.02), "zx": np.uint8(128), "w": weight, "sw": np.float32(0.001), "zw": zero}
    output = TensorProto.INT32 if op_type == "ConvInteger" else TensorProto.UINT8
    shapes = [1, CHANNELS, FRAMES], [1, CHANNELS, FRAMES - KERNEL + 1]
    graph = helper.make_graph(
        [helper.make_node(op_type, nodes[op_type], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shapes[0])],
        [helper.make_tensor_value_info("y", output, shapes[1])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items() if key in nodes[op_type]],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


x = {"x": rng.integers(0, 256, (1, CHANNELS, FRAMES)).astype(np.uint8)}
for op_type, faster, slower, at_least in (("QLinearConv", "int8", "uint8", 1.15), ("ConvInteger", "uint8", "int8", 1.7)):
    pair = [session(op_type, kind) for kind in (faster, slower)]
    outputs = [one.run(None, x)[0] for one in pair]
    spent = [[], []]
    for _ in range(60):
        for one, times in zip(pair, spent):
            start = time.process_time()
            one.run(None, x)
            times.append(time.process_time() - start)
    ratio = float(np.median(spent[1]) / np.median(spent[0]))
    same = "the same sums" if op_type == "ConvInteger" and np.array_equal(*outputs) else "the same weights"
    print(f"{op_type}: {same}, {faster} weights at least {at_least} times as fast as {slower}: {ratio > at_least}")
    print(f"  here {ratio:.2f} times", flush=True)
PY
PYTHONPATH=packages ORT_DISABLE_TELEMETRY=1 python3 run.py | tee all
grep -v "  here" all > seen
diff seen - <<'SEEN'
QLinearConv: the same weights, int8 weights at least 1.15 times as fast as uint8: True
ConvInteger: the same sums, uint8 weights at least 1.7 times as fast as int8: True
SEEN
echo "as described"
