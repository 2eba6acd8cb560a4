"""Where the time of both models goes, and the trace that shows both."""

import json

import pytest

from pipeline.errors import StageError
from pipeline.measure import chrome_trace as chrome_trace_module
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.chrome_trace import chrome_trace, last_inference


@pytest.fixture(scope="module")
def traced(chains, noise, tmp_path_factory):
    """Return a benchmark of ten products against five with a trace, and the trace."""
    path = tmp_path_factory.mktemp("trace") / "chain.trace.json"
    five, ten = chains
    found = benchmark_graph(ten, five, [noise(50), noise(100), noise(200)], min_pairs=3, min_seconds=0.0, trace=path)
    return found, json.loads(path.read_text(encoding="utf-8"))


def test_the_times_of_the_operators_add_up_to_the_latency_that_was_measured(traced):
    found, _ = traced
    assert found.op_times.sample == "frames-100"
    assert sum(found.op_times.baseline_ms.values()) == pytest.approx(found.lengths["median"].baseline_ms)
    assert sum(found.op_times.quantized_ms.values()) == pytest.approx(found.lengths["median"].quantized_ms)
    assert next(iter(found.op_times.baseline_ms)) == "MatMul"


def test_the_trace_shows_one_inference_of_each_model_as_a_process_of_its_own(traced):
    found, trace = traced
    assert found.op_times.trace == "chain.trace.json"
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert names == {1: "fp32", 2: "five"}
    for process, products in ((1, 10), (2, 5)):
        events = [e for e in trace["traceEvents"] if e["pid"] == process and e["ph"] == "X"]
        assert sum(e["name"].startswith("matmul_") for e in events) == products
        assert [e["ts"] for e in events if e["name"] == "model_run"] == [0]


def test_only_the_last_inference_is_traced():
    def event(name, cat, ts):
        return {"name": name, "cat": cat, "ph": "X", "pid": 77, "tid": 1, "ts": ts, "dur": 5, "args": {}}

    events = [event("model_run", "Session", 10), event("a_kernel_time", "Node", 11)]
    events += [event("model_run", "Session", 30), event("a_kernel_time", "Node", 32), event("a_fence_before", "Node", 31)]
    shown = [(e["name"], e.get("ts"), e["pid"]) for e in chrome_trace({"fp32": last_inference(events)})["traceEvents"]]
    assert shown == [("process_name", None, 1), ("model_run", 0, 1), ("a", 2, 1)]


@pytest.mark.parametrize("error", [StageError("the profile crashed"), KeyError("dur"), ValueError("no JSON")])
def test_a_profile_that_fails_leaves_the_times_and_a_warning(chains, noise, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(chrome_trace_module, "profile_ops", fail)
    five, ten = chains
    found = benchmark_graph(ten, five, [noise(50)], min_pairs=2, rounds=1, min_seconds=0.0, trace=tmp_path / "trace.json")
    assert found.op_times is None
    assert found.speedup.median > 0
    assert [note for note in found.warnings if "The time of each operator was not measured" in note]
