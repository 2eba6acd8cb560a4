"""The quotient of integers, rounded down.

    where(a / b < 0 and a mod b != 0, a / b - 1, a / b) = (a - a mod b) / b    for b > 0
    floor((floor((a + c) / b) + d) / e) = floor((a + c + b d) / (b e))

ONNX's division of integers rounds towards zero, so that the export of a floor division first computes the signs and the
remainder: nine nodes for one number, in front of every mask of an encoder that shortens its input.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from pipeline.graph.graph_editor import Graph, attribute
from pipeline.optimize.outcome import Outcome, outcome


def rewrite(graph: Graph) -> Outcome:
    """Shorten floor divisions by constants; return their number."""
    known: dict[str, tuple[str, int, int]] = {}
    for node in graph.nodes:
        quotient = _quotient(graph, node)
        if quotient is None or not _is_corrected(graph, node.input[0], *quotient.input):
            continue
        constant = np.asarray(graph.constant(quotient.input[1]))
        source, offset, inner = _of_quotient(graph, quotient.input[0], known)
        divisor = constant.item() * inner
        known[node.output[0]] = source, offset, divisor
        dividend = source
        if offset:
            dividend = graph.add_node(
                "Add", [source, graph.add_initializer(np.asarray(offset, constant.dtype))], like=node.name
            )
        by = graph.add_initializer(np.full_like(constant, divisor))
        rest = graph.add_node("Mod", [dividend, by], like=node.name)
        whole = graph.add_node("Sub", [dividend, rest], like=node.name)
        graph.remove(node)
        graph.add_node("Div", [whole, by], node.output[0], name=node.name)
    return outcome(len(known), "no floor division of integers by a constant")


def _of_quotient(graph: Graph, dividend: str, known: Mapping[str, tuple[str, int, int]]) -> tuple[str, int, int]:
    """Return x, a and b so that a dividend is floor((x + a) / b); b is 1 where it is not computed from a quotient."""
    offset, tensor = 0, dividend
    while (node := graph.producer(tensor, "Add", "Sub")) is not None:
        numbers = [(place, array) for place in (1, 0) if (array := graph.constant(node.input[place])) is not None]
        if not numbers or numbers[0][1].ndim or (node.op_type == "Sub" and numbers[0][0] == 0):
            break
        place, number = numbers[0]
        offset, tensor = offset + (number.item() if node.op_type == "Add" else -number.item()), node.input[1 - place]
    source, inner_offset, divisor = known.get(tensor, (tensor, 0, 1))
    return source, inner_offset + divisor * offset, divisor


def _quotient(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the division of which a Where takes the result, or one less."""
    if node.op_type != "Where":
        return None
    quotient, less = graph.producer(node.input[2], "Div"), graph.producer(node.input[1], "Sub")
    if quotient is None or less is None or less.input[0] != node.input[2] or graph.scalar(less.input[1]) != 1.0:
        return None
    divisor = graph.constant(quotient.input[1])
    fits = divisor is not None and divisor.dtype in (np.int32, np.int64) and divisor.size == 1 and divisor.item() > 0
    return quotient if fits else None


def _is_corrected(graph: Graph, condition: str, dividend: str, divisor: str) -> bool:
    """Return whether a condition is that the dividend is negative and leaves a remainder."""
    both = graph.producer(condition, "And")
    producers = [graph.producer(tensor) for tensor in both.input] if both is not None else []
    signs = next((producer for producer in producers if producer is not None and producer.op_type == "Xor"), None)
    remains = next((producer for producer in producers if producer is not None and producer.op_type == "Not"), None)
    if signs is None or remains is None:
        return False
    negative = next((producer for tensor in signs.input if (producer := graph.producer(tensor, "Less")) is not None), None)
    positive = [array for tensor in signs.input if (array := graph.constant(tensor)) is not None and not array.any()]
    none = graph.producer(remains.input[0], "Equal")
    rest = (
        next((producer for tensor in none.input if (producer := graph.producer(tensor, "Mod")) is not None), None)
        if none
        else None
    )
    if negative is None or not positive or none is None or rest is None or attribute(rest, "fmod", 0):
        return False
    zero = {graph.scalar(tensor) for tensor in none.input if tensor != rest.output[0]}
    less_than_zero = negative.input[0] == dividend and graph.scalar(negative.input[1]) == 0.0
    return less_than_zero and zero == {0.0} and list(rest.input) == [dividend, divisor]
