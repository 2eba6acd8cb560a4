"""Graphs that exporters write and that were once refused: what they mean is what the pipeline works on."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.data.arrays import check_samples
from pipeline.errors import DataError, ModelError
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import external_files, load_graph
from pipeline.graph.symbolic_dims import drop_contradicted_names
from pipeline.sample import Sample

TWO = """two (float[n, 64] x) => (float[n, 64] y) {
    [first] a = MatMul (x, u) [scaled] b = Mul (a, scale) [second] y = MatMul (b, v)
}"""


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def listed(model, *names):
    """Return the model with initializers as inputs too."""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            model.graph.input.append(value(tensor.name, list(tensor.dims), tensor.data_type))
    return model


@pytest.fixture
def two(build, make_weight):
    return build(TWO, u=make_weight(64, 64), v=make_weight(64, 64, seed=1), scale=np.array([2], np.float32))


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_that_an_exporter_lists_as_inputs_are_constants(two, source_of, ir_version):
    two.ir_version = ir_version
    source = source_of(listed(two, "u", "v", "scale"))
    assert [entry.name for entry in source.model.graph.input] == ["x"]
    assert not source.defaults
    assert source.model.ir_version >= 4, "before that, every constant had to be an input"


def test_an_input_with_a_default_stays_an_input(two, source_of):
    source = source_of(listed(two, "scale"))
    assert [entry.name for entry in source.model.graph.input] == ["x", "scale"]
    assert source.defaults["scale"].tolist() == [2]
    assert "scale" not in {tensor.name for tensor in source.model.graph.initializer}, "nothing must be folded into it"


def test_a_weight_that_is_listed_beside_constants_that_are_not_is_a_constant(two, source_of):
    assert not source_of(listed(two, "u")).defaults


def test_an_input_without_a_shape_takes_any():
    check_samples([Sample("a", {"x": np.ones((1, 2, 3), np.float32)})], [value("x", None)], "evaluation.path")


def test_text_is_taken_for_text():
    words = value("words", ["n"], TensorProto.STRING)
    check_samples([Sample("a", {"words": np.array(["one", "three"])})], [words], "evaluation.path")
    with pytest.raises(DataError, match="text"):
        check_samples([Sample("a", {"words": np.array([1, 2])})], [words], "evaluation.path")


def test_a_cache_may_be_empty_but_not_the_whole_sample():
    inputs = [value("x", [1, "t"]), value("cache", [1, "past"])]
    empty = np.zeros((1, 0), np.float32)
    check_samples([Sample("first", {"x": np.ones((1, 4), np.float32), "cache": empty})], inputs, "evaluation.path")
    with pytest.raises(DataError, match="empty"):
        check_samples([Sample("first", {"x": empty, "cache": empty})], inputs, "evaluation.path")


def test_a_name_that_two_axes_share_goes_where_a_sample_contradicts_it():
    graph = onnx.parser.parse_graph("g (float[1, t] x, float[1, t] k, float[1, n] z) => (float[1, t] y) { y = Relu (x) }")
    sample = {"x": np.ones((1, 4)), "k": np.ones((1, 3)), "z": np.ones((1, 5))}
    drop_contradicted_names(graph, [Sample("a", sample)])
    named = [dim.dim_param for entry in (*graph.input, *graph.output) for dim in entry.type.tensor_type.shape.dim[1:]]
    assert named == ["", "", "n", ""]


def branch(name, *nodes, **constants):
    held = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    return helper.make_graph(list(nodes), name, [], [value(nodes[-1].output[0], None)], initializer=held)


def conditional(then, other, *imports, **constants):
    """Return y = then or else, of h = x * w."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"),
        helper.make_node("If", ["flag"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 64]), value("flag", [], TensorProto.BOOL)], [value("y", ["n", 64])])
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in constants.items())
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in imports)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def prepared(source):
    return prepare(source, opset=None, needed_opset=13, preprocess=True).model


def same_outputs(source, model):
    for flag in (True, False):
        inputs = {"x": np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32), "flag": np.array(flag)}
        sample = Sample("a", inputs)
        expected, found = (infer(open_session(graph), sample)["y"] for graph in (source.path, model))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_two_branches_may_use_one_name_for_two_tensors(source_of, make_weight):
    bodies = [
        branch(name, helper.make_node("MatMul", ["h", "own"], ["out"], name="same"), own=make_weight(64, 64, seed=seed))
        for seed, name in enumerate(("then", "else"), start=1)
    ]
    source = source_of(conditional(*bodies, w=make_weight(64, 64)))
    model = prepared(source)
    held = [tensor.name for node in model.graph.node for entry in node.attribute for tensor in entry.g.initializer]
    assert len(held) == len(set(held)) == 2
    same_outputs(source, model)


def test_a_domain_that_only_a_body_uses_stays_imported(source_of, make_weight):
    then = branch("then", helper.make_node("Gelu", ["h"], ["a"], domain="com.microsoft"))
    other = branch("else", helper.make_node("Relu", ["h"], ["b"]))
    source = source_of(conditional(then, other, "com.microsoft", w=make_weight(64, 64)))
    same_outputs(source, prepared(source))


def test_folding_stores_a_weight_that_both_branches_read_once(source_of, make_weight):
    bodies = [
        branch(
            name, helper.make_node("Transpose", ["v"], [f"{name}_v"]), helper.make_node("MatMul", ["h", f"{name}_v"], [name])
        )
        for name in ("then", "else")
    ]
    source = source_of(conditional(*bodies, w=make_weight(64, 64), v=make_weight(64, 64, seed=1)))
    model = prepared(source)
    assert model.ByteSize() < 1.1 * source.model.ByteSize()
    same_outputs(source, model)


def test_folding_does_not_write_out_a_table_that_a_few_numbers_describe(source_of, build, make_weight):
    text = """g (float[n, 64] x) => (float[n, 64] y) {
        table = Expand (one, shape) part = Slice (table, start, end) a = Add (x, part) y = MatMul (a, w)
    }"""
    shape = {"one": np.ones((1, 1), np.float32), "shape": np.array([5000, 64])}
    source = source_of(build(text, w=make_weight(64, 64), **shape, start=np.array([0]), end=np.array([1])))
    assert prepared(source).ByteSize() < 1.1 * source.model.ByteSize()


def test_a_sparse_weight_is_one_that_can_be_quantized(source_of, build, make_weight):
    dense = make_weight(64, 64)
    dense[np.abs(dense) < 0.1] = 0
    at = np.flatnonzero(dense)
    model = build("g (float[n, 64] x) => (float[n, 64] y) { [mm] y = MatMul (x, w) }")
    values = numpy_helper.from_array(dense.reshape(-1)[at], "w")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, numpy_helper.from_array(at, "at"), [64, 64]))
    [held] = prepared(source_of(model)).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(held), dense)


def test_external_data_of_bodies_and_attributes_is_counted_and_hashed(tmp_path, make_weight):
    kept = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(make_weight(64, 64, seed=3), "constant"))
    bodies = [
        branch("then", kept, helper.make_node("MatMul", ["h", "c"], ["a"])),
        branch("else", helper.make_node("MatMul", ["h", "e"], ["b"]), e=make_weight(64, 64, seed=1)),
    ]
    model = conditional(*bodies, w=make_weight(64, 64))
    path = tmp_path / "model.onnx"
    options = {"all_tensors_to_one_file": False, "size_threshold": 100, "convert_attribute": True}
    onnx.save(model, path, save_as_external_data=True, **options)
    source = load_graph("model", str(path))
    files = external_files(onnx.load(path, load_external_data=False), tmp_path)
    assert sorted(file.name for file in files) == ["constant", "e", "w"]
    assert source.size_bytes > 3 * 64 * 64 * 4
    (tmp_path / "e").write_bytes(bytes(64 * 64 * 4))
    assert load_graph("model", str(path)).sha256 != source.sha256


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16"])
def test_a_constant_that_is_there_twice_counts_once(run_quickly, users_data, user_files, mode):
    model = onnx.load(user_files / "model.onnx")
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, user_files / "twice.onnx")
    data = users_data if mode == "static" else users_data[2:]
    run = run_quickly("model=onnx", "model.path=twice.onnx", f"mode={mode}", *data, "stages=[load,quantize]").succeeded()
    [artifact] = run.report["artifacts"]
    names = [tensor.name for tensor in onnx.load(run.directory / artifact["file"]).graph.initializer]
    assert len(names) == len(set(names))


def test_two_constants_of_one_name_are_refused(tmp_path, conv_net):
    model = conv_net()
    twice = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]) + 1, model.graph.initializer[0].name)
    model.graph.initializer.append(twice)
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match=r"two different constants of the name '.+'\. Export it again"):
        load_graph("model", str(tmp_path / "two.onnx"))
