"""What each mode writes: the operators and types that it promises, in a graph that computes nearly the same."""

import numpy as np
import onnx
import pytest

from pipeline.config.choices import Format, IntegerType
from pipeline.errors import ModelError, StageError
from pipeline.graph.opset import opset_of
from pipeline.graph.session import infer, open_session
from pipeline.graph.value_info import dims_of
from pipeline.measure.rewrite_gain import Gain
from pipeline.quantize.artifact import check_artifact
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

INT8, UINT8 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8


def sample_of(model):
    [value] = model.graph.input
    shape = [24 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return Sample("probe", {value.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)})


@pytest.fixture
def quantized(source_of, run_directory):
    """Return a function: (model, mode) -> (artifact, its graph); the artifact was checked against its original."""

    def make(model, mode):
        source = source_of(model)
        result = quantize({"model": source}, mode, {"model": [sample_of(model)]}, {"model": [sample_of(model)]}, run_directory)
        artifact = result.artifacts["model"]
        outputs = [infer(open_session(path), sample_of(model))["y"] for path in (source.path, artifact.path)]
        error = np.abs(outputs[1] - outputs[0]).mean() / np.abs(outputs[0]).mean()
        assert error < 0.15, "the quantized graph computes something else"
        return artifact, onnx.load(artifact.path)

    return make


def weight_types(model):
    return {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) > 256}


def ops(model):
    return {node.op_type for node in model.graph.node}


def test_a_dynamic_convolution_gets_uint8_weights_since_int8_ones_run_a_slow_kernel(quantized, settings, conv_net):
    artifact, model = quantized(conv_net(), settings("dynamic"))
    assert weight_types(model) == {UINT8}
    assert "ConvInteger" in ops(model)
    assert artifact.path.name == "model.int8.onnx"


def test_a_dynamic_product_gets_int8_weights_with_a_scale_per_channel(quantized, settings, matmul_net):
    _, model = quantized(matmul_net(), settings("dynamic"))
    assert weight_types(model) == {INT8}
    assert "MatMulInteger" in ops(model)
    scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale")]
    assert sorted(tensor.dims[0] for tensor in scales if tensor.dims) == [64, 96]


def test_a_dynamic_product_can_have_one_scale(quantized, settings, matmul_net):
    _, model = quantized(matmul_net(), settings("dynamic", per_channel=False))
    scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale")]
    assert {int(np.prod(tensor.dims)) for tensor in scales} == {1}


def test_a_static_convolution_is_written_as_pairs_with_a_scale_per_channel(quantized, settings, conv_net):
    artifact, model = quantized(conv_net(), settings("static"))
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= ops(model)
    per_channel = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and any(a.name == "axis" for a in node.attribute)
    ]
    assert per_channel
    assert INT8 in weight_types(model)
    assert artifact.kernels["QLinearConv"] == 2


def test_a_static_graph_of_opset_11_is_converted_so_that_it_loads(quantized, settings, conv_net):
    """ONNX Runtime's own per-channel quantizer writes such a graph and then cannot load it."""
    _, model = quantized(conv_net(opset=11), settings("static"))
    assert opset_of(model) == 13


def test_a_static_graph_is_laid_out_behind_its_pairs_where_rewrites_are_wanted(quantized, settings, conv_net, monkeypatch):
    monkeypatch.setattr("pipeline.optimize.engine.measure_gain", lambda *_, **__: Gain(1.5, True))
    artifact, model = quantized(conv_net(), settings("static", optimize=True, rewrites=["integer_channels_last"]))
    made = [node for node in model.graph.node if node.op_type == "QLinearConv"]
    assert [node.domain for node in made] == ["com.microsoft"] * 2
    assert artifact.kernels["QLinearConv"] == 2
    _, plain = quantized(conv_net(), settings("static", optimize=True, rewrites=["fold_mul_into_weights"]))
    assert "QLinearConv" not in ops(plain)


def test_a_static_graph_can_be_written_in_integer_operators(quantized, settings, conv_net):
    _, model = quantized(conv_net(), settings("static", format=Format.qoperator))
    assert "QLinearConv" in ops(model)


@pytest.mark.parametrize("kind", [IntegerType.uint8, IntegerType.int8])
def test_activations_get_the_type_that_is_asked_for(quantized, settings, conv_net, kind):
    _, model = quantized(conv_net(), settings("static", activation_type=kind))
    zero_points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in zero_points}
    assert types == {onnx.TensorProto.DataType.Value(kind.name.upper())}


def test_sixteen_bit_activations_are_possible_at_the_opset_that_has_them(quantized, settings, conv_net):
    _, model = quantized(conv_net(), settings("static", activation_type=IntegerType.uint16))
    assert opset_of(model) == 21


def test_symmetric_activations_have_their_zero_in_the_middle(quantized, settings, conv_net):
    _, model = quantized(conv_net(), settings("static", symmetric=True, activation_type=IntegerType.int8))
    zero_points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    values = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in zero_points]
    assert values
    assert all(not value.any() for value in values)


def test_an_excluded_convolution_stays_in_float(quantized, settings, conv_net):
    artifact, model = quantized(conv_net(), settings("static", nodes_to_exclude=["conv_b"]))
    assert list(artifact.quantized_nodes) == ["conv_a"]
    assert onnx.TensorProto.FLOAT in weight_types(model)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks_have_the_bits_that_are_asked_for(quantized, settings, matmul_net, bits):
    artifact, model = quantized(matmul_net(), settings("weight_only", bits=bits))
    found = [attribute.i for node in model.graph.node for attribute in node.attribute if attribute.name == "bits"]
    assert found == [bits, bits]
    assert artifact.path.name == f"model.int{bits}.onnx"


def test_half_precision_keeps_inputs_and_outputs_in_float_unless_told(quantized, settings, conv_net):
    _, model = quantized(conv_net(), settings("fp16"))
    assert weight_types(model) == {onnx.TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only", "fp16"])
def test_metadata_survives_every_mode(quantized, settings, conv_net, mode):
    _, model = quantized(conv_net(model_type="vocos", sample_rate="22050"), settings(mode))
    assert {entry.key: entry.value for entry in model.metadata_props} == {"model_type": "vocos", "sample_rate": "22050"}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only", "fp16"])
def test_weights_can_lie_beside_the_graph(quantized, settings, conv_net, mode):
    artifact, _ = quantized(conv_net(), settings(mode, external_data=True))
    beside = artifact.path.with_name(f"{artifact.path.name}.data")
    assert beside.stat().st_size > 1000
    assert artifact.size_bytes == artifact.path.stat().st_size + beside.stat().st_size
    assert not [path.name for path in artifact.path.parent.iterdir() if path.name.endswith(".optimized")]


def test_external_weights_of_the_original_count_for_its_size_and_its_hash(tmp_path, conv_net):
    from pipeline.graph.source_graph import load_graph

    onnx.save(conv_net(), tmp_path / "one.onnx")
    onnx.save_model(conv_net(), tmp_path / "two.onnx", save_as_external_data=True, location="two.data", size_threshold=0)
    source = load_graph("model", str(tmp_path / "two.onnx"))
    beside = tmp_path / "two.data"
    assert source.size_bytes == (tmp_path / "two.onnx").stat().st_size + beside.stat().st_size
    first = source.sha256
    weights = bytearray(beside.read_bytes())
    weights[5] ^= 1
    beside.write_bytes(bytes(weights))
    assert load_graph("model", str(tmp_path / "two.onnx")).sha256 != first


def test_an_axis_of_size_minus_one_is_open(tmp_path, build, make_weight):
    from pipeline.graph.source_graph import load_graph

    model = build("paddle (float[n, 8] x) => (float[n, 4] y) { y = MatMul (x, w) }", w=make_weight(8, 4))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "paddle.onnx")
    source = load_graph("model", str(tmp_path / "paddle.onnx"))
    assert dims_of(source.model.graph.input[0]) == [None, 8]


SUBGRAPH = """loudness (float[n, 32] x, bool[1] loud) => (float[n, 32] y) {
    [outside] h = MatMul (x, w)
    [choose] y = If (loud) <
        then_branch = then_part () => (float[n, 32] a) { [inside] a = MatMul (h, v) },
        else_branch = else_part () => (float[n, 32] b) { [through] b = Identity (h) }
    >
}"""


def branches(model):
    [node] = [node for node in model.graph.node if node.op_type == "If"]
    return {inner.op_type for attribute in node.attribute for inner in attribute.g.node}


@pytest.fixture
def with_subgraph(source_of, build, make_weight, run_directory):
    """Return a function: mode -> (what quantizing a graph with an If gives, its graph)."""

    def make(mode):
        source = source_of(build(SUBGRAPH, w=make_weight(32, 32), v=make_weight(32, 32, seed=1)))
        x = np.random.default_rng(0).standard_normal((6, 32)).astype(np.float32)
        probe = Sample("probe", {"x": x, "loud": np.array([True])})
        result = quantize({"model": source}, mode, {"model": [probe]}, {"model": [probe]}, run_directory)
        return result, onnx.load(result.artifacts["model"].path)

    return make


def test_the_bodies_of_control_flow_stay_as_they_are_and_the_report_says_so(with_subgraph, settings):
    result, model = with_subgraph(settings("dynamic", subgraphs=False))
    assert branches(model) == {"MatMul", "Identity"}
    assert any("mode.subgraphs" in note for note in result.notes)


def test_the_bodies_of_control_flow_are_quantized_where_the_mode_says_so(with_subgraph, settings):
    result, model = with_subgraph(settings("dynamic"))
    assert "MatMulInteger" in branches(model)
    assert not any("stay as they are" in note for note in result.notes)


def test_a_model_of_half_precision_is_refused(source_of, settings, conv_net, run_directory):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    source = source_of(convert_float_to_float16(conv_net(), keep_io_types=True))
    with pytest.raises(ModelError, match="is an fp16 model"):
        quantize({"model": source}, settings("static"), {}, {}, run_directory)


@pytest.mark.parametrize("mode", ["dynamic", "fp16"])
def test_weights_that_are_only_stored_in_half_precision_are_quantized(
    source_of, settings, build, make_weight, run_directory, mode
):
    text = """stored (float[n, 64] x) => (float[n, 64] y) {
        u = Cast <to = 1> (a) [one] h = MatMul (x, u) v = Cast <to = 1> (b) [two] y = MatMul (h, v)
    }"""
    halves = {name: make_weight(64, 64, seed=i).astype(np.float16) for i, name in enumerate("ab")}
    source = source_of(build(text, **halves))
    given = Sample("s", {"x": np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)})
    artifact = quantize({"model": source}, settings(mode), {"model": [given]}, {"model": [given]}, run_directory).artifacts[
        "model"
    ]
    assert {"one", "two"} <= artifact.quantized_nodes.keys()
    assert artifact.size_bytes < (0.8 if mode == "dynamic" else 1.2) * artifact.baseline_bytes
    before, after = (infer(open_session(path), given)["y"] for path in (source.path, artifact.path))
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())


def test_a_mode_that_changes_nothing_leaves_no_file(source_of, settings, conv_net, run_directory):
    source = source_of(conv_net())
    with pytest.raises(StageError, match="would change nothing"):
        quantize({"model": source}, settings("dynamic", op_types=["MatMul"]), {}, {}, run_directory)
    assert not list(run_directory.path.rglob("*.onnx"))
    with pytest.raises(StageError, match=r"mode\.preprocess=true"):
        quantize({"model": source}, settings("dynamic", op_types=["MatMul"], preprocess=False), {}, {}, run_directory)


CHECKS = {
    "values that are not finite": ("[log] y = Log (x)", "the output 'y' holds NaN or Inf on sample 'probe'"),
    "another rank": ("[flat] y = Flatten <axis = 0> (x)", "the output 'y' has 2 axes, the original's 3"),
    "a length of its own": ("[end] y = Slice (x, zero, one, two)", None),
    "a node that fails": ("[product] y = Gemm (x, x)", "does not run|does not load"),
}


def test_what_an_original_declares_wrongly_of_its_outputs_refuses_no_artifact(source_of, build, make_noise):
    body = "(float[1, 16, n] x) => (float[1, n] y) { [same] y = Identity (x) }"
    original = source_of(build(f"g {body}"))
    artifact = original.path.with_name("artifact.onnx")
    onnx.save(build(f"g {body}".replace("Identity", "Relu")), artifact)
    assert check_artifact(artifact, original, Sample("probe", {"x": make_noise(9)})) == {}


def test_an_artifact_may_give_what_is_not_finite_where_its_original_does(source_of, build, make_noise):
    original = source_of(build("g (float[1, 16, n] x) => (float[1, 16, n] y) { [log] y = Log (x) }"))
    assert check_artifact(original.path, original, Sample("probe", {"x": -np.abs(make_noise(9))})) == {}


@pytest.mark.parametrize("what", CHECKS)
def test_an_artifact_is_run_before_it_is_believed(source_of, build, what, make_noise):
    body, message = CHECKS[what]
    original = source_of(build("g (float[1, 16, n] x) => (float[1, 16, n] y) { [same] y = Identity (x) }"))
    constants = {name: np.array([value]) for value, name in enumerate(("zero", "one", "two"))}
    broken = original.path.with_name("broken.onnx")
    onnx.save(build(f"g (float[1, 16, n] x) => (float y) {{ {body} }}".replace("float y", "y"), **constants), broken)
    probe = Sample("probe", {"x": make_noise(9)})
    if message is None:  # a quantized duration predictor may well decide another length
        check_artifact(broken, original, probe)
        return
    with pytest.raises(StageError, match=message):
        check_artifact(broken, original, probe)


def test_an_artifact_that_does_not_pass_its_check_is_not_published(source_of, settings, conv_net, run_directory, monkeypatch):
    def refuse(path, *_):
        assert path.is_file()
        raise StageError("it does not run")

    monkeypatch.setattr("pipeline.quantize.artifact.check_artifact", refuse)
    model = conv_net()
    with pytest.raises(StageError, match="it does not run"):
        quantize(
            {"model": source_of(model)},
            settings("dynamic"),
            {"model": [sample_of(model)]},
            {"model": [sample_of(model)]},
            run_directory,
        )
    assert not list(run_directory.path.glob("*.onnx*"))


def test_the_same_settings_give_the_same_bytes(source_of, settings, conv_net, tmp_path):
    from pipeline.record.run_directory import RunDirectory

    model = conv_net()
    source = source_of(model)
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        directory = RunDirectory(tmp_path / name)
        result = quantize(
            {"model": source}, settings("static"), {"model": [sample_of(model)]}, {"model": [sample_of(model)]}, directory
        )
        made.append(result.artifacts["model"].path.read_bytes())
    assert made[0] == made[1]


def test_a_graph_whose_layers_all_lie_in_bodies_is_told_how_they_can_be_quantized(
    source_of, settings, build, make_weight, run_directory
):
    graph = """rates (float[6, 32] x, bool[1] high) => (float[6, 32] y) {
        y = If (high) <
            then_branch = one () => (float[6, 32] a) { a = MatMul (x, w) },
            else_branch = two () => (float[6, 32] b) { t = MatMul (x, v) b = MatMul (t, v) }
        >
    }"""
    source = source_of(build(graph, w=make_weight(32, 32), v=make_weight(32, 32, seed=1)))
    with pytest.raises(StageError, match=r"all 3 of its layers lie inside the bodies of If.*mode=dynamic mode.subgraphs=true"):
        quantize({"model": source}, settings("static", subgraphs=False), {}, {}, run_directory)


def test_a_file_that_is_hardly_smaller_says_which_operators_hold_its_bytes_and_why(
    source_of, settings, build, make_weight, run_directory
):
    model = build(
        """g (float[1, 64, n] x) => (float[n, 1, 1, 128] y) {
            a = Conv <pads = [0, 0]> (x, k) t = Transpose <perm = [2, 0, 1]> (a)
            [gru] y = GRU <hidden_size = 128> (t, W, R)
        }""",
        k=make_weight(64, 64, 1), W=make_weight(1, 384, 64), R=make_weight(1, 384, 128),
    )  # fmt: skip
    source = source_of(model)
    x = Sample("s", {"x": np.random.default_rng(0).standard_normal((1, 64, 9)).astype(np.float32)})
    samples = {"model": [x]}
    result = quantize({"model": source}, settings("static", op_types=["Conv"]), samples, samples, run_directory)
    [warning] = [warning for warning in result.warnings if "of the original's bytes" in warning]
    assert "GRU" in warning
    assert "GRU is not in mode.op_types" in warning
