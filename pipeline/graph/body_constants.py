"""Constant nodes in the bodies of If, Loop and Scan, as initializers of their body.

ONNX Runtime does so itself with those of the outermost graph when it folds constants, and leaves those of bodies: exporters
write the weights of a traced branch as Constant nodes.
"""

import onnx

from pipeline.graph.subgraph_scopes import graphs_of, replace_nodes


def constants_as_initializers(graph: onnx.GraphProto) -> None:
    """Turn the Constant nodes that hold a tensor into initializers in all bodies of a graph, in place.

    One that a body gives out as it is stays a node: not every runtime takes an initializer there.
    """
    for body in list(graphs_of(graph))[1:]:
        given = {output.name for output in body.output}
        kept = []
        for node in body.node:
            value = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
            if value is None or not value.HasField("t") or node.output[0] in given:
                kept.append(onnx.NodeProto.FromString(node.SerializeToString()))  # the list is cleared
                continue
            tensor = body.initializer.add()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
        if len(kept) < len(body.node):
            replace_nodes(body, kept)
