"""The layouts that a quantized graph may take, each a sequence of rewrites."""

from collections.abc import Collection, Iterator

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


def starts_of(model: onnx.ModelProto, allowed: Collection[str]) -> dict[Layout, onnx.ModelProto]:
    """Return the graph as it is and, where it has some, with its integers in their layout: what further layouts begin with.

    Before they are run, `float_kept` is to be called.
    """
    integers = _changed(model, INTEGERS) if INTEGERS in allowed else None
    return {(): model} | ({} if integers is None else {(INTEGERS,): integers})


def further_forms(
    start: onnx.ModelProto, begun: Layout, allowed: Collection[str], wanted: Collection[Layout] | None = None
) -> Iterator[tuple[Layout, onnx.ModelProto]]:
    """Yield the layouts that a graph may take from a start on, each with the graph in it.

    Those of whole float regions or of wide Convs, and further ones on top of these.

    Args:
        start: the graph as it is, or with its integers in their layout; it is not changed.
        begun: which of the two.
        allowed: names of the rewrites that may be used.
        wanted: layouts; others are left out. None: all.
    """

    def leads_on(layout: Layout) -> bool:
        return wanted is None or any(one[: len(layout)] == layout for one in wanted)

    for first in ALTERNATIVES:
        current, layout = start, begun
        for rewrite in (first, *FURTHER):
            further = (*layout, rewrite)
            changed = _changed(current, rewrite) if rewrite in allowed and leads_on(further) else None
            if changed is None and rewrite is first:
                break
            if changed is not None:
                current, layout = changed, further
                if wanted is None or layout in wanted:
                    yield layout, float_kept(current)


def first_form(model: onnx.ModelProto, allowed: Collection[str]) -> onnx.ModelProto:
    """Return a graph in the first layout that it may take; as it is where there is none."""
    *_, (begun, start) = starts_of(model, allowed).items()
    return float_kept(start) if begun else next((form for _, form in further_forms(model, (), allowed)), model)


def in_layout(model: onnx.ModelProto, layout: Layout) -> onnx.ModelProto:
    """Return a graph whose nodes have a layout; what is float in it stays so."""
    for name in layout:
        model = _changed(model, name) or model
    return float_kept(model) if layout else model


def float_kept(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which what is float stays so: nodes may have got other neighbours."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    keep_float(kept)
    return kept


def _changed(model: onnx.ModelProto, rewrite: str) -> onnx.ModelProto | None:
    graph = Graph(with_shapes(model))
    layout = next(layout for layout in LAYOUTS if layout.name == rewrite)
    return None if isinstance(layout.apply(graph), Refusal) else graph.finish()
