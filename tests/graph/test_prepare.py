"""A prepared graph has a new enough opset and named nodes, computes the same, and leaves its source alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.errors import ModelError
from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.opset import opset_of
from pipeline.graph.prepare import prepare, without_shapes
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.sample import Sample


def prepared(source, opset=None, needed_opset=13, preprocess=True):
    return prepare(source, opset=opset, needed_opset=needed_opset, preprocess=preprocess)


def test_an_old_graph_is_converted_to_the_opset_that_the_mode_needs_and_says_so(source_of, conv_net):
    source = source_of(conv_net(opset=11))
    ready = prepared(source)
    assert opset_of(ready.model) == 13
    assert "opset 11 to 13" in " ".join(ready.notes)


def test_a_converted_graph_computes_the_same(source_of, conv_net, make_noise):
    source = source_of(conv_net(opset=11))
    sample = Sample("s", {"x": make_noise(30)})
    before = infer(open_session(source.path), sample)["y"]
    np.testing.assert_allclose(infer(open_session(prepared(source).model), sample)["y"], before, rtol=1e-5, atol=1e-6)


def test_a_new_enough_graph_keeps_its_opset(source_of, conv_net):
    ready = prepared(source_of(conv_net(opset=17)))
    assert opset_of(ready.model) == 17
    assert not ready.notes


def test_an_opset_that_is_asked_for_is_given(source_of, conv_net):
    assert opset_of(prepared(source_of(conv_net(opset=13)), opset=18).model) == 18


def test_an_opset_older_than_the_mode_needs_is_refused(source_of, conv_net):
    with pytest.raises(ModelError, match=r"mode\.opset: 12, but this mode needs 13"):
        prepared(source_of(conv_net()), opset=12)


def test_constants_are_folded_and_the_folded_nodes_are_known(source_of, build, make_weight):
    model = build(
        """g (float[n, 8] x) => (float[n, 8] y) {
            [double] v = Add (w, w)
            [product] y = MatMul (x, v)
        }""",
        w=make_weight(8, 8),
    )
    ready = prepared(source_of(model))
    assert [node.name for node in ready.model.graph.node] == ["product"]
    assert ready.folded == {"double"}


@pytest.fixture
def stored_oddly(source_of, build, make_weight):
    """Return a model with a weight in half precision, a weight to transpose, a normalized one, and one that is read twice."""
    text = """stored (float[n, 32] x) => (float[n, 32] y, float[n, 32] again) {
        u = Cast <to = 1> (half) [first] a = MatMul (x, u)
        v = Transpose <perm = [1, 0]> (turned) [second] b = MatMul (a, v)
        size = ReduceL2 <axes = [0], keepdims = 1> (direction) unit = Div (direction, size) w = Mul (unit, gain)
        [third] c = MatMul (b, w)
        z = Transpose <perm = [1, 0]> (table) [fourth] y = MatMul (c, z) [other] again = MatMul (c, table)
    }"""
    constants = {name: make_weight(32, 32, seed=i) for i, name in enumerate(("turned", "direction", "table"))}
    halved = make_weight(32, 32, seed=3).astype(np.float16)
    return source_of(build(text, **constants, half=halved, gain=np.ones((1, 32), np.float32)))


@pytest.mark.parametrize(("shrink", "left"), [(True, {"fourth"}), (False, {"first", "fourth"})])
def test_only_what_would_make_a_file_larger_is_not_folded(stored_oddly, shrink, left):
    ready = prepare(stored_oddly, opset=None, needed_opset=13, preprocess=True, weights_shrink=shrink).model
    constants = {tensor.name for tensor in ready.graph.initializer}
    layers = [node for node in ready.graph.node if node.op_type == "MatMul"]
    assert {node.name for node in layers if node.input[1] not in constants} == left
    sample = Sample("s", {"x": np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)})
    before = infer(open_session(stored_oddly.path), sample)
    for name, array in infer(open_session(ready), sample).items():
        np.testing.assert_allclose(array, before[name], rtol=1e-4, atol=1e-5)


def test_tensors_behind_operators_of_other_domains_have_types(source_of, build, make_weight):
    text = """contrib (float[n, 32] x) => (float[n, 32] y) {
        a = MatMul (x, w) b = com.microsoft.FastGelu (a) c = Relu (b) y = MatMul (c, w)
    }"""
    model = build(text, w=make_weight(32, 32))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    ready = prepared(source_of(model)).model
    types = {value.name: value.type.tensor_type for value in ready.graph.value_info}
    assert [types[name].elem_type for name in "abc"] == [TensorProto.FLOAT] * 3
    assert types["c"].shape.dim[1].dim_value == 32


def test_without_preprocessing_the_graph_stays_as_exported(source_of, build, make_weight):
    model = build(
        "g (float[n, 8] x) => (float[n, 8] y) { [double] v = Add (w, w) [product] y = MatMul (x, v) }", w=make_weight(8, 8)
    )
    ready = prepared(source_of(model), preprocess=False)
    assert [node.name for node in ready.model.graph.node] == ["double", "product"]


def test_a_matmul_and_its_bias_keep_their_names(source_of, build, make_weight):
    """Fused, the node that a user excludes by name would be gone."""
    model = build(
        "g (float[4, 8] x) => (float[4, 8] y) { [product] a = MatMul (x, w) [bias] y = Add (a, b) }",
        w=make_weight(8, 8),
        b=make_weight(8),
    )
    assert [node.name for node in prepared(source_of(model)).model.graph.node] == ["product", "bias"]


def test_the_source_is_not_changed(source_of, conv_net):
    source = source_of(conv_net(opset=11))
    before = source.model.SerializeToString()
    prepared(source)
    assert source.model.SerializeToString() == before


def test_only_standard_operators_come_out(source_of, shipped):
    domains = {node.domain for node in prepared(shipped("asr")).model.graph.node}
    assert domains <= {"", "ai.onnx"}


def test_an_operator_that_cannot_be_converted_is_reported_with_the_way_out(source_of, conv_net, monkeypatch):
    def refuse(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        raise RuntimeError(f"no adapter to {opset}")

    monkeypatch.setattr("pipeline.graph.prepare.version_converter.convert_version", refuse)
    with pytest.raises(ModelError, match=r"opset 11 cannot be converted to 13.*Export the model again"):
        prepared(source_of(conv_net(opset=11)))


def test_a_graph_ships_without_inferred_shapes_but_those_of_its_noise(shipped):
    model = with_shapes(shipped("matcha").model)
    bare = without_shapes(model)
    assert len(model.graph.value_info) > 1000
    assert {value.name for value in bare.graph.value_info} == {"/MatMul_output_0", "/decoder/RandomNormalLike_output_0"}
    assert bare.graph.node == model.graph.node
    assert with_noise_inputs(bare).tables


NOISE = "g (float[1, 4, n] x) => (float[1, 4, n] y) { [draw] z = RandomNormalLike (x) [sum] y = Add (x, z) }"


def test_an_opset_that_onnx_runtime_has_no_kernels_of_is_refused_with_the_newest_that_works(source_of, build):
    with pytest.raises(ModelError, match=r"mode\.opset: .*opset 22: .*RandomNormalLike.*Set mode\.opset to 21"):
        prepared(source_of(build(NOISE)), opset=22)


def same_noise(source, ready) -> bool:
    """Return whether two graphs give out the same on the same tables of noise."""
    found = []
    for model in (source.model, ready.model):
        noisy = with_noise_inputs(model)
        session = open_session(noisy.model)
        feeds = {"x": np.ones((1, 4, 50), np.float32), **noisy.noise(np.random.default_rng(0))}
        found.append(infer(session, Sample("s", feeds))["y"])
    assert found[0].std() > 0.1
    return np.array_equal(*found)


@pytest.mark.parametrize(
    "text",
    [
        NOISE,
        "g (float[1, 4, n] x) => (float[1, 4, n] y) { h = Mul (x, half) [draw] b = Bernoulli (h) y = Add (x, b) }",
        "g (float[1, 4, n] x) => (float[1, 4, n] y) { h = Add (x, x) [drop] d = Dropout (h, half, yes) y = Add (d, x) }",
        """g (float[1, 4, n] x) => (float[1, 4, n] y) {
            h = Add (x, x)
            a = If (yes) <then_branch = t () => (float[1, 4, n] p) { [one] z = RandomNormalLike (h) p = Add (z, x) },
                          else_branch = e () => (float[1, 4, n] q) { [two] q = RandomUniformLike (h) }>
            b = If (no) <then_branch = t () => (float[1, 4, n] p) { [one] p = RandomNormalLike (h) },
                         else_branch = e () => (float[1, 4, n] q) { [two] q = RandomUniformLike (h) }>
            y = Add (a, b)
        }""",
    ],
    ids=["normal", "bernoulli", "dropout in training", "branches that are always or never taken"],
)
def test_a_prepared_graph_draws_the_noise_of_its_source(source_of, build, text):
    source = source_of(build(text, half=np.float32(0.5), yes=np.array(True), no=np.array(False)))
    assert same_noise(source, prepared(source))


def test_noise_in_a_local_function_is_that_of_the_source(source_of):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
        g (float[1, 4, n] x) => (float[1, 4, n] y) { [one] h = pkg.noisy (x) [two] y = pkg.noisy (h) }
        <opset_import: ["" : 17], domain: "pkg"> noisy (x) => (y) { [draw] z = RandomNormalLike (x) y = Add (x, z) }"""
    )
    source = source_of(model)
    assert with_noise_inputs(source.model).nodes == {"one/draw", "two/draw"}
    assert same_noise(source, prepared(source))


@pytest.mark.parametrize("imports", [["ai.onnx"], ["", "ai.onnx"], ["ai.onnx", ""]])
def test_the_default_operators_may_be_imported_under_their_other_name(source_of, conv_net, imports):
    model = conv_net()
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 17) for domain in imports)
    for node in list(model.graph.node)[:1]:
        node.domain = "ai.onnx"
    for preprocess in (True, False):
        ready = prepared(source_of(model), preprocess=preprocess).model
        assert [entry.domain for entry in ready.opset_import] == [""]
        assert {node.domain for node in ready.graph.node} == {""}


def test_a_layer_of_a_branch_that_is_always_taken_keeps_its_name(source_of, build, make_weight):
    model = build(
        """g (float[n, 8] x) => (float[n, 8] y) {
            h = Relu (x)
            y = If (yes) <then_branch = t () => (float[n, 8] p) { [layer] p = MatMul (h, w) },
                          else_branch = e () => (float[n, 8] q) { [other] q = MatMul (h, w) }>
        }""",
        w=make_weight(8, 8),
        yes=np.array(True),
    )
    assert "layer" in {node.name for node in prepared(source_of(model)).model.graph.node}
