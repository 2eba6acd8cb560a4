"""Every output of a model counts, whatever it holds: a state, token ids, minus infinity, nothing, a sequence."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.errors import DataError, StageError
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluate.output_scores import FEW_VALUES, OutputScores
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.states import states_of
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.onnx_file import OnnxFile
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample

TENSORS = EvaluationConfig(kind=EvaluationKind.tensors)


@pytest.fixture
def compared(source_of, run_directory):
    """Return a function: a model, another one, samples of x -> the evaluation, the log, and the loss in relative error."""

    def compare(before, after, rows, metric="relative_error"):
        source, other = source_of(before), source_of(after, "other")
        model = LoadedModel(OnnxFile("onnx", str(source.path)), {"model": source}, threads=1)
        items = [EvaluationSample(Sample(f"s{k}", {"x": row})) for k, row in enumerate(rows)]
        artifact = Artifact("model", other.path, "", 1, 1, {}, (), {})
        log = RunLog()
        found = evaluate(model, {"model": artifact}, items, TENSORS, run_directory, log, seed=0)
        loss = LossEvaluator(model, "model", items, TENSORS, metric, seed=0).loss(after).loss
        return found, log, loss

    return compare


def rows(*shape, count=3):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def changed(model, name, factor):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), name))
    return copy


@pytest.fixture
def two_heads(build, make_weight):
    """Return a graph whose first output does not depend on wb, which the state and the token follow from."""
    return build(
        """g (float[1, 100, 16] x) => (float[1, 100, 32] first, float[1, 100, 32] state, int64[1, 100, 1] token) {
        first = MatMul (x, wa)
        state = MatMul (x, wb)
        token = ArgMax <axis = -1> (state)
    }""",
        wa=make_weight(16, 32), wb=make_weight(16, 32, seed=1),
    )  # fmt: skip


def test_a_destroyed_second_output_is_the_loss_and_the_value_of_the_model_under_its_name(compared, two_heads):
    found, _, loss = compared(two_heads, changed(two_heads, "wb", 0.5), rows(1, 100, 16))
    assert loss == pytest.approx(0.5, rel=1e-4)
    assert found.metrics["relative_error"]["quantized"] == pytest.approx(loss, rel=1e-6)
    assert found.metrics["relative_error"]["output"] == "state"
    assert found.outputs["first"]["relative_error"] == 0
    assert found.metrics["sqnr_db"]["quantized"] == pytest.approx(20 * math.log10(2), abs=1e-3)


def test_a_token_that_differs_is_a_loss_even_where_logits_hardly_do(compared, two_heads):
    found, _, loss = compared(two_heads, changed(two_heads, "wb", -1), rows(1, 100, 16))
    agreement = found.metrics["agreement_percent"]
    assert agreement["quantized"] < 20
    assert agreement["output"] == "token"
    assert found.outputs["token"]["relative_error"] == pytest.approx(1 - agreement["quantized"] / 100)
    assert loss >= found.outputs["token"]["relative_error"]


def test_a_model_that_gives_tokens_alone_is_judged_by_their_agreement(compared, build):
    def net(axis):
        return build(f"g (float[4, 4] x) => (int64[a, b] ids) {{ ids = ArgMax <axis = {axis}, keepdims = 1> (x) }}")

    same, _, none = compared(net(1), net(1), rows(4, 4))
    assert (none, same.metrics["agreement_percent"]["quantized"]) == (0, 100)
    assert set(same.metrics) == {"agreement_percent", "relative_error"}


def test_equal_infinities_are_equal_and_the_rest_is_compared(compared, build):
    text = "g (float[1, 4] x) => (float[1, 4] y) {{ h = Mul (x, {}) y = Add (h, mask) }}"
    constants = {
        "one": np.float32(1), "more": np.float32(1.1), "mask": np.array([[0, 0, -np.inf, 0]], np.float32),
    }  # fmt: skip
    found, log, loss = compared(build(text.format("one"), **constants), build(text.format("more"), **constants), rows(1, 4))
    assert loss == pytest.approx(0.1, rel=1e-4)
    assert found.metrics["sqnr_db"]["quantized"] == pytest.approx(20, abs=0.01)
    assert log.warnings == []


@pytest.mark.parametrize("value", [np.float32(-1e9), np.float32(np.nan)])
def test_a_suppressed_token_that_is_suppressed_no_more_is_refused_and_loses_all(compared, build, value):
    text = "g (float[1, 4] x) => (float[1, 4] y) { y = Add (x, mask) }"
    before, after = (build(text, mask=np.array([[0, 0, low, 0]], np.float32)) for low in (-np.inf, value))
    with pytest.raises(DataError, match=r"other\.onnx: the output 'y'.*1 of 4 values"):
        compared(before, after, rows(1, 4))


def test_what_fp32_gives_no_number_for_is_left_out_and_said(compared, build):
    net = build("g (float[1, 4] x) => (float[1, 4] y) { y = Log (x) }")
    found, log, loss = compared(net, net, [np.array([[1, 2, 3, -1]], np.float32)] * 2)
    assert loss == 0
    assert found.metrics["relative_error"]["quantized"] == 0
    assert any("'y'" in warning or "y: fp32's own output holds NaN" in warning for warning in log.warnings)


def test_an_empty_output_is_left_out_and_the_others_are_compared(compared, build):
    ends = {"zero": np.array([0]), "axis": np.array([1])}
    net = build(
        "g (float[1, 4] x) => (float[1, 4] y, float[1, n] cache) { y = Neg (x) cache = Slice (x, zero, zero, axis) }", **ends
    )
    found, _, _ = compared(net, net, rows(1, 4))
    assert set(found.outputs) == {"y"}


def test_the_tensors_of_a_sequence_are_compared_one_by_one(compared, make_weight):
    from onnx import TensorProto, helper

    def net(factor):
        nodes = [
            helper.make_node("Mul", ["x", "k"], ["y"]),
            helper.make_node("SplitToSequence", ["y", "n"], ["parts"], axis=1),
        ]
        parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])], [parts],
            [numpy_helper.from_array(np.float32(factor), "k"), numpy_helper.from_array(np.int64(3), "n")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model

    found, _, loss = compared(net(1.0), net(1.1), rows(1, 6))
    assert list(found.outputs) == ["parts[0]", "parts[1]"]
    assert loss == pytest.approx(0.1, rel=1e-4)


def test_decibels_of_a_probability_are_taken_of_all_samples_together(compared, build):
    """One call in which the error is large outweighs many in which it is tiny: a mean of decibels hides it."""
    text = "g (float[1, 1] x) => (float[1, 1] y) { e = Mul (x, {}) f = Mul (e, x) y = Add (x, f) }"
    exact, worse = (build(text.replace("{}", name), none=np.float32(0), some=np.float32(0.01)) for name in ("none", "some"))
    values = [np.array([[value]], np.float32) for value in (1e-4, 1e-3, 1.0)]
    found, _, _ = compared(exact, worse, values)
    expected = 10 * math.log10(sum(v.item() ** 2 for v in values) / sum((0.01 * v.item() ** 2) ** 2 for v in values))
    assert found.metrics["sqnr_db"]["quantized"] == pytest.approx(expected, abs=0.05)
    assert "cosine" not in found.metrics, "of one element it is the sign"


def test_outputs_of_many_values_keep_the_mean_over_samples():
    scores = OutputScores()
    quiet, loud = np.ones(FEW_VALUES + 1), np.full(FEW_VALUES + 1, 100.0)
    for values, error in ((quiet, 0.1), (loud, 1.0)):
        scores.add([("", {"y": values}, {"y": values + error})])
    assert scores.by_output["y"]["sqnr_db"] == pytest.approx(30.0)
    assert scores.totals() == {}


def test_nothing_that_can_be_compared_is_an_error_that_says_so(compared, build):
    net = build("g (float[1, 2] x) => (float[1, 2] y) { y = Log (x) }")
    with pytest.raises(StageError, match="none of the model's outputs can be compared"):
        compared(net, net, [np.full((1, 2), -1, np.float32)])


@pytest.mark.parametrize(
    ("inputs", "outputs", "states"),
    [
        ("float[1, 512] input, float[2, 1, 128] state", "float[1, 1] output, float[2, 1, 128] stateN", {"stateN": "state"}),
        ("float[1, 8] x, float[1, 4] cached_key_0, float[1, 4] cached_key_1",
         "float[1, 8] y, float[1, 4] new_cached_key_0, float[1, 4] new_cached_key_1",
         {"new_cached_key_0": "cached_key_0", "new_cached_key_1": "cached_key_1"}),
        ("float[1, 8] x, float[1, 4] h0, float[1, 4] c0", "float[1, 8] y, float[1, 4] hn, float[1, 4] cn",
         {"hn": "h0", "cn": "c0"}),
        ("int64[1, 1] tokens, float[1, P] past_key, float[1, P] past_value",
         "float[1, 1] logits, float[1, S] present_key, float[1, S] present_value",
         {"present_key": "past_key", "present_value": "past_value"}),
        ("float[1, 8] mel, float[1, 4] speaker", "float[1, 8] mel_out, float[1, 4] other", {}),
        ("float[1, 8] x, float[1, 4] state", "float[1, 8] y, float[1, 6] new_state", {}),
    ],
)  # fmt: skip
def test_states_are_told_by_their_names_and_shapes(inputs, outputs, states):
    graph = onnx.parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ }}")
    assert states_of(graph) == states
