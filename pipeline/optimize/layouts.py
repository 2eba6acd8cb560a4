"""The layouts that a quantized graph may take, each a sequence of rewrites."""

from collections.abc import Collection

import onnx

from pipeline.graph.graph_editor import Graph
from pipeline.graph.shape_inference import with_shapes
from pipeline.optimize.outcome import Refusal
from pipeline.optimize.rewrite_registry import LAYOUTS
from pipeline.quantize.ort_fusion_guard import keep_float

ALTERNATIVES = ("conv1d_to_conv2d", "conv1d_to_conv2d_wide")
INTEGERS = "integer_channels_last"
FURTHER = tuple(layout.name for layout in LAYOUTS if layout.name not in (*ALTERNATIVES, INTEGERS))


Layout = tuple[str, ...]
"""Names of rewrites, in the order in which they are done."""


def layouts_of(model: onnx.ModelProto, allowed: Collection[str]) -> list[Layout]:
    """Return the layouts that a graph may take: of its integers, then of whole float regions or wide Convs, and further.

    Args:
        model: the graph.
        allowed: names of the rewrites that may be used.
    """
    found: list[Layout] = []
    integers = _changed(model, INTEGERS) if INTEGERS in allowed else None
    for start, begun in ((model, ()), (integers, (INTEGERS,))):
        if start is None:
            continue
        found += [begun] if begun else []
        for first in ALTERNATIVES:
            current, layout = start, begun
            for rewrite in (first, *FURTHER):
                changed = _changed(current, rewrite) if rewrite in allowed else None
                if changed is None and rewrite is first:
                    break
                if changed is not None:
                    current, layout = changed, (*layout, rewrite)
                    found.append(layout)
    return found


def in_layout(model: onnx.ModelProto, layout: Layout) -> onnx.ModelProto:
    """Return a graph whose nodes have a layout; what is float in it stays so."""
    for name in layout:
        model = _changed(model, name) or model
    if layout:
        keep_float(model)  # nodes may have got other neighbours
    return model


def _changed(model: onnx.ModelProto, rewrite: str) -> onnx.ModelProto | None:
    graph = Graph(with_shapes(model))
    layout = next(layout for layout in LAYOUTS if layout.name == rewrite)
    return None if isinstance(layout.apply(graph), Refusal) else graph.finish()
