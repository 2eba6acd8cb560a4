"""A factor and a shift, one of each a channel, in one pass.

    g x + b = batch_norm(x; g, b, mean 0, variance 1, epsilon 0)

the affine part of a group norm, which exporters write as a Mul and an Add after an InstanceNormalization. Each is a pass over
the tensor with a row that is broadcast; BatchNormalization does both in one pass.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.graph.graph_editor import Array, Graph
from pipeline.optimize.outcome import Outcome, outcome

RANKS = (3, 4)


def rewrite(graph: Graph) -> Outcome:
    """Replace a Mul and the Add that alone reads it, both by one number a channel; return the number of such pairs."""
    sites = 0
    for node in graph.nodes:
        last = graph.only_consumer(node.output[0], "Add") if node.op_type == "Mul" else None
        if last is None or not graph.is_float(node.output[0]):
            continue
        gain, x = _row(graph, node.input)
        shift, product = _row(graph, last.input)
        if gain is None or shift is None or gain.shape != shift.shape or product != node.output[0]:
            continue
        rows = [gain, shift, np.zeros_like(gain), np.ones_like(gain)]
        graph.remove(node, last)
        inputs = [x, *(graph.add_initializer(row, f"{node.name}_row") for row in rows)]
        graph.add_node("BatchNormalization", inputs, last.output[0], name=node.name, epsilon=0.0)
        sites += 1
    return outcome(sites, "no Mul and Add by one number a channel each")


def _row(graph: Graph, inputs: Sequence[str]) -> tuple[Array | None, str]:
    """Return the constant of one number a channel among two inputs, and the other."""
    for row, data in ((inputs[1], inputs[0]), (inputs[0], inputs[1])):
        shape = graph.shape(data)
        if graph.constant(data) is None and shape is not None and len(shape) in RANKS and isinstance(shape[1], int):
            return graph.channel_row(row, len(shape), shape[1]), data
    return None, ""
