"""Nodes in topological order, and those of them that an output needs; bodies of If and Loop are included."""

import onnx

from pipeline.graph.subgraph_scopes import input_tensors


def topological_order(kept: list[onnx.NodeProto], added: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes with each after the producers of its inputs, otherwise in the given order."""
    producers = {output: node for node in (*kept, *added) for output in node.output if output}
    done: set[int] = set()
    ordered: list[onnx.NodeProto] = []
    for root in (*kept, *added):
        stack = [root]
        while stack:
            node = stack[-1]
            before = [producers[tensor] for tensor in input_tensors(node) if tensor in producers]
            waiting = [other for other in before if id(other) not in done and other is not node]
            if id(node) in done or not waiting:
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    ordered.append(node)
            else:
                stack.extend(reversed(waiting))
    return ordered


def nodes_needed_for(outputs: set[str], nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return those of the nodes, given in topological order, that an output depends on."""
    needed = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed.update(input_tensors(node))
    return kept[::-1]
