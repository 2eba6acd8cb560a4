"""Small graphs, and what a rewrite does to them."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import parser

from pipeline.graph.graph_editor import Graph
from pipeline.graph.session import infer, open_session
from pipeline.optimize.outcome import Outcome, Sites
from pipeline.sample import Sample

Change = Callable[..., Outcome]


def graph_of(text: str, opset: int = 17, **weights) -> onnx.ModelProto:
    """Parse `(inputs) => (outputs) { nodes }` and give it weights."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> agraph {text}')
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model.metadata_props.add(key="model_type", value="small")
    return onnx.shape_inference.infer_shapes(model)


def changed(model: onnx.ModelProto, change: Change, **options: bool) -> tuple[int | str, onnx.ModelProto]:
    """Return the number of places, or the reason why there is none, and the graph; what no rewrite may change is checked."""
    graph = Graph(model)
    before = model.SerializeToString()
    found = change(graph, **options)
    after = graph.finish()
    onnx.checker.check_model(after)
    assert model.SerializeToString() == before, "the original changed"
    assert [v.SerializeToString() for v in after.graph.input] == [v.SerializeToString() for v in model.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in model.graph.output]
    assert after.metadata_props == model.metadata_props
    assert after.opset_import == model.opset_import
    return found.count if isinstance(found, Sites) else found.reason, after


def difference(before: onnx.ModelProto, after: onnx.ModelProto, **inputs) -> float:
    """Return the largest difference of any output, relative to its scale."""
    sample = Sample("x", inputs)
    first, second = (infer(open_session(model), sample) for model in (before, after))
    assert {name: array.shape for name, array in first.items()} == {name: array.shape for name, array in second.items()}
    return max(float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max()) for name in first)


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
