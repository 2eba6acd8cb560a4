"""What ONNX Runtime's quantizer of integer operators gets wrong, or fails at, and therefore is not given.

Found in ONNX Runtime 1.32.0 (onnxruntime/quantization); each is a node that stays float with the reason.
"""

from collections import Counter
from collections.abc import Collection

import onnx

from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.quantize.operators import NO_VECTOR, computed_from_constants, cuts_as_a_range_does, has_vector_bias


def without_integer_operator(model: onnx.ModelProto, nodes: Collection[str], *, per_channel: bool) -> dict[str, str]:
    """Return those of the nodes that have no integer operator, or a wrong one, each with the reason why it stays float.

    Args:
        model: the prepared graph.
        nodes: names of nodes of its top-level graph.
        per_channel: weights get a scale per output channel.
    """
    computed = computed_from_constants(model.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(tensor for node in model.graph.node for tensor in set(input_tensors(node)))
    readers.update(value.name for value in model.graph.output)
    found = {}
    for node in model.graph.node:
        if node.name in nodes and (reason := _reason(node, computed, constants, readers, per_channel=per_channel)):
            found[node.name] = reason
    return found


def _reason(
    node: onnx.NodeProto,
    computed: set[str],
    constants: dict[str, onnx.TensorProto],
    readers: Counter[str],
    *,
    per_channel: bool,
) -> str | None:
    if tensors := computed.intersection((*node.input, *node.output)):
        return f"its input {min(tensors)!r} is computed from constants alone"
    if node.op_type == "Gemm" and not has_vector_bias(node, constants):
        return NO_VECTOR
    if node.op_type == "MatMul" and per_channel:
        axes = [len(constants[tensor].dims) for tensor in node.input if tensor in constants and constants[tensor].dims]
        if any(count != 2 for count in axes):  # quantize_linear_matmul.cc takes the scales of a matrix only
            return (
                "its weight is no matrix, which QLinearMatMul has no scale per channel for; mode.per_channel=false gives it one"
            )
    if node.op_type in ("Relu", "Clip"):
        # The quantizer drops it, and cuts by the range of what it reads (operators/activation.py): the other readers of
        # that would be cut as well, or, where they keep its range, nothing would.
        if readers[node.input[0]] > 1:
            return f"others read {node.input[0]!r} without this {node.op_type}, which would be left out"
        if not cuts_as_a_range_does(node, constants):
            return "its limits are not those of a range, and it would be left out"
    return None
