"""Integer Convs with channels last, several frames at once, and where tensors are turned."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_graphs import graph_of, op_types

from pipeline.config.choices import IntegerType
from pipeline.graph.graph_editor import Graph
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.measure.rewrite_gain import Gain
from pipeline.optimize import engine
from pipeline.optimize.layout import integer_channels_last
from pipeline.optimize.layout.dim_divisibility import Lengths
from pipeline.optimize.layout.transpose_min_cut import Piece, cheapest
from pipeline.optimize.layout.unroll_time import best_frame_count
from pipeline.optimize.outcome import Refusal, Sites
from pipeline.optimize.rules import conv_transpose_to_conv
from pipeline.quantize.qdq_placement import PairSettings, place_pairs
from pipeline.quantize.qdq_writer import Ranges, insert_pairs
from pipeline.quantize.target import needs_reduced_range
from pipeline.sample import Sample

REPO = Path(__file__).resolve().parents[2]
RESIDUAL = """(float[n,CHANNELS,t] x) => (float[n,CHANNELS,t] y) {
    a = LeakyRelu<alpha = 0.1>(x)   b = Conv<pads = [3, 3], dilations = [3]>(a, w1, bias)
    c = LeakyRelu<alpha = 0.1>(b)   d = Conv<pads = [1, 1]>(c, w2)
    e = Add(d, x)                   f = LeakyRelu<alpha = 0.1>(e)
    g = Conv<pads = [1, 1]>(f, w2)  y = Add(g, e)
}"""


def quantized(model, nodes=None, **settings):
    """Return a graph whose Convs, or named nodes, are integers, with ranges of 6 about zero.

    Weights have the bits that `mode=static` gives them for this processor. Without VNNI, sums of two products of 8 bits
    saturate, and which two are summed depends on the layout and on the type: int8 activations become uint8 in front of ONNX's
    QLinearConv, not in front of the one that knows layouts.
    """
    graph = Graph(model)
    whole = onnx.shape_inference.infer_shapes(graph.finish())
    names = nodes or [node.name for node in whole.graph.node if node.op_type == "Conv"]
    pairs = PairSettings(reduce_range=needs_reduced_range(None, None), **settings)
    constants = {tensor.name for tensor in whole.graph.initializer}
    measured = place_pairs(whole, names, pairs).measured(constants)
    insert_pairs(whole, names, pairs, Ranges(dict.fromkeys(measured, (-6.0, 6.0))))
    return whole


def turned(model):
    """Return the graph with channels last."""
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    assert isinstance(integer_channels_last.rewrite(graph), Sites)
    return graph.finish()


def outputs(model, *shape):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return infer(open_session(model), Sample("x", {model.graph.input[0].name: x}))


def assert_same(before, after, *shape):
    for name, array in outputs(before, *shape).items():
        np.testing.assert_array_equal(array, outputs(after, *shape)[name])


def residual(rng, channels):
    return graph_of(
        RESIDUAL.replace("CHANNELS", str(channels)),
        w1=rng.standard_normal((channels, channels, 3), dtype=np.float32) / channels,
        w2=rng.standard_normal((channels, channels, 3), dtype=np.float32) / channels,
        bias=rng.standard_normal(channels, dtype=np.float32),
    )


@pytest.mark.parametrize("channels", [8, 16, 32, 64])
@pytest.mark.parametrize("settings", [{}, {"per_channel": False}, {"activations": IntegerType.int8}, {"symmetric": True}])
def test_a_residual_block_computes_the_same_to_the_bit(rng, channels, settings):
    before = quantized(residual(rng, channels), **settings)
    after = turned(before)
    assert op_types(after).count("QLinearConv") == 3
    for shape in ((1, channels, 40), (2, channels, 37), (1, channels, 1)):
        assert_same(before, after, *shape)


def test_nothing_is_turned_between_the_first_and_the_last_conv(rng):
    text = RESIDUAL.replace("CHANNELS", "16").replace("float[n,16,t] x)", "float[n,16,t] in)", 1)
    text = text.replace("{", "{ x = Conv(in, w3)", 1).replace("(float[n,16,t] y)", "(float[n,16,t] out)")
    text = text.replace("y = Add(g, e)", "y = Add(g, e) out = Conv(y, w3)")
    weights = {
        f"w{number}": rng.standard_normal((16, 16, taps), dtype=np.float32) / 16 for number, taps in enumerate((3, 3, 1), 1)
    }
    before = quantized(graph_of(text, bias=rng.standard_normal(16, dtype=np.float32), **weights))
    after = turned(before)
    assert op_types(after).count("Transpose") == 2
    assert_same(before, after, 2, 16, 21)


def test_a_float_conv_keeps_channels_first(rng):
    model = residual(rng, 16)
    middle = [node.name for node in Graph(model).nodes if node.op_type == "Conv"][:2]
    before = quantized(model, middle)
    after = turned(before)
    assert (op_types(after).count("QLinearConv"), op_types(after).count("Conv")) == (2, 1)
    assert_same(before, after, 2, 16, 23)


def test_images_grouped_and_strided_convs_keep_their_numbers(rng):
    model = graph_of(
        "(float[n,8,h,w] x) => (float[n,4,u,v] y) { a = Conv<group = 8, pads = [1, 1, 1, 1]>(x, w1) "
        "b = Conv<strides = [2, 1]>(a, w2) c = Concat<axis = 1>(b, b) d = Slice(c, start, end, axis) y = Neg(d) }",
        w1=rng.standard_normal((8, 1, 3, 3), dtype=np.float32),
        w2=rng.standard_normal((2, 8, 3, 1), dtype=np.float32),
        start=np.array([1], np.int64),
        end=np.array([5], np.int64),
        axis=np.array([-2], np.int64),
    )
    before = quantized(model)
    after = turned(before)
    assert op_types(after).count("QLinearConv") == 2
    assert_same(before, after, 2, 8, 13, 9)


def test_the_phases_of_a_convtranspose_are_made_where_they_belong(rng):
    graph = Graph(
        graph_of(
            "(float[n,8,t] x) => (float[n,6,u] y) { a = ConvTranspose<strides = [4], pads = [2, 2]>(x, w, b) y = Conv(a, v) }",
            v=rng.standard_normal((6, 6, 1), dtype=np.float32),
            w=rng.standard_normal((8, 6, 8), dtype=np.float32),
            b=rng.standard_normal(6, dtype=np.float32),
        )
    )
    assert conv_transpose_to_conv.rewrite(graph) == Sites(1)
    before = quantized(graph.finish())
    after = turned(before)
    assert [list(node.attribute[0].ints) for node in after.graph.node if node.op_type == "Transpose"] == [[0, 2, 1], [0, 2, 1]]
    assert_same(before, after, 2, 8, 11)


def test_a_conv_of_eight_channels_takes_four_frames_at_once_where_the_length_is_a_multiple(rng):
    text = "(float[1,8,t] x) => (float[1,8,u] y) { a = ConvTranspose<strides = [4]>(x, up) y = Conv<pads = [3, 3]>(a, w) }"
    weights = {"up": rng.standard_normal((8, 8, 4), dtype=np.float32), "w": rng.standard_normal((8, 8, 7), dtype=np.float32)}
    before = quantized(graph_of(text, **weights))
    after = turned(before)
    [node] = [node for node in after.graph.node if node.op_type == "QLinearConv"]
    assert list(onnx.numpy_helper.to_array(next(t for t in after.graph.initializer if t.name == node.input[3])).shape) == [
        32,
        32,
        3,
    ]
    assert_same(before, after, 1, 8, 9)
    odd = turned(quantized(graph_of(text.replace("strides = [4]", "strides = [3], pads = [0, 1]"), **weights)))
    assert "Reshape" not in op_types(odd)


@pytest.mark.parametrize(("channels", "taps", "dilation"), [(8, 3, 1), (8, 11, 5), (16, 7, 1), (16, 7, 3), (64, 3, 1)])
def test_how_many_frames_follows_the_work_that_they_make(channels, taps, dilation):
    expected = {(8, 3, 1): 4, (8, 11, 5): 4, (16, 7, 1): 2, (16, 7, 3): 1, (64, 3, 1): 1}
    assert best_frame_count(channels, taps, dilation, divisor=256) == expected[channels, taps, dilation]
    assert best_frame_count(channels, taps, dilation, divisor=1) == 1


def test_a_graph_without_integers_is_left_alone(rng):
    assert integer_channels_last.rewrite(Graph(residual(rng, 8))) == Refusal("no Conv between integers")


def test_a_bias_in_another_scale_than_the_products_is_left_alone(rng):
    model = quantized(residual(rng, 8))
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "bias_quantized_scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(2), scale.name))
    after = turned(model)
    assert (op_types(after).count("Conv"), op_types(after).count("QLinearConv")) == (1, 2)


def test_lengths_are_followed_through_convs_and_crops(rng):
    graph = Graph(
        graph_of(
            "(float[1,2,t] x) => (float[1,2,u] d) { a = ConvTranspose<strides = [8], pads = [4, 4]>(x, up) "
            "b = Conv<pads = [1, 2]>(a, w) c = Slice(b, one, end, axis) d = Relu(c) e = Conv<strides = [2]>(d, w) f = Neg(e) }",
            up=np.ones((2, 2, 16), np.float32),
            w=np.ones((2, 2, 3), np.float32),
            one=np.array([1], np.int64),
            end=np.array([np.iinfo(np.int64).max], np.int64),
            axis=np.array([2], np.int64),
        )
    )
    lengths = Lengths(graph)
    assert [lengths.of(tensor).divisor for tensor in "xabcdf"] == [1, 8, 1, 8, 8, 1]


def test_what_is_turned_is_what_costs_least():
    pieces = [
        Piece(1, ("x",), ("a",), fixed="first"),
        Piece(2, ("a",), ("b",)),
        Piece(3, ("b",), ("c",), fixed="last"),
        Piece(4, ("c",), ("d",)),
        Piece(5, ("d", "a"), ("e",), fixed="first"),
    ]
    cheap_late = {"a": 4, "b": 1, "c": 4, "d": 1}
    assert [piece.key for piece in cheapest(pieces, cheap_late)] == [3, 4]
    cheap_early = {"a": 1, "b": 4, "c": 1, "d": 4}
    assert [piece.key for piece in cheapest(pieces, cheap_early)] == [2, 3]


def test_the_vocoder_that_ships_computes_the_same_to_the_bit(kernels_of):
    graph = Graph(with_shapes(onnx.load(REPO / "data/models/hifigan/hifigan.onnx")))
    conv_transpose_to_conv.rewrite(graph)
    before = quantized(with_shapes(graph.finish()))
    mel = np.random.default_rng(0).standard_normal((1, 80, 12), dtype=np.float32)
    done = engine.apply(
        before, [Sample("m", {"mel": mel})], measure=lambda *_, **__: Gain(1.5, True), only=["integer_channels_last"]
    )
    assert [(applied.name, applied.max_difference) for applied in done.applied] == [("integer_channels_last", 0.0)]
    kinds = op_types(done.model)
    assert (kinds.count("QLinearConv"), kinds.count("Conv")) == (37, 0)
    assert kernels_of(done.model)["QLinearConv"] == 37
