"""Nodes in order of their data, and those of them that a result needs; bodies of If and Loop are looked into."""

import onnx

from pipeline.graph.subgraph_scopes import input_tensors


def in_order(kept: list[onnx.NodeProto], added: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes with each after those whose data it reads, otherwise in the order in which they were given."""
    makers = {output: node for node in (*kept, *added) for output in node.output if output}
    done: set[int] = set()
    ordered: list[onnx.NodeProto] = []
    for root in (*kept, *added):
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [
                makers[t] for t in input_tensors(node) if t in makers and id(makers[t]) not in done and makers[t] is not node
            ]
            if id(node) in done or not waiting:
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    ordered.append(node)
            else:
                stack.extend(reversed(waiting))
    return ordered


def alive(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on."""
    needed = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed.update(input_tensors(node))
    return kept[::-1]
