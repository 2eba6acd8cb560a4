"""Powers and quotients that are products.

    x ** 2 = x * x,    x ** 1 = x,    x / c = x * (1 / c)

ONNX Runtime's Pow knows the exponent 2 but walks it value by value (0.58 ns here; Mul 0.26), and a vector division takes twice
to thrice a multiplication. 1 / c is rounded once more: half a unit in the last place, none where c is a power of two.
"""

import numpy as np

from pipeline.graph.graph_editor import Graph
from pipeline.optimize.outcome import Outcome, outcome

TINY = 1e-30  # the inverse of less comes near the end of float32


def rewrite(graph: Graph) -> Outcome:
    """Replace Pow by 2 and Div by constants, of float tensors that are no constants themselves."""
    sites = 0
    for node in graph.nodes:
        if node.op_type not in ("Pow", "Div") or not graph.is_float(node.input[0]) or graph.constant(node.input[0]) is not None:
            continue
        x, second = node.input
        if node.op_type == "Pow" and graph.scalar(second) == 2.0 and len(graph.constant(second).shape) <= 1:  # type: ignore[union-attr]
            graph.remove(node)
            graph.add_node("Mul", [x, x], node.output[0], name=node.name)
        elif graph.only_consumer(node.output[0], "Erf") is not None:
            continue  # of a GELU, which ONNX Runtime fuses as it stands
        elif node.op_type == "Div" and (divisor := graph.constant(second)) is not None:
            if (np.abs(divisor) < TINY).any():
                continue
            inverse = (1.0 / divisor.astype(np.float64)).astype(np.float32)
            graph.remove(node)
            graph.add_node("Mul", [x, graph.add_initializer(inverse, f"{second}_inverse")], node.output[0], name=node.name)
        else:
            continue
        sites += 1
    return outcome(sites, "no Pow by 2 and no Div by a constant")
