"""ConvTranspose as Conv, Conv over time as Conv over an image, residual blocks in blocks."""

import numpy as np
import onnx
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.optimize.layout import conv1d_to_conv2d, keep_nchwc_layout, time_to_channels
from pipeline.optimize.rules import conv_transpose_to_conv, fuse_pad_into_conv


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (1, 2)])
@pytest.mark.parametrize(("kernel", "stride", "extra"), [(3, 1, 0), (4, 2, 0), (16, 8, 0), (5, 2, 1), (3, 4, 0), (7, 3, 0)])
def test_a_convtranspose_over_time_becomes_a_conv(rng, kernel, stride, extra, pads, group):
    before = graph_of(
        f"(float[n,4,t] x) => (float[n,6,u] y) {{ y = ConvTranspose<strides = [{stride}], pads = [{pads[0]}, {pads[1]}], "
        f"output_padding = [{extra}], group = {group}>(x, w, bias) }}",
        w=rng.standard_normal((4, 6 // group, kernel), dtype=np.float32),
        bias=rng.standard_normal(6, dtype=np.float32),
    )
    sites, after = changed(before, conv_transpose_to_conv.rewrite)
    if isinstance(sites, str):
        assert kernel < stride  # outputs that no input reaches: nothing to interleave
        return
    assert sites == 1
    assert "ConvTranspose" not in op_types(after)
    for shape in ((1, 4, 9), (2, 4, 5)):
        assert difference(before, after, x=rng.standard_normal(shape, dtype=np.float32)) < 1e-6


def test_a_dilated_convtranspose_becomes_a_dilated_conv(rng):
    before = graph_of(
        "(float[1,4,h,w] x) => (float[1,4,g,w] y) "
        "{ y = ConvTranspose<dilations = [5, 1], pads = [10, 1, 10, 1], group = 4>(x, w) }",
        w=rng.standard_normal((4, 1, 3, 3), dtype=np.float32),
    )
    sites, after = changed(before, conv_transpose_to_conv.rewrite)
    assert (sites, op_types(after)) == (1, ["Conv"])
    assert difference(before, after, x=rng.standard_normal((1, 4, 11, 7), dtype=np.float32)) < 1e-6


def test_a_convtranspose_over_an_image_that_is_strided_along_its_width(rng):
    before = graph_of(
        "(float[1,4,3,w] x) => (float[1,6,3,v] y) { y = ConvTranspose<strides = [1, 2], pads = [1, 2, 1, 2], "
        "output_padding = [0, 1], group = 2>(x, w) }",
        w=rng.standard_normal((4, 3, 3, 5), dtype=np.float32),
    )
    sites, after = changed(before, conv_transpose_to_conv.rewrite)
    assert sites == 1
    assert difference(before, after, x=rng.standard_normal((1, 4, 3, 7), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize("settings", ["dilations = [2], strides = [2]", 'auto_pad = "SAME_UPPER", strides = [2]'])
def test_other_convtransposes_are_left_alone(rng, settings):
    text = f"(float[1,4,t] x) => (float[1,4,u] y) {{ y = ConvTranspose<{settings}>(x, w) }}"
    model = graph_of(text, w=rng.standard_normal((4, 4, 4), dtype=np.float32))
    assert changed(model, conv_transpose_to_conv.rewrite)[0].startswith("no ConvTranspose")


RESIDUAL = """(float[n,16,t] x, float[n,1,t] mask) => (float[n,16,t] y) {
    up = ConvTranspose<strides = [2], pads = [1, 1]>(x, wt)
    a = LeakyRelu<alpha = 0.1>(up) c = Conv<pads = [3, 3], dilations = [3]>(a, w, bias) d = LeakyRelu<alpha = 0.1>(c)
    e = Conv<pads = [1, 1]>(d, w, bias) f = Add(e, up) g = LeakyRelu<alpha = 0.1>(f) h = Conv<pads = [1, 1]>(g, w, bias)
    i = Add(h, f) j = Mul(i, gain) k = Softmax<axis = 1>(j) l = Conv<pads = [1, 1], strides = [2]>(k, w) y = Mul(l, mask) }"""


def residual(rng):
    return graph_of(
        RESIDUAL,
        wt=rng.standard_normal((16, 16, 4), dtype=np.float32),
        w=rng.standard_normal((16, 16, 3), dtype=np.float32),
        bias=rng.standard_normal(16, dtype=np.float32),
        gain=rng.uniform(0.5, 2, (16, 1)).astype(np.float32),
    )


def sample(rng):
    x = rng.standard_normal((1, 16, 20), dtype=np.float32)
    return {"x": x, "mask": np.ones((1, 1, 20), np.float32)}


def test_a_region_becomes_rank_4_with_borders_around_it_only(rng):
    before = residual(rng)
    sites, after = changed(before, conv1d_to_conv2d.rewrite)
    assert sites == 4
    assert op_types(after).count("Unsqueeze") == 3  # x, the mask, and what comes from the Softmax
    assert op_types(after).count("Squeeze") == 2
    kept = {node.name for node in after.graph.node}
    assert {node.name for node in before.graph.node if node.name} <= kept
    assert difference(before, after, **sample(rng)) < 1e-5


def test_a_turn_to_channels_last_at_a_border_turns_the_image(rng):
    before = graph_of(
        "(float[n,t,16] x) => (float[n,u,16] y, float[n,16,u] z) { a = Transpose<perm = [0, 2, 1]>(x) "
        "z = Conv<group = 16>(a, w) y = Transpose<perm = [0, 2, 1]>(z) }",
        w=rng.standard_normal((16, 1, 3), dtype=np.float32),
    )
    sites, after = changed(before, conv1d_to_conv2d.rewrite)
    assert sites == 1
    assert op_types(after) == ["Unsqueeze", "Transpose", "Conv", "Transpose", "Squeeze", "Squeeze"]
    for shape in ((1, 9, 16), (2, 3, 16)):
        assert difference(before, after, x=rng.standard_normal(shape, dtype=np.float32)) < 1e-6


def test_only_wide_convs_each_alone(rng):
    before = residual(rng)
    sites, after = changed(before, conv1d_to_conv2d.rewrite_wide)
    assert sites == 4
    assert difference(before, after, **sample(rng)) < 1e-5
    assert op_types(after).count("ConvTranspose") == 1


def test_residual_blocks_stay_in_blocks(rng):
    before = residual(rng)
    _, wide = changed(before, conv1d_to_conv2d.rewrite)
    sites, after = changed(wide, keep_nchwc_layout.rewrite)
    assert sites == 3  # the tensor from the ConvTranspose, and the two LeakyRelu that follow no Conv of their own
    assert difference(wide, after, **sample(rng)) < 1e-6
    again, _ = changed(after, keep_nchwc_layout.rewrite)
    assert again == "every Add and LeakyRelu between the Convs stays in blocks already"


def test_images_are_no_matter_of_conv2d_and_time_none_of_blocked(rng):
    image = graph_of(
        "(float[1,4,h,w] x) => (float[1,4,a,b] y) { y = Conv(x, k) }", k=rng.standard_normal((4, 4, 3, 3), dtype=np.float32)
    )
    assert changed(image, conv1d_to_conv2d.rewrite)[0] == "no Conv over time (with constant weights of rank 3)"
    assert changed(residual(rng), keep_nchwc_layout.rewrite)[0] == "no Conv over images (with constant weights of rank 4)"


def test_weights_that_are_no_constants_are_left_alone():
    model = graph_of("(float[1,4,t] x, float[4,4,3] w) => (float[1,4,u] y) { y = Conv(x, w) }")
    assert changed(model, conv1d_to_conv2d.rewrite)[0] == "no Conv over time (with constant weights of rank 3)"


UPSAMPLED = """(float[n,16,1,t] x) => (float[n,8,1,u] y, float[n,1,1,u] z) {
    up = ConvTranspose<strides = [1, 4], kernel_shape = [1, 8], pads = [0, 2, 0, 2]>(x, wt)
    a = LeakyRelu<alpha = 0.1>(up) c = Conv<pads = [0, 3, 0, 3]>(a, w7, bias) d = LeakyRelu<alpha = 0.1>(c)
    e = Conv<pads = [0, 6, 0, 6], dilations = [1, 2]>(d, w7, bias) f = Add(e, up) y = Conv<pads = [0, 2, 0, 0]>(f, w3)
    g = Conv<pads = [0, 3, 0, 3]>(y, w1) z = Tanh(g) }"""


def upsampled(rng, text=UPSAMPLED):
    weights = {"wt": (16, 8, 1, 8), "w7": (8, 8, 1, 7), "w3": (8, 8, 1, 3), "w1": (1, 8, 1, 7), "bias": (8,)}
    return graph_of(text, **{name: 0.2 * rng.standard_normal(shape, dtype=np.float32) for name, shape in weights.items()})


def test_convs_with_few_output_channels_make_several_frames_at_once(rng):
    before = upsampled(rng)
    sites, after = changed(before, time_to_channels.rewrite)
    assert sites == 3  # not the dilated one
    folded = [node for node in after.graph.node if node.op_type == "Conv" and node.input[1].endswith("_folded")]
    strides = sorted(onnx.helper.get_node_attr_value(node, "strides") for node in folded)
    assert strides == [[1, 2], [1, 2], [1, 4]]  # the length is a multiple of 4: not of 16
    for shape in ((1, 16, 1, 5), (2, 16, 1, 8)):
        assert difference(before, after, x=rng.standard_normal(shape, dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("strides = [1, 4]", "strides = [1, 3]"),  # a length that may be odd
        ("pads = [0, 2, 0, 2]>(x, wt)", "pads = [0, 2, 0, 1]>(x, wt)"),
    ],
)
def test_convs_of_unknown_length_are_left_alone(rng, old, new):
    reason = "no undilated Conv over an image of height 1 with fewer than 16 output channels, of even length"
    assert changed(upsampled(rng, UPSAMPLED.replace(old, new)), time_to_channels.rewrite)[0] == reason


PADDED = """(float[n,4,h,w] x) => (float[n,6,g,v] y) {
    p = Pad(x, widths, zero) y = Conv<strides = [2, 1], pads = [0, 1, 1, 0]>(p, k)
}"""


def padded(rng, text=PADDED, widths=(0, 0, 0, 2, 0, 0, 1, 1)):
    k = rng.standard_normal((6, 4, 3, 3), dtype=np.float32)
    return graph_of(text, widths=np.array(widths), zero=np.zeros((), np.float32), one=np.ones((), np.float32), k=k)


@pytest.mark.parametrize("value", [", zero", ", ", ""])
def test_zeros_around_the_input_of_a_conv_go_into_its_padding(rng, value):
    before = padded(rng, PADDED.replace(", zero", value))
    sites, after = changed(before, fuse_pad_into_conv.rewrite)
    assert (sites, op_types(after)) == (1, ["Conv"])
    for shape in ((1, 4, 9, 7), (2, 4, 1, 2)):
        assert difference(before, after, x=rng.standard_normal(shape, dtype=np.float32)) < 1e-6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zero)", "one)"),
        ("Pad(", 'Pad<mode = "reflect">('),
        ("pads = [0, 1, 1, 0]", 'auto_pad = "SAME_UPPER"'),
        ("(float[n,6,g,v] y)", "(float[n,6,g,v] y, float[n,4,h2,w2] p)"),
        ("y = Conv", "z = Relu(p) y = Conv"),
    ],
)
def test_what_else_is_padded_stays_so(rng, old, new):
    assert changed(padded(rng, PADDED.replace(old, new)), fuse_pad_into_conv.rewrite)[0] == "no zeros in front of a Conv"


def test_channels_of_zeros_are_no_padding_of_a_conv(rng):
    text = PADDED.replace("[n,4,h,w]", "[n,3,h,w]")
    assert isinstance(changed(padded(rng, text, (0, 1, 0, 0, 0, 0, 0, 0)), fuse_pad_into_conv.rewrite)[0], str)
