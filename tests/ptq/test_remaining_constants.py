"""What no layer holds as its weight, as integers: int8 where outputs stay as close to fp32's, else int16; the rest as it is."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pipeline.config.choices import IntegerType, ModeKind
from pipeline.config.mode_settings import DynamicConfig, Fp16Config, StaticConfig, WeightOnlyConfig
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.ptq.remaining_constants import remaining_constants, store_remaining_constants
from pipeline.quantize.plan import Plan
from pipeline.quantize.plan_of_mode import plan_for
from pipeline.quantize.stored_constants import bytes_saved
from pipeline.quantize.weight_storage import quantize_symmetric, store_weights
from pipeline.record.results import Kept
from pipeline.sample import Sample

NET = """net (float[1, 24, 40] x) => (float[1, 24, 40] y) {
    [layer] a = Conv (x, weight, bias)
    [norm] b = Mul (a, scales)
    [place] c = Add (b, positions)
    [divide] y = Div (c, divisors)
}"""

LENGTHS = """g (float[1, 300] x) => (int64[n] y) {
    zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> ()
    a = Mul (x, table) total = ReduceSum <keepdims = 0> (a)
    frames = Ceil (total) count = Cast <to = 7> (frames) y = Range (zero, count, one)
}"""


@pytest.fixture
def net(build, make_weight):
    """Return a layer of few bytes, with a norm, positions and divisors of many."""
    return build(
        NET, weight=make_weight(24, 24, 1), bias=make_weight(24), scales=make_weight(1, 24, 40),
        positions=make_weight(1, 24, 40), divisors=make_weight(1, 24, 40) + 3,
    )  # fmt: skip


@pytest.fixture
def remaining(net, source_of):
    """Return a function from settings to the constants that may be stored."""

    def names(kind=DynamicConfig, plan=None, **settings):
        mode = replace(
            kind(kind=ModeKind[kind.__name__.removesuffix("Config").lower().replace("only", "_only")], name="m"), **settings
        )
        prepared = prepare(source_of(net), opset=None, needed_opset=13, preprocess=True)
        planned = plan_for(prepared, mode)
        planned.kept += plan or []
        return set(remaining_constants(prepared, planned, mode))

    return names


@pytest.mark.parametrize("kind", [StaticConfig, DynamicConfig, WeightOnlyConfig])
def test_norms_and_positions_may_be_stored_but_no_divisors_biases_of_few_values_or_weights(remaining, kind):
    assert remaining(kind) == {"scales", "positions"}


def test_half_precision_stores_nothing_as_integers(remaining):
    assert remaining(Fp16Config) == set()


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"nodes_to_exclude": ["place"]}, {"scales"}),
        ({"nodes_to_exclude": ["pl*"]}, {"scales"}),
        ({"nodes_to_quantize": ["layer"]}, set()),
        ({"op_types": ["Conv"]}, set()),
        ({"op_types": ["all"]}, {"scales", "positions"}),
    ],
)
def test_settings_that_name_what_changes_keep_the_rest(remaining, settings, left):
    assert remaining(**settings) == left


@pytest.mark.parametrize(("subgraphs", "found"), [(True, {"inside"}), (False, set())])
def test_bodies_are_left_alone_where_they_are_to_be(build, make_weight, source_of, subgraphs, found):
    text = """g (float[1, 24, 40] x, bool first) => (float[1, 24, 40] y) {
        [branch] y = If (first) <then_branch = t () => (float[1, 24, 40] p) { [inner] p = Mul (x, inside) },
                                 else_branch = f () => (float[1, 24, 40] q) { [as_is] q = Identity (x) }>
    }"""
    model = build(text, inside=make_weight(1, 24, 40))
    prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
    mode = DynamicConfig(kind=ModeKind.dynamic, name="m", subgraphs=subgraphs)
    assert set(remaining_constants(prepared, plan_for(prepared, mode), mode)) == found


def test_what_a_kept_node_reads_stays(remaining):
    assert remaining(plan=[Kept("norm", "for a reason")]) == {"positions"}


def saving(model, names):
    """Return what each of some constants of a graph saves as int8."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    return {name: bytes_saved(tensors[name].dims, 1) for name in names}


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return [Sample(f"s{k}", {"x": rng.standard_normal((1, 24, 40)).astype(np.float32)}) for k in range(20)]


def kinds(model):
    return {TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer if np.prod(tensor.dims) > 600}


def with_int8_weights(net):
    quantized = onnx.ModelProto.FromString(net.SerializeToString())
    store_weights(quantized, ["layer"])
    return quantized


def test_they_are_int8_where_outputs_stay_as_close(net, samples):
    """Divided by three, what the table is rounded by is nothing beside what the layer's weight is."""
    for tensor in net.graph.initializer:
        if tensor.name in ("weight", "positions"):
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * (30 if tensor.name == "weight" else 1), tensor.name)
            )
    quantized = with_int8_weights(net)
    stored = onnx.ModelProto.FromString(quantized.SerializeToString())
    assert store_remaining_constants(stored, saving(net, ["positions"]), net, samples) is IntegerType.int8
    assert stored.ByteSize() < 0.85 * quantized.ByteSize()
    onnx.checker.check_model(stored)
    y, z = (infer(open_session(model), samples[0])["y"] for model in (quantized, stored))
    assert 0 < np.abs(y - z).max() < 0.01 * np.abs(y).max()


def test_they_are_int16_where_int8_would_add_to_the_error_that_is_there(net, samples):
    """A large table, beside an int8 weight whose error is a hundredth of that of the table in 8 bits."""
    for tensor in net.graph.initializer:
        if tensor.name == "positions":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 30, tensor.name))
    stored = with_int8_weights(net)
    assert store_remaining_constants(stored, saving(net, ["positions"]), net, samples) is IntegerType.int16


def test_what_lengths_follow_from_is_never_among_them(build, make_weight, source_of):
    model = build(LENGTHS, table=np.abs(make_weight(1, 300)))
    prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
    assert remaining_constants(prepared, Plan(), DynamicConfig(kind=ModeKind.dynamic, name="m")) == {}


def test_they_are_int16_where_outputs_would_move_away(net, samples):
    stored = onnx.ModelProto.FromString(net.SerializeToString())  # no error yet: int8 is all of it
    assert store_remaining_constants(stored, saving(net, ["scales", "positions"]), net, samples) is IntegerType.int16
    assert "INT16" in kinds(stored)
    assert "INT8" not in kinds(stored)


def test_nothing_is_stored_where_it_saves_less_than_the_fiftieth_part(net, samples):
    net.doc_string = "a long text " * 20_000
    stored = onnx.ModelProto.FromString(net.SerializeToString())
    assert store_remaining_constants(stored, saving(net, ["positions"]), net, samples) is None
    assert stored == net


def test_nothing_is_stored_where_a_length_would_change(build, make_weight):
    model = build(LENGTHS, table=np.abs(make_weight(1, 300)))
    table = numpy_helper.to_array(model.graph.initializer[0])
    stored_as = [quantize_symmetric(table, (1, 1), kind) for kind in (IntegerType.int8, IntegerType.int16)]
    tables = [table.astype(np.float64), *(integers.astype(np.float64) * scale for integers, scale in stored_as)]

    def totals(x):
        return [float((x * values).sum()) for values in tables]

    drawn = (np.random.default_rng(seed).exponential(1, (1, 300)) ** 4 for seed in range(20))
    x = next(x for x in drawn if (t := totals(x))[0] < t[2] < t[1])
    x *= 700 / np.mean(totals(x)[::2])  # a whole number of frames lies between fp32's and both others
    assert [np.ceil(total) for total in totals(x)] == [700, 701, 701]
    stored = onnx.ModelProto.FromString(model.SerializeToString())
    assert (
        store_remaining_constants(
            stored, saving(model, ["table"]), model, [Sample("near the edge", {"x": x.astype(np.float32)})]
        )
        is None
    )
    assert stored == model
