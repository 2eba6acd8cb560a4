"""Parts of a graph compute what the graph does, and hold no more than they need."""

import numpy as np
import pytest

from pipeline.graph.session import infer, inputs_for, open_session
from pipeline.graph.subgraph import downstream_of, upstream_of
from pipeline.sample import Sample

TEXT = """g (float[n, 8] x, float[n, 8] other) => (float[n, 8] y, float[n, 8] z) {
    [first] a = MatMul (x, w) [second] b = MatMul (a, v) [third] c = Relu (b)
    [last] y = Add (c, other) [aside] z = MatMul (x, u) }"""


@pytest.fixture
def model(build, make_weight):
    """Return a graph of two branches."""
    return build(TEXT, **{name: make_weight(8, 8, seed=seed) for seed, name in enumerate("wvu")})


@pytest.fixture
def inputs(make_weight):
    """Return inputs of the graph."""
    return {name: make_weight(3, 8, seed=seed) for seed, name in enumerate(("x", "other"), 5)}


def contents(part):
    graph = part.graph
    return (
        [node.name for node in graph.node],
        [value.name for value in graph.input],
        sorted(tensor.name for tensor in graph.initializer),
    )


def run(model, arrays):
    session = open_session(model)
    return infer(session, Sample("s", inputs_for(session, arrays)))


def test_what_computes_a_tensor_holds_nothing_else(model, inputs):
    part = upstream_of(model, ["b"])
    assert contents(part) == (["first", "second"], ["x"], ["v", "w"])
    np.testing.assert_allclose(np.maximum(run(part, inputs)["b"], 0) + inputs["other"], run(model, inputs)["y"], rtol=1e-6)


def test_nodes_that_are_in_no_order_are_found_all_the_same(model, inputs):
    nodes = list(model.graph.node)[::-1]
    expected = run(model, inputs)["y"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    part = upstream_of(model, ["y"])
    assert sorted(contents(part)[0]) == ["first", "last", "second", "third"]
    np.testing.assert_array_equal(run(part, inputs)["y"], expected)


def test_what_depends_on_a_node_reads_the_rest_from_outside(model, inputs):
    part, read = downstream_of(model, ["second"])
    assert contents(part) == (["second", "third", "last"], ["a", "other"], ["v"])
    assert read == ["a", "other"]
    assert [output.name for output in part.graph.output] == ["y"]


def test_a_part_knows_the_operator_sets_and_functions_of_its_graph(model):
    model.functions.add(name="f", domain="local")
    model.opset_import.add(domain="local", version=1)
    for part in (upstream_of(model, ["b"]), downstream_of(model, ["second"])[0]):
        assert {entry.domain for entry in part.opset_import} == {"", "local"}
        assert [function.name for function in part.functions] == ["f"]
        assert part.ir_version == model.ir_version
