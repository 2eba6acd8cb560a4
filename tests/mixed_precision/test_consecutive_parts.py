"""The float graph in parts gives what it gives as a whole, wherever it is cut."""

import numpy as np
import pytest

from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.source_graph import load_graph
from pipeline.mixed_precision.consecutive_parts import ConsecutiveParts
from pipeline.sample import Sample
from tests.conftest import SHIPPED


def graph_that_ships(repo, name):
    file, graph = SHIPPED[name]
    model = prepare(load_graph(graph, str(repo / file)), opset=None, needed_opset=13, preprocess=True).model
    return with_shapes(with_noise_inputs(model).model)


@pytest.mark.parametrize("name", ["vocoder", "asr"])
def test_one_after_the_other_they_give_what_the_graph_gives(repo, name):
    model = graph_that_ships(repo, name)
    rng = np.random.default_rng(0)
    session = open_session(model)
    shapes = {value.name: [d.dim_value or (1 if at == 0 else 60) for at, d in enumerate(value.type.tensor_type.shape.dim)]
              for value in model.graph.input}  # fmt: skip
    feeds = {
        value.name: np.full(shapes[value.name], 60, np.int64)
        if value.type.tensor_type.elem_type == 7
        else rng.standard_normal(shapes[value.name]).astype(np.float32)
        for value in model.graph.input
    }
    whole = infer(session, Sample("s", feeds))
    consecutive, tensors = ConsecutiveParts(model, threads=1), dict(feeds)
    assert len(consecutive.parts) >= 2
    for number, part in enumerate(consecutive.parts):
        given = {tensor: tensors[tensor] for tensor in part.inputs}
        tensors |= infer(consecutive.session(number, given), Sample("s", given))
    for output, expected in whole.items():
        np.testing.assert_allclose(tensors[output], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["vocoder", "asr", "matcha"])
def test_each_node_is_in_one_part_and_only_what_crosses_is_handed_on(repo, name):
    model = graph_that_ships(repo, name)
    parts = ConsecutiveParts(model, threads=1).parts
    computing = [node.name for node in model.graph.node if any(node.input)]
    assert sorted(name for part in parts for name in part.nodes if name in set(computing)) == sorted(computing)
    given = {value.name for value in model.graph.input}
    for number, part in enumerate(parts):
        made = given.union(*(earlier.outputs for earlier in parts[:number]))
        assert made.issuperset(part.inputs)
    assert max(len(part.nodes) for part in parts) < 0.7 * len(computing)


@pytest.mark.parametrize("more", [[], ["r0 = Neg (x)"]], ids=["even", "odd"])
def test_no_part_begins_between_a_layer_and_the_relu_that_its_pair_replaces(build, make_weight, more):
    lines = [*more, *(f"a{k} = Conv <pads = [1, 1]> (r{k}, w)\n r{k + 1} = Relu (a{k})" for k in range(60))]
    given = "x" if more else "r0"
    text = f"net (float[1, 8, n] {given}) => (float[1, 8, n] r60) {{" + "\n".join(lines) + "}"
    parts = ConsecutiveParts(with_shapes(build(text, w=make_weight(8, 8, 3))), threads=1).parts
    assert len(parts) == 3
    assert all(name.startswith("r") for part in parts[1:] for name in (*part.inputs, *part.outputs))
