"""Weights stored as int8: close to what they were, shared where they were shared, computed in float."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.session import infer, open_session
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.weight_storage import output_axis, quantize_symmetric, row_shape, store_constants, store_weights
from pipeline.sample import Sample


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_value_moves_by_more_than_half_a_step_of_its_channel(make_weight, axis):
    weight = make_weight(6, 5, 7)
    shape = tuple(size if index == axis else 1 for index, size in enumerate(weight.shape))
    values, steps = quantize_symmetric(weight, shape)
    assert values.dtype == np.int8
    assert steps.shape == shape
    assert np.all(np.abs(weight - values * steps) <= steps / 2 + 1e-7)


def test_the_largest_value_of_each_channel_uses_the_whole_range(make_weight):
    values, _ = quantize_symmetric(make_weight(6, 40), (6, 1))
    assert np.all(np.abs(values).max(axis=1) == 127)
    assert values.min() >= -127


def test_zero_stays_zero_and_a_channel_of_zeros_is_no_division_by_zero(make_weight):
    weight = make_weight(3, 8)
    weight[1] = 0.0
    weight[0, 0] = 0.0
    values, scale = quantize_symmetric(weight, (3, 1))
    assert np.isfinite(scale).all()
    assert np.all(scale > 0)
    assert values[0, 0] == 0
    assert not values[1].any()


@pytest.mark.parametrize(
    ("op_type", "attributes", "rank", "axis"),
    [
        ("Conv", {}, 3, 0),
        ("ConvTranspose", {}, 3, 1),
        ("ConvTranspose", {"group": 2}, 3, 0),
        ("Gemm", {"transB": 1}, 2, 0),
        ("Gemm", {}, 2, 1),
        ("MatMul", {}, 2, 1),
        ("MatMul", {}, 3, 2),
    ],
)
def test_a_scale_belongs_to_an_output_channel(op_type, attributes, rank, axis):
    assert output_axis(onnx.helper.make_node(op_type, ["x", "w"], ["y"], **attributes), rank) == axis


STORED = {
    "Conv": ("g (float[1, 8, n] x) => (float[1, 12, m] y) { [op] y = Conv (x, w) }", (12, 8, 3)),
    "ConvTranspose": (
        "g (float[1, 8, n] x) => (float[1, 12, m] y) { [op] y = ConvTranspose <strides = [2]> (x, w) }",
        (8, 12, 4),
    ),
    "ConvTranspose, depthwise": (
        "g (float[1, 8, n] x) => (float[1, 8, m] y) { [op] y = ConvTranspose <strides = [2], group = 8> (x, w) }",
        (8, 1, 4),
    ),
    "MatMul": ("g (float[1, n, 20] x) => (float[1, n, 12] y) { [op] y = MatMul (x, w) }", (20, 12)),
    "Gemm": ("g (float[n, 20] x) => (float[n, 12] y) { [op] y = Gemm (x, w) }", (20, 12)),
    "Gemm, transposed": ("g (float[n, 20] x) => (float[n, 12] y) { [op] y = Gemm <transB = 1> (x, w) }", (12, 20)),
}


@pytest.mark.parametrize("what", STORED)
def test_a_node_computes_nearly_the_same_from_its_stored_weight(build, make_weight, what):
    text, shape = STORED[what]
    model = build(text, w=make_weight(*shape))
    given = [10 if dim.dim_param else dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    sample = Sample("s", {"x": np.random.default_rng(0).standard_normal(given).astype(np.float32)})
    before = infer(open_session(model), sample)["y"]
    store_weights(model, ["op"])
    onnx.checker.check_model(model, full_check=True)
    after = infer(open_session(model), sample)["y"]
    assert after.shape == before.shape
    error = float(np.abs(after - before).max())
    assert 0 < error < 0.03 * float(np.abs(before).max())


def test_the_float_weight_is_gone_and_the_int8_one_is_there(conv_net):
    model = conv_net()
    store_weights(model, ["conv_a"])
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    assert "wa" not in weights
    assert "wb" in weights
    assert numpy_helper.to_array(weights["wa_int8"]).dtype == np.int8


def test_nodes_that_share_a_weight_share_its_int8_form(build, make_weight):
    model = build(
        "g (float[n, 20] x) => (float[n, 20] y) { [one] h = MatMul (x, w) [two] y = MatMul (h, w) }", w=make_weight(20, 20)
    )
    store_weights(model, ["one", "two"])
    int8 = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(len(tensor.dims) == 2 for tensor in int8) == 1
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "MatMul", "MatMul"]


def test_a_weight_that_another_node_still_reads_in_float_stays(build, make_weight):
    model = build(
        "g (float[n, 20] x) => (float[n, 20] y) { [one] h = MatMul (x, w) [two] y = MatMul (h, w) }", w=make_weight(20, 20)
    )
    store_weights(model, ["one"])
    assert "w" in {tensor.name for tensor in model.graph.initializer}
    assert next(node for node in model.graph.node if node.name == "two").input[1] == "w"


LAYERS_OF_STATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("op_type", LAYERS_OF_STATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_has_a_scale_for_every_row_of_every_gate_and_direction(build, make_weight, op_type, direction):
    directions, hidden = (2, 9) if direction == "bidirectional" else (1, 9)
    rows = LAYERS_OF_STATES[op_type] * hidden
    model = build(
        f"""g (float[n, 1, 12] x) => (float[n, {directions}, 1, {hidden}] y) {{
            [op] y = {op_type} <hidden_size = {hidden}, direction = "{direction}"> (x, w, r)
        }}""",
        w=make_weight(directions, rows, 12) * np.geomspace(0.01, 1, rows, dtype=np.float32)[:, None],
        r=make_weight(directions, rows, hidden),
    )
    sample = Sample("s", {"x": np.random.default_rng(0).standard_normal((20, 1, 12)).astype(np.float32)})
    before = infer(open_session(model), sample)["y"]
    store_weights(model, ["op"])
    onnx.checker.check_model(model, full_check=True)
    assert {tuple(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT} == {(directions, rows, 1)}
    after = infer(open_session(model), sample)["y"]
    assert 10 * np.log10((before**2).sum() / ((before - after) ** 2).sum()) > 35


def test_onnxruntime_restores_a_weight_when_it_loads_the_model_and_not_at_each_inference(build, make_weight, tmp_path):
    model = build("g (float[n, 20] x) => (float[n, 12] y) { [op] y = MatMul (x, w) }", w=make_weight(20, 12))
    store_weights(model, ["op"])
    open_session(model, save_optimized=tmp_path / "loaded.onnx")
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert [node.op_type for node in loaded.graph.node] == ["MatMul"]
    assert [tensor.data_type for tensor in loaded.graph.initializer] == [onnx.TensorProto.FLOAT]


def test_a_weight_that_a_body_holds_is_stored_there(build, make_weight):
    model = build(
        """g (float[n, 20] x, bool c) => (float[n, 20] y) {
            y = If (c) <then_branch = t () => (float[n, 20] p) { [one] p = MatMul (x, v) },
                        else_branch = e () => (float[n, 20] q) { q = Identity (x) }>
        }"""
    )
    body = model.graph.node[0].attribute[0].g
    body.initializer.append(numpy_helper.from_array(make_weight(20, 20), "v"))
    store_weights(model, ["one"])
    body = model.graph.node[0].attribute[0].g
    assert [node.op_type for node in body.node] == ["Cast", "Mul", "MatMul"]
    assert {tensor.name for tensor in body.initializer} == {"v_int8", "scale_0"}
    assert not model.graph.initializer
    onnx.checker.check_model(model, full_check=True)


def test_a_weight_that_both_branches_read_is_stored_once_outside_of_them(build, make_weight):
    model = build(
        """g (float[n, 20] x, bool c) => (float[n, 20] y) {
            y = If (c) <then_branch = t () => (float[n, 20] p) { [one] p = MatMul (x, w) },
                        else_branch = e () => (float[n, 20] q) { [two] a = MatMul (x, w) [three] q = MatMul (a, w) }>
        }""",
        w=make_weight(20, 20),
    )
    store_weights(model, ["one", "two", "three"])
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "If"]
    assert sorted(tensor.data_type for tensor in model.graph.initializer) == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT8]
    for flag in (True, False):
        assert np.isfinite(
            infer(open_session(model), Sample("s", {"x": np.ones((2, 20), np.float32), "c": np.array(flag)}))["y"]
        ).all()


def test_equal_weights_of_two_branches_are_stored_once(build, make_weight):
    """Folding gives each branch of an If its own copy of a recurrent weight that it has put together."""
    model = build(
        """g (float[n, 20] x, bool c) => (float[n, 20] y) {
            y = If (c) <then_branch = t () => (float[n, 20] p) { [one] p = MatMul (x, v) },
                        else_branch = e () => (float[n, 20] q) { [two] q = MatMul (x, w) }>
        }"""
    )
    for name, attribute in zip("vw", model.graph.node[0].attribute, strict=True):
        attribute.g.initializer.append(numpy_helper.from_array(make_weight(20, 20), name))
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)}
    before = infer(open_session(model), Sample("s", inputs | {"c": np.array(False)}))["y"]
    store_weights(model, ["one", "two"])
    onnx.checker.check_model(model, full_check=True)
    assert [tuple(tensor.dims) for tensor in model.graph.initializer] == [(20, 20), (1, 20)]
    assert not any(attribute.g.initializer for attribute in model.graph.node[-1].attribute)
    for flag in (True, False):
        after = infer(open_session(model), Sample("s", inputs | {"c": np.array(flag)}))["y"]
        assert np.allclose(after, before, atol=0.05)


BODIES = {
    "If": """y = If (c) <then_branch = t () => (float[1, 40] p) { a = MatMul (x, inner) p = Add (a, outer) },
                         else_branch = e () => (float[1, 40] q) { q = Identity (x) }>""",
    "Loop": """y = Loop (m, c, x) <body = l (int64 i, bool k, float[1, 40] s) => (bool o, float[1, 40] t) {
                   o = Identity (k) a = MatMul (s, inner) t = Add (a, outer) }>""",
    "Scan": """y = Scan (x) <num_scan_inputs = 1, body = s (float[40] s) => (float[40] t) {
                   a = MatMul (s, inner) t = Add (a, last) }>""",
}  # fmt: skip


@pytest.mark.parametrize("op_type", BODIES)
def test_onnxruntime_restores_what_bodies_read_when_it_loads_the_model(build, make_weight, tmp_path, op_type):
    constants = {"outer": make_weight(1, 40)} if op_type != "Scan" else {"last": make_weight(40)}
    model = build(f"g (float[1, 40] x, bool c, int64 m) => (float[1, 40] y) {{ {BODIES[op_type]} }}", **constants)
    body = next(entry.g for entry in model.graph.node[0].attribute if entry.HasField("g"))
    body.initializer.append(numpy_helper.from_array(make_weight(40, 40), "inner"))
    given = {"x": np.random.default_rng(0).standard_normal((1, 40)), "c": np.array(True), "m": np.array(1, np.int64)}
    sample = Sample("s", {name: value if name != "x" else value.astype(np.float32) for name, value in given.items()})
    loaded = {}
    for form in ("float", "stored"):
        if form == "stored":
            store_constants(model, ["inner", *constants], IntegerType.int16)
            onnx.checker.check_model(model, full_check=True)
        session = open_session(model, save_optimized=tmp_path / f"{form}.onnx")
        taken = {entry.name for entry in session.get_inputs()}
        graphs = list(graphs_of(onnx.load(tmp_path / f"{form}.onnx").graph))
        loaded[form] = (
            [[node.op_type for node in graph.node] for graph in graphs],
            infer(session, Sample("s", {name: value for name, value in sample.inputs.items() if name in taken}))["y"],
        )
    assert loaded["stored"][0] == loaded["float"][0], "nothing is left of what restores"
    assert np.allclose(loaded["stored"][1], loaded["float"][1], rtol=0, atol=1e-3)


def test_a_constant_is_stored_for_all_that_read_it_and_equal_ones_once(build, make_weight):
    table = make_weight(30, 16)
    model = build(
        """g (int64[n] ids, float[30, 16] x) => (float[n, 16] y, float[30, 16] z, float[30, 16] a) {
            y = Gather (table, ids) z = Add (x, table) a = Mul (x, same)
        }""",
        table=table, same=table,
    )  # fmt: skip
    store_constants(model, ["table", "same", "no such constant"])
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} == {
        "table_int8": (30, 16),
        "scale_0": (30, 1),
    }
    inputs = {"ids": np.arange(30), "x": np.zeros((30, 16), np.float32)}
    found = infer(open_session(model), Sample("s", inputs))
    assert np.allclose(found["y"], table, atol=0.01)
    assert np.array_equal(found["y"], found["z"])


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((1, 33, 1, 16), (1, 33, 1, 1)), ((500, 64), (500, 1)), ((300,), (1,)), ((1, 300), (1, 1)), ((300, 2), (1, 1)), ((), ())],
)
def test_rows_have_scales_of_their_own_where_they_are_long(shape, scales):
    assert row_shape(shape) == scales
