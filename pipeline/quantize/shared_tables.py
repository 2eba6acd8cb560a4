"""One int8 copy of a table for both that read it: the embedding at the input of a model and the product at its output.

`matrix_form.py` gave the product a transposed copy of the table, so that any mode can quantize it. Once that is integers, with
a scale for each column, which is a row of the table, the look-up reads them too:

    Gather(E, ids) = (Cast(Gather(integers, ids)) - Gather(zero points, ids)) * Gather(scales, ids)

and the product reads them through a Transpose, which ONNX Runtime computes once, when it loads the model. Where the product has
stayed float, it reads the table through a Transpose again.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.attributes import int_attribute
from pipeline.graph.subgraph_scopes import Names, drop_unread, outer_scope_inputs, replace_nodes
from pipeline.quantize.matrix_form import HEAD

INTEGERS = (TensorProto.INT8, TensorProto.UINT8)


def share_tables(model: onnx.ModelProto) -> None:
    """Let each table and the product by its transpose read one constant, in place; does nothing the second time."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    copies = [name for name in constants if HEAD in name]
    for table in [name for name in constants if any(copy.startswith(f"{name}{HEAD}") for copy in copies)]:
        _share(model, table, f"{table}{HEAD}")


def tables_in_integers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that look up in a table of integers."""
    integers = {tensor.name for tensor in model.graph.initializer if tensor.data_type in INTEGERS and len(tensor.dims) == 2}
    return [node.name for node in model.graph.node if node.op_type == "Gather" and node.input[0] in integers]


def _share(model: onnx.ModelProto, table: str, copy: str) -> None:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = Names(graph)
    if copy in constants and constants[copy].data_type == TensorProto.FLOAT:
        if not np.array_equal(numpy_helper.to_array(constants[copy]).T, numpy_helper.to_array(constants[table])):
            return
        turned = helper.make_node("Transpose", [table], [copy], name=names.fresh(f"{copy}_Transpose"), perm=[1, 0])
        replace_nodes(graph, [turned, *_copied(graph.node)])
        graph.initializer.remove(constants[copy])
        return
    shape = tuple(reversed(constants[table].dims))
    stored = [t for name, t in constants.items() if name.startswith(f"{copy}_") and tuple(t.dims) == shape]
    readers = [node for node in graph.node if table in node.input]
    taken = any(table in outer_scope_inputs(node) for node in graph.node)
    if len(stored) != 1 or stored[0].data_type not in INTEGERS or taken or {node.op_type for node in readers} != {"Gather"}:
        return
    grid = _grid_of(graph, stored[0].name, copy, constants)
    if grid is None:
        return
    scale, zero_point = grid
    if not _same(numpy_helper.to_array(constants[table]), numpy_helper.to_array(stored[0]).T, scale, zero_point):
        return
    rows = names.fresh(f"{table}_int8")
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(stored[0]).T), rows))
    product = stored[0].name
    new = [helper.make_node("Transpose", [rows], [product], name=names.fresh(f"{product}_Transpose"), perm=[1, 0])]
    graph.initializer.remove(stored[0])
    factors = _column(graph, scale, names, table, "scales")
    zeros = None if zero_point is None or not zero_point.any() else _column(graph, zero_point, names, table, "zeros")
    for node in _copied(graph.node):
        if table not in node.input or node.op_type != "Gather" or int_attribute(node, "axis", 0):
            new.append(node)
            continue
        ids, output = node.input[1], node.output[0]
        found, cast = (names.fresh(f"{output}_{part}") for part in ("int8", "float"))
        node.input[0], node.output[0] = rows, found
        new += [node, helper.make_node("Cast", [found], [cast], name=names.fresh(f"{node.name}_cast"), to=TensorProto.FLOAT)]
        for op_type, column in (("Sub", zeros), ("Mul", factors)):
            if column is None:
                continue
            of_row = column
            if scale.size > 1:
                of_row = names.fresh(f"{output}_{op_type}_rows")
                new.append(helper.make_node("Gather", [column, ids], [of_row], name=names.fresh(f"{node.name}_{op_type}_rows")))
            result = output if op_type == "Mul" else names.fresh(f"{output}_centred")
            new.append(helper.make_node(op_type, [cast, of_row], [result], name=names.fresh(f"{node.name}_{op_type}")))
            cast = result
    replace_nodes(graph, new)
    drop_unread(graph, {table})


def _grid_of(
    graph: onnx.GraphProto, integers: str, copy: str, constants: dict[str, TensorProto]
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return scales and zero points of the integers of a product: a value for each row of the table, or one."""
    scale = next((name for name in constants if name.startswith(f"{copy}_scale")), "")
    zero = next((name for name in constants if name.startswith(f"{copy}_zero_point")), "")
    for node in graph.node:
        if integers in node.input and node.op_type == "DequantizeLinear":
            scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
        elif integers in node.input and node.op_type == "Cast":
            scale = next((n.input[1] for n in graph.node if n.op_type == "Mul" and n.input[0] == node.output[0]), "")
            zero = ""
    if scale not in constants:
        return None
    zeros = numpy_helper.to_array(constants[zero]) if zero in constants else None
    return numpy_helper.to_array(constants[scale]).reshape(-1), None if zeros is None else zeros.reshape(-1)


def _same(table: np.ndarray, integers: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None) -> bool:
    """Say whether integers (rows, width) are those of a table, which what rescales the copy would have moved them away from."""
    factors = scale.astype(np.float64).reshape(-1, 1)
    zeros = 0 if zero_point is None else zero_point.astype(np.float64).reshape(-1, 1)
    errors = np.abs((integers.astype(np.float64) - zeros) * factors - table).mean(axis=1, keepdims=True)
    return bool(np.all(errors <= factors))


def _column(graph: onnx.GraphProto, values: np.ndarray, names: Names, table: str, what: str) -> str:
    name = names.fresh(f"{table}_{what}")
    column = values.astype(np.float32).reshape((-1, 1) if values.size > 1 else ())
    graph.initializer.append(numpy_helper.from_array(column, name))
    return name


def _copied(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # the list is cleared
