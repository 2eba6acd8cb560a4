"""The operator sets that a model imports."""

import onnx

from pipeline.graph.subgraph_scopes import graphs_of

MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
DEFAULT_DOMAIN = ("", "ai.onnx")  # two names of one set


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAIN), default=1)


def import_microsoft(model: onnx.ModelProto) -> None:
    """Import ONNX Runtime's own operators where a graph has one and does not yet, in place."""
    if any(entry.domain == MICROSOFT for entry in model.opset_import):
        return
    if any(node.domain == MICROSOFT for scope in graphs_of(model.graph) for node in scope.node):
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def use_one_default_domain(model: onnx.ModelProto) -> None:
    """Write the default operator set as `""` wherever the model calls it `ai.onnx`, and import it once, in place."""
    if any(entry.domain == "ai.onnx" for entry in model.opset_import):
        others = [entry for entry in model.opset_import if entry.domain not in DEFAULT_DOMAIN]
        default = onnx.helper.make_opsetid("", opset_of(model))
        del model.opset_import[:]
        model.opset_import.extend([default, *others])
    scopes = [*graphs_of(model.graph), *model.functions]
    for node in (node for scope in scopes for node in scope.node if node.domain == "ai.onnx"):
        node.domain = ""
