"""A graph as a rewrite sees it: producers, consumers, constants and shapes of tensors, and a list of changes.

Queries describe the graph as it was; changes are collected and take effect in `finish`, so that a rewrite never sees its own
unfinished changes. A tensor that is an output, or that the body of an If or a Loop reads, is never removed.
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
from pipeline.graph.opset import opset_of
from pipeline.graph.shape_inference import inferred_types
from pipeline.graph.subgraph_scopes import Names, input_tensors, outer_scope_inputs
from pipeline.graph.symbolic_dims import Dim, Shape, equal_dims
from pipeline.graph.topological_sort import nodes_needed_for, topological_order

__all__ = ["Array", "Graph", "attribute"]

Array = npt.NDArray[Any]

INTEGERS = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)


class Graph:
    """A copy of a model, with an index of its tensors.

    Attributes:
        model: the copy; `finish` writes the changes into it.
        nodes: as they were, in topological order.
        opset: the version of the default operator set.
        pinned: tensors that must keep their names and values: outputs, and what the bodies of control-flow nodes read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        ensure_names(self.model)
        self.nodes = list(self.model.graph.node)
        self.opset = opset_of(model)
        self.pinned = {output.name for output in model.graph.output}.union(*map(outer_scope_inputs, self.nodes))
        self._initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._producers = {output: node for node in self.nodes for output in node.output if output}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for tensor in node.input:
                self._consumers[tensor].append(node)
        self._defaults = {value.name for value in self.model.graph.input}
        self._arrays: dict[str, Array | None] = {}
        self._types: dict[str, onnx.TypeProto.Tensor] | None = None
        self._shapes: dict[str, Shape] | None = None
        self._same: dict[str, Dim] = {}
        self._removed: set[int] = set()
        self._added: list[onnx.NodeProto] = []
        self._names = Names(self.model.graph)
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    # Queries

    def producer(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """Return the node that produces a tensor, if it is of one of the types (of any type where none is named)."""
        node = self._producers.get(tensor)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor, once for each of their inputs."""
        return self._consumers.get(tensor, [])

    def only_consumer(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, if nothing else needs the tensor and the node is of one of the types."""
        consumers = self.consumers(tensor)
        alone = len(consumers) == 1 and tensor not in self.pinned
        return consumers[0] if alone and (not op_types or consumers[0].op_type in op_types) else None

    def constant(self, tensor: str) -> Array | None:
        """Return the value of a constant tensor: an initializer or the output of a Constant; None for any other."""
        if tensor not in self._arrays:
            self._arrays[tensor] = self._constant(tensor)
        return self._arrays[tensor]

    def scalar(self, tensor: str) -> float | None:
        """Return the value of a constant with one element."""
        array = self.constant(tensor)
        return None if array is None or array.size != 1 else float(array.reshape(()))

    def shape(self, tensor: str) -> Shape | None:
        """Return the dimensions of a tensor: numbers, symbolic names, or None; None for a tensor of unknown rank."""
        array = self.constant(tensor)
        if array is not None:
            return array.shape
        found = self._shapes_of_tensors().get(tensor)
        return None if found is None else tuple(self._same.get(d, d) if isinstance(d, str) else d for d in found)

    def rank(self, tensor: str) -> int | None:
        """Return the number of axes of a tensor, if it is known."""
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
        """Return whether a tensor is known to be boolean."""
        kind = self._kinds().get(tensor)
        return kind is not None and kind.elem_type == onnx.TensorProto.BOOL

    def is_integer(self, tensor: str) -> bool:
        """Return whether a tensor is known to hold integers or booleans."""
        array = self.constant(tensor)
        if array is not None:
            return array.dtype.kind in "iub"
        kind = self._kinds().get(tensor)
        return kind is not None and kind.elem_type in INTEGERS

    def channel_row(self, tensor: str, rank: int, channels: int) -> Array | None:
        """Return a float constant that is broadcast along all axes but the second, as (channels,); None for any other."""
        array = self.constant(tensor)
        if array is None or array.dtype != np.float32 or array.ndim > rank or array.size != channels:
            return None
        shape = (1,) * (rank - array.ndim) + array.shape
        return array.reshape(-1) if shape[1] == channels else None

    # Changes

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Remove nodes; their outputs must get other producers, or no consumers."""
        self._removed |= {id(node) for node in nodes}

    def is_removed(self, node: onnx.NodeProto) -> bool:
        """Return whether a node will be removed."""
        return id(node) in self._removed

    def add_node(
        self, op_type: str, inputs: Sequence[str], output: str | Sequence[str] | None = None, *, name: str | None = None,
        like: str = "", domain: str = "", **attributes: Any,  # noqa: ANN401
    ) -> str:  # fmt: skip
        """Add a node and return its output, the first of several.

        Args:
            op_type: of the node.
            inputs: its tensors.
            output: of the node, or several; None: a new tensor.
            name: None: a new one.
            like: what new names start with: the node that is replaced.
            domain: of its operator.
            attributes: of the node.
        """
        name = name or self.fresh_name(f"{like or op_type}_{op_type}" if like else op_type)
        outputs = [output] if isinstance(output, str) else output or [self.fresh_name(f"{name}_output")]
        self._added.append(helper.make_node(op_type, list(inputs), list(outputs), name=name, domain=domain, **attributes))
        return outputs[0]

    def replace_node(
        self, node: onnx.NodeProto, inputs: Sequence[str], output: str | Sequence[str] | None = None, **changed: Any,  # noqa: ANN401
    ) -> str:  # fmt: skip
        """Replace a node by one of the same type, name and attributes, and return its output.

        Args:
            node: is removed.
            inputs: of the new node.
            output: of the new node, or several; None: the output of the old one.
            changed: attributes that differ.
        """
        self.remove(node)
        settings = attributes_of(node) | changed
        return self.add_node(node.op_type, inputs, output or node.output[0], name=node.name, domain=node.domain, **settings)

    def add_value_info(self, tensor: str, data_type: int, shape: Shape) -> None:
        """Declare type and shape of a new tensor whose operator ONNX's shape inference does not know."""
        self.model.graph.value_info.append(helper.make_tensor_value_info(tensor, data_type, shape))

    def add_initializer(self, array: Array, like: str = "constant") -> str:
        """Return the name of an initializer of this value; equal values share one."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.fresh_name(like)
            self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), self._shared[key]))
        return self._shared[key]

    def unsqueeze(self, tensor: str, axis: int, like: str) -> str:
        """Return the tensor with one more axis of length 1."""
        return self._axis("Unsqueeze", tensor, axis, like, None)

    def squeeze(self, tensor: str, axis: int, like: str, output: str | None = None) -> str:
        """Return the tensor without an axis of length 1."""
        return self._axis("Squeeze", tensor, axis, like, output)

    def fresh_name(self, like: str) -> str:
        """Return a name that no tensor and no node has."""
        return self._names.fresh(like)

    def finish(self) -> onnx.ModelProto:
        """Apply the changes; nodes and initializers that no output needs are left out."""
        nodes = topological_order([node for node in self.nodes if id(node) not in self._removed], self._added)
        nodes = nodes_needed_for({output.name for output in self.model.graph.output}, nodes)
        graph = self.model.graph
        read = {tensor for node in nodes for tensor in input_tensors(node)} | {output.name for output in graph.output}
        produced = {tensor for node in nodes for tensor in node.output} | {value.name for value in graph.input}
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # their list is cleared
        del graph.node[:]
        graph.node.extend(copies)
        _keep(graph.initializer, read)
        _keep(graph.value_info, produced)
        return self.model

    # Implementation

    def _constant(self, tensor: str) -> Array | None:
        if tensor in self._initializers and tensor not in self._defaults:
            return numpy_helper.to_array(self._initializers[tensor])
        node = self.producer(tensor, "Constant", "Identity")
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

    def _shapes_of_tensors(self) -> dict[str, Shape]:
        if self._shapes is None:
            self._shapes = {name: _axes(kind) for name, kind in self._kinds().items() if kind.HasField("shape")}
            constants = {name: tuple(tensor.dims) for name, tensor in self._initializers.items() if name not in self._defaults}
            self._same = equal_dims(self.nodes, self._shapes | constants, self.constant)
        return self._shapes

    def _axis(self, op_type: str, tensor: str, axis: int, like: str, output: str | None) -> str:
        if self.opset < 13:
            return self.add_node(op_type, [tensor], output, like=like, axes=[axis])
        return self.add_node(
            op_type, [tensor, self.add_initializer(np.array([axis], np.int64), f"axis_{axis}")], output, like=like
        )


def _axes(kind: onnx.TypeProto.Tensor) -> Shape:
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)


def _keep(entries: Any, names: set[str]) -> None:  # noqa: ANN401
    """Remove from a list of a graph the entries that have none of the names."""
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].name not in names:
            del entries[index]
