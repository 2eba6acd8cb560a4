"""The original runs before anything is blamed on quantization: what it fails on is a bad sample, with its own error."""

import numpy as np
import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.graph.session import RunError, infer, open_session
from pipeline.graph.value_info import dtype_of, type_name
from pipeline.sample import Sample

STAGES = "stages=[load,quantize,evaluate]"
TABLE = "g (int64[1, n] ids) => (float[1, n, 64] y) { e = Gather (table, ids) y = MatMul (e, w) }"


def written(folder, model, calibration, evaluation, write_arrays):
    onnx.save(model, folder / "model.onnx")
    write_arrays(folder / "calib.npz", {f"c{k}": sample for k, sample in enumerate(calibration)})
    write_arrays(folder / "eval.npz", {f"e{k}": sample for k, sample in enumerate(evaluation)})


def ids(*values):
    return {"ids": np.array([values])}


@pytest.fixture
def lookup(tmp_path, build, make_weight, write_arrays):
    """Write a model of a table of 50 rows; the fourth sample of each set asks for row 99."""
    samples = [ids(1, 2, k) for k in (3, 4, 5, 99, 6, 7)]
    model = build(TABLE, table=make_weight(50, 64), w=make_weight(64, 64))
    written(tmp_path, model, samples, samples, write_arrays)


@pytest.mark.parametrize("key", ["calibration", "evaluation"])
@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_sample_that_fp32_fails_on_is_refused_with_fp32_s_error_and_what_to_do(
    lookup, run_quickly, users_model, users_data, key, mode
):
    if (key, mode) == ("calibration", "dynamic"):
        pytest.skip("nothing is calibrated")
    other = "calibration" if key == "evaluation" else "evaluation"
    extra = ("mode.op_types=[MatMul]", f"{other}.on_bad_sample=skip", "mode.dynamic_op_types=[]") if mode == "static" else ()
    run = run_quickly(*users_model, *users_data, f"mode={mode}", STAGES, *extra)
    assert run.exit_code == 2
    assert f"error: {key}.path: sample" in run.stderr
    for words in ("original model itself does not run", "idx=99", f"{key}.on_bad_sample=skip"):
        assert words in run.stderr
    assert "nodes_to_exclude" not in run.stderr


@pytest.mark.parametrize("mode", [("mode=dynamic",), ("mode=static", "mode.dynamic_op_types=[]")])
def test_a_sample_that_fp32_fails_on_is_skipped_where_that_is_asked_for(lookup, run_quickly, users_model, users_data, mode):
    skip = ("evaluation.on_bad_sample=skip", *(["calibration.on_bad_sample=skip"] if "mode=static" in mode else []))
    report = run_quickly(*users_model, *users_data, *mode, STAGES, *skip).succeeded().report
    assert {entry["sample"] for entry in report["skipped"]} <= {"e3", "c3"}
    assert any(entry["sample"] == "e3" for entry in report["skipped"]) or "e3" not in report["samples"]["report"]
    assert "e3" not in [sample["id"] for sample in report["evaluation"]["per_sample"]]


def test_a_graph_that_runs_at_one_length_only_says_that_it_was_exported_so(
    tmp_path, build, make_weight, write_arrays, run_quickly, users_model, users_data
):
    text = "g (float[1, n, 16] x) => (float[1, m, 16] y) { r = Reshape (x, frozen) y = MatMul (r, w) }"
    model = build(text, frozen=np.array([1, 10, 16]), w=make_weight(16, 16))
    samples = [{"x": np.ones((1, n, 16), np.float32)} for n in (10, 12)]
    written(tmp_path, model, samples, samples, write_arrays)
    run = run_quickly(*users_model, *users_data, "mode=dynamic", STAGES)
    assert run.exit_code == 2
    assert "exported for that length" in run.stderr


def test_noise_that_does_not_suit_the_graph_asks_for_real_samples(tmp_path, build, make_weight, run_quickly, users_model):
    text = "g (float[1, n, 16] x) => (float[1, m, 16] y) { r = Reshape (x, frozen) y = MatMul (r, w) }"
    onnx.save(build(text, frozen=np.array([1, 10, 16]), w=make_weight(16, 16)), tmp_path / "model.onnx")
    run = run_quickly(*users_model, "mode=dynamic", STAGES)
    assert run.exit_code == 2
    assert "evaluation.path=<npz>" in run.stderr


ATTENTION = """g (float[1, n, 64] x, float[1, n, n] mask) => (float[1, n, 64] y) {
    q = MatMul (x, wq)
    t = Transpose <perm = [0, 2, 1]> (x)
    s = MatMul (q, t)
    m = Add (s, mask)
    p = Softmax <axis = -1> (m)
    o = MatMul (p, x)
    y = MatMul (o, wo)
}"""


@pytest.mark.parametrize("mode", [("mode=dynamic",), ("mode=static", "mode.op_types=[MatMul,Add,Softmax]")])
def test_a_mask_that_is_added_may_hold_minus_infinity(
    tmp_path, build, make_weight, write_arrays, run_quickly, users_model, users_data, mode
):
    mask = np.zeros((1, 12, 12), np.float32)
    mask[:, :, 8:] = -np.inf
    rng = np.random.default_rng(0)
    samples = [{"x": rng.standard_normal((1, 12, 64)).astype(np.float32), "mask": mask} for _ in range(4)]
    written(tmp_path, build(ATTENTION, wq=make_weight(64, 64), wo=make_weight(64, 64)), samples, samples, write_arrays)
    report = run_quickly(*users_model, *users_data, *mode, STAGES).succeeded().report
    assert report["evaluation"]["metrics"]["sqnr_db"]["quantized"] > 20


def test_the_logarithm_of_silence_is_a_bad_sample(
    tmp_path, build, make_weight, write_arrays, run_quickly, users_model, users_data
):
    text = "g (float[1, n, 16] x) => (float[1, n, 16] y) { h = MatMul (x, w) y = LayerNormalization <axis = -1> (h, s) }"
    model = build(text, w=make_weight(16, 16), s=np.ones(16, np.float32))
    frames = np.random.default_rng(0).standard_normal((1, 5, 16)).astype(np.float32)
    silent = frames.copy()
    silent[0, 2] = -np.inf
    written(tmp_path, model, [{"x": frames}] * 2, [{"x": frames}, {"x": silent}, {"x": frames}], write_arrays)
    run = run_quickly(*users_model, *users_data, "mode=dynamic", STAGES)
    assert run.exit_code == 2
    assert "'e1'" in run.stderr
    assert "gives NaN in its output 'y'" in run.stderr


def test_a_graph_that_does_not_run_raises_one_error_that_names_the_sample(build):
    session = open_session(build("g (float[1, n] x) => (float[1, m] y) { y = Reshape (x, shape) }", shape=np.array([1, 7])))
    with pytest.raises(RunError, match=r"sample 'a'.*Reshape"):
        infer(session, Sample("a", {"x": np.ones((1, 5), np.float32)}))
    with pytest.raises(RunError, match="sample 'b'"):
        infer(session, Sample("b", {}))


def test_an_input_that_is_not_a_tensor_is_refused_by_its_type():
    value = onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    with pytest.raises(ModelError, match=r"'parts' is of type seq\(float32\)"):
        dtype_of(value)
    optional = onnx.helper.make_optional_type_proto(onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, [1]))
    assert type_name(optional) == "optional(int64)"
    assert type_name(onnx.TypeProto()) == "unknown"
