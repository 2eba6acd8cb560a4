"""The operator sets that a model imports."""

import onnx


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
