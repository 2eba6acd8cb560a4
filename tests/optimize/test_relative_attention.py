"""Attention by relative distances: constants go into the layers before it, what all layers do is done once."""

import numpy as np
import onnx
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.graph.graph_editor import Graph
from pipeline.graph.prepare import prepare
from pipeline.graph.shape_inference import with_shapes
from pipeline.optimize.outcome import Sites
from pipeline.optimize.rewrite_registry import LESS, REWRITES
from pipeline.optimize.rules import fold_attention_scale, hoist_padding, where_to_arithmetic

LAYER = """
    p{i} = MatMul(x{i}, w{i})                a{i} = Add(p{i}, b{i})
    h{i} = Reshape(a{i}, heads)              {split}
    q{i} = Transpose<perm = [0, 2, 1, 3]>(q{i}_)
    k{i} = Transpose<perm = [0, 2, 3, 1]>(k{i}_)
    v{i} = Transpose<perm = [0, 2, 1, 3]>(v{i}_)
    r{i} = MatMul(waves, far{i})             s{i} = Reshape(r{i}, apart)
    d{i} = Transpose<perm = [0, 2, 3, 1]>(s{i})
    qu{i} = Add(q{i}, u{i})                  qv{i} = Add(q{i}, z{i})
    by_content{i} = MatMul(qu{i}, k{i})      by_distance{i} = MatMul(qv{i}, d{i})
    f{i} = Pad(by_distance{i}, pads)         g{i} = Reshape(f{i}, flat)
    i{i} = Slice(g{i}, length, end, last)    j{i} = Reshape(i{i}, rows)
    l{i} = Slice(j{i}, zero, length, last4)
    sum{i} = Add(by_content{i}, l{i})        scores{i} = Div(sum{i}, root)
    m{i} = Where(hidden, fill, scores{i})    soft{i} = Softmax(m{i})
    c{i} = MatMul(soft{i}, v{i})             t{i} = Transpose<perm = [0, 2, 1, 3]>(c{i})
    o{i} = Reshape(t{i}, whole)              {end} = Add(o{i}, x{i})
"""
SPLIT = """three{i}_0, three{i}_1, three{i}_2 = Split<axis = 2>(h{i})
    q{i}_ = Squeeze(three{i}_0, two)         k{i}_ = Squeeze(three{i}_1, two)
    v{i}_ = Squeeze(three{i}_2, two)"""
GATHER = """q{i}_ = Gather<axis = 2>(h{i}, first)  k{i}_ = Gather<axis = 2>(h{i}, second)
    v{i}_ = Gather<axis = 2>(h{i}, third)"""
LENGTH, WIDTH = 5, 8


def attention(rng, split=SPLIT, layer=LAYER, layers=2):
    """Return attention layers of two heads of four channels over five frames."""
    text = "(float[n,5,8] x0, float[9,8] waves, bool[n,1,1,5] hidden) => (float[n,5,8] y) {"
    weights = {}
    for i in range(layers):
        text += layer.replace("{split}", split).format(i=i, end="y" if i == layers - 1 else f"x{i + 1}")
        weights |= {
            f"w{i}": rng.standard_normal((WIDTH, 3 * WIDTH)) / 3, f"b{i}": rng.standard_normal(3 * WIDTH),
            f"far{i}": rng.standard_normal((WIDTH, WIDTH)) / 3, f"u{i}": rng.standard_normal((1, 2, 1, 4)),
            f"z{i}": rng.standard_normal((2, 1, 4)),
        }  # fmt: skip
    return graph_of(
        text + "}",
        **{name: array.astype(np.float32) for name, array in weights.items()},
        heads=np.array([0, 0, 3, 2, 4]), apart=np.array([1, -1, 2, 4]), whole=np.array([0, 0, 8]), two=np.array([2]),
        first=np.array(0), second=np.array(1), third=np.array(2),
        pads=np.array([0, 0, 0, 1, 0, 0, 0, 0]), flat=np.array([0, 0, -1]), rows=np.array([0, 2, LENGTH, 2 * LENGTH - 1]),
        zero=np.array([0]), length=np.array([LENGTH]), end=np.array([1000]), last=np.array([2]), last4=np.array([3]),
        root=np.array(2.0, np.float32), fill=np.array(-10000.0, np.float32), one=np.ones((), np.float32),
    )  # fmt: skip


@pytest.fixture
def inputs(rng):
    return {
        "x0": rng.standard_normal((2, LENGTH, WIDTH), dtype=np.float32),
        "waves": rng.standard_normal((2 * LENGTH - 1, WIDTH), dtype=np.float32),
        "hidden": np.arange(LENGTH) >= np.array([5, 3]).reshape(2, 1, 1, 1),
    }


@pytest.mark.parametrize("split", [SPLIT, GATHER], ids=["split", "gathered"])
def test_the_scale_of_scores_and_a_row_of_the_queries_go_into_the_layer_before_them(rng, inputs, split):
    before = attention(rng, split)
    sites, scaled = changed(before, fold_attention_scale.rewrite)
    assert (sites, op_types(scaled).count("Div")) == (2, 0)
    assert difference(before, scaled, **inputs) < 1e-6
    sites, after = changed(scaled, fold_attention_scale.rewrite)
    assert (sites, op_types(scaled).count("Add") - op_types(after).count("Add")) == (2, 2)
    assert difference(before, after, **inputs) < 1e-6
    assert changed(after, fold_attention_scale.rewrite)[0].startswith("no constant row")
    assert after.graph.node[0].input[1] != "w0"  # the weights were scaled, the keys' and values' part excepted
    weights = {tensor.name: tensor for tensor in after.graph.initializer}
    kept = [np.frombuffer(w.raw_data, np.float32).reshape(8, 24)[:, 8:] for w in weights.values() if list(w.dims) == [8, 24]]
    assert len(kept) == 2


READ_BESIDE = {
    "scores": ("scores0 = Div(sum0, root)", "scores0 = Div(sum0, root) extra = Relu(sum0)"),
    "queries": ("qu0 = Add(q0, u0)", "qu0 = Add(q0, u0) extra = Relu(q0)"),
    "what the layer makes": ("h0 = Reshape(a0, heads)", "h0 = Reshape(a0, heads) extra = Relu(a0)"),
}


@pytest.mark.parametrize("what", READ_BESIDE)
def test_what_is_read_beside_keeps_its_values(rng, inputs, what):
    old, new = READ_BESIDE[what]
    layer = " ".join(LAYER.split()).replace("{i}", "0")
    assert old in layer
    before = attention(rng, layer=layer.replace(old, new), layers=1)
    rank = 3 if what == "what the layer makes" else 4
    before.graph.output.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [None] * rank))
    after = before
    for _ in range(2):
        _, after = changed(after, fold_attention_scale.rewrite)
    assert difference(before, after, **inputs) < 1e-6
    if what != "scores":
        assert op_types(after) == op_types(before)


def test_queries_that_are_gathered_twice_keep_their_values(rng, inputs):
    before = attention(rng, split=f"{GATHER} extra = Gather<axis = 2>(h{{i}}, first)", layers=1)
    before.graph.output.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [None] * 4))
    sites, after = changed(before, fold_attention_scale.rewrite)
    assert isinstance(sites, str)
    assert difference(before, after, **inputs) == 0


@pytest.mark.parametrize("axes", [1, 4])
def test_a_scale_may_have_axes_of_length_one(rng, inputs, axes):
    before = attention(rng, layers=1)
    root = next(tensor for tensor in before.graph.initializer if tensor.name == "root")
    root.dims.extend([1] * axes)
    sites, after = changed(before, fold_attention_scale.rewrite)
    assert (sites, op_types(after).count("Div")) == (1, 0)
    assert difference(before, after, **inputs) < 1e-6


LEFT_ALONE = {
    "a row for each frame": ("Reshape(a, heads)", "Add(h, frames)", "float[n,5,2,4] y"),
    "frames mixed with channels": ("Reshape(a, mixed)", "Add(h, row)", "float[n,u,4] y"),
    "a scale with an axis more": ("Transpose<perm = [0, 2, 1]>(a)", "Div(h, root)", "float[1,n,8,t] y"),
}


@pytest.mark.parametrize("what", LEFT_ALONE)
def test_what_is_no_constant_of_the_queries_alone_is_left_alone(rng, what):
    moved, end, output = LEFT_ALONE[what]
    model = graph_of(
        f"(float[n,{'5' if 'frames)' in end else 't'},8] x) => ({output}) "
        f"{{ p = MatMul(x, w) a = Add(p, b) h = {moved} s = {end} y = Relu(s) }}",
        w=rng.standard_normal((8, 8), dtype=np.float32),
        b=rng.standard_normal(8, dtype=np.float32),
        frames=rng.standard_normal((5, 1, 4), dtype=np.float32),
        row=rng.standard_normal((2, 4), dtype=np.float32),
        root=np.full((1, 1, 1, 1), 2.0, np.float32),
        heads=np.array([0, 0, 2, 4]),
        mixed=np.array([0, -1, 4]),
    )
    assert changed(model, fold_attention_scale.rewrite)[0].startswith("no constant row")


def test_a_long_chain_of_sums_is_not_followed_to_its_end(rng):
    sums = " ".join(f"s{i + 1} = Add(s{i}, one)" for i in range(3000))
    model = graph_of(
        f"(float[n,t,8] x) => (float[n,t,8] y) {{ s0 = Relu(x) {sums} y = Mul(s3000, root) }}",
        one=np.ones((), np.float32),
        root=np.full((), 2.0, np.float32),
    )
    assert isinstance(changed(model, fold_attention_scale.rewrite)[0], str)


def test_scores_are_padded_once_for_all_layers(rng, inputs):
    before = attention(rng)
    sites, after = changed(before, hoist_padding.rewrite)
    assert (sites, op_types(after).count("Pad")) == (2, 1)
    pad = next(node for node in after.graph.node if node.op_type == "Pad")
    assert pad.input[0] == "waves"
    assert difference(before, after, **inputs) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pads)", "pads, one)"),
        ("r{i} = MatMul(waves, far{i})", "r{i}_ = MatMul(waves, far{i}) r{i} = Add(r{i}_, one)"),
        ("f{i} = Pad(", "f{i} = Pad<mode = 'edge'>("),
    ],
    ids=["with ones", "behind a bias", "with the last value"],
)
def test_what_is_not_padded_with_the_zeros_of_its_source_is_padded_as_before(rng, old, new):
    sites, after = changed(attention(rng, layer=LAYER.replace(old, new.replace("'", '"'))), hoist_padding.rewrite)
    assert isinstance(sites, str)
    assert op_types(after).count("Pad") == 2


def test_an_axis_that_a_reshape_mixes_with_others_is_padded_behind_it(rng):
    text = "(float[2,t,8] x, float[10,8] waves) => (float[2,t,6] y, float[2,t,6] z) {"
    for i, output in enumerate(("y", "z")):
        text += f""" r{i} = MatMul(waves, far{i})  s{i} = Reshape(r{i}, halves)  d{i} = Transpose<perm = [0, 2, 1]>(s{i})
            m{i} = MatMul(x, d{i})  {output} = Pad(m{i}, pads)"""
    far = {f"far{i}": rng.standard_normal((8, 8), dtype=np.float32) for i in range(2)}
    model = graph_of(text + "}", halves=np.array([2, -1, 8]), pads=np.array([0, 0, 1, 0, 0, 0]), **far)
    assert isinstance(changed(model, hoist_padding.rewrite)[0], str)


def test_one_layer_pads_its_scores_itself(rng):
    assert isinstance(changed(attention(rng, layers=1), hoist_padding.rewrite)[0], str)


def test_what_attention_does_not_look_at_is_a_minimum(rng, inputs):
    before = attention(rng)
    for _ in range(2):
        _, before = changed(before, fold_attention_scale.rewrite)
    sites, after = changed(before, where_to_arithmetic.rewrite, assume=True)
    assert (sites, op_types(after).count("Min"), op_types(after).count("Where")) == (2, 2, 1)
    assert difference(before, after, **inputs) == 0


def test_every_layer_of_the_shipped_recogniser_gets_simpler(shipped):
    model = prepare(shipped("asr"), opset=None, needed_opset=13, preprocess=True).model
    sites = {}
    for rewrite in (rewrite for rewrite in REWRITES if rewrite.timed_with == LESS):
        graph = Graph(model)
        found = rewrite.apply(graph, assume=True)
        if isinstance(found, Sites):
            sites[rewrite.name], model = found.count, with_shapes(graph.finish())
    assert (sites["fold_attention_scale"], sites["hoist_padding"], sites["where_to_arithmetic"]) == (5, 5, 10)
    assert op_types(model).count("Min") == 5
