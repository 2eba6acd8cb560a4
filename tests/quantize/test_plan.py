"""The plan: every node that could have been quantized either is, or says why not."""

import numpy as np
import pytest

from pipeline.config.choices import IntegerType, Target
from pipeline.errors import ConfigError
from pipeline.graph.prepare import prepare
from pipeline.quantize.artifact import suffix_of
from pipeline.quantize.plan import Precision
from pipeline.stages.quantize import needed_opset, plan_for


@pytest.fixture
def plan_of(source_of):
    """Return a function: (model, mode) -> the plan for it."""

    def plan(model, mode):
        source = source_of(model)
        return plan_for(prepare(source, opset=None, needed_opset=needed_opset(mode), preprocess=mode.preprocess), mode)

    return plan


def reasons(plan):
    return {kept.node: kept.reason for kept in plan.kept}


def test_a_static_mode_takes_convolutions_statically_and_products_at_run_time(plan_of, settings, conv_net, matmul_net):
    mode = settings("static")
    assert set(plan_of(conv_net(), mode).precisions.values()) == {Precision.static_int8}
    assert set(plan_of(matmul_net(), mode).precisions.values()) == {Precision.dynamic_int8}


def test_a_node_of_another_type_says_so(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("dynamic", op_types=["MatMul"]))
    assert not plan.precisions
    assert reasons(plan) == dict.fromkeys(("conv_a", "conv_b"), "Conv is not in mode.op_types")


def test_an_excluded_node_says_so(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("static", nodes_to_exclude=["conv_a"]))
    assert list(plan.precisions) == ["conv_b"]
    assert reasons(plan) == {"conv_a": "excluded by mode.nodes_to_exclude"}


def test_only_the_named_nodes_are_quantized_and_the_others_say_so(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("static", nodes_to_quantize=["*_b"]))
    assert list(plan.precisions) == ["conv_b"]
    assert reasons(plan) == {"conv_a": "not in mode.nodes_to_quantize"}


def test_exclusion_wins_over_inclusion(plan_of, settings, conv_net):
    mode = settings("static", nodes_to_quantize=["conv_*"], nodes_to_exclude=["conv_b"])
    assert list(plan_of(conv_net(), mode).precisions) == ["conv_a"]


def test_a_convolution_of_few_channels_stays_unless_it_is_asked_for_by_name(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("static", min_channels=17))
    assert "16 channels, fewer than mode.min_channels" in reasons(plan)["conv_a"]
    named = plan_of(conv_net(), settings("static", min_channels=17, nodes_to_quantize=["conv_a"]))
    assert list(named.precisions) == ["conv_a"]


def test_a_product_of_two_activations_stays_unless_the_mode_wants_it(plan_of, settings, build):
    model = build("g (float[n, 8] x, float[8, n] z) => (float[n, n] y) { [scores] y = MatMul (x, z) }")
    assert reasons(plan_of(model, settings("static"))) == {"scores": "its weight is not a constant"}
    wanted = settings("static", products_of_activations=True, dynamic_op_types=[])
    assert plan_of(model, wanted).precisions == {"scores": Precision.static_int8}


def test_a_constant_on_the_left_is_named_as_the_reason(plan_of, settings, build, make_weight):
    """Whisper's logits in sherpa-onnx's exports are the embedding times the transposed activations."""
    model = build("g (float[64, n] x) => (float[80, n] y) { [logits] y = MatMul (table, x) }", table=make_weight(80, 64))
    assert "its constant is its first input" in reasons(plan_of(model, settings("static")))["logits"]


@pytest.mark.parametrize(
    ("preprocess", "reason"), [(True, "'table', transposed, which others read"), (False, "preprocess=true")]
)
def test_a_weight_that_is_computed_from_constants_says_why_it_is(plan_of, settings, build, make_weight, preprocess, reason):
    text = """g (int64[n] ids, float[n, 64] x) => (float[n, 64] a, float[n, 64] y) {
        a = Gather (table, ids) w = Transpose <perm = [1, 0]> (table) [tied] y = MatMul (x, w)
    }"""
    model = build(text, table=make_weight(64, 64))
    assert reason in reasons(plan_of(model, settings("dynamic", op_types=["MatMul"], preprocess=preprocess)))["tied"]


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_a_weight_that_is_not_finite_stays_float(plan_of, settings, build, make_weight, mode):
    weight = make_weight(64, 64)
    weight[0, 0] = np.nan
    model = build("g (float[n, 64] x) => (float[n, 64] y) { [spoilt] y = MatMul (x, w) }", w=weight)
    assert "its weight holds NaN" in reasons(plan_of(model, settings(mode)))["spoilt"]


def test_a_small_weight_is_not_worth_storing(plan_of, settings, build, make_weight):
    model = build("g (float[n, 8] x) => (float[n, 4] y) { [small] y = Gemm (x, w) }", w=make_weight(8, 4))
    assert reasons(plan_of(model, settings("static"))) == {"small": "its weight has only 32 values"}


def test_what_decides_shapes_is_kept_with_that_reason(plan_of, settings, shipped):
    mode = settings("dynamic")
    prepared = prepare(shipped("matcha"), opset=None, needed_opset=13, preprocess=True)
    plan = plan_for(prepared, mode)
    assert "decides shapes, or reads what was decided" in reasons(plan).values()


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only", "fp16"])
def test_no_mode_ever_plans_a_node_that_decides_shapes(settings, shipped, mode):
    from pipeline.graph.shape_deciding import shape_deciding_nodes

    changes = {} if mode == "fp16" else {"op_types": ["all"]}
    chosen = settings(mode, **changes)
    prepared = prepare(shipped("matcha"), opset=None, needed_opset=needed_opset(chosen), preprocess=True)
    plan = plan_for(prepared, chosen)
    assert plan.precisions
    assert not set(plan.precisions) & shape_deciding_nodes(prepared.model.graph)


def test_all_op_types_of_static_take_more_than_the_weighted_ones(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("static", op_types=["all"], weight_only_op_types=[], dynamic_op_types=[]))
    assert "relu" in plan.precisions


def test_a_weight_only_mode_stores_products_in_blocks_and_convolutions_per_channel(plan_of, settings, conv_net, matmul_net):
    mode = settings("weight_only")
    assert set(plan_of(matmul_net(), mode).precisions.values()) == {Precision.weight_blocks}
    assert set(plan_of(conv_net(), mode).precisions.values()) == {Precision.weight_int8}


def test_an_fp16_mode_keeps_the_types_that_shall_stay(plan_of, settings, conv_net):
    plan = plan_of(conv_net(), settings("fp16", ops_in_fp32=["Relu"]))
    assert reasons(plan) == {"relu": "Relu is in mode.ops_in_fp32"}
    assert set(plan.precisions) == {"conv_a", "conv_b"}


def test_a_node_that_preparation_folds_away_is_told_apart_from_a_misspelt_one(plan_of, settings, build, make_weight):
    text = "g (float[n, 32] x) => (float[n, 32] y) { [double] v = Add (w, w) [product] y = MatMul (x, v) }"
    model = build(text, w=make_weight(32, 32))
    with pytest.raises(ConfigError, match=r"folded all nodes.*mode\.preprocess=false"):
        plan_of(model, settings("static", nodes_to_exclude=["double"]))
    with pytest.raises(ConfigError, match="no node is named 'duoble'"):
        plan_of(model, settings("static", nodes_to_exclude=["duoble"]))


def test_sixteen_bit_types_need_a_newer_opset(settings):
    assert needed_opset(settings("static")) == 13
    assert needed_opset(settings("static", activation_type=IntegerType.uint16)) == 21


@pytest.mark.parametrize(
    ("mode", "changes", "suffix"),
    [
        ("static", {}, "int8"),
        ("static", {"weight_type": IntegerType.uint8}, "int8"),
        ("dynamic", {"weight_type": IntegerType.uint8}, "int8"),
        ("weight_only", {}, "int8"),
        ("weight_only", {"bits": 4}, "int4"),
        ("fp16", {}, "fp16"),
    ],
)
def test_a_file_is_called_by_the_type_of_its_weights(settings, mode, changes, suffix):
    assert suffix_of(settings(mode, **changes)) == suffix


def test_a_grouped_convolution_counts_all_its_channels(plan_of, settings, build):
    """A depthwise convolution of 32 channels has a weight of (32, 1, 3): it has 32 input channels, not one."""
    text = "g (float[1, 32, n] x) => (float[1, 32, m] y) { [depthwise] y = Conv <group = 32> (x, w) }"
    model = build(text, w=np.ones((32, 1, 3), np.float32))
    assert plan_of(model, settings("static")).precisions == {"depthwise": Precision.static_int8}


@pytest.mark.parametrize(("target", "integers"), [(Target.x86_vnni, False), (Target.arm, True)])
def test_a_narrow_depthwise_convolution_stays_float_on_x86(plan_of, settings, build, target, integers):
    text = "g (float[1, 16, n] x) => (float[1, 16, m] y) { [depthwise] y = Conv <group = 16> (x, w) }"
    model = build(text, w=np.ones((16, 1, 3), np.float32))
    plan = plan_of(model, settings("static", target=target))
    assert (plan.precisions.get("depthwise") is Precision.static_int8) == integers
    if not integers:
        assert "depthwise of 16 channels, fewer than 2 times mode.min_channels" in reasons(plan)["depthwise"]
        named = plan_of(model, settings("static", target=target, nodes_to_quantize=["depthwise"]))
        assert named.precisions == {"depthwise": Precision.static_int8}


@pytest.mark.parametrize(
    ("channels", "image", "positions", "precision"),
    [
        (16, False, 64, Precision.weight_int8),
        (16, False, 96, Precision.static_int8),  # 73,728 products
        (32, False, 16, Precision.static_int8),
        (32, True, 16, Precision.weight_int8),
        (64, True, 4, Precision.static_int8),
        (16, False, "n", Precision.static_int8),  # as many as a recording is long
    ],
)
def test_a_conv_of_few_channels_at_few_positions_stores_its_weight(
    plan_of, settings, build, channels, image, positions, precision
):
    axes = f"1, {positions}" if image else positions
    pads = "[0, 1, 0, 1]" if image else "[1, 1]"
    model = build(
        f"g (float[b, {channels}, {axes}] x) => (float[b, {channels}, {axes}] y) {{ [conv] y = Conv <pads = {pads}> (x, w) }}",
        w=np.ones((channels, channels, *([1] if image else []), 3), np.float32),
    )
    assert plan_of(model, settings("static")).precisions == {"conv": precision}
    for asked in ({"nodes_to_quantize": ["conv"]}, {"min_channels": 1}):
        assert plan_of(model, settings("static", **asked)).precisions == {"conv": Precision.static_int8}


@pytest.mark.parametrize(
    ("mode", "columns", "precision"),
    [
        ("static", 16, Precision.weight_int8),
        ("static", 64, Precision.dynamic_int8),
        ("static", 8, Precision.dynamic_int8),  # too small to be stored
        ("dynamic", 16, Precision.dynamic_int8),
    ],
)
def test_a_product_too_small_for_ranges_at_run_time_stores_its_weight(plan_of, settings, build, mode, columns, precision):
    model = build(
        f"g (float[n, 16] x) => (float[n, {columns}] y) {{ [product] y = MatMul (x, w) }}", w=np.ones((16, columns), "f")
    )
    assert plan_of(model, settings(mode)).precisions == {"product": precision}
