"""ConvTranspose as Conv, Conv over time as Conv over an image, residual blocks in blocks."""

import numpy as np
import pytest
from small_graphs import changed, difference, graph_of, op_types

from pipeline.rewrite import blocked, conv2d, transposed


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
    sites, after = changed(before, transposed.rewrite)
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
    sites, after = changed(before, transposed.rewrite)
    assert (sites, op_types(after)) == (1, ["Conv"])
    assert difference(before, after, x=rng.standard_normal((1, 4, 11, 7), dtype=np.float32)) < 1e-6


def test_a_convtranspose_over_an_image_that_is_strided_along_its_width(rng):
    before = graph_of(
        "(float[1,4,3,w] x) => (float[1,6,3,v] y) { y = ConvTranspose<strides = [1, 2], pads = [1, 2, 1, 2], "
        "output_padding = [0, 1], group = 2>(x, w) }",
        w=rng.standard_normal((4, 3, 3, 5), dtype=np.float32),
    )
    sites, after = changed(before, transposed.rewrite)
    assert sites == 1
    assert difference(before, after, x=rng.standard_normal((1, 4, 3, 7), dtype=np.float32)) < 1e-6


@pytest.mark.parametrize("settings", ["dilations = [2], strides = [2]", 'auto_pad = "SAME_UPPER", strides = [2]'])
def test_other_convtransposes_are_left_alone(rng, settings):
    text = f"(float[1,4,t] x) => (float[1,4,u] y) {{ y = ConvTranspose<{settings}>(x, w) }}"
    model = graph_of(text, w=rng.standard_normal((4, 4, 4), dtype=np.float32))
    assert changed(model, transposed.rewrite)[0].startswith("no ConvTranspose")


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
    sites, after = changed(before, conv2d.rewrite)
    assert sites == 4
    assert op_types(after).count("Unsqueeze") == 3  # x, the mask, and what comes from the Softmax
    assert op_types(after).count("Squeeze") == 2
    kept = {node.name for node in after.graph.node}
    assert {node.name for node in before.graph.node if node.name} <= kept
    assert difference(before, after, **sample(rng)) < 1e-5


def test_only_wide_convs_each_alone(rng):
    before = residual(rng)
    sites, after = changed(before, conv2d.rewrite_wide)
    assert sites == 4
    assert difference(before, after, **sample(rng)) < 1e-5
    assert op_types(after).count("ConvTranspose") == 1


def test_residual_blocks_stay_in_blocks(rng):
    before = residual(rng)
    _, wide = changed(before, conv2d.rewrite)
    sites, after = changed(wide, blocked.rewrite)
    assert sites == 3  # the tensor from the ConvTranspose, and the two LeakyRelu that follow no Conv of their own
    assert difference(wide, after, **sample(rng)) < 1e-6
    again, _ = changed(after, blocked.rewrite)
    assert again == "every Add and LeakyRelu between the Convs stays in blocks already"


def test_images_are_no_matter_of_conv2d_and_time_none_of_blocked(rng):
    image = graph_of(
        "(float[1,4,h,w] x) => (float[1,4,a,b] y) { y = Conv(x, k) }", k=rng.standard_normal((4, 4, 3, 3), dtype=np.float32)
    )
    assert changed(image, conv2d.rewrite)[0] == "no Conv over time (with constant weights of rank 3)"
    assert changed(residual(rng), blocked.rewrite)[0] == "no Conv over images (with constant weights of rank 4)"


def test_weights_that_are_no_constants_are_left_alone():
    model = graph_of("(float[1,4,t] x, float[4,4,3] w) => (float[1,4,u] y) { y = Conv(x, w) }")
    assert changed(model, conv2d.rewrite)[0] == "no Conv over time (with constant weights of rank 3)"
