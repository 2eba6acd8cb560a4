"""Recurrent layers: an LSTM that is large enough becomes DynamicQuantizeLSTM, wherever it stands; the others store int8."""

import numpy as np
import onnx
import pytest
import streaming_models

from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, cannot_compute, quantize_with_dynamic_ops
from pipeline.quantize.plan import Precision
from pipeline.quantize.target import needs_reduced_range
from pipeline.sample import Sample
from pipeline.stages.quantize import plan_for, quantize

HIDDEN = 32


def lstm(build, make_weight, attributes="", directions=1, steps=12):
    text = f"""g (float[steps, 1, 16] x) => (float[steps, {directions}, 1, {HIDDEN}] y, float[{directions}, 1, {HIDDEN}] h) {{
        [lstm] y, h = LSTM <hidden_size = {HIDDEN}{attributes}> (x, W, R, B)
    }}"""
    weights = {
        "W": make_weight(directions, 4 * HIDDEN, 16) * 2,
        "R": make_weight(directions, 4 * HIDDEN, HIDDEN) * 2,
        "B": make_weight(directions, 8 * HIDDEN),
    }
    return build(text, **weights), {"x": np.random.default_rng(0).standard_normal((steps, 1, 16)).astype(np.float32)}


def sqnr_db(model, changed, inputs):
    before, after = (infer(open_session(each), Sample("s", inputs)) for each in (model, changed))
    return min(10 * np.log10((a**2).sum() / ((a - after[name]) ** 2).sum()) for name, a in before.items())


def copy_of(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@pytest.mark.parametrize(
    ("attributes", "more", "directions", "hidden"),
    [
        (', direction = "reverse"', "", 1, 32),
        (', direction = "bidirectional"', "", 2, 31),
        ("", ", , h0, c0", 1, 33),
        ("", ", lengths", 1, 32),
        (', direction = "bidirectional"', ", lengths, h0, c0, P", 2, 17),
        (', activations = ["HardSigmoid", "Tanh", "Softsign"]', "", 1, 32),
        (", input_forget = 1", "", 1, 32),
    ],
    ids=[
        "reverse",
        "odd, both ways",
        "initial states",
        "lengths",
        "with peepholes, all at once",
        "activations",
        "coupled gates",
    ],
)
def test_all_that_an_lstm_may_be_told_is_kept_in_its_integer_form(build, make_weight, attributes, more, directions, hidden):
    text = f"""g (float[steps, 2, 16] x, int32[2] lengths) => (float[s, {directions}, 2, {hidden}] y) {{
        [lstm] y = LSTM <hidden_size = {hidden}{attributes}> (x, W, R, B{more})
    }}"""
    weights = {"W": make_weight(directions, 4 * hidden, 16) * 2, "R": make_weight(directions, 4 * hidden, hidden) * 2}
    weights |= {"B": make_weight(directions, 8 * hidden), "P": make_weight(directions, 3 * hidden)}
    weights |= {"h0": make_weight(directions, 2, hidden), "c0": make_weight(directions, 2, hidden, seed=1)}
    model = build(text, **{name: array for name, array in weights.items() if name in "WRB" or name in more})
    changed = copy_of(model)
    quantize_with_dynamic_ops(changed, ["lstm"], DynamicOpsSettings(reduce_range=needs_reduced_range(None, None)))
    assert [node.op_type for node in changed.graph.node] == ["DynamicQuantizeLSTM"]
    x = np.random.default_rng(0).standard_normal((12, 2, 16)).astype(np.float32)
    assert sqnr_db(model, changed, {"x": x, "lengths": np.array([12, 7], np.int32)}) > 25


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("attributes", "directions"), [("", 1), (', direction = "bidirectional"', 2), (", clip = 3.0", 1)])
def test_an_lstm_computes_nearly_the_same_with_integer_weights(build, make_weight, attributes, directions, per_channel):
    model, inputs = lstm(build, make_weight, attributes, directions)
    changed = copy_of(model)
    settings = DynamicOpsSettings(per_channel=per_channel, reduce_range=needs_reduced_range(None, None))
    quantize_with_dynamic_ops(changed, ["lstm"], settings)
    onnx.checker.check_model(changed)
    assert [node.op_type for node in changed.graph.node] == ["DynamicQuantizeLSTM"]
    assert sqnr_db(model, changed, inputs) > 25
    kept = sum(np.prod(tensor.dims) for tensor in changed.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    assert kept < 1200, "only biases and scales stay float"


def test_layers_that_share_their_weights_share_them_afterwards(build, make_weight):
    text = f"""g (float[n, 1, {HIDDEN}] x) => (float[1, 1, {HIDDEN}] h) {{
        [one] a = LSTM <hidden_size = {HIDDEN}> (x, W, R, B)
        b = Squeeze (a, axis)
        [two] unused, h = LSTM <hidden_size = {HIDDEN}> (b, W, R, B)
    }}"""
    weights = {name: make_weight(1, 4 * HIDDEN, HIDDEN, seed=seed) for seed, name in enumerate("WR")}
    model = build(text, **weights, B=make_weight(1, 8 * HIDDEN), axis=np.array([1]))
    changed = copy_of(model)
    quantize_with_dynamic_ops(changed, ["one", "two"], DynamicOpsSettings(reduce_range=needs_reduced_range(None, None)))
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 3 for tensor in changed.graph.initializer) == 2
    inputs = {"x": np.random.default_rng(0).standard_normal((9, 1, HIDDEN)).astype(np.float32)}
    assert sqnr_db(model, changed, inputs) > 25


@pytest.mark.parametrize(
    ("attributes", "reason"), [(", layout = 1", "layout"), ("", "not a constant")], ids=["layout", "a weight that is computed"]
)
def test_an_lstm_that_the_integer_operator_does_not_know_stays_float_with_the_reason(build, make_weight, attributes, reason):
    model, _ = lstm(build, make_weight, attributes)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if not attributes:
        del constants["R"]
    assert reason in cannot_compute(model.graph.node[0], constants)


def stack(build, make_weight):
    """Return a graph with eight nodes at its top: node identities of protobuf change from one look at them to the next."""
    text = f"""g (int64[1, n] ids) => (float[1, 8] y) {{
        [table] e = Gather (E, ids)
        t = Transpose <perm = [1, 0, 2]> (e)
        [one] a = LSTM <hidden_size = {HIDDEN}> (t, W, R, B)
        b = Squeeze (a, axis)
        [two] unused, h = LSTM <hidden_size = {HIDDEN}> (b, V, S, B)
        s = Squeeze (h, first)
        [product] y = MatMul (s, w)
    }}"""
    weights = {name: make_weight(1, 4 * HIDDEN, HIDDEN, seed=seed) for seed, name in enumerate("WRVS")}
    return build(
        text, **weights, B=make_weight(1, 8 * HIDDEN), E=make_weight(200, HIDDEN), w=make_weight(HIDDEN, 8),
        axis=np.array([1]), first=np.array([0]),
    )  # fmt: skip


def test_layers_of_the_outermost_graph_are_quantized_where_they_are_named(
    build, make_weight, source_of, run_directory, settings
):
    source = source_of(stack(build, make_weight))
    mode = settings("dynamic", op_types=["LSTM", "Gather", "MatMul"])
    samples = {"model": [Sample("s", {"ids": np.arange(12).reshape(1, 12)})]}
    artifact = quantize({"model": source}, mode, samples, samples, run_directory).artifacts["model"]
    assert set(artifact.quantized_nodes) == {"table", "one", "two", "product"}
    assert not artifact.kept
    assert artifact.size_bytes < 0.32 * source.size_bytes
    assert sqnr_db(source.model, onnx.load(artifact.path), samples["model"][0].inputs) > 20


def test_an_lstm_in_a_body_is_quantized_too(build, make_weight):
    text = f"""g (float[n, 1, 16] x, bool c) => (float[1, 1, {HIDDEN}] y) {{
        y = If (c) <then_branch = t () => (float[1, 1, {HIDDEN}] p) {{
                        [lstm] unused, p = LSTM <hidden_size = {HIDDEN}> (x, W, R)
                    }},
                    else_branch = e () => (float[1, 1, {HIDDEN}] q) {{ q = Identity (zero) }}>
    }}"""
    weights = {"W": make_weight(1, 4 * HIDDEN, 16), "R": make_weight(1, 4 * HIDDEN, HIDDEN)}
    model = build(text, **weights, zero=np.zeros((1, 1, HIDDEN), np.float32))
    changed = copy_of(model)
    quantize_with_dynamic_ops(changed, ["lstm"], DynamicOpsSettings(reduce_range=needs_reduced_range(None, None)))
    inputs = {"x": np.random.default_rng(0).standard_normal((9, 1, 16)).astype(np.float32), "c": np.array(True)}
    assert sqnr_db(model, changed, inputs) > 25


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
@pytest.mark.parametrize("model", [streaming_models.dtln, streaming_models.ten_vad, streaming_models.silero])
def test_a_streaming_model_has_a_third_of_its_bytes_in_every_mode(written, settings, model, mode):
    built = model()
    inputs = [streaming_models.sample_of(built, seed) for seed in range(3)]
    artifact, graph, _ = written(built, settings(mode), *inputs)
    assert artifact.size_bytes < 0.31 * artifact.baseline_bytes
    assert sqnr_db(built, graph, inputs[0].inputs) > 30


@pytest.mark.parametrize(
    ("hidden", "threaded", "form"),
    [(64, False, "stored"), (128, False, "integers"), (128, True, "stored"), (256, True, "integers")],
)
def test_an_lstm_computes_in_integers_where_that_is_faster(build, make_weight, source_of, settings, hidden, threaded, form):
    state = ", , h, h" if threaded else ""
    model = build(
        f"""g (float[n, 1, 16] x, float[1, 1, {hidden}] h) => (float[n, 1, 1, {hidden}] y) {{
            [lstm] y = LSTM <hidden_size = {hidden}> (x, W, R, B{state})
        }}""",
        W=make_weight(1, 4 * hidden, 16), R=make_weight(1, 4 * hidden, hidden), B=make_weight(1, 8 * hidden),
    )  # fmt: skip
    mode = settings("dynamic")
    plan = plan_for(prepare(source_of(model), opset=None, needed_opset=13, preprocess=True), mode)
    wanted = {"stored": Precision.weight_int8, "integers": Precision.dynamic_int8}[form]
    assert plan.precisions == {"lstm": wanted}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_what_has_no_integer_kernel_stores_its_weights(build, make_weight, source_of, settings, mode):
    model = build(
        """g (float[n, 1, 64] x) => (float[n, 1, 1, 128] y, float[n, 1, 1, 128] z) {
            [rnn] y = RNN <hidden_size = 128> (x, W, R)
            [gru] z = GRU <hidden_size = 128, linear_before_reset = 1> (x, V, S)
        }""",
        W=make_weight(1, 128, 64), R=make_weight(1, 128, 128), V=make_weight(1, 384, 64), S=make_weight(1, 384, 128),
    )  # fmt: skip
    plan = plan_for(prepare(source_of(model), opset=None, needed_opset=13, preprocess=True), settings(mode))
    assert plan.precisions == dict.fromkeys(("rnn", "gru"), Precision.weight_int8)


@pytest.mark.parametrize(
    ("rows", "width", "form"),
    [(1, 128, "stored"), (4, 256, "stored"), (16, 128, "integers"), (1, 512, "integers")],
)
def test_a_product_of_a_streaming_step_is_stored_where_ranges_would_cost_more(
    build, make_weight, source_of, settings, rows, width, form
):
    text = f"g (float[1, {rows}, {width}] x) => (float[1, {rows}, {width}] y) {{ [mm] y = MatMul (x, w) }}"
    model = build(text, w=make_weight(width, width))
    for mode in (settings("dynamic"), settings("static")):
        prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
        wanted = {"stored": Precision.weight_int8, "integers": Precision.dynamic_int8}[form]
        assert plan_for(prepared, mode).precisions == {"mm": wanted}
    named = settings("dynamic", nodes_to_quantize=["mm"])
    assert plan_for(prepared, named).precisions == {"mm": Precision.dynamic_int8}
