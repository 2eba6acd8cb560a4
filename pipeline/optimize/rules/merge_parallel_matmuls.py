"""Products of one tensor with several weights, split into heads in the same way, as one product.

    transpose(reshape(x w1)), transpose(reshape(x w2)), ... = split(transpose(reshape(x (w1 w2 ...))))

Every layer of attention by relative distances multiplies the same sinusoids of distances with a weight of its own (Dai et al.
2019, "Transformer-XL", section 3.3): small products, whose launch takes as long as the arithmetic.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome

LEAST = 2  # products of one tensor


@dataclass(frozen=True)
class _Heads:
    """A product, and the nodes after it that form its heads."""

    product: onnx.NodeProto
    cut: onnx.NodeProto
    transpose: onnx.NodeProto


def rewrite(graph: Graph) -> Outcome:
    """Compute such products at once; return the number of products that are now parts of another."""
    by_form: dict[tuple[object, ...], list[_Heads]] = {}
    for node in graph.nodes:
        if (found := _heads(graph, node)) is not None:
            weight, shape = _weight(graph, node), _shape(graph, found.cut)
            key = (node.input[0], weight.shape, tuple(shape), tuple(attribute(found.transpose, "perm")))
            by_form.setdefault(key, []).append(found)
    groups = [group for group in by_form.values() if len(group) >= LEAST]
    for group in groups:
        _join(graph, group)
    return outcome(sum(map(len, groups)), "no products of one tensor that are split into heads in the same way")


def _heads(graph: Graph, node: onnx.NodeProto) -> _Heads | None:
    if node.op_type != "MatMul" or (weight := graph.constant(node.input[1])) is None:
        return None
    if weight.ndim != 2 or weight.dtype != np.float32 or graph.constant(node.input[0]) is not None:
        return None
    cut = graph.only_consumer(node.output[0], "Reshape")
    transpose = graph.only_consumer(cut.output[0], "Transpose") if cut is not None else None
    if cut is None or transpose is None or cut.input[0] != node.output[0] or attribute(transpose, "perm") is None:
        return None
    shape = graph.constant(cut.input[1])
    if shape is None or len(shape) < 3 or min(shape[-2:]) < 1 or shape[-2] * shape[-1] != weight.shape[1]:
        return None
    return _Heads(node, cut, transpose)


def _join(graph: Graph, group: list[_Heads]) -> None:
    first = group[0]
    weights = np.concatenate([_weight(graph, heads.product) for heads in group], axis=1)
    shape = _shape(graph, first.cut).copy()
    of_one, perm = int(shape[-2]), attribute(first.transpose, "perm")
    shape[-2] *= len(group)
    like = first.product.name
    product = graph.add_node(
        "MatMul", [first.product.input[0], graph.add_initializer(weights, f"{first.product.input[1]}_together")], like=like
    )
    cut = graph.add_node("Reshape", [product, graph.add_initializer(shape, "shape")], like=like)
    swapped = graph.add_node("Transpose", [cut], like=like, perm=perm)
    outputs = [heads.transpose.output[0] for heads in group]
    lengths, axis = [of_one] * len(group), perm.index(len(perm) - 2)
    for heads in group:
        graph.remove(heads.product, heads.cut, heads.transpose)
    if graph.opset < 13:
        graph.add_node("Split", [swapped], outputs, like=like, axis=axis, split=lengths)
    else:
        # not "splits": ONNX Runtime 1.18 gives that name to a constant of its own, and then refuses the graph
        sizes = graph.add_initializer(np.array(lengths, np.int64), f"{like}_sizes")
        graph.add_node("Split", [swapped, sizes], outputs, like=like, axis=axis)


def _weight(graph: Graph, product: onnx.NodeProto) -> Array:
    return np.asarray(graph.constant(product.input[1]))


def _shape(graph: Graph, cut: onnx.NodeProto) -> Array:
    return np.asarray(graph.constant(cut.input[1]))
