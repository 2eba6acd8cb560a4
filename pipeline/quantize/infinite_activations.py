"""Nodes of a plan that stay in fp32 because what they read or make has no range."""

from collections.abc import Collection, Mapping

import onnx

from pipeline.quantize.plan import Plan, Precision

IN_INTEGERS = (Precision.static_int8, Precision.dynamic_int8)


def tensors_of(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return what nodes of the top-level graph read and make, but for constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    read = (name for node in model.graph.node if node.name in nodes for name in (*node.input, *node.output))
    return [name for name in dict.fromkeys(read) if name and name not in constants]


def keep_infinite(model: onnx.ModelProto, plan: Plan, infinite: Mapping[str, str]) -> None:
    """Let the nodes of a plan that compute in integers stay in fp32 where a tensor of theirs has no range.

    Args:
        model: the graph.
        plan: is changed.
        infinite: tensor -> the sample on which it holds NaN or infinity; see `infinite_tensors`.
    """
    plan.keep(reasons_of(model, plan.nodes(*IN_INTEGERS), infinite))


def reasons_of(model: onnx.ModelProto, nodes: Collection[str], infinite: Mapping[str, str]) -> dict[str, str]:
    """Return those of the nodes that read or make a tensor without a range, each with the reason why it stays float."""
    found = {}
    for node in model.graph.node:
        tensor = next((name for name in (*node.input, *node.output) if name in infinite), None)
        if node.name in nodes and tensor is not None:
            found[node.name] = (
                f"{tensor} holds NaN or infinity on sample {infinite[tensor]!r} (a row that is masked entirely, a bias "
                "of -inf?), so that it has no range"
            )
    return found
