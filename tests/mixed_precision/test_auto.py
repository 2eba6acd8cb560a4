"""`mode=auto` by the real command: what it chooses, what it reports, and what it says where nothing fits."""

import pytest

QUICK = ("evaluation.samples=6", "evaluation.listen=1", "calibration.samples=6", "benchmark.seconds=0", "benchmark.runs=6")


def test_a_search_keeps_to_its_budget_and_says_why_each_node_is_what_it_is(run_py):
    run = run_py("model=vocoder", "mode=auto", "mode.max_loss=0.05", "mode.optimize=false", *QUICK).succeeded()
    found = run.report["search"]["vocoder"]
    chosen = found["candidates"][found["chosen"]]
    assert found["met"]
    assert found["metric"] == "log_mel_l1"
    assert chosen["loss"] <= 0.05
    assert run.report["evaluation"]["metrics"]["log_mel_l1"]["quantized"] <= 0.05
    assert chosen["speedup"] == max(c["speedup"] for c in found["candidates"] if c["meets_budget"])
    by_node = run.report["artifacts"][0]["quantized_nodes"]
    assert by_node == {row["node"]: row["precision"] for row in found["nodes"] if row["precision"] != "fp32"}
    assert all(row["reason"] for row in found["nodes"])
    assert len(found["nodes"]) == 20, "13 MatMul and 7 Conv"


def test_a_budget_that_nothing_meets_is_said_first_and_gives_the_closest(run_py):
    run = run_py(
        "model=vocoder", "mode=auto", "mode.min_speedup=50", "mode.optimize=false", "stages=[load,quantize]", *QUICK
    ).succeeded()
    assert run.report["warnings"][0].startswith("vocoder: NOTHING MEETS THE BUDGET (speed-up 50)")
    assert not run.report["search"]["vocoder"]["met"]
    assert (run.directory / "vocoder.int8.onnx").is_file()


def test_with_a_limit_on_the_size_what_loses_least_of_the_small_ones_is_chosen(run_py):
    run = run_py(
        "model=vocoder", "mode=auto", "mode.max_bytes=1800000", "mode.optimize=false", "stages=[load,quantize]", *QUICK
    ).succeeded()
    found = run.report["search"]["vocoder"]
    assert found["met"]
    assert run.report["artifacts"][0]["bytes"] <= 1_810_000
    allowed = [c for c in found["candidates"] if c["meets_budget"]]
    assert found["candidates"][found["chosen"]]["loss"] == min(c["loss"] for c in allowed)


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
