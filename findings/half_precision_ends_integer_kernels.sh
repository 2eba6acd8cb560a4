#!/usr/bin/env bash
# Question:  An int8 file in Q/DQ form still holds float weights and computes much in float. Made half precision by the usual
#            converters (onnxconverter-common, ONNX Runtime's own), does it keep its integer kernels?
# Versions:  onnxconverter-common 1.16.0, onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: no. From opset 19, the first in which the scales may be float16, the file loads, and gives the same numbers to a step,
#            but ONNX Runtime fuses no pair of half precision: Conv, MatMul and Gemm, integers before, are computed in float
#            between Casts, with weights that are dequantized at each inference. To keep the pairs, or every node of the chain,
#            out of the conversion does not help: the converter then puts Casts between them. Below opset 19 the file does not load.
# Users:     do not convert an int8 file to half precision; what is to be half is not to stand beside Q/DQ pairs. Count the
#            operators of the graph as loaded (optimized_model_filepath), since the numbers do not tell.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages \
  onnxconverter-common==1.16.0 onnx==1.23.2 onnxruntime==1.32.0

cat > run.py <<'PY'
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16 as common
from onnxruntime.transformers import float16 as own

warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
x = rng.normal(size=(16, 16, 16)).astype(np.float32)
weight = rng.integers(-127, 128, (16, 16)).astype(np.int8)
node = helper.make_node
OPERATORS = {"Conv": weight[:, :, None], "MatMul": weight, "Gemm": weight}
PAIRS = ["QuantizeLinear", "DequantizeLinear"]


def model(op_type, opset=19):
    feed = x if op_type != "Gemm" else x[0]
    constants = {
        "step": np.float32(1 / 32), "zero": np.uint8(128), "w": OPERATORS[op_type], "scale": np.float32(1 / 256),
        "none": np.int8(0), "end": np.float32(1 / 8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]), node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("DequantizeLinear", ["w", "scale", "none"], ["dw"]), node(op_type, ["d", "dw"], ["o"]),
        node("QuantizeLinear", ["o", "end", "zero"], ["r"]), node("DequantizeLinear", ["r", "end", "zero"], ["y"]),
    ]
    for number, one in enumerate(nodes):
        one.name = f"node{number}"
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, feed.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, feed.shape)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made, feed


def loaded(file, feed):
    """Return what computes, in the graph as ONNX Runtime has loaded it, and the output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = "loaded.onnx"
    try:
        session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return "does not load", None
    output = session.run(None, {"x": feed})[0]
    kinds = [one.op_type for one in onnx.load("loaded.onnx").graph.node]
    [computing] = [kind for kind in kinds if any(name in kind for name in OPERATORS)]
    return f"{computing}, {kinds.count('Cast')} Casts", output


for op_type in OPERATORS:
    file, feed = model(op_type)
    kinds, expected = loaded(file, feed)
    print(f"{op_type}, as quantized: {kinds}")
    for label, convert, settings in (
        ("onnxconverter-common", common.convert_float_to_float16, {}), ("onnxruntime", own.convert_float_to_float16, {}),
        ("onnxruntime, pairs kept", own.convert_float_to_float16, {"op_block_list": PAIRS}),
        ("onnxruntime, all nodes kept", own.convert_float_to_float16, {"node_block_list": [f"node{i}" for i in range(6)]}),
    ):
        kinds, output = loaded(convert(model(op_type)[0], keep_io_types=True, **settings), feed)
        same = np.abs(output - expected).max() <= 1 / 8
        print(f"  {label}: {kinds}, {'the same numbers' if same else 'other numbers'} to a step")
    print(f"  opset 17, onnxruntime: {loaded(own.convert_float_to_float16(model(op_type, 17)[0], keep_io_types=True), feed)[0]}")
PY
PYTHONPATH=packages ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
Conv, as quantized: QLinearConv, 0 Casts
  onnxconverter-common: Conv, 4 Casts, the same numbers to a step
  onnxruntime: Conv, 4 Casts, the same numbers to a step
  onnxruntime, pairs kept: Conv, 4 Casts, the same numbers to a step
  onnxruntime, all nodes kept: Conv, 10 Casts, the same numbers to a step
  opset 17, onnxruntime: does not load
MatMul, as quantized: QLinearMatMul, 0 Casts
  onnxconverter-common: MatMul, 4 Casts, the same numbers to a step
  onnxruntime: MatMul, 4 Casts, the same numbers to a step
  onnxruntime, pairs kept: MatMul, 4 Casts, the same numbers to a step
  onnxruntime, all nodes kept: MatMul, 10 Casts, the same numbers to a step
  opset 17, onnxruntime: does not load
Gemm, as quantized: QGemm, 0 Casts
  onnxconverter-common: Gemm, 4 Casts, the same numbers to a step
  onnxruntime: Gemm, 4 Casts, the same numbers to a step
  onnxruntime, pairs kept: Gemm, 4 Casts, the same numbers to a step
  onnxruntime, all nodes kept: Gemm, 10 Casts, the same numbers to a step
  opset 17, onnxruntime: does not load
SEEN
echo "as described"
