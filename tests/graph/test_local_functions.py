"""Local functions are inlined: the same results, and names that say which call each node comes from."""

import numpy as np
import onnx
from onnx import helper

from pipeline.graph.local_functions import inline_functions
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.sample import Sample

HEAD = '<ir_version: 10, opset_import: ["" : 18, "pkg" : 1]>'
NESTED = (
    HEAD
    + """
g (float[n, 4] x, float[4, 4] u, float[4, 4] v) => (float[n, 4] y) {
    [first] h = pkg.Block (x, u)
    [second] y = pkg.Block (h, v)
}
<opset_import: ["" : 18, "pkg" : 1], domain: "pkg"> Block (x, w) => (y) { [linear] h = pkg.Linear (x, w) y = Relu (h) }
<opset_import: ["" : 18], domain: "pkg"> Linear (x, w) => (y) { [mm] y = MatMul (x, w) }
"""
)


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    session = open_session(model)
    feeds = {}
    for value in session.get_inputs():
        shape = [3 if isinstance(size, str) else size for size in value.shape]
        feeds[value.name] = np.array(True) if "bool" in value.type else rng.standard_normal(shape).astype(np.float32)
    return list(infer(session, Sample("s", feeds)).values())


def inlined(text: str) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """Return a model after its functions were inlined, having checked that it computes the same."""
    model = onnx.parser.parse_model(text)
    expected = outputs(model)
    calls = inline_functions(model)
    assert not model.functions
    onnx.checker.check_model(model, full_check=True)
    for before, after in zip(expected, outputs(model), strict=True):
        np.testing.assert_array_equal(after, before)
    names = [node.name for scope in graphs_of(model.graph) for node in scope.node]
    assert len(set(names)) == len(names)
    return model, calls


def test_nodes_are_named_after_the_calls_that_they_come_from():
    model, calls = inlined(NESTED)
    assert [node.name for node in model.graph.node] == ["first/linear/mm", "first/Relu", "second/linear/mm", "second/Relu"]
    assert calls["second/linear/mm"] == ("second", "second/linear")
    assert {entry.domain for entry in model.opset_import} == {""}


def test_attributes_have_the_value_of_the_call_or_the_default_of_the_function():
    model, _ = inlined(
        HEAD
        + """
        g (float[n, 4] x) => (float[n, 4] y) {
            [given] h = pkg.Leaky <alpha = 0.5> (x)
            [default] y = pkg.Leaky (h)
        }
        <opset_import: ["" : 18], domain: "pkg"> Leaky <alpha: float = 0.25> (x) => (y) {
            y = LeakyRelu <alpha: float = @alpha> (x)
        }
        """
    )
    assert [node.attribute[0].f for node in model.graph.node] == [0.5, 0.25]
    assert not any(entry.ref_attr_name for node in model.graph.node for entry in node.attribute)


def test_a_function_with_a_branch_is_inlined_with_the_tensors_that_the_branch_reads():
    inlined(
        HEAD
        + """
        g (float[n, 4] x, bool c) => (float[n, 4] y) { [one] a = pkg.Either (x, c) [two] y = pkg.Either (a, c) }
        <opset_import: ["" : 18], domain: "pkg"> Either (x, c) => (y) {
            h = Neg (x)
            y = If (c) <then_branch = t () => (p) { h2 = Neg (h) p = Add (h2, x) }, else_branch = e () => (q) { q = Exp (h) }>
        }
        """
    )


def test_a_function_that_is_called_in_a_branch_is_inlined_there():
    model, calls = inlined(
        HEAD
        + """
        g (float[n, 4] x, bool c) => (float[n, 4] y) {
            y = If (c) <then_branch = t () => (float[n, 4] p) { [call] p = pkg.Twice (x) },
                        else_branch = e () => (float[n, 4] q) { [call] q = pkg.Twice (x) }>
        }
        <opset_import: ["" : 18], domain: "pkg"> Twice (x) => (y) { [add] y = Add (x, x) }
        """
    )
    assert calls == {"call/add": ("call",), "call_1/add": ("call_1",)}
    assert len(model.graph.node) == 1


def test_an_input_that_is_left_out_is_left_out_inside():
    model, _ = inlined(
        HEAD
        + """
        g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { [call] y, z = pkg.Both (x) }
        <opset_import: ["" : 18], domain: "pkg"> Both (x, low) => (y, z) { [clip] y = Clip (x, low) z = Neg (x) }
        """
    )
    assert list(model.graph.node[0].input) == ["x", ""]


def test_a_function_that_passes_its_input_on_becomes_a_copy():
    """ONNX Runtime does not load such a function, but ONNX allows it."""
    model = onnx.parser.parse_model(
        HEAD
        + """
        g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { [call] y, z = pkg.Pass (x) }
        <opset_import: ["" : 18], domain: "pkg"> Pass (x) => (x, h) { h = Neg (x) }
        """
    )
    inline_functions(model)
    kept, negated = outputs(model)
    np.testing.assert_array_equal(kept, -negated)


def test_operator_sets_that_only_a_function_imports_are_imported_by_the_model():
    model = onnx.parser.parse_model(NESTED)
    model.functions[1].node[0].CopyFrom(
        helper.make_node("FusedMatMul", ["x", "w"], ["y"], name="mm", domain="com.microsoft", alpha=2.0)
    )
    model.functions[1].opset_import.append(helper.make_opsetid("com.microsoft", 1))
    inline_functions(model)
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}
    outputs(model)


def test_a_file_with_functions_is_prepared_for_any_opset(source_of):
    source = source_of(onnx.parser.parse_model(NESTED))
    ready = prepare(source, opset=21, needed_opset=13, preprocess=True)
    assert ready.model.graph.node[0].name == "first/linear/mm"
    np.testing.assert_array_equal(outputs(ready.model)[0], outputs(source.model)[0])
