"""Constants that no group of a search has, and are stored all the same: which, and where they are found again."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pipeline.config.choices import ModeKind
from pipeline.config.mode_settings import StaticConfig
from pipeline.graph.prepare import prepare
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.mixed_precision.smaller_file import constants_beside
from pipeline.optimize.layouts import in_layout
from pipeline.quantize.plan import Precision
from pipeline.quantize.stored_constants import layers_of_stored, store_chosen

STATIC = StaticConfig(
    name="auto", kind=ModeKind.static, dynamic_op_types=[], weight_only_op_types=[], min_channels=1, fold_batch_norm=False,
    cross_layer_equalization=False,
)  # fmt: skip
NET = """net (float[1, 24, n] x, int64[n] ids, bool first) => (float[1, n, 24] y, float[n, 24] z) {
    [layer] a = Conv (x, weight, bias)
    [turn] b = Transpose <perm = [0, 2, 1]> (a)
    [norm] c = Mul (b, scales)
    [divide] d = Div (c, divisors)
    [mask] e = Mul (d, ones)
    [branch] y = If (first) <then_branch = t () => (float[1, n, 24] p) { [inner] p = MatMul (e, inside) },
                             else_branch = f () => (float[1, n, 24] q) { [as_is] q = Identity (e) }>
    [lookup] z = Gather (table, ids)
}"""


@pytest.fixture
def given(build, make_weight, source_of):
    """Return a graph with constants of many kinds, prepared, and a function that says which may be stored."""
    values = {
        "weight": make_weight(24, 24, 1), "bias": make_weight(24),
        "table": make_weight(200, 24), "ones": np.ones((1, 40, 24), np.float32),
        "scales": make_weight(1, 40, 24), "divisors": make_weight(1, 40, 24), "inside": make_weight(24, 24),
    }  # fmt: skip
    prepared = prepare(source_of(build(NET, **values)), opset=None, needed_opset=13, preprocess=True)

    def storable(choice=None, keep_lengths=False, **settings):
        static = replace(STATIC, **settings)
        groups, _ = groups_of(prepared, static)
        known = replace(prepared, keep_lengths=keep_lengths)
        return set(constants_beside(prepared.model, groups, choice or {}, static, known))

    return prepared.model, storable


def test_tables_norms_and_weights_in_bodies_may_be_stored_but_no_masks_divisors_and_small_ones(given):
    _, storable = given
    assert storable() == {"table", "scales", "inside"}
    assert storable({"branch": Precision.weight_int8}) == {"table", "scales"}, "the group stores them"


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"nodes_to_exclude": ["lookup"]}, {"scales", "inside"}),
        ({"nodes_to_quantize": ["inner", "lookup"]}, {"table", "inside"}),
        ({"op_types": ["Conv"]}, set()),
        ({"op_types": ["Conv", "Gather"]}, {"table"}),
    ],
)
def test_settings_keep_constants_as_they_are(given, settings, left):
    _, storable = given
    assert storable(**settings) == left


def test_what_an_integer_node_reads_and_what_lengths_follow_from_stays(build, make_weight, source_of):
    model = build(
        """net (float[1, 200, n] x, int64[k] ids) => (float[1, 200, n] y, float[m] z) {
            [layer] y = Conv (x, weight, bias)
            [lookup] a = Gather (durations, ids)
            one = Constant <value = int64[1] {-1}> ()
            [flat] b = Reshape (a, one) [sum] c = ReduceSum <keepdims = 0> (b)
            [whole] d = Cast <to = 7> (c) [list] e = Unsqueeze (d, zero) [ones] z = ConstantOfShape (e)
        }""",
        weight=make_weight(200, 200, 1), bias=make_weight(200), durations=make_weight(60, 4), zero=np.array([0]),
    )  # fmt: skip
    prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
    groups, _ = groups_of(prepared, STATIC)
    arguments = (prepared.model, groups)
    assert set(constants_beside(*arguments, {}, STATIC, prepared)) == {"bias"}
    assert not constants_beside(*arguments, {"layer": Precision.static_int8}, STATIC, prepared)


def test_a_constant_that_a_layout_has_rearranged_is_stored_in_its_new_form(build, make_weight, source_of):
    """A small weight that no group stores is found by the node that reads it."""
    text = "net (float[1, 4, n] x) => (float[1, 16, n] y) { [layer] y = Conv <pads = [1, 1]> (x, w) }"
    model = prepare(source_of(build(text, w=make_weight(16, 4, 3))), opset=None, needed_opset=13, preprocess=True).model
    laid_out = in_layout(model, ("conv1d_to_conv2d",))
    store_chosen(laid_out, {"w": Precision.weight_int16}, model)
    onnx.checker.check_model(laid_out)
    [integers] = [tensor for tensor in laid_out.graph.initializer if tensor.data_type == TensorProto.INT16]
    assert list(integers.dims) == [16, 4, 1, 3]
    assert layers_of_stored(laid_out) == {"layer": Precision.weight_int16}


def test_a_layer_whose_bias_alone_is_stored_is_no_layer_that_stores_its_weight(given):
    model, _ = given
    store_chosen(
        model, {"bias": Precision.weight_int8, "scales": Precision.weight_int8, "inside": Precision.weight_int16}, model
    )
    assert layers_of_stored(model) == {"inner": Precision.weight_int16}
    kinds = {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}
    assert kinds["bias_int8"] == np.int8
