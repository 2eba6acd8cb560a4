"""What ONNX Runtime would compute in fewer bits than a graph says, kept from it.

ONNX Runtime quantizes by itself what it finds between a DequantizeLinear and a QuantizeLinear: the float weights of a Conv,
ConvTranspose or Gemm become int8 there, with one scale for all channels (weight_bias_quantization.cc; since 1.20). A node
that was excluded for its sensitivity is then quantized after all, and worse than by any quantizer: in a depthwise network, one
such node lowered the accuracy from 83 % to 2 %. A Clip without limits between the two computes nothing, and ends that.

It also moves pairs past nodes that only move values, up to all that reads what they make (qdq_propagation.cc). Where the body
of an If or a Loop reads it, ONNX Runtime 1.32 looks for an input that the If has not, and writes to memory that it does not
own. A Clip ends that as well.

A product whose activation has 16 bits has no integer kernel. ONNX Runtime 1.32 makes it, with the DequantizeLinear of its
weight, a MatMulNBits that rounds the activation to 8 bits (findings/stored_weights_bring_8_bit_activations.sh). A Clip behind
that DequantizeLinear keeps the product float, as it was before 1.32.
"""

from collections import Counter

import onnx
from onnx import TensorProto, helper

from pipeline.graph.subgraph_scopes import Names, outer_scope_inputs, replace_nodes
from pipeline.quantize.weight_storage import restored_weights

TAKEN = frozenset({"Conv", "ConvTranspose", "Gemm"})  # what ONNX Runtime quantizes by itself
MOVED_PAST = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Expand", "Tile", "Gather"}
)
PRODUCTS = frozenset({"MatMul", "Gemm"})  # what becomes a MatMulNBits
SIXTEEN_BITS = (TensorProto.INT16, TensorProto.UINT16)
CUTTING = frozenset({"Relu", "Clip"})  # a QuantizeLinear takes these in, and then stands next to the node before


def keep_float(model: onnx.ModelProto) -> int:
    """Part nodes from a DequantizeLinear that they read, where ONNX Runtime would compute them in fewer bits, in place.

    These are float nodes before a QuantizeLinear or a body, and products whose activation has 16 bits.

    Returns:
        The number of nodes that were parted.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    constants = {*tensors, *(restored_weights(graph.node, tensors).keys() - dequantized)}
    outputs = Counter(output.name for output in graph.output)
    captured = set().union(*map(outer_scope_inputs, graph.node))

    def is_quantized(tensor: str) -> bool:
        """Return whether all that reads a tensor is one QuantizeLinear, or a Relu or Clip before one."""
        if outputs[tensor] or len(readers.get(tensor, [])) != 1:
            return False
        [reader] = readers[tensor]
        return reader.op_type == "QuantizeLinear" or (reader.op_type in CUTTING and is_quantized(reader.output[0]))

    def is_taken(node: onnx.NodeProto) -> bool:
        before = makers.get(node.input[0])
        float_weights = len(node.input) > 1 and node.input[1] in constants
        restored = before is not None and before.op_type == "DequantizeLinear"
        return float_weights and restored and is_quantized(node.output[0])

    def reaches_a_body(tensor: str) -> bool:
        """Return whether the body of a node reads a tensor, or what is moved of it."""
        moving = (node for node in readers.get(tensor, []) if node.op_type in MOVED_PAST)
        return tensor in captured or any(reaches_a_body(output) for node in moving for output in node.output)

    def is_moved_into_a_body(node: onnx.NodeProto) -> bool:
        before = makers.get(node.input[0]) if node.input else None
        restored = before is not None and before.op_type == "DequantizeLinear"
        return restored and any(reaches_a_body(tensor) for tensor in node.output)

    def is_cut_to_8_bits(node: onnx.NodeProto) -> bool:
        before, weight = (makers.get(name) for name in node.input[:2])
        if node.input[1] not in dequantized or weight is None or weight.input[0] not in tensors or before is None:
            return False
        if before.op_type != "DequantizeLinear" or len(before.input) < 3:
            return False
        zero_point = tensors.get(before.input[2])
        return zero_point is not None and zero_point.data_type in SIXTEEN_BITS

    names, nodes, parted = Names(graph), [], 0
    for node in graph.node:
        moved = bool(captured) and node.op_type in MOVED_PAST and is_moved_into_a_body(node)
        taken = node.op_type in TAKEN and is_taken(node)
        cut = node.op_type in PRODUCTS and is_cut_to_8_bits(node)
        if moved or taken or cut:
            place = 1 if cut else 0
            apart = names.fresh(f"{node.input[place]}_kept_float")
            nodes.append(helper.make_node("Clip", [node.input[place]], [apart], name=names.fresh(f"{node.name}_kept_float")))
            node.input[place] = apart
            parted += 1
        nodes.append(node)
    if parted:
        replace_nodes(graph, [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes])
    return parted
