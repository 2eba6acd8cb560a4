"""The profile says where the time went, and leaves nothing behind."""

import json

import pytest

from pipeline.errors import StageError
from pipeline.measure.ort_profile import profile_ops, profile_ops_and_shapes, read_trace


def test_time_is_shared_out_among_ops_and_nodes(chains, noise):
    profile = profile_ops(chains[0], noise(200), runs=3)
    assert next(iter(profile.ops)) == "MatMul"
    assert profile.ops["MatMul"] > 0.5
    assert sum(profile.ops.values()) == pytest.approx(1.0)
    assert sum(node.share for node in profile.nodes) == pytest.approx(1.0)
    assert profile.run_ms > 0


def test_the_graph_as_written_gives_every_node_with_its_shapes(chains, noise):
    nodes = {node.name: node for node in profile_ops_and_shapes(chains[0], noise(30), runs=1)[1].nodes}
    assert {f"matmul_{k}" for k in range(5)} <= set(nodes)
    assert nodes["matmul_3"].op_type == "MatMul"
    assert nodes["matmul_3"].input_shapes == ((30, 160), (160, 160))
    assert nodes["matmul_3"].output_shapes == ((30, 160),)
    assert nodes["matmul_3"].calls == 1


def test_no_file_is_left_but_the_trace_that_was_asked_for(chains, tmp_path, temporary_directory, noise):
    trace = tmp_path / "trace.json"
    profile_ops(chains[0], noise(30), runs=1, trace=trace)
    assert any(event["name"] == "model_run" for event in json.loads(trace.read_text()))
    assert [path.suffix for path in temporary_directory.iterdir()] == [".lock"]


def test_a_model_that_does_not_run_is_an_error(chains, noise):
    with pytest.raises(StageError, match=r"The profile of five\.onnx on sample 'frames-3'.*another"):
        profile_ops(chains[0], noise(3, name="another"))


def node(name, op, ts, dur, shape=(1,)):
    shapes = [{"float": list(shape)}]
    args = {"op_name": op, "input_type_shape": shapes, "output_type_shape": shapes}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def model_run(ts, dur):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def test_the_first_inference_and_the_containers_of_loops_do_not_count():
    events = [model_run(0, 900), node("a", "Conv", 10, 800)]
    for start in (1000, 2000):
        events += [
            model_run(start, 500),
            node("a", "Conv", start + 1, 100),
            node("loop", "Loop", start + 200, 350),
            node("b", "Add", start + 210, 100),
            node("b", "Add", start + 350, 200, shape=(2, 3)),
        ]
    profile = read_trace(events)
    assert profile.ops == {"Add": 0.75, "Conv": 0.25}
    assert profile.run_ms == 0.5
    a, b = profile.nodes
    assert (a.ms, a.calls, b.ms, b.calls) == (0.1, 1, 0.3, 2)
    assert b.output_shapes == ((2, 3),)
