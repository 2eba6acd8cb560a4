"""The written graph beside the plan: which nodes have become integers, and in how many bits.

Quantizers walk over graphs in their own ways. What a report says of a node is therefore read off the finished graph.
"""

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from pipeline.errors import StageError
from pipeline.graph.attributes import int_attribute
from pipeline.graph.large_models import bytes_of
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.weight_storage import restored_weights

INTEGER_OPS = (
    "QLinear", "MatMulInteger", "ConvInteger", "MatMulNBits", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "QGemm",
    "QAttention", "GatherBlockQuantized",
)  # fmt: skip
SUFFIXES = ("_quant", "_Q4", "_Q8")  # what quantizers append to the name of a node
BITS = {
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
}  # fmt: skip


def check_plan(model: onnx.ModelProto, original: onnx.ModelProto, plan: Plan) -> None:
    """Check that the layers of the plan are integers (or of half precision) in the finished graph, and no others.

    A layer that a rewrite has renamed or merged cannot be told, and is passed over.

    Args:
        model: the finished graph.
        original: the float graph that the plan is of.
        plan: what was planned.

    Raises:
        StageError: names the nodes for which the plan is not true.
    """
    if not plan.precisions:
        return
    known = {node.name for graph in graphs_of(original.graph) for node in graph.node if node.op_type in STORABLE and node.name}
    if Precision.fp16 in plan.precisions.values():
        changed, unchanged = _halved(model)
        changed -= _halved(original)[0]  # some graphs are of half precision in parts
    else:
        changed, unchanged = _integers(model)
        changed -= _integers(original)[0]  # some bodies hold integers already
    unplanned = sorted((changed & known) - plan.precisions.keys())
    undone = sorted(unchanged & known & plan.precisions.keys())
    if unplanned or undone:
        wrong = [f"{name} was to stay float, and did not" for name in unplanned]
        wrong += [f"{name} was to become {plan.precisions[name].value}, and stayed float" for name in undone]
        raise StageError(
            f"the finished graph is not what was planned: {'; '.join(wrong[:3])}"
            f"{f', and {len(wrong) - 3} more' if len(wrong) > 3 else ''}. Its report would be untrue, so nothing is written. "
            "Quantize other nodes (mode.nodes_to_quantize, mode.op_types); and please report this graph."
        )


def weight_bits(model: onnx.ModelProto) -> dict[int, int]:
    """Return how many values of weights a graph holds in so many bits: bits -> values."""
    counts: Counter[int] = Counter()
    packed: set[str] = set()
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.op_type == "MatMulNBits" and node.input[1] not in packed:
                counts[int_attribute(node, "bits", 4)] += int_attribute(node, "K", 0) * int_attribute(node, "N", 0)
                packed.update(node.input[1:])
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type in BITS and tensor.name not in packed:
                bits = BITS[tensor.data_type]
                counts[bits] += bytes_of(tensor) if bits == 8 else bytes_of(tensor) * 8 // max(bits, 8)
    return dict(counts)


def named_bits(wanted: str, bits: dict[int, int]) -> str:
    """Return the type that a file's name says: the wanted one, such as `int4`, unless most weights have other bits."""
    if not bits or not wanted.startswith("int"):
        return wanted
    own = bits.get(int(wanted.removeprefix("int")), 0)
    return wanted if 2 * own >= sum(bits.values()) else f"int{max(bits, key=lambda width: bits[width])}"


def _integers(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Return the original names of the layers that compute with integer weights, and of those that read float constants."""
    integer: set[str] = set()
    floating: set[str] = set()
    tensors = [tensor for graph in graphs_of(model.graph) for tensor in graph.initializer]
    constants = {tensor.name: tensor.data_type for tensor in tensors}
    restored = restored_weights(_nodes(model), {tensor.name: tensor for tensor in tensors})
    for node in _nodes(model):
        if node.op_type.startswith(INTEGER_OPS):
            integer.add(original_name(node.name))
        elif node.op_type in STORABLE and len(node.input) > 1:
            if node.input[1] in restored:
                integer.add(node.name)
            elif constants.get(node.input[1]) == TensorProto.FLOAT:
                floating.add(node.name)
    return integer, floating - integer


def _halved(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Return the names of the layers whose constants are of half precision, and of those whose are not."""
    constants = {tensor.name: tensor.data_type for graph in graphs_of(model.graph) for tensor in graph.initializer}
    half: set[str] = set()
    whole: set[str] = set()
    for node in _nodes(model):
        types = {constants[tensor] for tensor in node.input[1:2] if tensor in constants}
        if TensorProto.FLOAT16 in types:
            half.add(node.name)
        elif TensorProto.FLOAT in types:
            whole.add(node.name)
    return half, whole


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs_of(model.graph):
        yield from graph.node


def original_name(name: str) -> str:
    """Return the name that a node of a quantized graph has in the float graph."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
