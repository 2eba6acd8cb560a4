"""Weights of nodes that lengths follow from, as int16: half the bytes, and the same lengths, or nothing."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.graph.session import infer, open_session
from pipeline.ptq.length_weights import store_length_weights
from pipeline.quantize.plan import DECIDES_LENGTH, Plan, Precision
from pipeline.quantize.weight_storage import quantize_symmetric
from pipeline.record.results import Kept
from pipeline.sample import Sample

INPUTS, OUTPUTS = 128, 8
SPEECH = f"""g (float[1, {INPUTS}] x) => (int64[n] y) {{
    zero = Constant <value = int64 {{0}}> ()
    one = Constant <value = int64 {{1}}> ()
    [durations] d = MatMul (x, w)
    total = ReduceSum <keepdims = 0> (d)
    frames = Ceil (total)
    count = Cast <to = 7> (frames)
    y = Range (zero, count, one)
}}"""


@pytest.fixture
def speech(build, make_weight):
    """Return a graph whose output is as long as the sum of its predicted durations, rounded up."""
    return build(SPEECH, w=np.abs(make_weight(INPUTS, OUTPUTS)))


def plan():
    return Plan(kept=[Kept("durations", DECIDES_LENGTH), Kept("other", "excluded by mode.nodes_to_exclude")])


def test_weights_are_stored_as_int16_and_lengths_stay(speech):
    rng = np.random.default_rng(0)
    samples = [Sample(f"s{k}", {"x": rng.uniform(0, 1, (1, INPUTS)).astype(np.float32)}) for k in range(8)]
    stored, told = onnx.ModelProto.FromString(speech.SerializeToString()), plan()
    assert store_length_weights(stored, told, samples) is None
    assert told.precisions == {"durations": Precision.weight_int16}
    assert [kept.node for kept in told.kept] == ["other"]
    assert stored.ByteSize() < 0.6 * speech.ByteSize()
    [weight] = [tensor for tensor in stored.graph.initializer if tensor.data_type == onnx.TensorProto.INT16]
    assert np.abs(numpy_helper.to_array(weight).astype(int)).max(axis=0).tolist() == [32767] * OUTPUTS
    for sample in samples:
        [before], [after] = (infer(open_session(model), sample).values() for model in (speech, stored))
        assert before.shape == after.shape


def test_where_a_length_would_change_nothing_is_stored(speech, constant):
    weight = constant(speech, "w")
    integers, scale = quantize_symmetric(weight, (1, OUTPUTS), IntegerType.int16)
    x = np.random.default_rng(1).uniform(0, 1, (1, INPUTS))
    totals = [float((x @ w.astype(np.float64)).sum()) for w in (weight, integers * scale)]
    x *= 700 / np.mean(totals)  # a whole number of frames lies between the two
    unchanged, told = onnx.ModelProto.FromString(speech.SerializeToString()), plan()
    why = store_length_weights(unchanged, told, [Sample("near the edge", {"x": x.astype(np.float32)})])
    assert "the length of sample 'near the edge' would change" in why
    assert unchanged == speech
    assert not told.precisions
    assert len(told.kept) == 2


def test_a_weight_that_others_read_too_stays_as_it_is(build, make_weight):
    text = SPEECH.replace("total = ReduceSum", "twice = MatMul (x, w)\n    total = ReduceSum")
    model, told = build(text, w=np.abs(make_weight(INPUTS, OUTPUTS))), plan()
    assert store_length_weights(model, told, [Sample("s", {"x": np.ones((1, INPUTS), np.float32)})]) is None
    assert not told.precisions
