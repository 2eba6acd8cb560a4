"""`mode=auto` by the real command: what it chooses, what it reports, and what it says where nothing fits."""

import re

import numpy as np
import onnx
import pytest
import streaming_models

from pipeline.config.mode_settings import AutoConfig
from pipeline.mixed_precision.candidates import FASTER_THAN_FP32

QUICK = ("evaluation.samples=4", "evaluation.listen=0", "evaluation.node_samples=0", "calibration.samples=4")
SMALL = 11_000  # bytes; the two convolutions below take 14 kB as floats


def test_a_search_keeps_to_its_budget_and_says_why_each_node_is_what_it_is(run_quickly):
    stages = "stages=[load,quantize,evaluate]"
    limits = ("mode.max_loss=0.05", "mode.seconds=5", "mode.method=minmax")
    run = run_quickly("model=vocoder", "mode=auto", *limits, "mode.optimize=false", stages, *QUICK).succeeded()
    found = run.report["search"]["vocoder"]
    chosen = found["candidates"][found["chosen"]]
    assert found["met"]
    assert found["metric"] == "log_mel_l1"
    assert chosen["loss"] == found["selection_loss"]["value"] <= 0.05
    assert run.report["evaluation"]["metrics"]["log_mel_l1"]["quantized"] == pytest.approx(found["report_loss"]["value"])
    original = run.report["artifacts"][0]["baseline_bytes"]
    assert worth(chosen, original) == max(worth(c, original) for c in found["candidates"] if c["meets_budget"])
    by_node = run.report["artifacts"][0]["quantized_nodes"]
    assert by_node == {row["node"]: row["precision"] for row in found["nodes"] if row["precision"] != "fp32"}
    assert all(row["reason"] for row in found["nodes"])
    assert len(found["nodes"]) == 20, "13 MatMul and 7 Conv"


def worth(candidate, original_bytes):
    """Return a candidate's speed-up, raised by what its size is worth by default."""
    saved = 1.0 - candidate["bytes"] / original_bytes
    return candidate["speedup"] * (1.0 + AutoConfig.size_weight * saved)


@pytest.fixture
def search(user_files, run_quickly, users_model, users_data):
    """Return a function: limits -> the run of a search on the user's model."""

    def run(*limits):
        fixed = ("mode=auto", "mode.metric=relative_error", "mode.method=minmax", "mode.optimize=false")
        return run_quickly(*users_model, *users_data, *fixed, *limits, "stages=[load,quantize]").succeeded()

    return run


def test_a_budget_that_nothing_meets_is_said_first_and_gives_the_closest(search):
    run = search("mode.min_speedup=50", "mode.seconds=5")
    assert run.report["warnings"][0].startswith("model: NOTHING MEETS THE BUDGET (speed-up 50)")
    assert not run.report["search"]["model"]["met"]
    assert (run.directory / "model.int8.onnx").is_file() or (run.directory / "model.fp32.onnx").is_file()


def test_with_a_limit_on_the_size_what_loses_least_of_the_small_ones_is_chosen(search):
    run = search(f"mode.max_bytes={SMALL}")
    found = run.report["search"]["model"]
    assert found["met"]
    assert run.report["artifacts"][0]["bytes"] <= SMALL
    allowed = [c for c in found["candidates"] if c["meets_budget"]]
    assert len(allowed) > 1
    no_slower = [c for c in allowed if c["speedup"] >= FASTER_THAN_FP32] or allowed
    assert found["candidates"][found["chosen"]]["loss"] == min(c["loss"] for c in no_slower)


def test_a_search_that_runs_out_of_time_says_so_first_with_what_to_do_and_has_measured_integers(search):
    run = search("mode.seconds=0.5", "mode.max_loss=0.5")
    found = run.report["search"]["model"]
    assert found["stopped_early"]
    assert f"give mode.seconds={found['enough_seconds']}." in run.report["warnings"][0]
    assert any(f" mode.seconds={found['enough_seconds']}" in one["command"] for one in run.report["try_next"])
    assert run.report["warnings"][0].startswith("model: the search stopped after mode.seconds=0.5 while ")
    assert re.search(r"give mode\.seconds=\d+\.$", run.report["warnings"][0])
    assert "stopped early" in run.stdout
    assert [c["label"] for c in found["candidates"] if c["measured"]][:2] == ["float", "all int8"]
    assert not any("worth its loss" in warning for warning in run.report["warnings"]), "not known: no node was measured alone"
    assert all(row["reason"] for row in found["nodes"])


def test_a_search_says_at_its_start_how_long_it_will_take(search):
    run = search("mode.max_loss=0.5")
    [line] = [line for line in run.stderr.splitlines() if "The search for model takes about " in line]
    assert re.search(r" takes about \d+ (s|min): .*candidates \d+ (s|min)", line)
    assert not run.report["search"]["model"]["stopped_early"]
    assert "stopped" not in run.report["search"]["model"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode.metric=log_mel_l2", "mode.metric: 'log_mel_l2': there is no such metric. Did you mean"),
        ("mode.metric=sqnr_db", "mode.metric: 'sqnr_db': fp32 is infinitely good in it"),
        ("mode.metric=wer_percent", "mode.metric: 'wer_percent': evaluation=audio does not compute it"),
        ("mode.metric=mse", "mode.max_loss: not set, and mse has no default limit"),
        ("mode.max_loss=-1", "mode.max_loss: -1.0 is out of limits"),
        ("mode.op_types=[Cnov]", "mode.op_types: 'Cnov' is not an operator type"),
    ],
)
def test_a_mistake_is_one_clear_error(run_quickly, override, message):
    run = run_quickly("model=vocoder", "mode=auto", override, "mode.optimize=false", "stages=[load,quantize]", *QUICK)
    assert run.exit_code == 2
    assert message in " ".join(run.stderr.split())


def test_a_search_stores_the_weights_of_recurrent_layers_and_of_bodies_where_it_is_to_be_small(run_quickly, user_files):
    model = streaming_models.silero()
    onnx.save(model, user_files / "vad.onnx")
    for name, seeds in (("calibration", range(2)), ("evaluation", range(10, 18))):
        samples = {seed: streaming_models.sample_of(model, seed, sr=8000, frames=256).inputs for seed in seeds}
        arrays = {f"{seed}/{key}": array for seed, inputs in samples.items() for key, array in inputs.items()}
        np.savez(user_files / f"{name}.npz", **arrays)
    given = ("model=onnx", "model.path=vad.onnx", "calibration.path=calibration.npz", "evaluation.path=evaluation.npz")
    limits = ("mode=auto", "mode.max_bytes=700000", "mode.seconds=10", "mode.optimize=false", "mode.method=minmax")
    run = run_quickly(*given, *limits, "stages=[load,quantize]").succeeded()
    [artifact] = run.report["artifacts"]
    assert run.report["search"]["model"]["met"]
    assert artifact["bytes"] < 700_000 < artifact["baseline_bytes"] / 2
    assert {"then_rnn", "else_rnn", "then_spectrum"} <= artifact["quantized_nodes"].keys()
    rows = {row["node"]: row["precision"] for row in run.report["search"]["model"]["nodes"]}
    assert artifact["quantized_nodes"] == {node: precision for node, precision in rows.items() if precision != "fp32"}
