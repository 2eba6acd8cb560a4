"""Layers whose output is an exponent: what rounding adds to it becomes a factor of the result.

The head of a vocoder by inverse Fourier transform (iSTFTNet in Kokoro, Vocos) makes the logarithm of a spectrum, a normalizing
flow that of a scale. In 8 bits such a logarithm has steps of 1/255 of its range, often a tenth of a neper. With ranges at run
time outputs are floats, and nothing has to be done. Where 1 is added to an Exp, as in Softplus, Swoosh or a logistic function,
what follows takes the error back.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator

import onnx

from pipeline.graph.op_sets import LAYERS
from pipeline.graph.subgraph_scopes import input_tensors

PASSING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Gather", "Pad"})
LIMITING = frozenset({"Clip", "Min", "Max"})
WEIGHING = frozenset({"Mul", "Div", "Neg", "Add", "Sub"})  # by constants


def layers_of_exponents(graph: onnx.GraphProto) -> set[str]:
    """Return the names of layers whose output, moved, limited or scaled by constants, is an exponent of a factor."""
    makers = {tensor: node for node in graph.node for tensor in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for tensor in input_tensors(node):
            readers[tensor].append(node)
    found: set[str] = set()
    for node in graph.node:
        if node.op_type == "Exp" and _is_factor(node.output[0], readers):
            found.update(_layers_before(node.input[0], makers, constants))
    return found


def _is_factor(tensor: str, readers: dict[str, list[onnx.NodeProto]]) -> bool:
    """Say whether something is multiplied by a tensor, moved or limited on the way."""
    for node in readers[tensor]:
        if node.op_type == "Mul":
            return True
        if node.op_type in PASSING | LIMITING and any(_is_factor(output, readers) for output in node.output):
            return True
    return False


def _layers_before(tensor: str, makers: dict[str, onnx.NodeProto], constants: Collection[str]) -> Iterator[str]:
    node = makers.get(tensor)
    if node is None:
        return
    if node.op_type in LAYERS:
        yield node.name
    elif node.op_type in PASSING | LIMITING:
        yield from _layers_before(node.input[0], makers, constants)
    elif node.op_type in WEIGHING:
        computed = [name for name in node.input if name not in constants]
        if len(computed) == 1:
            yield from _layers_before(computed[0], makers, constants)
