"""What a file holds is what its report and its name say, and what other tools accept."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.config.choices import Format
from pipeline.errors import StageError
from pipeline.graph.session import infer, open_session
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.ptq.channel_search import channel_groups
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.plan_check import check_plan, named_bits, weight_bits
from pipeline.quantize.user_notes import why_larger
from pipeline.sample import Sample


def sample(name="a", seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return Sample(name, {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()})


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def ops(model, op_type):
    return [node.name for graph in graphs_of(model.graph) for node in graph.node if node.op_type == op_type]


def names_are_unique(model):
    held = [tensor.name for graph in graphs_of(model.graph) for tensor in graph.initializer]
    made = [name for graph in graphs_of(model.graph) for node in graph.node for name in node.output if name]
    inputs = [entry.name for entry in model.graph.input]
    assert len(set(held + made + inputs)) == len(held + made + inputs)


def branch(name, weight):
    nodes = [helper.make_node("MatMul", ["h", f"{name}_w"], [f"{name}_y"], name=f"{name}_mm")]
    held = [numpy_helper.from_array(weight, f"{name}_w")]
    return helper.make_graph(nodes, name, [], [value(f"{name}_y", ["n", 64])], initializer=held)


@pytest.fixture
def mixed(make_weight):
    """Return a graph with layers to quantize, to leave out, in branches, and one that predicts a length."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="planned"),
        helper.make_node("MatMul", ["a", "w2"], ["h"], name="excluded"),
        helper.make_node(
            "If", ["flag"], ["y"], name="if", then_branch=branch("then", make_weight(64, 64, seed=3)),
            else_branch=branch("else", make_weight(64, 64, seed=4)),
        ),
        helper.make_node("MatMul", ["a", "wd"], ["d"], name="duration"),
        helper.make_node("Ceil", ["d"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
        helper.make_node("Range", ["zero", "count", "one"], ["frames"]),
    ]  # fmt: skip
    constants = {"w1": make_weight(64, 64), "w2": make_weight(64, 64, seed=1), "wd": np.abs(make_weight(64, 16, seed=2))}
    constants |= {"zero": np.int64(0), "one": np.int64(1)}
    graph = helper.make_graph(
        nodes, "mixed", [value("x", ["n", 64]), value("flag", [], TensorProto.BOOL)],
        [value("y", ["n", 64]), value("frames", ["m"], TensorProto.INT64)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_flag(flag):
    inputs = {"x": np.abs(sample(x=(3, 64)).inputs["x"]), "flag": np.array(flag)}
    return Sample(f"flag_{flag}", inputs)


@pytest.mark.parametrize("mode", ["weight_only", "dynamic", "static", "fp16"])
def test_excluded_nodes_are_float_in_the_file_and_shape_deciding_ones_compute_in_float(mixed, written, settings, mode):
    artifact, model, _ = written(mixed, settings(mode, nodes_to_exclude=["excluded"]), with_flag(True), with_flag(False))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["w2"] == TensorProto.FLOAT
    assert "w1" not in kinds or kinds["w1"] == TensorProto.FLOAT16
    kept = {kept.node for kept in artifact.kept}
    assert "excluded" in kept
    if mode == "fp16":
        assert kinds["wd"] == TensorProto.FLOAT and "duration" in kept
    else:  # half the bytes, restored when the model is loaded
        assert kinds["wd_int16"] == TensorProto.INT16 and "wd" not in kinds
        assert artifact.quantized_nodes["duration"] == "int16 weight, float computation"


def test_weights_in_bodies_stay_float_where_the_report_says_so(mixed, written, settings):
    artifact, model, result = written(mixed, settings("weight_only", subgraphs=False), with_flag(True))
    assert ops(model, "MatMulNBits") == ["planned_Q8", "excluded_Q8"]
    assert not {"then_mm", "else_mm"} & artifact.quantized_nodes.keys()
    assert any("stay as they are" in note for note in result.notes)


def test_half_precision_reaches_bodies_and_the_report_names_them(mixed, written, settings):
    artifact, model, result = written(mixed, settings("fp16", nodes_to_exclude=["else_mm"]), with_flag(True), with_flag(False))
    kinds = {tensor.name: tensor.data_type for graph in graphs_of(model.graph) for tensor in graph.initializer}
    assert (kinds["then_w"], kinds["else_w"]) == (TensorProto.FLOAT16, TensorProto.FLOAT)
    assert "then_mm" in artifact.quantized_nodes and "else_mm" not in artifact.quantized_nodes
    assert not any("stay as they are" in note for note in result.notes)


def test_a_file_that_is_not_as_planned_is_refused(matmul_net):
    float_graph = matmul_net()
    with pytest.raises(StageError, match="matmul_a was to become n-bit weight in blocks, and stayed float"):
        check_plan(float_graph, float_graph, Plan({"matmul_a": Precision.weight_blocks}))


def test_a_file_with_integers_that_were_not_planned_is_refused(matmul_net, settings):
    from pipeline.quantize.block_weights import quantize_in_blocks

    float_graph, changed = matmul_net(), matmul_net()
    quantize_in_blocks(changed, ["matmul_a", "matmul_b"], settings("weight_only"))
    with pytest.raises(StageError, match="matmul_b was to stay float"):
        check_plan(changed, float_graph, Plan({"matmul_a": Precision.weight_blocks}))
    check_plan(changed, float_graph, Plan(dict.fromkeys(("matmul_a", "matmul_b"), Precision.weight_blocks)))


def test_four_bits_are_in_the_name_only_where_most_weights_have_them(written, settings, conv_net, matmul_net):
    artifact, _, result = written(conv_net(), settings("weight_only", bits=4), sample(x=(1, 16, 24)))
    assert artifact.path.name == "model.int8.onnx"
    assert any("100 % have 8 bits, not 4" in warning for warning in result.warnings)


def test_products_in_four_bits_are_called_int4(written, settings, matmul_net):
    artifact, model, _ = written(matmul_net(), settings("weight_only", bits=4), sample(x=(5, 64)))
    assert artifact.path.name == "model.int4.onnx"
    assert weight_bits(model) == {4: 2 * 64 * 96}


@pytest.mark.parametrize(
    ("wanted", "bits", "name"),
    [
        ("int4", {4: 60, 8: 40}, "int4"),
        ("int4", {4: 40, 8: 60}, "int8"),
        ("fp16", {}, "fp16"),
        ("int16", {16: 9, 8: 1}, "int16"),
    ],
)
def test_a_name_says_what_most_weights_are(wanted, bits, name):
    assert named_bits(wanted, bits) == name


@pytest.mark.parametrize(("rows", "bits"), [(4, 8), (4, 4), (20, 8), (1, 8)])
def test_a_weight_of_fewer_rows_than_a_block_makes_no_file_larger(written, settings, build, make_weight, rows, bits):
    text = f"""g (float[n, {rows}] s, float[n, 64] x) => (float[n, 4096] y, float[n, 64] z) {{
        [few] y = MatMul (s, w) z = MatMul (x, v)
    }}"""
    model = build(text, w=make_weight(rows, 4096), v=make_weight(64, 64))
    artifact, _, _ = written(model, settings("weight_only", bits=bits), sample(s=(2, rows), x=(2, 64)))
    assert artifact.size_bytes < artifact.baseline_bytes


def test_a_matrix_that_two_products_read_is_stored_in_blocks_once(written, settings, build, make_weight):
    text = "g (float[n, 64] x) => (float[n, 64] y) { [one] a = MatMul (x, w) [two] y = MatMul (a, w) }"
    _, model, _ = written(build(text, w=make_weight(64, 64)), settings("weight_only"), sample(x=(2, 64)))
    assert len(model.graph.initializer) == 2
    names_are_unique(model)


@pytest.mark.parametrize("mode", ["weight_only", "dynamic", "static", "fp16"])
def test_names_that_quantizers_make_may_be_taken(written, settings, build, make_weight, mode):
    text = """g (float[1, 32, n] x, float[64] v_zero_point) => (float[1, n, 64] y) {
        [conv] w_dequantized_0 = Conv <pads = [1, 1]> (x, w)
        [x_QuantizeLinear] x_quantized = Transpose <perm = [0, 2, 1]> (w_dequantized_0)
        [mm] graph_input_cast_0 = MatMul (x_quantized, v)
        [mm_Q8] v_scales = MatMul (graph_input_cast_0, u) y = Add (v_scales, v_zero_point)
    }"""
    model = build(text, w=make_weight(32, 32, 3), v=make_weight(32, 64), u=make_weight(64, 64))
    artifact, model, _ = written(model, settings(mode), given := sample(x=(1, 32, 9), v_zero_point=(64,)))
    names_are_unique(model)
    assert np.isfinite(infer(open_session(artifact.path), given)["y"]).all()


@pytest.mark.parametrize("keep", [True, False])
def test_outputs_that_no_node_makes_survive_half_precision(written, settings, build, make_weight, keep):
    text = """g (float[n, 64] x, int64[1] length) => (float[n, 64] y, float[64, 64] w, int64[1] length, float[n, 64] x) {
        [mm] y = MatMul (x, w)
    }"""
    model = build(text, w=make_weight(64, 64))
    given = Sample("a", {**sample(x=(3, 64)).inputs, "length": np.array([3])})
    artifact, half, _ = written(model, settings("fp16", keep_io_types=keep), given)
    assert [output.name for output in half.graph.output] == ["y", "w", "length", "x"]
    found = infer(open_session(artifact.path), given)
    np.testing.assert_allclose(found["w"], make_weight(64, 64), atol=0 if keep else 1e-3)
    assert {found[name].dtype for name in "ywx"} == {np.dtype(np.float32 if keep else np.float16)}


def test_a_node_that_keeps_fp32_reads_its_constants_exactly(written, settings, build, make_weight):
    text = "g (float[n, 64] x) => (float[n, 64] y) { [half] a = MatMul (x, w) [exact] y = MatMul (a, w) }"
    _, model, _ = written(build(text, w=make_weight(64, 64)), settings("fp16", nodes_to_exclude=["exact"]), sample(x=(3, 64)))
    [node] = [node for node in model.graph.node if node.name == "exact"]
    [held] = [tensor for tensor in model.graph.initializer if tensor.name == node.input[1]]
    np.testing.assert_array_equal(numpy_helper.to_array(held), make_weight(64, 64))


def test_nodes_of_a_body_that_stay_in_fp32_get_their_casts_there(written, settings, make_weight):
    nodes = [
        helper.make_node("MatMul", ["h", "w"], ["a"], name="left_out"),
        helper.make_node("CumSum", ["a", "axis"], ["s"], name="always_fp32"),
        helper.make_node("Tanh", ["s"], ["t"], name="half"),
    ]
    held = [numpy_helper.from_array(make_weight(64, 64), "w"), numpy_helper.from_array(np.array(1), "axis")]
    then = helper.make_graph(nodes, "then", [], [value("t", ["n", 64])], held)
    other = branch("else", make_weight(64, 64, seed=1))
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="relu"),
        helper.make_node("If", ["flag"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    inputs = [value("x", ["n", 64]), value("flag", [], TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", ["n", 64])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact, _, _ = written(model, settings("fp16", nodes_to_exclude=["left_out"]), with_flag(True), with_flag(False))
    for given in (with_flag(True), with_flag(False)):
        expected, found = (infer(open_session(graph), given)["y"] for graph in (model, artifact.path))
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_an_optional_input_keeps_its_default(written, settings, build, make_weight):
    text = "g (float[n, 64] x, float[1] scale) => (float[n, 64] y) { [mm] a = MatMul (x, w) y = Mul (a, scale) }"
    given = Sample("a", {**sample(x=(3, 64)).inputs, "scale": np.array([3], np.float32)})
    for mode in ("dynamic", "fp16"):
        model = build(text, w=make_weight(64, 64), scale=np.array([2], np.float32))
        artifact, _, _ = written(model, settings(mode, external_data=False), given)
        session = open_session(artifact.path)
        outputs = [session.run(["y"], {"x": given.inputs["x"], **extra})[0] for extra in ({}, {"scale": given.inputs["scale"]})]
        np.testing.assert_allclose(outputs[1], 1.5 * outputs[0], rtol=0.01, atol=0.01)
        artifact.path.unlink()


STATE = """g (float[1, 32, 16] x, float[1, 32, 4] cache) => (float[1, 32, 16] y, float[1, 32, 4] k) {
    [read] y = Conv (x, w) [cached] k = Conv (cache, v)
}"""


@pytest.mark.parametrize("file_format", [Format.qdq, Format.qoperator])
def test_what_was_zero_in_all_of_calibration_stays_float_and_is_the_first_warning(
    written, settings, build, make_weight, file_format
):
    model = build(STATE, w=make_weight(32, 32, 1), v=make_weight(32, 32, 1, seed=1))
    first = sample(x=(1, 32, 16))
    zero = Sample("a", {**first.inputs, "cache": np.zeros((1, 32, 4), np.float32)})
    artifact, _, result = written(model, settings("static", format=file_format), zero)
    assert {kept.node: kept.reason for kept in artifact.kept} == {"cached": "'cache' was zero in all of calibration"}
    assert "'cache' was zero in all of calibration" in result.urgent[0]
    later = sample(x=(1, 32, 16), cache=(1, 32, 4))
    expected = infer(open_session(model), later)["k"]
    np.testing.assert_allclose(infer(open_session(artifact.path), later)["k"], expected, rtol=1e-5, atol=1e-5)


def test_rounding_changes_no_weight_that_a_float_node_or_an_output_reads(written, settings, build, make_weight):
    text = """g (float[1, 32, n] x) => (float[1, 32, n] y, float[32, 32, 3] w, float[32] size) {
        [conv] y = Conv <pads = [1, 1]> (x, w) size = ReduceL2 <axes = [1, 2], keepdims = 0> (w)
    }"""
    weight = make_weight(32, 32, 3)
    mode = settings("static", rounding=True, preprocess=False)
    artifact, _, _ = written(build(text, w=weight), mode, given := sample(x=(1, 32, 40)))
    found = infer(open_session(artifact.path), given)
    np.testing.assert_array_equal(found["w"], weight)
    np.testing.assert_allclose(found["size"], np.sqrt((weight**2).sum(axis=(1, 2))), rtol=1e-6)


def test_attention_over_many_frames_is_quantized_over_its_measured_range(written, settings, build):
    text = """g (float[1, n, 32] x) => (float[1, n, 32] y) {
        t = Transpose <perm = [0, 2, 1]> (x) s = MatMul (x, t) scaled = Mul (s, scale) p = Softmax (scaled) y = MatMul (p, x)
    }"""
    mode = settings("static", op_types=["all"], dynamic_op_types=[], products_of_activations=True)
    model = build(text, scale=np.float32(0.1))
    artifact, _, _ = written(model, mode, given := sample(x=(1, 1000, 32)))
    expected, found = (infer(open_session(graph), given)["y"] for graph in (model, artifact.path))
    assert 10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()) > 15


def test_equalisation_does_not_widen_a_channel_that_is_broadcast(build, make_weight):
    text = """g (float[1, 32, n] x) => (float[1, 32, n] y) {
        m = Conv <pads = [1, 1]> (x, one) a = Conv <pads = [1, 1]> (x, many) s = Add (m, a) y = Conv <pads = [1, 1]> (s, last)
    }"""
    weights = {"one": make_weight(1, 32, 3), "many": make_weight(32, 32, 3), "last": make_weight(32, 32, 3, seed=1)}
    model = onnx.shape_inference.infer_shapes(build(text, **weights))
    assert all(side.constant != "one" for group in channel_groups(model) for side in group.sides)


def test_layers_that_onnxruntime_has_fused_are_named(written, settings, build, make_weight):
    text = """g (float[1, 32, n] x) => (float[1, 32, n] y) {
        [a] m = Conv <pads = [1, 1]> (x, w) [b] y = Conv <pads = [1, 1]> (m, v)
    }"""
    model = build(text, w=make_weight(32, 32, 3), v=make_weight(32, 32, 3, seed=1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "FusedConv", "com.microsoft"
    model.graph.node[1].attribute.append(helper.make_attribute("activation", "Relu"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    artifact, _, _ = written(model, settings("dynamic"), sample(x=(1, 32, 9)))
    [kept] = artifact.kept
    assert kept.node == "b" and "already fused" in kept.reason


def test_a_weight_that_is_needed_in_float_as_well_is_not_copied(written, settings, build, make_weight):
    text = """g (int64[n] ids, float[1] k) => (float[n, 500] y, float[500, 64] z) {
        e = Gather (table, ids) h = MatMul (e, w) turned = Transpose <perm = [1, 0]> (table) [head] y = MatMul (h, turned)
        z = Mul (table, k)
    }"""
    model = build(text, table=make_weight(500, 64), w=make_weight(64, 64))
    artifact, _, _ = written(
        model, settings("weight_only"), Sample("a", {"ids": np.array([1, 2, 499]), "k": np.ones(1, np.float32)})
    )
    assert artifact.size_bytes < artifact.baseline_bytes
    assert [kept.reason for kept in artifact.kept if kept.node == "head" and "'table'" in kept.reason]


@pytest.mark.parametrize("file_format", [Format.qdq, Format.qoperator])
def test_what_is_computed_from_constants_needs_no_range(written, settings, build, make_weight, file_format):
    text = """g (int64[n] ids, float[1] k) => (float[n, 500] y, float[500, 64] z) {
        e = Gather (table, ids) [mm] h = MatMul (e, w) turned = Transpose <perm = [1, 0]> (table) [head] y = MatMul (h, turned)
        z = Mul (table, k)
    }"""
    mode = settings("static", format=file_format, dynamic_op_types=[], products_of_activations=True)
    model = build(text, table=make_weight(500, 64), w=make_weight(64, 64))
    artifact, _, _ = written(model, mode, Sample("a", {"ids": np.array([1, 2, 499]), "k": np.ones(1, np.float32)}))
    assert artifact.quantized_nodes == {"mm": Precision.static_int8.value}


def test_a_file_that_is_larger_than_its_original_is_the_first_warning(written, settings, build, make_weight):
    text = "g (float[1, 32, n] x) => (float[1, 32, n] y, float[32, 32, 3] w) { [conv] y = Conv <pads = [1, 1]> (x, w) }"
    artifact, _, result = written(build(text, w=make_weight(32, 32, 3)), settings("dynamic"), sample(x=(1, 32, 9)))
    assert artifact.size_bytes > artifact.baseline_bytes
    assert "times as large as the original" in result.urgent[0] and "'w'" in result.urgent[0]


def test_a_larger_file_of_a_search_that_left_all_in_float_is_not_blamed_on_integers(settings, build, make_weight):
    model = build("g (float[1, 32, n] x) => (float[1, 32, n] y) { y = Conv <pads = [1, 1]> (x, w) }", w=make_weight(32, 32, 3))
    floats = Artifact("g", Path("g.fp32.onnx"), "", 101, 100, {}, (), {})
    mixed = replace(floats, quantized_nodes={"conv": Precision.static_int8.value})
    assert why_larger("g", floats, model, settings("auto")) == []
    assert "integers" in why_larger("g", mixed, model, settings("auto"))[0]


def test_a_body_may_read_what_is_moved_of_an_integer_tensor(written, settings, make_weight):
    """ONNX Runtime 1.32 ends the process where it moves a pair past the Transpose."""
    body = {
        name: helper.make_graph([helper.make_node(kind, ["t"], [name])], name, [], [value(name, [1, "n", 32])])
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Tanh"))
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
        helper.make_node("If", ["flag"], ["y"], **body),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", [1, 32, "n"]), value("flag", [], TensorProto.BOOL)], [value("y", [1, "n", 32])],
        [numpy_helper.from_array(make_weight(32, 32, 3), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    given = Sample("a", {**sample(x=(1, 32, 9)).inputs, "flag": np.array(True)})
    artifact, _, _ = written(model, settings("static"), given)
    assert artifact.quantized_nodes == {"conv": Precision.static_int8.value}


@pytest.mark.skipif(os.name == "nt", reason="rights of files are those of POSIX")
def test_a_file_of_weights_can_be_read_by_all_who_can_read_the_graph(written, settings, matmul_net):
    artifact, _, _ = written(matmul_net(), settings("dynamic", external_data=True), sample(x=(5, 64)))
    [data] = artifact.path.parent.glob("*.data")
    assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE(artifact.path.stat().st_mode)


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_operators_that_only_change_axes_are_not_written(build, make_weight, written, settings, mode):
    text = """g (float[1, 32, 9] x) => (float[1, 32, 9] y) {
        [up] a = Unsqueeze (x, two) [first] b = Conv <pads = [0, 1, 0, 1]> (a, w) [down] c = Squeeze (b, two) [act] d = Relu (c)
        [up_again] e = Unsqueeze (d, two) [second] f = Conv <pads = [0, 1, 0, 1]> (e, w) [down_again] y = Squeeze (f, two)
    }"""
    model = build(text, w=make_weight(32, 32, 1, 3), two=np.array([2]))
    _, graph, result = written(model, settings(mode), sample(x=(1, 32, 9)))
    names = {node.name for node in graph.graph.node}
    assert "act" in names
    assert not names & {"down", "up_again"}
    assert "model: operators that only change axes were merged: 2 fewer." in result.notes
