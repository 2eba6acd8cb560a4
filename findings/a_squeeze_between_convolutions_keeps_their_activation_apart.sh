#!/usr/bin/env bash
# Question:  A 1-D convolution is often exported as a 2-D one: Conv, Squeeze, Relu, Unsqueeze, Conv. The two in between move no
#            value. Does ONNX Runtime, or a simplifier before it, see that, and fuse the Relu as in Conv, Relu, Conv?
# Versions:  onnxruntime 1.28.0 and 1.32.0, onnxsim 0.8.1, onnxslim 0.1.98, onnx 1.23.2; CPython 3.11, Linux x86-64.
# Behaviour: no, at no level of optimization, with all shapes fixed. The Relu stays a node, and at the default level the blocked
#            layout of the Convs is left and entered again at each one: 9 nodes run in the place of 4. Not even Squeeze and
#            Unsqueeze side by side are removed by ONNX Runtime. Of the two simplifiers only onnxsim does that, and neither does
#            anything about a Relu between them. Two Transposes that undo each other are removed by ONNX Runtime around a Relu
#            too; a single one that moves nothing but axes of length 1 is kept by all three. The numbers are the same.
# Users:     remove them from the file before it is quantized or shipped, and count the operators of the graph as loaded
#            (optimized_model_filepath). This project merges such operators (`merge_views`).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$@"; }
install tools onnx==1.23.2 onnxruntime==1.32.0 onnxsim==0.8.1 onnxslim==0.1.98
install ort-1.28.0 --no-deps onnxruntime==1.28.0
mkdir ort-1.32.0

cat > run.py <<'PY'
import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnx import TensorProto, helper, numpy_helper

CHANNELS, FRAMES = 32, 100
SHAPE = [1, CHANNELS, 1, FRAMES]
rng = np.random.default_rng(0)
x = rng.normal(size=SHAPE).astype(np.float32)
weights = {name: (0.1 * rng.normal(size=(CHANNELS, CHANNELS, 1, 3))).astype(np.float32) for name in ("first", "second")}
# what stands between two Convs: an operator, its other input, its attributes
relu, squeeze, unsqueeze = ("Relu", [], {}), ("Squeeze", ["axis"], {}), ("Unsqueeze", ["axis"], {})
swap, ones = ("Transpose", [], {"perm": [0, 2, 1, 3]}), ("Transpose", [], {"perm": [2, 1, 0, 3]})
BETWEEN = {
    "Relu": [relu],
    "Squeeze, Relu, Unsqueeze": [squeeze, relu, unsqueeze],
    "Relu, Squeeze, Unsqueeze": [relu, squeeze, unsqueeze],
    "Transpose, Relu, Transpose back": [swap, relu, swap],
    "Transpose of axes of length 1, Relu": [ones, relu],
}
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def model(between):
    conv = {"pads": [0, 1, 0, 1]}
    nodes, tensor = [helper.make_node("Conv", ["x", "first"], ["t0"], **conv)], "t0"
    for op_type, others, attributes in between:
        nodes.append(helper.make_node(op_type, [tensor, *others], [tensor := f"t{len(nodes)}"], **attributes))
    nodes.append(helper.make_node("Conv", [tensor, "second"], ["y"], **conv))
    constants = weights | ({"axis": np.array([2])} if squeeze in between else {})
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made, full_check=True)
    return made


def said(graph):
    """Return the operators, one with an activation of its own as `Conv+Relu`."""
    names = []
    for node in graph.node:
        within = [attribute.s.decode() for attribute in node.attribute if attribute.name == "activation"]
        names.append("+".join([node.op_type, *within]))
    return " ".join(names)


def loaded(file, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.optimized_model_filepath = "loaded.onnx"
    session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return said(onnx.load("loaded.onnx").graph), session.run(None, {"x": x})[0]


print("onnxruntime", onnxruntime.__version__)
_, expected = loaded(model([relu]), LEVELS["basic"])
for name, between in BETWEEN.items():
    print(f"  {name}")
    outputs = []
    for level, value in LEVELS.items():
        operators, output = loaded(model(between), value)
        outputs.append(output)
        print(f"    {level}: {operators}")
    for tool, simplify in (("onnxsim", lambda file: onnxsim.simplify(file)[0]), ("onnxslim", onnxslim.slim)):
        file = simplify(model(between))
        operators, output = loaded(file, LEVELS["all"])
        outputs.append(output)
        print(f"    {tool}: {said(file.graph)}; then all: {len(operators.split())} nodes")
    print("    the same numbers:", all(np.allclose(output, expected, atol=1e-5) for output in outputs))
PY
for version in 1.28.0 1.32.0; do PYTHONPATH="ort-$version:tools" ORT_DISABLE_TELEMETRY=1 python3 run.py 2>/dev/null; done | tee seen
diff seen - <<'SEEN'
onnxruntime 1.28.0
  Relu
    basic: Conv Relu Conv
    extended: FusedConv+Relu Conv
    all: ReorderInput Conv+Relu Conv ReorderOutput
    onnxsim: Conv Relu Conv; then all: 4 nodes
    onnxslim: Conv Relu Conv; then all: 4 nodes
    the same numbers: True
  Squeeze, Relu, Unsqueeze
    basic: Conv Squeeze Relu Unsqueeze Conv
    extended: Conv Squeeze Relu Unsqueeze Conv
    all: ReorderInput Conv ReorderOutput Squeeze Relu Unsqueeze ReorderInput Conv ReorderOutput
    onnxsim: Conv Squeeze Relu Unsqueeze Conv; then all: 9 nodes
    onnxslim: Conv Squeeze Relu Unsqueeze Conv; then all: 9 nodes
    the same numbers: True
  Relu, Squeeze, Unsqueeze
    basic: Conv Relu Squeeze Unsqueeze Conv
    extended: FusedConv+Relu Squeeze Unsqueeze Conv
    all: ReorderInput Conv+Relu ReorderOutput Squeeze Unsqueeze ReorderInput Conv ReorderOutput
    onnxsim: Conv Relu Conv; then all: 4 nodes
    onnxslim: Conv Relu Squeeze Unsqueeze Conv; then all: 8 nodes
    the same numbers: True
  Transpose, Relu, Transpose back
    basic: Conv Relu Conv
    extended: FusedConv+Relu Conv
    all: ReorderInput Conv+Relu Conv ReorderOutput
    onnxsim: Conv Transpose Relu Transpose Conv; then all: 4 nodes
    onnxslim: Conv Transpose Relu Transpose Conv; then all: 4 nodes
    the same numbers: True
  Transpose of axes of length 1, Relu
    basic: Conv Transpose Relu Conv
    extended: Conv Transpose Relu Conv
    all: ReorderInput Conv ReorderOutput Transpose Relu ReorderInput Conv ReorderOutput
    onnxsim: Conv Transpose Relu Conv; then all: 8 nodes
    onnxslim: Conv Transpose Relu Conv; then all: 8 nodes
    the same numbers: True
onnxruntime 1.32.0
  Relu
    basic: Conv Relu Conv
    extended: FusedConv+Relu Conv
    all: ReorderInput Conv+Relu Conv ReorderOutput
    onnxsim: Conv Relu Conv; then all: 4 nodes
    onnxslim: Conv Relu Conv; then all: 4 nodes
    the same numbers: True
  Squeeze, Relu, Unsqueeze
    basic: Conv Squeeze Relu Unsqueeze Conv
    extended: Conv Squeeze Relu Unsqueeze Conv
    all: ReorderInput Conv ReorderOutput Squeeze Relu Unsqueeze ReorderInput Conv ReorderOutput
    onnxsim: Conv Squeeze Relu Unsqueeze Conv; then all: 9 nodes
    onnxslim: Conv Squeeze Relu Unsqueeze Conv; then all: 9 nodes
    the same numbers: True
  Relu, Squeeze, Unsqueeze
    basic: Conv Relu Squeeze Unsqueeze Conv
    extended: FusedConv+Relu Squeeze Unsqueeze Conv
    all: ReorderInput Conv+Relu ReorderOutput Squeeze Unsqueeze ReorderInput Conv ReorderOutput
    onnxsim: Conv Relu Conv; then all: 4 nodes
    onnxslim: Conv Relu Squeeze Unsqueeze Conv; then all: 8 nodes
    the same numbers: True
  Transpose, Relu, Transpose back
    basic: Conv Relu Conv
    extended: FusedConv+Relu Conv
    all: ReorderInput Conv+Relu Conv ReorderOutput
    onnxsim: Conv Transpose Relu Transpose Conv; then all: 4 nodes
    onnxslim: Conv Transpose Relu Transpose Conv; then all: 4 nodes
    the same numbers: True
  Transpose of axes of length 1, Relu
    basic: Conv Transpose Relu Conv
    extended: Conv Transpose Relu Conv
    all: ReorderInput Conv ReorderOutput Transpose Relu ReorderInput Conv ReorderOutput
    onnxsim: Conv Transpose Relu Conv; then all: 8 nodes
    onnxslim: Conv Transpose Relu Conv; then all: 8 nodes
    the same numbers: True
SEEN
echo "as described"
