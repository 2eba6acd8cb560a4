"""A graph as a rewrite sees it: who makes a tensor, who reads it, which are constant, and a list of changes to make.

What is asked is asked of the graph as it was; changes are collected and take effect in `finish`, so that a rewrite never
meets its own half-done work. A tensor that an output or the body of an If or a Loop needs is never taken away.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from pipeline.graph.attributes import attribute, attributes_of
from pipeline.graph.node_patterns import ensure_names
from pipeline.graph.shape_inference import inferred_types
from pipeline.graph.source_graph import opset_of
from pipeline.graph.subgraph_scopes import Names, input_tensors, outer_scope_inputs
from pipeline.graph.symbolic_dims import Length, Shape, equal_lengths
from pipeline.graph.topological_sort import alive, in_order

__all__ = ["Array", "Graph", "attribute"]

Array = npt.NDArray[Any]


class Graph:
    """A copy of a model, with an index of its tensors.

    Attributes:
        model: the copy; `finish` writes the changes into it.
        nodes: as they were, in order.
        opset: the version of the default operator set.
        needed: tensors that must keep their names: outputs, and what the bodies of control-flow nodes read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        ensure_names(self.model)
        self.nodes = list(self.model.graph.node)
        self.opset = opset_of(model)
        self.needed = {output.name for output in model.graph.output}.union(*map(outer_scope_inputs, self.nodes))
        self._initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._makers = {output: node for node in self.nodes for output in node.output if output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for tensor in node.input:
                self._readers[tensor].append(node)
        self._defaults = {value.name for value in self.model.graph.input}
        self._arrays: dict[str, Array | None] = {}
        self._types: dict[str, onnx.TypeProto.Tensor] | None = None
        self._shapes: dict[str, Shape] | None = None
        self._same: dict[str, Length] = {}
        self._dropped: set[int] = set()
        self._added: list[onnx.NodeProto] = []
        self._names = Names(self.model.graph)
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    # Questions

    def maker(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, where it is of one of the types (or of any, where none is named)."""
        node = self._makers.get(tensor)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor, once for each input."""
        return self._readers.get(tensor, [])

    def only_reader(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """Return the node that alone reads a tensor that nothing else needs, where it is of one of the types."""
        readers = self.readers(tensor)
        alone = len(readers) == 1 and tensor not in self.needed
        return readers[0] if alone and (not op_types or readers[0].op_type in op_types) else None

    def constant(self, tensor: str) -> Array | None:
        """Return the value of a tensor that is always the same."""
        if tensor not in self._arrays:
            self._arrays[tensor] = self._constant(tensor)
        return self._arrays[tensor]

    def scalar(self, tensor: str) -> float | None:
        """Return the value of a constant with one element."""
        array = self.constant(tensor)
        return None if array is None or array.size != 1 else float(array.reshape(()))

    def shape(self, tensor: str) -> Shape | None:
        """Return the axes of a tensor: lengths, names, or None; None for a tensor of unknown rank."""
        array = self.constant(tensor)
        if array is not None:
            return array.shape
        found = self._lengths().get(tensor)
        return None if found is None else tuple(self._same.get(d, d) if isinstance(d, str) else d for d in found)

    def rank(self, tensor: str) -> int | None:
        """Return the number of axes of a tensor, where it is known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def is_float(self, tensor: str) -> bool:
        """Return whether a tensor is known to be float32."""
        array = self.constant(tensor)
        if array is not None:
            return array.dtype == np.float32
        kind = self._kinds().get(tensor)
        return kind is not None and kind.elem_type == onnx.TensorProto.FLOAT

    def is_bool(self, tensor: str) -> bool:
        """Return whether a tensor is known to hold truth values."""
        kind = self._kinds().get(tensor)
        return kind is not None and kind.elem_type == onnx.TensorProto.BOOL

    def channel_row(self, tensor: str, rank: int, channels: int) -> Array | None:
        """Return a float constant that is broadcast along all axes but the second, as one number a channel."""
        array = self.constant(tensor)
        if array is None or array.dtype != np.float32 or array.ndim > rank or array.size != channels:
            return None
        shape = (1,) * (rank - array.ndim) + array.shape
        return array.reshape(-1) if shape[1] == channels else None

    # Changes

    def drop(self, *nodes: onnx.NodeProto) -> None:
        """Take nodes away; what they made must be made by others, or be needed no more."""
        self._dropped |= {id(node) for node in nodes}

    def dropped(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is to be taken away."""
        return id(node) in self._dropped

    def add(
        self, op_type: str, inputs: Sequence[str], output: str | Sequence[str] | None = None, *, name: str | None = None,
        like: str = "", domain: str = "", **attributes: Any,  # noqa: ANN401
    ) -> str:  # fmt: skip
        """Add a node and return its output, the first of several.

        Args:
            op_type: of the node.
            inputs: its tensors.
            output: the tensor that it makes, or several; None: a new one.
            name: None: a new one.
            like: what new names start with: the node that is replaced.
            domain: of its operator.
            attributes: of the node.
        """
        name = name or self.free(f"{like or op_type}_{op_type}" if like else op_type)
        outputs = [output] if isinstance(output, str) else output or [self.free(f"{name}_output")]
        self._added.append(helper.make_node(op_type, list(inputs), list(outputs), name=name, domain=domain, **attributes))
        return outputs[0]

    def replace(
        self, node: onnx.NodeProto, inputs: Sequence[str], output: str | Sequence[str] | None = None, **changed: Any,  # noqa: ANN401
    ) -> str:  # fmt: skip
        """Put a node of the same type, name and attributes in the place of one, and return its output.

        Args:
            node: is taken away.
            inputs: of the new node.
            output: of the new node, or several; None: as it was.
            changed: attributes that differ.
        """
        self.drop(node)
        settings = attributes_of(node) | changed
        return self.add(node.op_type, inputs, output or node.output[0], name=node.name, domain=node.domain, **settings)

    def describe(self, tensor: str, data_type: int, shape: Shape) -> None:
        """Say what a new tensor is, where ONNX's inference does not know the operator that makes it."""
        self.model.graph.value_info.append(helper.make_tensor_value_info(tensor, data_type, shape))

    def put(self, array: Array, like: str = "constant") -> str:
        """Return the name of a constant of this value, which equal constants share."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.free(like)
            self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), self._shared[key]))
        return self._shared[key]

    def unsqueeze(self, tensor: str, axis: int, like: str) -> str:
        """Return the tensor with one more axis of length 1."""
        return self._axis("Unsqueeze", tensor, axis, like, None)

    def squeeze(self, tensor: str, axis: int, like: str, output: str | None = None) -> str:
        """Return the tensor without an axis of length 1."""
        return self._axis("Squeeze", tensor, axis, like, output)

    def free(self, like: str) -> str:
        """Return a name that nothing has yet."""
        return self._names.fresh(like)

    def finish(self) -> onnx.ModelProto:
        """Make the changes: nodes in order of their data, without those that nothing needs, and without unread constants."""
        nodes = in_order([node for node in self.nodes if id(node) not in self._dropped], self._added)
        nodes = alive(nodes, {output.name for output in self.model.graph.output})
        graph = self.model.graph
        read = {tensor for node in nodes for tensor in input_tensors(node)} | {output.name for output in graph.output}
        made = {tensor for node in nodes for tensor in node.output} | {value.name for value in graph.input}
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # their list is cleared
        del graph.node[:]
        graph.node.extend(copies)
        _keep(graph.initializer, read)
        _keep(graph.value_info, made)
        return self.model

    # How

    def _constant(self, tensor: str) -> Array | None:
        if tensor in self._initializers and tensor not in self._defaults:
            return numpy_helper.to_array(self._initializers[tensor])
        node = self.maker(tensor, "Constant", "Identity")
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        value = helper.get_attribute_value(node.attribute[0])
        if isinstance(value, onnx.TensorProto):
            return numpy_helper.to_array(value)
        return np.array(value, dtype=np.float32 if "float" in node.attribute[0].name else np.int64)

    def _kinds(self) -> dict[str, onnx.TypeProto.Tensor]:
        if self._types is None:
            self._types = inferred_types(self.model)
        return self._types

    def _lengths(self) -> dict[str, Shape]:
        if self._shapes is None:
            self._shapes = {name: _axes(kind) for name, kind in self._kinds().items() if kind.HasField("shape")}
            constants = {name: tuple(tensor.dims) for name, tensor in self._initializers.items() if name not in self._defaults}
            self._same = equal_lengths(self.nodes, self._shapes | constants, self.constant)
        return self._shapes

    def _axis(self, op_type: str, tensor: str, axis: int, like: str, output: str | None) -> str:
        if self.opset < 13:
            return self.add(op_type, [tensor], output, like=like, axes=[axis])
        return self.add(op_type, [tensor, self.put(np.array([axis], np.int64), f"axis_{axis}")], output, like=like)


def _axes(kind: onnx.TypeProto.Tensor) -> Shape:
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)


def _keep(entries: Any, names: set[str]) -> None:  # noqa: ANN401
    """Remove from a list of a graph what has none of the names."""
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].name not in names:
            del entries[index]
