#!/usr/bin/env bash
# Question:  A product whose weight is the first operand, W x, as exporters write a vocabulary head that shares its weight with the
#            embedding: (E x^T)^T. Does quantize_dynamic quantize it?
# Versions:  onnx 1.23.2, onnxruntime 1.32.0; CPython 3.11, Linux x86-64.
# Behaviour: no. It takes a weight that is the second operand alone, says nothing, and writes a file of the same size. The same
#            product written as x W^T becomes MatMulInteger, at a quarter of the bytes.
# Users:     the int8 decoders of Whisper that are made so keep the head in fp32: 79.7 of 89.7 MB of tiny.en. Rewrite the product
#            first (this project does), and look at the size of what is called int8.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages \
  onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 onnx-ir==1.1.0

cat > look.py <<'PY'
import logging
import os

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
table = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)


def written(name, nodes, weight):
    ends = [helper.make_tensor_value_info("x", 1, [1, "n", 64])], [helper.make_tensor_value_info("y", 1, [1, "n", 2000])]
    graph = helper.make_graph(nodes, name, *ends, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{name}.onnx")
    quantize_dynamic(f"{name}.onnx", f"{name}.int8.onnx", op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    kinds = [node.op_type for node in onnx.load(f"{name}.int8.onnx").graph.node]
    share = os.path.getsize(f"{name}.int8.onnx") / os.path.getsize(f"{name}.onnx")
    print(f"{name}: {'an' if 'MatMulInteger' in kinds else 'no'} integer product, {share:.2f} of the bytes")
    return "MatMulInteger" in kinds


turn = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["weight", "t"], ["p"])]
back = helper.make_node("Transpose", ["p"], ["y"], perm=[0, 2, 1])
left = written("weight_first", [*turn, back], table)
right = written("weight_second", [helper.make_node("MatMul", ["x", "weight"], ["y"])], np.ascontiguousarray(table.T))
assert right and not left, "it has changed"
PY
PYTHONPATH=packages python3 look.py
