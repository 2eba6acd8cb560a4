"""What a search leaves in float is stored as integers, as far as the budget allows: the file is smaller, and as fast."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import ModeKind
from pipeline.config.mode_settings import StaticConfig
from pipeline.evaluate.loss import Loss
from pipeline.graph.large_models import byte_size
from pipeline.graph.prepare import prepare, without_shapes
from pipeline.graph.session import infer, open_session
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, best_of
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.mixed_precision.smaller_file import smaller_file
from pipeline.mixed_precision.time_limit import TimeLimit
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample

STATIC = StaticConfig(
    name="auto", kind=ModeKind.static, op_types=["Conv"], dynamic_op_types=[], weight_only_op_types=[], min_channels=1,
    fold_batch_norm=False, cross_layer_equalization=False,
)  # fmt: skip
FOUR = """net (float[1, 16, n] x) => (float[1, 16, n] y) {
    [first] a = Conv <pads = [1, 1]> (x, w)
    b = LeakyRelu (a)
    [largest] c = Conv <pads = [4, 4]> (b, v)
    d = LeakyRelu (c)
    [third] e = Conv <pads = [2, 2]> (d, u)
    f = LeakyRelu (e)
    [fourth] y = Conv <pads = [3, 3]> (f, t)
}"""
TAPS = {"w": 3, "v": 9, "u": 5, "t": 7}


class Found(list):
    """Stands for a search: the candidates that it keeps."""

    keep = list.append


@pytest.fixture
def given_of(build, make_weight, source_of):
    """Return a function: a graph -> its trials and its choice, the first Conv in integers; a test says what is lost."""

    def given(text, types=("Conv",), **more):
        weights = {name: make_weight(16, 16, taps, seed=taps) for name, taps in TAPS.items()}
        prepared = prepare(source_of(build(text, **weights, **more)), opset=None, needed_opset=13, preprocess=True)
        ids = {"ids": np.arange(9)} if "ids" in text else {}
        samples = [Sample("s", {"x": np.random.default_rng(0).standard_normal((1, 16, 40)).astype(np.float32)} | ids)]
        static = replace(STATIC, op_types=list(types))
        groups, _ = groups_of(prepared, static)
        builder = Builder(prepared.model, groups, static, samples, lambda model: cached_statistics(model, samples), threads=1)
        whole = builder.build({"first": Precision.static_int8})

        def make(loss_of=lambda model: 0.0, seconds=float("inf"), layout=()):
            best = Candidate(
                "the choice", {"first": Precision.static_int8}, 0.01, 0.0, whole.ByteSize(), 0.9, speedup=1.5, layout=layout,
                rounded=False,
            )  # fmt: skip
            scores = SimpleNamespace(loss=lambda model, allowed: Loss(loss_of(model), 0.0, samples=1), items=[None])
            trials = TrialContext(prepared.model, whole.ByteSize(), builder, scores, samples, 1, (), TimeLimit(seconds))
            return best, trials

        make.prepared = prepared
        return make

    return given


@pytest.fixture
def given(given_of):
    """Return the trials of four Convs, and a choice."""
    return given_of(FOUR)


def stored(candidate, width):
    """Return the groups of a candidate whose weights are integers of so many bits."""
    return {name for name, precision in candidate.choice.items() if precision is Precision[f"weight_int{width}"]}


def count(model, kind):
    return sum(tensor.data_type == kind and np.prod(tensor.dims) > 100 for tensor in model.graph.initializer)


def test_all_of_it_as_int8_where_the_budget_allows_that(given):
    (best, trials), found = given(lambda model: 0.02), Found()
    smaller = smaller_file(best, found, trials, Budget("log_mel_l1", max_loss=0.1), given.prepared)
    assert stored(smaller, 8) == {"largest", "third", "fourth"}
    assert smaller.bytes < 0.6 * best.bytes
    assert smaller.speedup == best.speedup, "the kernels are the same"
    assert best_of([best, *found], Budget("log_mel_l1", max_loss=0.1)) == (smaller, True), "of equally fast ones the smaller"


def test_the_largest_that_the_budget_leaves_room_for_as_int8_and_the_others_as_int16(given):
    best, trials = given(lambda model: 0.03 * (count(model, TensorProto.INT8) - 1))
    smaller = smaller_file(best, Found(), trials, Budget("log_mel_l1", max_loss=0.07), given.prepared)
    assert stored(smaller, 8) == {"largest", "fourth"}
    assert stored(smaller, 16) == {"third"}
    assert smaller.loss == pytest.approx(0.06)


@pytest.mark.parametrize("why", ["no time", "too much for int8"])
def test_all_of_it_as_int16_where_no_int8_is_measured_or_allowed(given, why):
    best, trials = given(lambda model: 0.2 * (count(model, TensorProto.INT8) > 1), 0.0 if why == "no time" else float("inf"))
    found = Found()
    smaller = smaller_file(best, found, trials, Budget("log_mel_l1", max_loss=0.1), given.prepared)
    assert stored(smaller, 16) == {"largest", "third", "fourth"}
    assert smaller.loss == best.loss
    assert found[-1] == smaller


@pytest.mark.parametrize("limit", [None, 0.1])
def test_nothing_without_a_limit_on_the_loss_or_where_little_is_saved(given, limit):
    best, trials = given()
    if limit is not None:
        best = Candidate(
            "all", dict.fromkeys(("first", "largest", "third", "fourth"), Precision.static_int8), 0, 0, 9000, 0.3, 2.0
        )
    assert smaller_file(best, Found(), trials, Budget("log_mel_l1", max_loss=limit), given.prepared) is best


def test_weights_are_stored_in_the_layout_of_the_choice_and_give_what_they_gave(given):
    best, trials = given(layout=("conv1d_to_conv2d",))
    smaller = smaller_file(best, Found(), trials, Budget("log_mel_l1", max_loss=0.1), given.prepared)
    before, after = trials.graph_of(best), trials.graph_of(smaller)
    assert {node.name for node in after.graph.node if node.op_type == "Conv"} == {"first", "largest", "third", "fourth"}
    assert any(tensor.dims[2:] == [1, 9] for tensor in after.graph.initializer if tensor.data_type == TensorProto.INT8)
    assert count(after, TensorProto.FLOAT) == 0
    [sample] = trials.samples
    y, z = (infer(open_session(model), sample)["y"] for model in (before, after))
    assert np.abs(y - z).max() < 0.03 * np.abs(y).max()
    onnx.checker.check_model(after)


def test_what_is_stored_as_int16_is_not_rounded_for_int8_first(given):
    _, trials = given()
    model = trials.builder.build({"largest": Precision.weight_int16}, rounding=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    [integers] = [array for array in tensors.values() if array.dtype == np.int16]
    [scale] = [array for array in tensors.values() if array.ndim == integers.ndim and array.size == 16]
    [weight] = [
        numpy_helper.to_array(tensor) for tensor in trials.builder.model.graph.initializer if list(tensor.dims) == [16, 16, 9]
    ]
    assert (np.abs(integers * scale - weight) <= 0.51 * scale).all()


@pytest.mark.parametrize(("limit", "as_int8"), [(0.1, True), (0.035, False)])
def test_constants_that_no_group_has_are_stored_too_after_the_weights_of_groups(given_of, make_weight, limit, as_int8):
    """The table is larger than any weight, and the first to be int16 all the same."""
    text = FOUR.replace("n] x)", "n] x, int64[k] ids)").replace("n] y)", "n] y, float[k, 64] z)")
    given = given_of(
        text.replace("(f, t)", "(f, t)\n[lookup] z = Gather (table, ids)"), ("Conv", "Gather"), table=make_weight(300, 64)
    )
    best, trials = given(lambda model: 0.01 * (count(model, TensorProto.INT8) - 1))
    smaller = smaller_file(best, Found(), trials, Budget("log_mel_l1", max_loss=limit), given.prepared)
    assert stored(smaller, 8) == {"largest", "third", "fourth"}
    assert smaller.constants == {"table": Precision.weight_int8 if as_int8 else Precision.weight_int16}
    assert smaller.loss == pytest.approx(0.04 if as_int8 else 0.03)
    model = trials.graph_of(smaller)
    assert byte_size(without_shapes(model)) == smaller.bytes


def test_where_not_all_can_be_int8_all_weights_of_groups_are_tried_next(given_of, make_weight):
    text = FOUR.replace("n] x)", "n] x, int64[k] ids)").replace("n] y)", "n] y, float[k, 64] z)")
    given = given_of(
        text.replace("(f, t)", "(f, t)\n[lookup] z = Gather (table, ids)"), ("Conv", "Gather"), table=make_weight(300, 64)
    )
    best, trials = given(lambda model: 0.01 * (count(model, TensorProto.INT8) - 1))
    found = Found()
    smaller_file(best, found, trials, Budget("log_mel_l1", max_loss=0.035), given.prepared)
    assert [candidate.label for candidate in found] == [
        "the choice, the weights of float groups (3) stored as int8, other constants (1) stored as int8",
        "the choice, the weights of float groups (3) stored as int8, other constants (1) stored as int16",
    ]
