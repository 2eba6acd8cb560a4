"""Constants that are stored as integers beside the weights of layers: tables, positions, biases, norms.

Of the bytes that layers leave, tables and positions are most: 41 % of a voice activity detector (weights that its two branches
slice), 23 % of a streaming encoder, half of a transducer's decoder. Whatever reads them gets a float constant as before: ONNX
Runtime restores it when it opens the file, in the bodies of If, Loop and Scan too.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.op_sets import STORABLE, weight_inputs
from pipeline.graph.shape_deciding import DISCRETE_OPS, NO_DATA, shape_deciding_nodes
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.matrix_form import HEAD
from pipeline.quantize.plan import FLOAT_BYTES, NODE_BYTES, Precision
from pipeline.quantize.weight_storage import bytes_as_integers, constant_scale_shape, restored_weights, store_constants
from pipeline.sample import Array

LEAST_VALUES = 128
# Where a value close to zero must not become zero, or one at a limit must not cross it: op type -> inputs
EXACT_INPUTS = {"BatchNormalization": (4,), "Div": (1,), "Pow": (0, 1), "Log": (0,), "Sqrt": (0,), "Reciprocal": (0,)}
WIDTHS = {Precision.weight_int8: 1, Precision.weight_int16: 2}

Saved = dict[Precision, int]
"""Bytes that are saved by each precision that saves any."""


def storable_constants(
    model: onnx.ModelProto, *, integer: Collection[str], weights_of: Collection[str], kept: Collection[str]
) -> dict[str, Saved]:
    """Return the constants that may be stored beside the weights of layers, and what each saves.

    Not what decides shapes, nor masks and counts, nor what must not become zero, such as a divisor.

    Args:
        model: a float graph; no two tensors of it have one name.
        integer: nodes that compute in integers: nothing that they read is stored.
        weights_of: layers whose weights are decided on elsewhere; the other constants that they read may be stored.
        kept: nodes that read floats as they are.
    """
    scopes = list(graphs_of(model.graph))
    given_out = {output.name for scope in scopes for output in scope.output}
    untouched = {*kept, *integer} | {name for scope in scopes for name in shape_deciding_nodes(scope)}
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in (node for scope in scopes for node in scope.node):
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    tensors = [tensor for scope in scopes for tensor in scope.initializer]
    heads = {tensor.name.partition(HEAD)[0] for tensor in tensors if HEAD in tensor.name}  # shared_tables.py knows these
    found: dict[str, Saved] = {}
    for tensor in tensors:
        uses = readers.get(tensor.name, [])
        named = tensor.name in given_out or tensor.name.partition(HEAD)[0] in heads
        if named or not uses or tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < LEAST_VALUES:
            continue
        if any(node.name in untouched or _wants_it_exact(node, place) for node, place in uses):
            continue
        if any(node.name in weights_of and place in weight_inputs(node) and node.op_type in STORABLE for node, place in uses):
            continue
        saved = bytes_saved(tensor.dims, math.prod(constant_scale_shape(*uses[0], tuple(tensor.dims))))
        if Precision.weight_int8 in saved and _may_be_rounded(numpy_helper.to_array(tensor)):
            found[tensor.name] = saved
    return found


def bytes_saved(dims: Collection[int], scales: int) -> Saved:
    """Return what a weight of this shape saves in each width, with so many scales, where that is anything."""
    values = math.prod(dims)
    saved = {
        precision: FLOAT_BYTES * values - bytes_as_integers(values, scales, width) - NODE_BYTES
        for precision, width in WIDTHS.items()
    }
    return {precision: count for precision, count in saved.items() if count > 0}


def store_chosen(model: onnx.ModelProto, constants: Mapping[str, Precision], original: onnx.ModelProto) -> None:
    """Store constants of a float graph where the same nodes read them in a graph made of it, in place.

    A layout may have put others, which it has rearranged, in their place. What no such node reads as a float stays as it is.
    """
    if not constants:
        return
    readers = {
        name: (node.name, place)
        for node in reversed(_nodes(original))
        for place, name in enumerate(node.input)
        if name in constants
    }
    nodes = {node.name: node for node in _nodes(model)}
    found: dict[str, Precision] = {}
    for name, (reader, place) in readers.items():
        if reader in nodes and place < len(nodes[reader].input):
            found[nodes[reader].input[place]] = constants[name]
    for precision, kind in ((Precision.weight_int8, IntegerType.int8), (Precision.weight_int16, IntegerType.int16)):
        store_constants(model, [name for name, chosen in found.items() if chosen is precision], kind)


def layers_of_stored(model: onnx.ModelProto) -> dict[str, Precision]:
    """Return the layers of a finished graph whose weights are restored, each with the precision of its weight.

    With a stored bias alone, a layer is what it was. Nodes that are no layers are not told: tables of nodes are of layers.
    """
    tensors = {tensor.name: tensor for scope in graphs_of(model.graph) for tensor in scope.initializer}
    nodes = _nodes(model)
    kinds = {TensorProto.INT8: Precision.weight_int8, TensorProto.INT16: Precision.weight_int16}
    restored = {name: kinds.get(tensors[source].data_type) for name, source in restored_weights(nodes, tensors).items()}
    layers = [node for node in nodes if node.op_type in STORABLE and len(node.input) > 1]
    return {node.name: kind for node in layers if (kind := restored.get(node.input[1])) is not None}


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for scope in graphs_of(model.graph) for node in scope.node]


def _wants_it_exact(node: onnx.NodeProto, place: int) -> bool:
    known = {} if node.domain else NO_DATA | EXACT_INPUTS
    return place in known.get(node.op_type, ()) or node.op_type in DISCRETE_OPS


def _may_be_rounded(values: Array) -> bool:
    """Return whether values are finite, and not whole numbers other than zero: masks, positions, counts."""
    return bool(np.isfinite(values).all() and (not values.any() or (values != np.rint(values)).any()))
