"""The real command on the models that ship: what it leaves behind is what DESIGN.md promises."""

import hashlib
import math
import re
import shutil

import numpy as np
import onnx
import pytest

from pipeline.config.compose import read_run_config
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import evaluation_samples
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import QUANTIZED_OPS
from pipeline.record.run_log import RunLog
from tests.conftest import BENCHMARKED, FEW, MODELS, MODES

EVERY_RUN = [(model, mode) for model in MODELS for mode in MODES]
SUFFIX = {"dynamic": "int8", "static": "int8", "fp16": "fp16", "weight_only": "int8"}
OWN_METRICS = {
    "matcha": {"log_mel_l1", "duration_mae_frames", "roundtrip_wer_percent"},
    "vocoder": {"log_mel_l1", "mr_stft", "truth_log_mel_l1", "truth_mr_stft"},
    "asr": {"wer_percent", "cer_percent", "deletion_percent", "posterior_kl"},
}


@pytest.fixture(params=EVERY_RUN, ids="-".join)
def run(request, shipped_run):
    """Return the run of each model with each mode."""
    return shipped_run(*request.param)


@pytest.fixture(params=sorted(BENCHMARKED), ids="-".join)
def full_run(request, shipped_run):
    """Return the runs of all stages."""
    return shipped_run(*request.param)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_model_with_every_mode_ends_with_a_report_that_says_done(run):
    report = run.report
    assert (report["schema"], report["status"]) == (2, "done")
    assert "error" not in report
    assert [stage["status"] for stage in report["stages"]] == ["done"] * len(report["stages"])
    assert all(isinstance(stage["seconds"], float) for stage in report["stages"])


def test_the_run_is_where_its_model_and_mode_and_time_say(run):
    parts = run.directory.relative_to(run.folder / "outputs").parts
    assert parts[:2] == (run.report["model"], run.report["mode"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", parts[2])


def test_nothing_lies_in_the_run_s_directory_that_the_contract_does_not_name(run):
    [artifact] = run.report["artifacts"]
    allowed = {".hydra", "config.yaml", "run.log", "report.json", "report.html", "samples", artifact["file"]}
    allowed.add(f"{artifact['graph']}.trace.json")
    found = {path.name for path in run.directory.iterdir()}
    assert found <= allowed
    assert found >= {".hydra", "config.yaml", "run.log", "report.json", artifact["file"]}
    assert (run.directory / "run.log").stat().st_size > 0


def test_inputs_are_listed_with_the_hashes_of_their_contents(run, repo):
    inputs = run.report["inputs"]
    assert len({entry["path"] for entry in inputs}) == len(inputs) >= 2
    for entry in inputs:
        assert entry["sha256"] == digest(repo / entry["path"])
        assert entry["bytes"] == (repo / entry["path"]).stat().st_size


def test_an_artifact_is_described_as_it_is(run):
    for artifact in run.report["artifacts"]:
        path = run.directory / artifact["file"]
        suffix = SUFFIX[run.report["mode"]]
        assert artifact["file"] == f"{artifact['graph']}.{suffix}.onnx"
        assert artifact["sha256"] == digest(path)
        assert artifact["bytes"] == path.stat().st_size
        assert artifact["baseline_bytes"] > artifact["bytes"]
        assert artifact["quantized_nodes"]
        assert all(kept["node"] and kept["reason"] for kept in artifact["kept"])
        assert not {kept["node"] for kept in artifact["kept"]} & set(artifact["quantized_nodes"])


def test_what_is_called_int8_or_fp16_is(run):
    [artifact] = run.report["artifacts"]
    model = onnx.load(run.directory / artifact["file"])
    types = {tensor.data_type for tensor in model.graph.initializer}
    if run.report["mode"] == "fp16":
        assert onnx.TensorProto.FLOAT16 in types
    else:
        assert types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
        assert {node.op_type for node in model.graph.node} & QUANTIZED_OPS


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_an_int8_artifact_is_at_most_half_as_large_as_fp32(shipped_run, model, mode):
    [artifact] = shipped_run(model, mode).report["artifacts"]
    assert artifact["bytes"] <= artifact["baseline_bytes"] / 2


def test_the_metadata_of_the_model_survives(run, shipped):
    [artifact] = run.report["artifacts"]
    kept = onnx.load(run.directory / artifact["file"]).metadata_props
    assert len(kept) > 0
    assert list(kept) == list(shipped(run.report["model"]).model.metadata_props)


def test_an_artifact_gives_finite_outputs_of_the_right_shape(run, shipped):
    config, _ = read_run_config(run.directory / "config.yaml")
    source = shipped(run.report["model"])
    evaluation = EvaluationConfig(kind=EvaluationKind.tensors, samples=2)
    [artifact] = run.report["artifacts"]
    sessions = [open_session(path) for path in (source.path, run.directory / artifact["file"])]
    for item in evaluation_samples(config.model, source, evaluation, 0, RunLog()):
        baseline, quantized = (infer(session, item.sample) for session in sessions)
        assert list(quantized) == list(baseline)
        for name, array in quantized.items():
            assert array.dtype == baseline[name].dtype
            assert np.isfinite(array).all()
            if run.report["model"] == "matcha":  # int8 may decide another duration: the number of frames is its own
                assert array.shape[:2] == baseline[name].shape[:2]
                assert array.shape[2] == pytest.approx(baseline[name].shape[2], rel=0.2)
            else:
                assert array.shape == baseline[name].shape


def test_metrics_say_what_they_are_and_the_difference_is_one(run):
    evaluation = run.report["evaluation"]
    parts = run.report["samples"]
    assert [len(parts[part]) for part in ("selection", "report")] == [3, 3], "of evaluation.samples=6"
    assert evaluation["samples"] == 3
    assert [sample["id"] for sample in evaluation["per_sample"]] == parts["report"]
    metrics = evaluation["metrics"]
    assert {"mse", "relative_error", "sqnr_db", "cosine", "max_abs_error"} | OWN_METRICS[run.report["model"]] <= set(metrics)
    for name, metric in metrics.items():
        assert set(metric) >= {"baseline", "quantized", "delta", "unit", "higher_is_better"}
        assert isinstance(metric["unit"], str)
        assert isinstance(metric["higher_is_better"], bool)
        assert math.isfinite(metric["quantized"])
        if metric["baseline"] is None:
            assert name == "sqnr_db"  # infinite, which JSON has no word for
        else:
            assert metric["delta"] == pytest.approx(metric["quantized"] - metric["baseline"], abs=1e-9)


def test_quantization_costs_something_and_does_not_ruin_the_model(run):
    metrics = run.report["evaluation"]["metrics"]
    assert metrics["mse"]["quantized"] > 0
    assert metrics["cosine"]["quantized"] > 0.98
    for name in ("wer_percent", "roundtrip_wer_percent"):
        if name in metrics:
            assert metrics[name]["delta"] < 10  # of a few samples one word is worth a lot


def test_the_noise_inside_of_matcha_is_the_same_for_both_models_and_the_report_says_how(shipped_run):
    for mode in MODES:
        assert "same seeded values for both models" in shipped_run("matcha", mode).report["evaluation"]["noise"]
    assert shipped_run("vocoder", "dynamic").report["evaluation"]["noise"] is None


@pytest.mark.parametrize("model", ["matcha", "vocoder"])
def test_audio_of_the_samples_that_changed_most_is_written_before_and_after(shipped_run, model):
    run = shipped_run(model, "static")
    moved = {one["id"]: one["fidelity"]["log_mel_l1"] for one in run.report["evaluation"]["per_sample"]}
    most = sorted(moved, key=moved.get, reverse=True)[:2]  # evaluation.listen=2
    labels = ["fp32", "int8", "recording"] if model == "vocoder" else ["fp32", "int8"]
    written = {path.name for path in (run.directory / "samples").iterdir()}
    assert written == {f"{name.replace('/', '_')}.{label}.wav" for name in most for label in labels}


def test_the_inspection_describes_the_graph(full_run, shipped):
    [found] = full_run.report["inspect"].values()
    graph = shipped(full_run.report["model"]).model.graph
    assert found["opset"] == 17
    assert found["nodes"] == len(graph.node) == sum(found["ops"].values())
    assert found["ops"]["MatMul"] == sum(node.op_type == "MatMul" for node in graph.node)
    assert found["parameters"] > 100_000
    assert found["macs"]["MatMul"] > 0 < found["macs"]["Conv"]
    assert sum(found["time_share"].values()) == pytest.approx(1.0, abs=0.01)
    assert found["advised_mode"] in (*MODES, "auto", "optimize", "not sure")
    assert all(isinstance(reason, str) and reason for reason in found["reasons"])
    assert [value["name"] for value in found["outputs"]] == [value.name for value in graph.output]


def test_the_benchmark_gives_percentiles_and_a_verdict(full_run):
    [measured] = full_run.report["benchmark"].values()
    for side in ("baseline_ms", "quantized_ms"):
        assert 0 < measured[side]["p50"] <= measured[side]["p90"] <= measured[side]["p99"]
    speedup = measured["speedup"]
    assert 0 < speedup["low"] <= speedup["median"] <= speedup["high"]
    assert measured["verdict"] in ("faster", "slower", "same")
    assert measured["threads"] == 1
    assert measured["rtf"] > 0
    assert measured["baseline_peak_bytes"] > 0 < measured["quantized_peak_bytes"]


def test_the_verdict_comes_first_in_the_terminal(full_run):
    """Quality first, then speed: a result slower than fp32 is reported as such."""
    words = {"faster": ("FASTER",), "slower": ("SLOWER",), "same": ("AS FAST AS", "NOT DECIDED")}
    [measured] = full_run.report["benchmark"].values()
    lines = full_run.stdout.splitlines()
    outcome = full_run.report["verdict"]["quality"].partition(":")[0]
    assert lines[1].startswith(f"quality: {outcome.upper()}: ")
    assert lines[2].partition(": ")[2].startswith(words[measured["verdict"]])


def test_the_environment_names_versions_and_the_processor(run):
    found = run.report["environment"]
    assert found["onnx"] == onnx.__version__
    assert found["numpy"] == np.__version__
    assert {"python", "onnxruntime", "cpu", "cpu_flags", "cores", "commit"} <= set(found)
    assert isinstance(found["cpu_flags"], list)


def test_random_calibration_is_worse_than_real_and_warns(shipped_run, run_quickly):
    overrides = ("model=vocoder", "mode=static", "calibration=random", "stages=[load,quantize,evaluate]", *FEW)
    noise = run_quickly(*overrides).succeeded().report
    real = shipped_run("vocoder", "static").report
    assert any("calibration=random" in warning for warning in noise["warnings"])
    assert not any("calibration=random" in warning for warning in real["warnings"])
    worse, good = (report["evaluation"]["metrics"] for report in (noise, real))
    assert worse["sqnr_db"]["quantized"] < good["sqnr_db"]["quantized"] - 3
    assert worse["log_mel_l1"]["quantized"] > 1.5 * good["log_mel_l1"]["quantized"]


@pytest.mark.parametrize(
    ("model", "mode"),
    [("matcha", "static"), ("vocoder", "dynamic"), ("asr", "fp16"), ("asr", "static"), ("vocoder", "weight_only")],
)
def test_a_rerun_gives_the_same_files_bit_by_bit(shipped_run, tmp_path, run_quickly, model, mode):
    """The settings of the past run say less than all its stages here, so that the second run is short."""
    past = shipped_run(model, mode)
    copy = tmp_path / "past"
    shutil.copytree(past.directory, copy)
    config = copy / "config.yaml"
    text = config.read_text(encoding="utf-8")
    shorter = re.sub(r"^stages:\n(- \w+\n)+", "stages:\n- load\n- quantize\n", text, flags=re.MULTILINE)
    assert shorter != text
    config.write_text(shorter, encoding="utf-8")
    again = run_quickly(f"rerun={copy}").succeeded()
    [artifact] = again.report["artifacts"]
    assert again.report["rerun"]["artifacts_identical"] == {artifact["file"]: True}
    assert again.report["rerun"]["inputs_changed"] == [] or all(
        "no longer read" in c for c in again.report["rerun"]["inputs_changed"]
    )
    assert digest(again.directory / artifact["file"]) == digest(past.directory / artifact["file"])


def test_a_sweep_writes_a_directory_per_job_and_prints_the_comparison(run_quickly):
    few = ("evaluation.samples=2", "evaluation.listen=0", "evaluation.node_samples=0", "calibration.samples=2")
    run = run_quickly("-m", "model=vocoder", "mode=dynamic,static", "stages=[load,quantize,evaluate]", *few).succeeded()
    assert {path.parent.name for path in run.directories} == {"dynamic", "static"}
    assert len(run.directories) == 2
    comparison = run.stdout[run.stdout.rindex("/report.html") :]
    assert "damaged" not in comparison
    assert "truth_log_mel_l1" in comparison
    assert re.search(r"dynamic\b", comparison)
    assert re.search(r"static\b", comparison)
    [written] = run.folder.glob("outputs/sweeps/*/comparison.json")
    assert all(path.name in written.read_text(encoding="utf-8") for path in run.directories)


def test_the_article_is_a_sweep_of_nine_jobs_without_saying_so(run_quickly):
    run = run_quickly("experiment=article", "stages=[load]").succeeded()
    pairs = {path.relative_to(run.folder / "outputs").parts[:2] for path in run.directories}
    assert pairs == {(model, mode) for model in MODELS for mode in ("dynamic", "static_real", "static_random")}
    assert len(run.directories) == 9


REAL_CASES = {
    "spelling_cnn": ("evaluation.labels={case}/labels.npy",),
    "gtcrn_simple": (),
    "hifigan_v2": ("evaluation=audio", "evaluation.sample_rate_hz=22050"),
}
FRAMES = 24  # of a vocoder's mel, which takes seconds at its whole length


def beginnings(arrays, samples, path):
    """Write the first frames of the first samples of an .npz; return where."""
    with np.load(arrays) as whole:
        ids = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in whole.files))[:samples]
        np.savez(path, **{n: whole[n][..., :FRAMES] for n in whole.files if n.rsplit("/", 1)[0] in ids})
    return path


@pytest.mark.parametrize("name", REAL_CASES)
def test_a_model_made_elsewhere_is_quantized_and_scored(real_case, run_quickly, tmp_path, name):
    case = real_case(name)
    before = {path.name: path.stat().st_mtime_ns for path in case.iterdir()}
    paths = {"calibration": case / "calib.npz", "evaluation": case / "eval.npz"}
    if name == "hifigan_v2":
        paths = {key: beginnings(path, 4, tmp_path / path.name) for key, path in paths.items()}
    data = ("calibration=arrays", *(f"{key}.path={path}" for key, path in paths.items()))
    special = [override.format(case=case) for override in REAL_CASES[name]]
    stages = "stages=[load,quantize,evaluate]"
    overrides = ["model=onnx", f"model.path={case}/model.onnx", "mode=static", *data, *special, stages, *FEW]
    report = run_quickly(*overrides).succeeded().report
    [artifact] = report["artifacts"]
    assert artifact["bytes"] < artifact["baseline_bytes"]
    metrics = report["evaluation"]["metrics"]
    assert metrics["cosine"]["quantized"] > 0.8
    assert ("accuracy_percent" in metrics) == (name == "spelling_cnn")
    assert ("log_mel_l1" in metrics) == (name == "hifigan_v2")
    assert {path.name: path.stat().st_mtime_ns for path in case.iterdir()} == before
