"""What ONNX Runtime's converter to half precision trips over, and what it leaves behind.

It knows names only: a tensor that is an output without a node that makes it, and a name that it would itself give, are taken
out of its way. It puts every Cast at the end of the outermost graph: each goes to the graph that has its input, and all nodes
into an order in which they can run, which ONNX asks for.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.subgraph_scopes import Names, graphs_of, replace_nodes
from pipeline.graph.topological_sort import topological_order

M = TypeVar("M", bound=Message)
MADE_NAMES = re.compile(r"graph_(in|out)put_cast_?\d+|.*_cast_to_(fp32|fp16)(_node)?")


@dataclass(frozen=True)
class PlainOutputs:
    """Outputs of a graph that no node makes.

    Attributes:
        all_outputs: the names of all outputs, in order.
        taken: those of constants and of inputs.
        constants: the values of the constants among them.
    """

    all_outputs: tuple[str, ...]
    taken: Mapping[str, onnx.ValueInfoProto]
    constants: Mapping[str, onnx.TensorProto]


def take_plain_outputs(graph: onnx.GraphProto) -> PlainOutputs:
    """Remove the outputs that no node makes, in place; nodes read copies of those that are constants."""
    made = {name for node in graph.node for name in node.output}
    plain = {output.name: output for output in graph.output if output.name not in made}
    found = PlainOutputs(
        tuple(output.name for output in graph.output),
        {name: _copy(output) for name, output in plain.items()},
        {tensor.name: _copy(tensor) for tensor in graph.initializer if tensor.name in plain},
    )
    kept = [output for output in graph.output if output.name not in plain]
    del graph.output[:]
    graph.output.extend(kept)
    names = Names(graph)
    copies = {name: names.fresh(f"{name}_as_constant") for name in found.constants}
    for tensor in graph.initializer:
        tensor.name = copies.get(tensor.name, tensor.name)
    _rename_reads(graph, copies)
    return found


def put_plain_outputs_back(graph: onnx.GraphProto, plain: PlainOutputs, *, half: bool) -> None:
    """Give a graph the outputs back that `take_plain_outputs` took, in their order, in place."""
    converted = {output.name: output for output in graph.output}
    outputs = []
    for name in plain.all_outputs:
        output = plain.taken.get(name, converted.get(name))
        assert output is not None, f"the converter has lost the output {name}"
        if half and output.type.tensor_type.elem_type == TensorProto.FLOAT:
            output.type.tensor_type.elem_type = TensorProto.FLOAT16
        outputs.append(_copy(output))
    del graph.output[:]
    graph.output.extend(outputs)
    for tensor in plain.constants.values():
        array = numpy_helper.to_array(tensor)
        stays = not half or tensor.data_type != TensorProto.FLOAT
        graph.initializer.append(tensor if stays else numpy_helper.from_array(array.astype("float16"), tensor.name))


def tensors_of_constants(graph: onnx.GraphProto) -> None:
    """Give Constant nodes that hold floats as plain numbers, which the converter overlooks, a tensor instead, in place."""
    for scope in graphs_of(graph):
        for node in scope.node:
            for entry in node.attribute if node.op_type == "Constant" and not node.domain else ():
                if entry.name in ("value_float", "value_floats"):
                    numbers = np.asarray(helper.get_attribute_value(entry), np.float32)
                    entry.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(numbers)))


def separate_constants(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Give the nodes that keep fp32 copies of the constants that others read too, in place.

    The converter stores such a constant in half precision, and casts it back: what was to be exact is rounded.
    """
    nodes = [node for scope in graphs_of(graph) for node in scope.node]
    halved = {name for node in nodes if node.name not in kept for name in node.input}
    exact = {name for node in nodes if node.name in kept for name in node.input}
    names = Names(graph)
    copies: dict[str, str] = {}
    for scope in graphs_of(graph):
        shared = [t for t in scope.initializer if t.name in halved & exact and t.data_type == TensorProto.FLOAT]
        for tensor in shared:
            copies[tensor.name] = names.fresh(f"{tensor.name}_as_float")
            scope.initializer.add().CopyFrom(tensor)
            scope.initializer[-1].name = copies[tensor.name]
    for node in nodes:
        if node.name in kept:
            for index, name in enumerate(node.input):
                node.input[index] = copies.get(name, name)


def free_names(graph: onnx.GraphProto) -> None:
    """Rename inner tensors and nodes whose names the converter gives itself, in place."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    names = Names(graph)
    renamed: dict[str, str] = {}
    for scope in graphs_of(graph):
        for node in scope.node:
            if MADE_NAMES.fullmatch(node.name):
                node.name = names.fresh(f"{node.name}_of_the_original")
            for name in node.output:
                if name not in fixed and MADE_NAMES.fullmatch(name):
                    renamed[name] = names.fresh(f"{name}_of_the_original")
        for tensor in scope.initializer:
            if tensor.name not in fixed and MADE_NAMES.fullmatch(tensor.name):
                renamed[tensor.name] = names.fresh(f"{tensor.name}_of_the_original")
                tensor.name = renamed[tensor.name]
    for scope in graphs_of(graph):
        for node in scope.node:
            for index, name in enumerate(node.output):
                node.output[index] = renamed.get(name, name)
        for value in (*scope.value_info, *(scope.output if scope is not graph else ())):
            value.name = renamed.get(value.name, value.name)
    _rename_reads(graph, renamed)


def holds_tensors(declared: onnx.TypeProto) -> bool:
    """Return whether a type is that of a sequence of tensors, or of a value that may be missing."""
    return declared.WhichOneof("value") in ("sequence_type", "optional_type")


def declared_types(graph: onnx.GraphProto, which: Callable[[onnx.TypeProto], bool]) -> dict[str, onnx.TypeProto]:
    """Return copies of the types that a graph and its bodies declare, of the tensors whose type is such a one."""
    return {value.name: _copy(value.type) for value in _values(graph) if which(value.type)}


def no_types(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Remove the declared types of the named values, in place."""
    for value in _values(graph):
        if value.name in names:
            value.ClearField("type")


def put_types_back(graph: onnx.GraphProto, types: Mapping[str, onnx.TypeProto]) -> None:
    """Declare the types of values again, in place."""
    for value in _values(graph):
        if value.name in types:
            value.type.CopyFrom(types[value.name])


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for scope in graphs_of(graph):
        yield from (*scope.input, *scope.output, *scope.value_info)


def put_in_order(model: onnx.ModelProto) -> None:
    """Move each node to the graph that has its inputs, and sort the nodes of every graph, in place."""
    graph = model.graph
    scopes = list(graphs_of(graph))
    owner = {name: place for place, scope in enumerate(scopes) for node in scope.node for name in node.output if name}
    for place, scope in enumerate(scopes):
        owner.update(dict.fromkeys((value.name for value in (*scope.input, *scope.initializer)), place))
    # The outermost graph holds every Cast, also one that makes a tensor of a body, or reads what such a Cast makes.
    places: dict[int, int] = {}
    casts = [(index, node) for index, node in enumerate(graph.node) if node.op_type == "Cast"]
    for _ in range(2):
        for index, node in casts:
            if place := owner.get(node.input[0], 0):
                places[index] = place
                owner[node.output[0]] = place
    moved: dict[int, list[onnx.NodeProto]] = {}
    kept: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        (moved.setdefault(places[index], []) if index in places else kept).append(node)
    moved = {place: [_copy(node) for node in nodes] for place, nodes in moved.items()}
    replace_nodes(graph, [_copy(node) for node in kept])
    if moved:
        scopes = list(graphs_of(graph))
        for place, nodes in moved.items():
            scopes[place].node.extend(nodes)
    for scope in reversed(list(graphs_of(graph))):
        ordered = topological_order(list(scope.node), [])
        replace_nodes(scope, [_copy(node) for node in ordered])


def _rename_reads(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for scope in graphs_of(graph) if new else ():
        for node in scope.node:
            for index, name in enumerate(node.input):
                node.input[index] = new.get(name, name)


def _copy(message: M) -> M:
    copied: M = type(message)()
    copied.CopyFrom(message)
    return copied
