"""Weights stored as integers, computation in float.

    weight = Cast(integers, to float) * scale        scale: one per output channel, in a shape that broadcasts

ONNX Runtime folds both operators when it loads the model, so that the node gets a constant of float32 as before: the file has a
quarter of the bytes, or half with int16, and speed and memory are those of fp32. A DequantizeLinear, which says the same, is
never folded (constant_folding.cc): it computes the weight again at each inference, and keeps kernels from packing it beforehand
(measured: 0.45 of fp32's speed for an LSTM of one step, 0.6 for a Gemm of one row, 0.7 for a Conv).
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.attributes import int_attribute
from pipeline.graph.op_sets import RECURRENT_LAYERS, STORABLE, weight_inputs
from pipeline.graph.subgraph_scopes import Names, drop_unread, graphs_of, replace_nodes
from pipeline.quantize.qparams import Integers, limits, numpy_type, qparams_of_weights
from pipeline.sample import Float32Array

SCALE_BYTES = 4
LEAST_ROW = 8  # values that share a scale, in what no layer reads

Readers = dict[tuple[str, tuple[int, ...]], list[tuple[onnx.NodeProto, int]]]
"""(Constant, shape of its scales) -> the nodes that read it, and as which input."""


def store_weights(model: onnx.ModelProto, nodes: Collection[str], kind: IntegerType = IntegerType.int8) -> None:
    """Store the weights of the named nodes as symmetric integers, one scale per output channel, in place.

    Nodes that share a weight, or have equal ones, share its integer form. They may lie in bodies of If, Loop and Scan; what is
    stored goes where the weight was: what a body alone reads is a constant of it again, for whatever ONNX Runtime does with its
    own constants only.

    Args:
        model: a graph in which no two tensors have one name, those of bodies included.
        nodes: of the types that `weight_inputs` knows, with constant weights.
        kind: int8 or int16.
    """
    scopes = list(graphs_of(model.graph))
    weights = {tensor.name: (index, tensor) for index, scope in enumerate(scopes) for tensor in scope.initializer}
    layers = [node for scope in scopes for node in scope.node if node.name in nodes]
    equal = _equal_ones([node.input[place] for node in layers for place in weight_inputs(node)], weights)
    readers: Readers = {}
    for node in layers:
        for place in weight_inputs(node):
            name = equal[node.input[place]]
            shape = scale_shape(node, tuple(weights[name][1].dims))
            readers.setdefault((name, shape), []).append((node, place))
    _restore(model, scopes, weights, readers, kind)
    drop_unread(model.graph, set(equal))


def store_constants(model: onnx.ModelProto, names: Collection[str], kind: IntegerType = IntegerType.int8) -> None:
    """Store constants as symmetric integers for all that read them, in place; a name that stands for no float is passed over.

    The scales of a weight are those of its layer; what another operator reads has one for each of its rows, see `row_shape`.

    Args:
        model: as `store_weights` takes it.
        names: of constants of the graph or of bodies in it, which none of these graphs gives out.
        kind: int8 or int16.
    """
    scopes = list(graphs_of(model.graph))
    weights = {tensor.name: (index, tensor) for index, scope in enumerate(scopes) for tensor in scope.initializer}
    wanted = {name for name in names if name in weights and weights[name][1].data_type == TensorProto.FLOAT}
    uses = [
        (node, place, name)
        for scope in scopes
        for node in scope.node
        for place, name in enumerate(node.input)
        if name in wanted
    ]
    equal = _equal_ones([name for _, _, name in uses], weights)
    shapes: dict[str, tuple[int, ...]] = {}
    readers: Readers = {}
    for node, place, name in uses:
        first = equal[name]
        shapes.setdefault(first, constant_scale_shape(node, place, tuple(weights[first][1].dims)))
        readers.setdefault((first, shapes[first]), []).append((node, place))
    _restore(model, scopes, weights, readers, kind)
    drop_unread(model.graph, wanted)


def _restore(
    model: onnx.ModelProto,
    scopes: Sequence[onnx.GraphProto],
    weights: Mapping[str, tuple[int, TensorProto]],
    readers: Readers,
    kind: IntegerType,
) -> None:
    """Let nodes read the restored form of constants, in place; the constants stay."""
    names = Names(model.graph)
    restoring: dict[int, list[onnx.NodeProto]] = {}
    for number, ((name, shape), uses) in enumerate(readers.items()):
        index, tensor = weights[name]
        integers, scale = quantize_symmetric(numpy_helper.to_array(tensor), shape, kind)
        stored = names.fresh(f"{name}_{kind.name}")
        # The names of what follows are short: in a model of 100 kB those of an exporter would take as much as they save.
        restored, scales, cast = (names.fresh(f"{stem}_{number}") for stem in ("restored", "scale", "cast"))
        scopes[index].initializer.extend([numpy_helper.from_array(integers, stored), numpy_helper.from_array(scale, scales)])
        restoring.setdefault(index, []).extend([
            helper.make_node("Cast", [stored], [cast], name=cast, to=TensorProto.FLOAT),
            helper.make_node("Mul", [cast, scales], [restored], name=restored),
        ])  # fmt: skip
        for node, place in uses:
            node.input[place] = restored
    for index in sorted(restoring, reverse=True):  # inner graphs first: a list that is written again holds copies
        replace_nodes(scopes[index], [*restoring[index], *scopes[index].node])


def _equal_ones(names: Sequence[str], weights: dict[str, tuple[int, TensorProto]]) -> dict[str, str]:
    """Return constants, each with the first that is equal to it.

    Folding gives each branch of an If its own copy. One that several graphs hold is stored in the outermost, which `weights`
    then says.
    """
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        index, tensor = weights[name]
        values = numpy_helper.to_array(tensor)
        key = (values.shape, str(values.dtype), hashlib.sha256(values.tobytes()).digest())
        found[name] = first.setdefault(key, name)
        if weights[found[name]][0] != index:
            weights[found[name]] = (0, weights[found[name]][1])
    return found


def restored_weights(nodes: Iterable[onnx.NodeProto], constants: Mapping[str, TensorProto]) -> dict[str, str]:
    """Return the tensors that are float forms of integer constants, each with its constant.

    Args:
        nodes: of a finished graph, those of its bodies included.
        constants: by name.
    """
    turned: dict[str, str] = {}  # integers that `shared_tables.py` has transposed
    cast: dict[str, str] = {}
    found: dict[str, str] = {}
    for node in nodes:
        source = node.input[0] if node.input else ""
        if node.op_type == "DequantizeLinear" and source in constants:
            found[node.output[0]] = source
        elif node.op_type == "Transpose" and source in constants and constants[source].data_type == TensorProto.INT8:
            turned[node.output[0]] = source
        elif node.op_type == "Cast" and (source := turned.get(source, source)) in constants:
            if constants[source].data_type in (TensorProto.INT8, TensorProto.INT16):
                cast[node.output[0]] = source
        elif node.op_type == "Mul" and source in cast and node.input[1] in constants:
            found[node.output[0]] = cast[source]
        elif node.op_type == "Clip" and source in found:  # of `ort_fusion_guard.py`
            found[node.output[0]] = found[source]
    return found


def output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a layer's weight that counts output channels, or inputs in a grouped ConvTranspose."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 0 if int_attribute(node, "group", 1) > 1 else 1
        case "Gemm":
            return 0 if int_attribute(node, "transB", 0) else 1
        case _:
            return rank - 1


def scale_shape(node: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the scales that a node's weight of this shape gets: 1 where an axis shares one.

    That is one per output channel: of a recurrent layer for each row of each gate and direction, of a table for each entry.
    """
    if node.op_type in RECURRENT_LAYERS:
        return (*shape[:2], 1)
    axis = int_attribute(node, "axis", 0) % len(shape) if node.op_type == "Gather" else output_axis(node, len(shape))
    return tuple(size if index == axis else 1 for index, size in enumerate(shape))


def constant_scale_shape(node: onnx.NodeProto, place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the scales of a constant of this shape that a node reads as such an input: of a weight or of rows."""
    known = node.op_type in STORABLE or (node.op_type == "Gather" and not node.domain)
    return scale_shape(node, shape) if known and place in weight_inputs(node) else row_shape(shape)


def row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of scales of which each row of a constant has its own: along the first axis that is longer than 1.

    Where its rows are short, all of it shares one scale.
    """
    axis = next((index for index, size in enumerate(shape) if size > 1), None)
    if axis is None or math.prod(shape) < LEAST_ROW * shape[axis]:
        return (1,) * len(shape)
    return tuple(size if index == axis else 1 for index, size in enumerate(shape))


def bytes_as_integers(values: int, channels: int, width: int = 1) -> int:
    """Return how many bytes a weight takes as integers of so many bytes, its scales included."""
    return width * values + SCALE_BYTES * channels


def quantize_symmetric(
    weight: Float32Array, shape: tuple[int, ...], kind: IntegerType = IntegerType.int8
) -> tuple[Integers, Float32Array]:
    """Return integers of the weight's shape, and scales of the given shape, which broadcasts: weight ≈ values * scale."""
    shared = tuple(index for index, size in enumerate(shape) if size == 1)
    own = tuple(index for index in range(weight.ndim) if index not in shared)
    rows = weight.transpose(*own, *shared).reshape(int(np.prod(shape)), -1)
    grid = qparams_of_weights(rows, kind, axis=0, reduced=False)
    scale = grid.scale.reshape(shape)
    _, most = limits(kind)
    return np.clip(np.rint(weight / scale), -most, most).astype(numpy_type(kind)), scale
