"""The error along the graph: where it begins, and that neither noise, rescaled channels nor other lengths are taken for one."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.errors import ModelError
from pipeline.evaluate.node_errors import errors_along
from pipeline.graph.session import infer, open_session
from pipeline.metrics.tensor_metrics import sqnr_db
from pipeline.sample import Sample


@pytest.fixture
def samples(make_noise):
    """Return two inputs of different lengths."""
    return [Sample("a", {"x": make_noise(30, 1)}), Sample("b", {"x": make_noise(50, 2)})]


def changed(model, **weights):
    """Return a copy of a model with other weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            old = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((weights[tensor.name] * old).astype(np.float32), tensor.name))
    return copy


def by_node(errors):
    return {error.node: error.sqnr_db for error in errors}


def test_a_graph_against_itself_has_no_error_anywhere(conv_net, samples):
    assert by_node(errors_along(conv_net(), conv_net(), samples)) == dict.fromkeys(("conv_a", "relu", "conv_b"), math.inf)


def test_the_error_begins_where_a_weight_has_changed(conv_net, samples):
    found = by_node(errors_along(conv_net(), changed(conv_net(), wb=1.01), samples))
    assert (found["conv_a"], found["relu"]) == (math.inf, math.inf)
    assert found["conv_b"] == pytest.approx(40.0, abs=0.01)  # one percent


def test_the_error_of_the_last_node_is_that_of_the_output_over_all_samples(conv_net, samples):
    worse = changed(conv_net(), wa=1.1)
    outputs = [[infer(open_session(model), sample)["y"].ravel() for sample in samples] for model in (conv_net(), worse)]
    expected = sqnr_db(*(np.concatenate(arrays) for arrays in outputs))
    assert by_node(errors_along(conv_net(), worse, samples))["conv_b"] == pytest.approx(expected, abs=1e-3)


def test_the_order_is_the_graphs_and_does_not_depend_on_how_much_is_fetched_at_once(conv_net, samples):
    worse = changed(conv_net(), wa=1.1)
    at_once, one_by_one = (errors_along(conv_net(), worse, samples, budget_bytes=budget) for budget in (1 << 30, 1))
    assert [error.node for error in at_once] == ["conv_a", "relu", "conv_b"]
    assert at_once == one_by_one


def test_the_graphs_that_are_given_stay_as_they_are(conv_net, samples):
    model = conv_net()
    errors_along(model, model, samples)
    assert [output.name for output in model.graph.output] == ["y"]


def test_a_factor_per_channel_that_the_next_weight_takes_back_is_no_error(conv_net, samples, make_weight):
    factors = np.exp(make_weight(32)).reshape(32, 1, 1)
    moved = changed(conv_net(), wa=factors, ba=factors[:, 0, 0], wb=1 / factors.reshape(1, 32, 1))
    assert by_node(errors_along(conv_net(), moved, samples))["conv_a"] < 20
    found = by_node(errors_along(conv_net(), moved, samples, rescaled=True))
    assert min(found.values()) > 100


def test_what_factors_do_not_explain_stays_an_error_where_channels_may_have_been_rescaled(conv_net, samples, make_weight):
    worse = changed(conv_net(), wa=1 + 0.1 * make_weight(32, 16, 3))
    plain, rescaled = (by_node(errors_along(conv_net(), worse, samples, rescaled=flag)) for flag in (False, True))
    assert rescaled == plain


def test_a_rounded_tensor_is_compared_after_rounding(conv_net, samples):
    """Its reader sees 8 levels between 0 and 3.5, so the error is that of rounding, though the tensor itself is exact."""
    model = conv_net()
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    rounded.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "scale"))
    rounded.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    pair = [
        onnx.helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"], "q"),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], "dq"),
    ]
    conv_a, relu, conv_b = model.graph.node
    del rounded.graph.node[:]
    rounded.graph.node.extend([conv_a, relu, *pair, conv_b])
    rounded.graph.node[-1].input[0] = "dq"
    found = by_node(errors_along(model, rounded, samples))
    assert found["conv_a"] == math.inf
    assert found["relu"] < 25


def test_both_graphs_are_given_the_same_noise(build, samples):
    net = build("""g (float[1, 16, frames] x) => (float[1, 16, frames] y) {
        [noise] n = RandomNormalLike (x)
        [sum] y = Add (x, n)
    }""")
    assert by_node(errors_along(net, net, samples))["sum"] == math.inf


def test_tensors_of_other_lengths_are_left_out(build, samples):
    net = "g (float[1, 16, frames] x) => (float[1, 16, n] y) {{ [same] a = Relu (x) [cut] y = Slice (a, {}, end, axis) }}"
    cuts = {"start": np.array([0]), "later": np.array([3]), "end": np.array([99]), "axis": np.array([2])}
    whole, shorter = (build(net.format(start), **cuts) for start in ("start", "later"))
    assert list(by_node(errors_along(whole, shorter, samples))) == ["same"]


def test_masks_that_are_infinite_on_purpose_do_not_hide_the_rest(build, samples):
    net = build(
        "g (float[1, 16, frames] x) => (float[1, 16, frames] y) { [mask] y = Where (on, x, low) }",
        on=np.array([True] * 15 + [False]).reshape(1, 16, 1),
        low=np.array(-np.inf, np.float32),
    )
    assert by_node(errors_along(net, net, samples)) == {"mask": math.inf}


def test_nodes_need_not_be_in_order(conv_net, samples):
    mixed = conv_net()
    nodes = list(mixed.graph.node)[::-1]
    del mixed.graph.node[:]
    mixed.graph.node.extend(nodes)
    assert min(by_node(errors_along(conv_net(), mixed, samples)).values()) == math.inf


def test_a_graph_that_onnx_runtime_refuses_is_an_error_that_says_so(conv_net, samples):
    broken = conv_net()
    broken.graph.node[1].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"does not give out tensors from inside of the graph.*Nonsense"):
        errors_along(conv_net(), broken, samples)


@pytest.mark.parametrize(("model", "mode"), [("vocoder", "static"), ("matcha", "static"), ("matcha", "fp16")])
def test_the_error_of_a_shipped_model_is_measured_in_every_part_of_it(shipped_run, model, mode):
    run = shipped_run(model, mode)
    [errors] = run.report["evaluation"]["node_errors"].values()
    known = [error["sqnr_db"] for error in errors if error["sqnr_db"] is not None]
    assert len(known) > 50
    assert 5 < min(known) < max(known) < 150
    quantized = run.report["artifacts"][0]["quantized_nodes"]
    assert len({error["node"] for error in errors} & set(quantized)) > 0.7 * len(
        quantized
    )  # fp16 also counts what only moves values


def test_the_error_along_the_graph_can_be_left_unmeasured(user_files, run_quickly, users_model, users_data):
    overrides = ("mode=static", "stages=[load,quantize,evaluate]", "evaluation.node_samples=0")
    assert run_quickly(*users_model, *users_data, *overrides).succeeded().report["evaluation"]["node_errors"] == {}
