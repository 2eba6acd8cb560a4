"""The mode that is advised follows from measured time, and not from a profile that does not tell."""

import pytest

from pipeline.config.choices import CalibrationKind
from pipeline.measure.ort_profile import read_trace
from pipeline.quantize.mode_advice import advise, spread_of

REAL, NONE = CalibrationKind.real, CalibrationKind.random


@pytest.mark.parametrize(
    ("macs", "time", "kind", "mode"),
    [
        ({"Conv": 90, "MatMul": 10}, {"FusedConv": 0.8, "MatMul": 0.1}, REAL, "static"),
        ({"Conv": 90, "MatMul": 10}, {"Conv": 0.9}, CalibrationKind.arrays, "static"),
        ({"Conv": 90, "MatMul": 10}, {"Conv": 0.9}, NONE, "dynamic"),
        ({"MatMul": 90, "Conv": 10}, {"FusedMatMul": 0.7, "Conv": 0.1}, REAL, "dynamic"),
        ({"LSTM": 90}, {"LSTM": 1.0}, REAL, "dynamic"),
        ({"Conv": 50, "MatMul": 50}, {"MatMul": 0.04, "GRU": 0.0, "Slice": 0.5, "Add": 0.46}, REAL, "auto"),
        ({"Conv": 50, "MatMul": 50}, {"MatMul": 0.04, "Slice": 0.5, "Add": 0.46}, NONE, "optimize"),
        ({}, {"Add": 1.0}, REAL, "fp16"),
    ],
)
def test_the_advice_follows_from_where_the_time_goes_and_whether_there_is_data(macs, time, kind, mode):
    advised, reasons = advise(macs, time, kind, parameters=5000)
    assert advised == mode
    assert reasons


def test_half_precision_is_advised_for_no_graph_that_has_no_weights_to_halve():
    advised, [reason] = advise({}, {"Add": 1.0}, REAL, parameters=3)
    assert advised == "optimize"
    assert "hardly a weight" in reason


def test_advice_against_int8_says_how_little_it_could_gain():
    _, reasons = advise({"Conv": 100}, {"Conv": 0.04, "Slice": 0.96}, REAL, parameters=100)
    assert "int8 alone could make it at most 1.04 times as fast" in reasons[-1]
    assert "96 % in other operators" in reasons[1]


def test_a_profile_whose_halves_disagree_gives_no_advice_but_what_the_multiplications_say():
    advised, reasons = advise({"Conv": 100}, {"Conv": 0.9, "Add": 0.1}, REAL, spread=0.31, parameters=100)
    assert advised == "not sure"
    assert "disagree on 31 % of the time: the machine was busy" in reasons[1]
    assert reasons[-1] == "by its multiplications alone it would be static"


def trace(*inferences):
    """Return a profiler's events: per inference the time of a Conv and of an Add, in microseconds; one more goes first."""
    events = []
    for number, (conv, add) in enumerate([(900, 900), *inferences]):
        start = 10_000 * number
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": 5000, "args": {}})
        for place, (name, op, spent) in enumerate((("a", "Conv", conv), ("b", "Add", add))):
            args = {"op_name": op, "input_type_shape": [], "output_type_shape": []}
            time = {"ts": start + 10 + 2000 * place, "dur": spent}
            events.append({"cat": "Node", "name": f"{name}_kernel_time", **time, "args": args})
    return events


def test_one_interrupted_inference_of_six_moves_no_share():
    profile = read_trace(trace((300, 100), (300, 100), (300, 1900), (300, 100), (300, 100), (300, 100)))
    assert profile.ops == {"Conv": 0.75, "Add": 0.25}
    assert spread_of(profile.halves) == 0


def test_a_profile_that_changes_from_inference_to_inference_is_known_to_be_noisy():
    profile = read_trace(trace((300, 100), (100, 900), (300, 100), (100, 900), (300, 100), (100, 900)))
    assert spread_of(profile.halves) == pytest.approx(0.65)
