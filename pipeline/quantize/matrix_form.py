"""Products by a constant, written as MatMul with the constant second: the one form that integer kernels and quantizers know.

    C X = (X^T C^T)^T                                   MatMul and Gemm with the constant first; exact
    Einsum(x, C) = MatMul(x', C')                        where the two share letters that the result lacks, and no others
    x E^T, with a table E that a Gather reads as well    gets a transposed copy of the table, named so that the two are known
                                                         to be one: `shared_tables.py` lets both read the same integers

Transposes cancel where they stand: Whisper's decoder computes the logits as (E x^T)^T, with the embedding on the left. That is
45 % of a step and most of the bytes, and ONNX Runtime's quantizer leaves it float.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import numpy as np
import onnx

from pipeline.config.mode_settings import ModeConfig
from pipeline.errors import ConfigError
from pipeline.graph.graph_editor import Array, Graph, attribute
from pipeline.graph.node_patterns import match_nodes
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.shape_deciding import shape_deciding_nodes
from pipeline.graph.shape_inference import with_shapes

LEAST_VALUES = 4096  # of a constant: the transposes beside a smaller one cost more than integers save
HEAD = "_as_head"  # ends the name of a transposed copy of a table


def in_matrix_form(prepared: PreparedGraph, mode: ModeConfig) -> PreparedGraph:
    """Return a graph in which constants are the second factors of products; the same one where nothing is to be done.

    Args:
        prepared: the graph.
        mode: which nodes stay as they are: a table that one of them looks up in is no part of a product.
    """
    nodes = prepared.model.graph.node
    if not any(node.op_type in {"MatMul", "Gemm", "Einsum"} for node in nodes):
        return prepared
    graph = Graph(prepared.model)
    left = _left(prepared, mode)
    graph.pinned |= {node.input[0] for node in nodes if node.op_type == "Gather" and node.name in left}
    changed = False
    for node in graph.nodes:
        if node.op_type == "MatMul":
            changed |= _turn_matmul(graph, node) or _copy_table(graph, node)
        elif node.op_type == "Gemm":
            changed |= _turn_gemm(graph, node) or _copy_table_of_gemm(graph, node)
        elif node.op_type == "Einsum":
            changed |= _write_einsum(graph, node)
    if not changed:
        return prepared
    names = {node.name for node in nodes}
    model = with_shapes(graph.finish())
    gone = names - {node.name for node in model.graph.node}
    return replace(prepared, model=model, folded=prepared.folded | gone)


def _left(prepared: PreparedGraph, mode: ModeConfig) -> set[str]:
    """Return the nodes that a mode leaves as they are; what is wrong with its patterns is said where nodes are planned."""
    names = {node.name for node in prepared.model.graph.node}
    left = set(shape_deciding_nodes(prepared.model.graph))
    with suppress(ConfigError):
        left |= match_nodes(mode.nodes_to_exclude, names, "mode.nodes_to_exclude", prepared.paths)
        if mode.nodes_to_quantize:
            left |= names - match_nodes(mode.nodes_to_quantize, names, "mode.nodes_to_quantize", prepared.paths)
    return left


def _matrix(graph: Graph, tensor: str) -> Array | None:
    """Return a large float constant of two axes."""
    array = graph.constant(tensor) if graph.is_float(tensor) else None
    return array if array is not None and array.ndim == 2 and array.size >= LEAST_VALUES else None


def _turned_constant(graph: Graph, tensor: str, array: Array) -> str:
    """Return the name of a constant, transposed; a copy of a table, if something else reads it as one."""
    name = f"{tensor}{HEAD}" if _is_table(graph, tensor) else f"{tensor}_turned"
    return graph.add_initializer(np.ascontiguousarray(array.T), name)


def _is_table(graph: Graph, tensor: str) -> bool:
    """Return whether a constant is looked up in by row, and read by products besides, and by nothing else."""
    readers = graph.consumers(tensor)
    tables = [node for node in readers if node.op_type == "Gather" and node.input[0] == tensor]
    rows = bool(tables) and all(attribute(node, "axis", 0) == 0 for node in tables)
    others = {node.op_type for node in readers} <= {"Gather", "MatMul", "Gemm", "Transpose"}
    return rows and others and tensor not in graph.pinned


def _swaps(graph: Graph, tensor: str, perm: Sequence[int] | None) -> bool:
    """Return whether a Transpose swaps the last two axes of a tensor, and no others."""
    rank = graph.rank(tensor)
    if rank is None or rank < 2:
        return False
    axes = list(range(rank))
    axes[-2:] = reversed(axes[-2:])
    return list(perm if perm is not None else reversed(range(rank))) == axes


def _swapped(graph: Graph, tensor: str, like: str) -> str | None:
    """Return a tensor with its last two axes swapped: what a Transpose has swapped, or a new one; None: of unknown rank."""
    maker = graph.producer(tensor, "Transpose")
    if maker is not None and _swaps(graph, tensor, attribute(maker, "perm", None)):
        return str(maker.input[0])
    rank = graph.rank(tensor)
    if rank is None or rank < 2:
        return None
    return graph.add_node("Transpose", [tensor], like=like, perm=[*range(rank - 2), rank - 1, rank - 2])


def _turn_matmul(graph: Graph, node: onnx.NodeProto) -> bool:
    """Write C X as (X^T C^T)^T, without the Transposes that cancel."""
    array = _matrix(graph, node.input[0])
    if array is None or graph.constant(node.input[1]) is not None:
        return False
    rank = graph.rank(node.input[1])
    if rank == 1:
        graph.replace_node(node, [node.input[1], _turned_constant(graph, node.input[0], array)])
        return True
    source = _swapped(graph, node.input[1], node.name)
    if source is None or rank is None:
        return False
    after = graph.only_consumer(node.output[0], "Transpose")
    cancels = (
        after is not None and not graph.is_removed(after) and _swaps(graph, node.output[0], attribute(after, "perm", None))
    )
    inputs = [source, _turned_constant(graph, node.input[0], array)]
    if cancels and after is not None:
        graph.remove(after)
        graph.replace_node(node, inputs, after.output[0])
    else:
        turned = graph.fresh_name(f"{node.output[0]}_turned")
        graph.replace_node(node, inputs, turned)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        graph.add_node("Transpose", [turned], node.output[0], like=node.name, perm=perm)
    return True


def _turn_gemm(graph: Graph, node: onnx.NodeProto) -> bool:
    """Write alpha A' B' + beta C, with a constant A, as the transpose of alpha B'^T A'^T + beta C^T."""
    array = _matrix(graph, node.input[0])
    bias = node.input[2] if len(node.input) > 2 else ""
    values = graph.constant(bias) if bias else None
    if array is None or graph.constant(node.input[1]) is not None or (bias and values is None):
        return False
    source = node.input[1] if attribute(node, "transB", 0) else _swapped(graph, node.input[1], node.name)
    if source is None:
        return False
    weight = array.T if attribute(node, "transA", 0) else array  # (out, in)
    inputs = [source, graph.add_initializer(np.ascontiguousarray(weight), f"{node.input[0]}_turned")]
    if values is not None:
        column = values.reshape(-1, 1) if values.ndim == 1 and values.size > 1 else values.T
        inputs.append(graph.add_initializer(np.ascontiguousarray(column), f"{bias}_turned"))
    turned = graph.fresh_name(f"{node.output[0]}_turned")
    graph.replace_node(node, inputs, turned, transA=0, transB=1)
    graph.add_node("Transpose", [turned], node.output[0], like=node.name, perm=[1, 0])
    return True


def _copy_table(graph: Graph, node: onnx.NodeProto) -> bool:
    """Give x E^T a transposed copy of its own, where E is a table that others look up in."""
    maker = graph.producer(node.input[1], "Transpose")
    array = None if maker is None else _matrix(graph, maker.input[0])
    if maker is None or array is None or not _is_table(graph, maker.input[0]):
        return False
    graph.replace_node(node, [node.input[0], _turned_constant(graph, maker.input[0], array)])
    return True


def _copy_table_of_gemm(graph: Graph, node: onnx.NodeProto) -> bool:
    """Give a Gemm by a transposed table a copy of its own."""
    array = _matrix(graph, node.input[1])
    if array is None or not attribute(node, "transB", 0) or not _is_table(graph, node.input[1]):
        return False
    graph.replace_node(node, [node.input[0], _turned_constant(graph, node.input[1], array), *node.input[2:]], transB=0)
    return True


def _write_einsum(graph: Graph, node: onnx.NodeProto) -> bool:
    """Write an Einsum with a constant as Transpose, Reshape and MatMul, as far as each is needed."""
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if not arrow or len(node.input) != 2 or "." in equation or len(letters) != 2:
        return False
    arrays = [graph.constant(tensor) for tensor in node.input]
    if (arrays[0] is None) == (arrays[1] is None):
        return False
    place = 0 if arrays[0] is not None else 1
    array, weight, given, tensor = arrays[place], letters[place], letters[1 - place], node.input[1 - place]
    summed = [letter for letter in weight if letter in given and letter not in result]
    free = [letter for letter in weight if letter in result and letter not in given]
    kept = [letter for letter in given if letter not in summed]
    plain = len(set(given)) == len(given) and len(summed) + len(free) == len(weight) and sorted(result) == sorted(kept + free)
    if array is None or array.dtype != np.float32 or array.size < LEAST_VALUES or not (plain and summed and free and kept):
        return False
    sizes = dict(zip(weight, array.shape, strict=True))
    order = [weight.index(letter) for letter in chain(summed, free)]
    inside = int(np.prod([sizes[letter] for letter in summed]))
    matrix = np.ascontiguousarray(array.transpose(order).reshape(inside, -1))
    wanted = [given.index(letter) for letter in chain(kept, summed)]
    if wanted != sorted(wanted):
        tensor = graph.add_node("Transpose", [tensor], like=node.name, perm=wanted)
    if len(summed) > 1:
        shape = graph.add_initializer(np.array([0] * len(kept) + [inside]), "joined")
        tensor = graph.add_node("Reshape", [tensor, shape], like=node.name)
    made = "".join(chain(kept, free))
    last = node.output[0]
    graph.remove(node)
    inputs = [tensor, graph.add_initializer(matrix, f"{node.input[place]}_matrix")]
    ends = len(free) == 1 and made == result
    tensor = graph.add_node("MatMul", inputs, last if ends else None, name=node.name)
    if len(free) > 1:
        shape = graph.add_initializer(np.array([0] * len(kept) + [sizes[letter] for letter in free]), "parted")
        tensor = graph.add_node("Reshape", [tensor, shape], last if made == result else None, like=node.name)
    if made != result:
        graph.add_node("Transpose", [tensor], last, like=node.name, perm=[made.index(letter) for letter in result])
    return True
