"""A graph for one size of an axis that its file leaves open, such as a batch of one: what follows from it is computed now.

A graph that takes any number of recordings computes shapes at each call: of a streaming Zipformer, six in ten of the nodes.
Where the sizes of all inputs are known, so is every shape that does not depend on values, and with it what is computed from it.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.graph.session import ORT_ERRORS, open_session
from pipeline.graph.value_info import dims_of, dtype_of

SHAPED_BY = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4), "ConstantOfShape": (0,), "Range": (0, 1, 2),
    "Pad": (1, 3), "Resize": (1, 2, 3), "OneHot": (1,), "TopK": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,),
    "ReduceSum": (1,), "ReduceMean": (1,), "ReduceMax": (1,), "ReduceMin": (1,),
}  # fmt: skip
"""Inputs whose values decide the shape of what comes out."""
BY_VALUES = frozenset(
    {"NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "If", "Scan", "Dropout", "Bernoulli", "Multinomial"}
)
"""Operators whose outputs have shapes, or values, that follow from more than the shapes of what they are given."""
SMALL_BYTES = 1 << 16
"""A larger constant is only written where it takes the place of others that are as large: else the file would grow."""
BY_ELEMENT = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"})
"""Operators that one number suits as well as a tensor of it, beside another tensor of its shape."""


def with_sizes(model: onnx.ModelProto, sizes: Mapping[str, int], where: str) -> onnx.ModelProto:
    """Return a copy of a graph in which axes have sizes, without the nodes whose results follow from sizes and constants.

    Args:
        model: the graph; it stays as it is.
        sizes: name of an axis -> its size; a graph without such an axis comes out as it was.
        where: the file, for messages.

    Raises:
        ModelError: the graph does not run with these sizes.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    axes = [
        axis
        for value in (*fixed.graph.input, *fixed.graph.output)
        for axis in value.type.tensor_type.shape.dim
        if axis.dim_param in sizes
    ]
    if not axes:
        return fixed
    for axis in axes:
        axis.dim_value = sizes[axis.dim_param]
    del fixed.graph.value_info[:]  # what was inferred of other sizes
    known = _known(fixed.graph)
    _replace(fixed.graph, _values(fixed, known, where))
    _shrink_uniform(fixed)
    return fixed


def _known(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes whose results follow from sizes and constants, in their order."""
    constants = {tensor.name for tensor in graph.initializer}
    sized = constants | {
        value.name for value in graph.input if all(axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim)
    }
    found = []
    for node in graph.node:
        given = [name for name in node.input if name]
        if node.domain not in ("", "ai.onnx") or node.op_type in BY_VALUES or node.op_type.startswith("Random"):
            continue
        of_shape = node.op_type in ("Shape", "Size") and given[0] in sized
        if of_shape or (all(name in constants for name in given) and (given or node.op_type == "Constant")):
            found.append(node)
            constants.update(node.output)
            sized.update(node.output)
            continue
        shaping = [node.input[place] for place in SHAPED_BY.get(node.op_type, ()) if place < len(node.input)]
        if all(name in sized for name in given) and all(name in constants for name in shaping if name):
            sized.update(node.output)
    return found


def _values(model: onnx.ModelProto, known: list[onnx.NodeProto], where: str) -> dict[str, npt.NDArray[np.generic]]:
    """Return the results that are worth writing: each tensor that is a constant from now on, and its value."""
    results = [name for node in known if node.op_type != "Constant" for name in node.output if name]
    if not results:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in results)
    zeros = {
        value.name: np.zeros([axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim], dtype_of(value))
        for value in model.graph.input
        if value.name not in {tensor.name for tensor in model.graph.initializer}
    }
    try:
        session: onnxruntime.InferenceSession = open_session(probe, 1, optimization="none")
        outputs = session.run(results, zeros)
    except ORT_ERRORS as error:
        raise ModelError(f"model.batch: {where} does not run with this batch: {' '.join(str(error).split())}") from error
    sizes = {tensor.name: numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer}
    made = dict(zip(results, map(np.asarray, outputs), strict=True))
    found: dict[str, npt.NDArray[np.generic]] = {}
    for node in known:
        if node.op_type == "Constant":
            sizes[node.output[0]] = sum(attribute.t.ByteSize() for attribute in node.attribute)
            continue
        # What a node that stays gives is computed at each call, and so is all behind it.
        stays = node.op_type not in ("Shape", "Size") and any(name and name not in sizes for name in node.input)
        allowed = max(SMALL_BYTES, sum(sizes.get(name, 0) for name in node.input))
        if not stays and all(made[name].nbytes <= allowed or _is_uniform(made[name]) for name in node.output if name):
            found |= {name: made[name] for name in node.output if name}
            sizes |= {name: made[name].nbytes for name in node.output if name}
    return found


def _is_uniform(value: npt.NDArray[np.generic]) -> bool:
    return value.size > 1 and bool((value == value.flat[0]).all())


def _replace(graph: onnx.GraphProto, values: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Take nodes away whose results are known, and write what others need of them."""
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}  # copies of weights, which an exporter writes where modules share them
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and same.get(node.input[0], node.input[0]) in weights and node.output[0] not in outputs:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
        elif not any(name in values for name in node.output):
            kept.append(node)
    for node in kept:
        node.input[:] = [same.get(name, name) for name in node.input]
    kept = _used(kept, outputs)
    needed = {name for node in kept for name in node.input} | outputs
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    new = {name: value for name, value in values.items() if name in needed and name not in same}
    tensors += [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in new.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)


def _shrink_uniform(model: onnx.ModelProto) -> None:
    """Write one number for a tensor of equal ones, where each node that reads it spreads it over the other operand."""
    shapes = {value.name: dims_of(value) for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    shapes |= {value.name: dims_of(value) for value in model.graph.input}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for tensor in model.graph.initializer:
        shape, value = list(tensor.dims), numpy_helper.to_array(tensor)

        def spreads(node: onnx.NodeProto, name: str = tensor.name, shape: list[int] = shape) -> bool:
            others = [other for other in node.input if other != name]
            return node.op_type in BY_ELEMENT and len(node.input) == 2 and [shapes.get(one) for one in others] == [shape]

        if _is_uniform(value) and all(spreads(node) for node in readers.get(tensor.name, [])):
            tensor.CopyFrom(numpy_helper.from_array(np.array(value.flat[0]), tensor.name))


def _used(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that something is computed from, in their order."""
    wanted, found = set(wanted), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted.update(node.input)
    return found[::-1]
