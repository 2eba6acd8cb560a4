"""What each node of a finished graph is, in words: read off the graph, since settings ask for types that not all nodes get."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from pipeline.graph.attributes import int_attribute
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.plan_check import BITS as BITS_OF
from pipeline.quantize.plan_check import original_name, weight_bits
from pipeline.quantize.weight_storage import restored_weights

BITS: dict[int, int] = {int(kind): bits for kind, bits in BITS_OF.items()}
BLOCK_OPS = ("MatMulNBits", "GatherBlockQuantized")
FLOATS: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.DOUBLE: "fp64", TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class WrittenNode:
    """The types of a node in a finished graph.

    Attributes:
        weight_bits: of its weight.
        activation_bits: of its first input, where that has a static range; None: it has none, or is a float.
        block_size: of a weight in blocks.
    """

    weight_bits: int
    activation_bits: int | None = None
    block_size: int | None = None


def precision_labels(model: onnx.ModelProto, plan: Plan) -> dict[str, str]:
    """Return what each node of a plan has become, such as `int16, static ranges`.

    A node that a rewrite has renamed cannot be found in the graph; it gets the label that most nodes of its precision have.

    Args:
        model: the finished graph.
        plan: the precision of each node that has changed.
    """
    written = written_nodes(model)
    found = {name: _label(precision, written[name]) for name, precision in plan.precisions.items() if name in written}
    labels = {}
    for name, precision in plan.precisions.items():
        others = [found[other] for other, its in plan.precisions.items() if its is precision and other in found]
        labels[name] = found.get(name) or (max(set(others), key=others.count) if others else precision.value)
    return labels


def weight_shares(model: onnx.ModelProto) -> dict[str, float]:
    """Return which share of a graph's weights each type holds, by their number of values: `int8` -> 0.97."""
    counts = {f"int{bits}": count for bits, count in sorted(weight_bits(model).items())}
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type in FLOATS:
                kind = FLOATS[tensor.data_type]
                counts[kind] = counts.get(kind, 0) + _values(tensor)
    total = sum(counts.values())
    return {kind: round(count / total, 4) for kind, count in counts.items()} if total else {}


def written_nodes(model: onnx.ModelProto) -> dict[str, WrittenNode]:
    """Return the nodes of a finished graph that have an integer weight: name in the float graph -> types."""
    graphs = list(graphs_of(model.graph))
    constants = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    nodes = [node for graph in graphs for node in graph.node]
    restored = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    stored = restored_weights(nodes, constants)
    found: dict[str, WrittenNode] = {}
    for node in nodes:
        types = _types_of(node, constants, restored, stored)
        if types is not None:
            found.setdefault(original_name(node.name), types)
    return found


def _types_of(
    node: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    restored: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, str],
) -> WrittenNode | None:
    if node.op_type in BLOCK_OPS:
        return WrittenNode(int_attribute(node, "bits", 4), None, int_attribute(node, "block_size", 0) or None)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
        return None
    weights = []
    blocks = None
    for name in node.input:
        source = restored.get(name)
        integers = constants.get(stored.get(name, name))
        if integers is not None and integers.data_type in BITS:
            weights.append(integers)
            blocks = int_attribute(source, "block_size", 0) or blocks if source is not None else blocks
    if not weights:
        return None
    weight = max(weights, key=_values)
    if len(node.input) > 1 and _values(weight) < 2 and not node.op_type.startswith("QLinear"):
        return None  # a zero point: the weight is a float
    return WrittenNode(BITS[weight.data_type], _activation_bits(node, constants, restored), blocks)


def _activation_bits(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], restored: Mapping[str, onnx.NodeProto]
) -> int | None:
    zero_point = None
    if node.op_type.startswith("QLinear") and len(node.input) > 2:
        zero_point = node.input[2]
    elif node.input and (source := restored.get(node.input[0])) is not None and source.input[0] not in constants:
        zero_point = source.input[2] if len(source.input) > 2 else None
    stored = constants.get(zero_point) if zero_point else None
    return None if stored is None else BITS.get(stored.data_type)


def _label(precision: Precision, written: WrittenNode) -> str:
    bits = f"int{written.weight_bits}"
    match precision:
        case Precision.static_int8:
            if written.activation_bits in (None, written.weight_bits):
                return f"{bits}, static ranges"
            return f"{bits} weight, int{written.activation_bits} activations, static ranges"
        case Precision.dynamic_int8:
            return f"{bits}, dynamic ranges"
        case Precision.weight_int8 | Precision.weight_int16:
            return f"{bits} weight, float computation"
        case Precision.weight_blocks:
            blocks = f" in blocks of {written.block_size}" if written.block_size else ""
            return f"{bits} weight{blocks}, float computation"
        case _:
            return str(precision.value)


def _values(tensor: onnx.TensorProto) -> int:
    values = 1
    for size in tensor.dims:
        values *= size
    return values
