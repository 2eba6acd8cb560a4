"""Tensors that decide shapes: durations, lengths, masks, and the nodes that do nothing but compute them.

A rounding error in such a tensor is not noise but another shape: a predicted duration that falls on the other side of an
integer, a mask that is 0.998 instead of 1, a length that no longer matches. A graph that is quantized there fails in a Concat,
or speaks at another pace. Two sets of nodes must therefore stay as they are:

- *deciding*: every path from the node ends in a decision. A decision is an operator that makes a number discrete (Ceil,
  Round, a comparison, a Cast to an integer) and whose result then is a shape (of Reshape, Expand, Range, ...) or meets
  continuous data as a mask. The duration predictor of a text-to-speech model is such a part; an encoder that also feeds
  the decoder is not, and neither is a classifier that ends in an ArgMax. Where a number becomes a shape but is data as well,
  as a weight that continuous integrate-and-fire both counts tokens and sums frames with (Dong and Xu, CIF, 2020), the layer
  that computes it decides too, and what does nothing but lead to it.
- *decided*: the node touches a tensor that was computed from nothing but decisions: masks, alignment paths, positions.
  So are whole numbers that a model is given (characters, samples as int16) and waves of positions (sines and cosines, which
  attention knows its distances by). But a layer that multiplies any of them with its weight makes ordinary data of it. What
  sums whole numbers (a running sum as a product with ones) or multiplies each position with frequencies (which sums nothing)
  is not such a layer.

An encoder that feeds the duration predictor and the decoder is in neither set: it computes ordinary data as well. Where the
length of the output must stay to the sample, it has to stay in float too: `length_deciding_nodes` goes from the lengths to
everything upstream.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.attributes import attribute
from pipeline.graph.op_sets import DENSE_LAYERS, RECURRENT_LAYERS
from pipeline.graph.subgraph_scopes import bodies, outer_scope_inputs
from pipeline.graph.value_info import FLOAT_TYPES

# op type -> inputs that are shapes, positions or counts
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Slice": (1, 2, 3, 4),
    "Pad": (1,), "Resize": (1, 2, 3), "Split": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "TopK": (1,), "Trilu": (1,),
    "CumSum": (1,), "Loop": (0, 1), "If": (0,), "ReverseSequence": (1,), "LSTM": (4,), "GRU": (4,), "RNN": (4,),
}  # fmt: skip
# op type -> inputs that select values, and so are not data either
INDEX_INPUTS: dict[str, tuple[int, ...]] = {
    "Gather": (1,), "GatherElements": (1,), "GatherND": (1,), "ScatterND": (1,), "ScatterElements": (1,), "OneHot": (0,),
}  # fmt: skip
NO_DATA = {
    op_type: (*SHAPE_INPUTS.get(op_type, ()), *INDEX_INPUTS.get(op_type, ())) for op_type in (*SHAPE_INPUTS, *INDEX_INPUTS)
}
DISCRETE_OPS = frozenset(
    {"Ceil", "Floor", "Round", "Sign", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not", "And", "Or",
     "NonZero", "ArgMax", "ArgMin", "Shape", "Size", "Range", "ConstantOfShape", "OneHot", "EyeLike"}
)  # fmt: skip
IN_BODY = -1  # in place of the number of an input: read by the body of an If, Loop or Scan
INTEGER_TYPES = frozenset(
    {onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64,
     onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64,
     onnx.TensorProto.BOOL}
)  # fmt: skip


class _Step(NamedTuple):
    """What is needed of a node several times: reading it from protobuf takes longer.

    Attributes:
        node: itself.
        name: of the node.
        op_type: of the node.
        inputs: the tensors that it names, empty names included.
        outputs: the tensors that it makes.
        captured: the tensors that its bodies read.
    """

    node: onnx.NodeProto
    name: str
    op_type: str
    inputs: list[str]
    outputs: list[str]
    outer_scope_inputs: set[str]


def shape_deciding_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that decide shapes, or touch what was decided; they are never quantized."""
    steps = _steps(graph)
    discrete, touched, _ = _decided(graph, steps)
    return touched | _deciding(graph, steps, discrete)


def decided_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that are computed from nothing but decisions and constants, and that no layer reads.

    No node that reads one is quantized.
    """
    discrete, _, for_layers = _decided(graph, _steps(graph))
    return discrete - for_layers


def length_deciding_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes whose values decide the length of a tensor, everything upstream included.

    In VITS these are the duration predictor and the text encoder before it: the sum of the predicted durations is the number of
    frames. The shape of a tensor is not its values, so that nothing goes on through a Shape: where all lengths follow from
    those of the inputs, no layer is among the nodes.
    """
    found = _lengths_follow_from(graph)[0]
    return {node.name for number, node in enumerate(graph.node) if number in found}


def _lengths_follow_from(graph: onnx.GraphProto) -> tuple[set[int], set[str]]:
    """Return the places of the nodes that lengths follow from, and the tensors from outside of the graph that they do."""
    steps = _steps(graph)
    makers = {tensor: number for number, step in enumerate(steps) for tensor in step.outputs if tensor}
    inner = makers.keys() | {tensor.name for tensor in graph.initializer}
    waiting = [step.inputs[index] for step in steps for index in SHAPE_INPUTS.get(step.op_type, ()) if index < len(step.inputs)]
    for step in steps:
        # In a body, as PyTorch's repeat_interleave is exported, what was captured is read as a length.
        for body in bodies(step.node):
            outer, own = _lengths_follow_from(body)[1], {value.name for value in body.input}
            waiting += [*(outer - own), *(step.inputs if outer & own else ())]
    found: set[int] = set()
    outside: set[str] = set()
    while waiting:
        tensor = waiting.pop()
        number = makers.get(tensor)
        if number is None and tensor not in inner:
            outside.add(tensor)
        if number is None or number in found:
            continue
        found.add(number)
        if steps[number].op_type not in ("Shape", "Size"):
            waiting += [*steps[number].inputs, *steps[number].outer_scope_inputs]
    return found, outside - {""}


def _steps(graph: onnx.GraphProto) -> list[_Step]:
    return [
        _Step(node, node.name, node.op_type, [*node.input], [*node.output], outer_scope_inputs(node)) for node in graph.node
    ]


def _makes_discrete(step: _Step) -> bool:
    if step.op_type == "Cast":
        return attribute(step.node, "to") in INTEGER_TYPES
    return step.op_type in DISCRETE_OPS


def _decided(graph: onnx.GraphProto, steps: Sequence[_Step]) -> tuple[set[str], set[str], set[str]]:
    """Return the tensors computed from decisions and constants alone, the nodes that read one as data, and what layers read."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constant = {"", *weights}
    discrete = {value.name for value in graph.input if value.type.tensor_type.elem_type in INTEGER_TYPES} - constant
    touched: set[str] = set()
    for_layers: set[str] = set()
    for step in steps:
        if constant.issuperset(step.inputs) and constant.issuperset(step.outer_scope_inputs):
            constant.update(step.outputs)
            continue
        aside = NO_DATA.get(step.op_type, ())
        data = [tensor for index, tensor in enumerate(step.inputs) if index not in aside and tensor not in constant]
        if not discrete.isdisjoint(data) and (
            step.op_type in RECURRENT_LAYERS or (step.op_type in DENSE_LAYERS and _is_layer(step.node, weights))
        ):
            for_layers.update(data)
            continue  # what it makes is ordinary data
        if _makes_discrete(step) or (data and discrete.issuperset(data)):
            discrete.update(step.outputs)
            touched.add(step.name)
        elif not discrete.isdisjoint(data):
            touched.add(step.name)
    return discrete, touched, for_layers


def _is_layer(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a product sums several inputs, weighted by other than whole numbers."""
    weight = weights.get(node.input[1])
    if weight is None or len(weight.dims) < 2 or weight.data_type not in FLOAT_TYPES:
        return False
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    summed = weight.dims[1:] if node.op_type == "Conv" else weight.dims[-1:] if transposed else weight.dims[-2:-1]
    if np.prod(summed) < 2:
        return False
    values = numpy_helper.to_array(weight).astype(np.float32)
    return bool(np.any(values != np.rint(values)))


def _becoming_shapes(graph: onnx.GraphProto, steps: Sequence[_Step], discrete: set[str]) -> set[str]:
    """Return the nodes that compute a number which becomes a shape, from the last layer on, whatever else reads it.

    Goes upstream as long as nothing but that number is computed: from one tensor of data, besides constants and decisions.
    """
    makers = {tensor: step for step in steps for tensor in step.outputs if tensor}
    constant = {"", *(tensor.name for tensor in graph.initializer)}
    waiting = [step.inputs[index] for step in steps for index in SHAPE_INPUTS.get(step.op_type, ()) if index < len(step.inputs)]
    seen: set[str] = set()
    found: set[str] = set()
    while waiting:
        tensor = waiting.pop()
        step = makers.get(tensor)
        if step is None or tensor in seen or step.op_type in ("Shape", "Size") or step.outer_scope_inputs:
            continue
        seen.add(tensor)
        aside = NO_DATA.get(step.op_type, ())
        data = {name for index, name in enumerate(step.inputs) if index not in aside and not _is_fixed(name, makers, constant)}
        continuous = data - discrete
        if tensor not in discrete and len(continuous) == 1:
            found.add(step.name)
        if step.op_type in DENSE_LAYERS or step.op_type in RECURRENT_LAYERS:
            continue
        if tensor in discrete or len(continuous) == 1:
            waiting += data
    return found


def _is_fixed(tensor: str, makers: Mapping[str, _Step], constant: set[str]) -> bool:
    return tensor in constant or (tensor in makers and makers[tensor].op_type == "Constant")


def _deciding(graph: onnx.GraphProto, steps: Sequence[_Step], discrete: set[str]) -> set[str]:
    """Return the nodes whose every path ends in a decision, or in a number that becomes a shape and is data as well.

    Where all layers before such a number lead to nothing else, it is the model's output, whose layers are no mere decision.
    """
    numbers = _becoming_shapes(graph, steps, discrete)
    found = _ending_in(graph, steps, discrete, numbers)
    if not numbers or _leaves_a_layer(steps, numbers, found):
        return found
    return _ending_in(graph, steps, discrete, set())


def _leaves_a_layer(steps: Sequence[_Step], numbers: set[str], found: set[str]) -> bool:
    """Return whether a layer before some nodes is not among those found."""
    wanted: set[str] = set()
    for step in reversed(steps):
        if step.name in numbers or not wanted.isdisjoint(step.outputs):
            if step.name not in found and (step.op_type in DENSE_LAYERS or step.op_type in RECURRENT_LAYERS):
                return True
            wanted.update(step.inputs, step.outer_scope_inputs)
            wanted.discard("")
    return False


def _ending_in(graph: onnx.GraphProto, steps: Sequence[_Step], discrete: set[str], numbers: set[str]) -> set[str]:
    """Return the nodes whose every path ends in a decision or in given nodes, going through the graph from its end."""
    consumers: dict[str, list[tuple[_Step, int]]] = defaultdict(list)
    for step in steps:
        for index, tensor in enumerate(step.inputs):
            if tensor:
                consumers[tensor].append((step, index))
        for tensor in step.outer_scope_inputs:
            consumers[tensor].append((step, IN_BODY))
    outputs = {output.name for output in graph.output}
    deciding = set(numbers)
    consequential: set[str] = set()  # nodes whose discrete output becomes a shape or a mask

    def is_shape(consumer: _Step, index: int) -> bool:
        return index in SHAPE_INPUTS.get(consumer.op_type, ())

    def is_mask(consumer: _Step, index: int) -> bool:
        if index in INDEX_INPUTS.get(consumer.op_type, ()):
            return False
        return consumer.name in consequential or discrete.isdisjoint(consumer.outputs)

    for step in reversed(steps):
        uses = [use for tensor in step.outputs for use in consumers.get(tensor, ())]
        if not discrete.isdisjoint(step.outputs) and any(is_shape(*use) or is_mask(*use) for use in uses):
            consequential.add(step.name)
        ends_in_decision = all(
            is_shape(consumer, index)
            or consumer.name in deciding
            or (consumer.name in consequential and _makes_discrete(consumer))
            for consumer, index in uses
        )
        if uses and ends_in_decision and outputs.isdisjoint(step.outputs):
            deciding.add(step.name)
    return deciding
