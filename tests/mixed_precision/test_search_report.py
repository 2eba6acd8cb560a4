"""The table of nodes: what each has become, and why."""

from types import SimpleNamespace

import pytest
from onnx import parser

from pipeline.mixed_precision.candidates import Budget, Candidate
from pipeline.mixed_precision.cost_model import KernelSaving
from pipeline.mixed_precision.precision_groups import Group
from pipeline.mixed_precision.search_report import rows, warnings_of
from pipeline.quantize.plan import Plan, Precision
from pipeline.record.results import Kept


@pytest.mark.parametrize("fixed", [set(), {"layer"}])
def test_a_product_with_a_scale_from_calibration_says_so(fixed):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x, float[4,4] w) => (float[n,4] y) { [layer] y = MatMul (x, w) }'
    )
    group = Group("layer", "MatMul", ("layer",), "w", (Precision.dynamic_int8,))
    key = ("layer", Precision.dynamic_int8)
    best = Candidate("A1", dict([key]), loss=0.0, length_change=0.0, bytes=1, size_ratio=0.5)
    builder, plan = SimpleNamespace(model=model, groups=[group]), Plan(dict([key]))
    [row] = rows(builder, [], best, {key: 0.1}, {key: KernelSaving(1.0, 1.0, 100)}, "posterior_kl", plan, fixed)
    assert row["precision"] == "int8, dynamic ranges"
    assert row["reason"].endswith(", with a scale from calibration") == bool(fixed)


def test_a_node_that_only_stores_its_weight_says_why_it_computes_in_float():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x, float[4,4] w) => (float[n,4] y) { [layer] y = MatMul (x, w) }'
    )
    group = Group("layer", "MatMul", ("layer",), "w", (Precision.dynamic_int8, Precision.weight_int8))
    best = Candidate("A1", {"layer": Precision.weight_int16}, loss=0.0, length_change=0.0, bytes=1, size_ratio=0.5)
    gained = {("layer", Precision.dynamic_int8): KernelSaving(-1.0, -1.0, 100)}
    [row] = rows(SimpleNamespace(model=model, groups=[group]), [], best, {}, gained, "posterior_kl", Plan(best.choice))
    assert row["precision"] == "int16 weight, float computation"
    assert (
        row["reason"]
        == "as int8, dynamic ranges it would be 1 ms slower than as float; its weight is stored, which costs no time"
    )


def test_a_layer_of_no_group_whose_weight_is_stored_says_so_and_another_why_it_is_float():
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x, float[4,4] w, float[4,4] v) => (float[n,4] y) {
            [layer] a = MatMul (x, w) [small] b = MatMul (a, v) [sum] y = Add (b, x)
        }"""
    )
    best = Candidate("A1", {}, loss=0.0, length_change=0.0, bytes=1, size_ratio=0.5, constants={"v": Precision.weight_int16})
    builder, plan = SimpleNamespace(model=model, groups=[]), Plan({"small": Precision.weight_int16})
    kept = [Kept("layer", "excluded"), Kept("small", "its weight has only 16 values")]
    layer, small = rows(builder, kept, best, {}, {}, "posterior_kl", plan)
    assert (layer["precision"], layer["reason"]) == ("fp32", "excluded")
    assert (small["precision"], small["reason"].split("; ")[1]) == (
        "int16 weight, float computation", "its weight is stored, which costs no time"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "stopped", "said"),
    [
        ({}, None, "no node became int8: nothing was worth its loss within the budget. The graph stays float."),
        ({"layer": Precision.weight_int8}, None, "no node computes in integers. Its weights are stored as integers."),
        ({"layer": Precision.weight_int16}, "stopped", "nothing that was measured by then keeps to the budget. Its"),
    ],
)  # fmt: skip
def test_a_graph_without_integers_is_told_of_first(choice, stopped, said):
    best = Candidate("A1", choice, loss=0.0, length_change=0.0, bytes=1, size_ratio=0.5, speedup=1.0)
    assert said in warnings_of("net", best, True, Budget("log_mel_l1", max_loss=0.1), [best], stopped)[-1]
