"""The attributes of a node, by name."""

from typing import Any

import onnx
from onnx import helper


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return an attribute of a node, or the default where it has none."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return all attributes of a node that are given."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an attribute that is a whole number, such as `axis`, `group` or `transB`."""
    return int(attribute(node, name, default))


def float_attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """Return an attribute that is a number, such as `epsilon` or `alpha`."""
    return float(attribute(node, name, default))


def ints_attribute(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of whole numbers, such as `pads` or `strides`."""
    return [int(value) for value in attribute(node, name, default)]


def string_attribute(node: onnx.NodeProto, name: str, default: str) -> str:
    """Return an attribute that is a string, such as `mode` or `auto_pad`."""
    value = attribute(node, name, default)
    return value.decode() if isinstance(value, bytes) else str(value)
