"""NaN that never reaches an output, of a row that is masked entirely: what reads or makes it stays float, alone."""

import numpy as np
import onnx
import pytest

from pipeline.calibration.infinite_tensors import infinite_tensors
from pipeline.evaluate.node_errors import LOWEST_DB, errors_along
from pipeline.graph.prepare import PreparedGraph
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample

ATTENTION = """g (float[1, n, 64] x, bool[1, n, n] keep) => (float[1, n, 64] y) {
    [query] q = MatMul (x, wq)
    [turn] t = Transpose <perm = [0, 2, 1]> (x)
    [scores] s = MatMul (q, t)
    [fill] f = Where (keep, s, low)
    [weigh] p = Softmax <axis = -1> (f)
    [sum] o = MatMul (p, x)
    [out] h = MatMul (o, wo)
    [nan] n1 = IsNaN (h)
    [fix] y = Where (n1, zero, h)
}"""
STAGES = "stages=[load,quantize,evaluate]"


@pytest.fixture
def attention(build, make_weight):
    """Return an attention whose padded rows have no key, and are set to zero at the end."""
    low = {"low": np.float32(-np.inf), "zero": np.float32(0)}
    return build(ATTENTION, wq=make_weight(64, 64), wo=make_weight(64, 64), **low)


def samples(count=4, keys=8):
    rng = np.random.default_rng(0)
    keep = np.zeros((1, 12, 12), bool)
    keep[:, :keys, :keys] = True
    return [{"x": rng.standard_normal((1, 12, 64)).astype(np.float32), "keep": keep} for _ in range(count)]


@pytest.fixture
def users(tmp_path, attention, write_arrays):
    """Write the model and its data as a user has them."""
    onnx.save(attention, tmp_path / "model.onnx")
    for name in ("calib", "eval"):
        write_arrays(tmp_path / f"{name}.npz", {f"{name}{k}": sample for k, sample in enumerate(samples())})


@pytest.mark.parametrize(
    "mode",
    [
        ("mode=dynamic",),
        ("mode=static",),
        ("mode=static", "mode.op_types=[MatMul,Softmax,Where]", "mode.dynamic_op_types=[]"),
    ],
)
def test_the_node_behind_a_row_without_a_key_stays_float_and_the_result_is_right(
    users, run_quickly, users_model, users_data, mode
):
    report = run_quickly(*users_model, *users_data, *mode, STAGES).succeeded().report
    assert report["evaluation"]["metrics"]["sqnr_db"]["quantized"] > 25
    [artifact] = report["artifacts"]
    assert "out" not in artifact["quantized_nodes"]
    [reason] = [kept["reason"] for kept in artifact["kept"] if kept["node"] == "out"]
    assert "o holds NaN or infinity on sample" in reason


def test_a_search_gives_the_node_no_integer_operator(attention, settings):
    prepared = PreparedGraph(attention, (), frozenset())
    groups, _ = groups_of(prepared, settings("static", dynamic_op_types=[], weight_only_op_types=[]), {"o": "s0"})
    precisions = {group.name: set(group.precisions) for group in groups}
    assert precisions.get("out", set()) <= {Precision.weight_int8}
    assert Precision.dynamic_int8 in precisions["query"]


def test_the_other_layers_are_quantized(users, run_quickly, users_model, users_data):
    report = run_quickly(*users_model, *users_data, "mode=dynamic", STAGES).succeeded().report
    assert "query" in report["artifacts"][0]["quantized_nodes"]


def test_tensors_without_a_range_are_named_with_the_sample_that_shows_it(attention):
    whole, padded = (Sample(name, samples(1, keys)[0]) for name, keys in (("whole", 12), ("padded", 8)))
    assert infinite_tensors(attention, ["q", "o", "h"], [whole, padded]) == {"o": "padded", "h": "padded"}
    assert infinite_tensors(attention, ["q", "o", "h"], [whole]) == {}


def test_a_graph_that_masks_nothing_is_not_run(conv_net):
    assert infinite_tensors(conv_net(), ["a", "r"], [Sample("would not fit", {})]) == {}


def test_nan_in_the_place_of_a_number_is_the_worst_error_that_there_is(attention, build, make_weight):
    """Rounding of a row of NaN spoils all others; both graphs have the tensors, and one of them has the numbers."""
    good = build("g (float[1, n] x) => (float[1, n] y) { [a] h = Neg (x) [b] y = Relu (h) }")
    bad = build("g (float[1, n] x) => (float[1, n] y) { [a] h = Sqrt (x) [b] y = Relu (h) }")
    found = {e.node: e.sqnr_db for e in errors_along(good, bad, [Sample("s", {"x": np.full((1, 4), -1, np.float32)})])}
    assert found["a"] == LOWEST_DB
    same = errors_along(attention, attention, [Sample("s", samples(1)[0])])
    assert {e.sqnr_db for e in same} == {np.inf}


def test_a_table_that_cannot_be_made_does_not_end_a_run(users, tmp_path, monkeypatch, users_model, users_data):
    import pipeline
    from pipeline.stages import evaluate

    def fails(*_args, **_settings):
        raise ZeroDivisionError("no such table")

    monkeypatch.setattr(evaluate, "errors_along", fails)
    monkeypatch.chdir(tmp_path)
    report = pipeline.run([*users_model, "evaluation.path=eval.npz", "mode=dynamic", STAGES])
    assert report.status == "done"
    assert any("was not measured: ZeroDivisionError: no such table" in warning for warning in report.warnings)


def test_what_a_weight_with_nan_makes_has_no_range_and_the_layer_before_it_is_quantized(
    tmp_path, build, make_weight, write_arrays, run_quickly
):
    spoilt = make_weight(64, 64, seed=1)
    spoilt[0, 0] = np.nan
    text = """g (float[1, n, 64] x) => (float[1, n, 64] y) {
        [whole] h = MatMul (x, w) [spoilt] a = MatMul (h, v) [nan] n1 = IsNaN (a) [fix] y = Where (n1, zero, a)
    }"""
    onnx.save(build(text, w=make_weight(64, 64), v=spoilt, zero=np.float32(0)), tmp_path / "model.onnx")
    for name in ("calib", "eval"):
        write_arrays(tmp_path / f"{name}.npz", {f"{name}{k}": {"x": one["x"]} for k, one in enumerate(samples())})
    data = ("model.path=model.onnx", "calibration.path=calib.npz", "evaluation.path=eval.npz")
    report = run_quickly("model=onnx", *data, "mode=static", "mode.dynamic_op_types=[]", STAGES).succeeded().report
    [artifact] = report["artifacts"]
    assert artifact["precisions"] == {"whole": "int8, static ranges"}
    assert [kept["reason"] for kept in artifact["kept"]] == ["its weight holds NaN or infinity, which no integer stands for"]
