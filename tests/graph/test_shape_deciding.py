"""What decides a shape, or was decided, is found; what only ends in a decision that nobody builds on is not."""

from collections import deque

import numpy as np
import onnx
import pytest

from pipeline.calibration.derived_tensors import quantizable_tensors
from pipeline.graph.shape_deciding import length_deciding_nodes, shape_deciding_nodes
from pipeline.graph.shape_inference import with_shapes

PRODUCTS = ("Conv", "MatMul", "Gemm", "ConvTranspose")


def nearest(graph: onnx.GraphProto, op_type: str, wanted: tuple[str, ...], *, upstream: bool) -> onnx.NodeProto:
    """Return the node of a wanted type that is nearest to the one node of `op_type`, before or after it."""
    makers = {tensor: node for node in graph.node for tensor in node.output}
    queue = deque(node for node in graph.node if node.op_type == op_type)
    assert len(queue) == 1
    seen: set[str] = set()
    while queue:
        node = queue.popleft()
        if node.op_type in wanted:
            return node
        if upstream:
            found = [makers[tensor] for tensor in node.input if tensor in makers]
        else:
            found = [other for other in graph.node if set(node.output) & set(other.input)]
        queue += [other for other in found if other.name not in seen]
        seen |= {other.name for other in found}
    raise AssertionError(f"no {wanted} {'before' if upstream else 'after'} {op_type}")


def test_the_duration_predictor_of_the_shipped_matcha_is_found(shipped):
    graph = shipped("matcha").model.graph
    predictor = nearest(graph, "Ceil", PRODUCTS, upstream=True)
    assert predictor.name in shape_deciding_nodes(graph)


def test_the_product_of_the_encoder_with_the_alignment_is_found(shipped):
    graph = shipped("matcha").model.graph
    alignment = nearest(graph, "Ceil", ("MatMul",), upstream=False)
    assert alignment.name in shape_deciding_nodes(graph)


def test_most_of_the_shipped_matcha_may_be_quantized(shipped):
    graph = shipped("matcha").model.graph
    fixed = shape_deciding_nodes(graph)
    products = [node.name for node in graph.node if node.op_type in PRODUCTS]
    assert sum(name in fixed for name in products) < len(products) / 10


def test_a_vocoder_decides_nothing_with_its_products(shipped):
    graph = shipped("vocoder").model.graph
    fixed = shape_deciding_nodes(graph)
    assert not [node.name for node in graph.node if node.op_type in PRODUCTS and node.name in fixed]


def test_a_classifier_that_ends_in_an_arg_max_decides_no_shape(build, make_weight):
    model = build(
        """classifier (float[n, 8] x) => (int64[n, 1] best) {
            [hidden] h = MatMul (x, w)
            [best] best = ArgMax <axis = 1> (h)
        }""",
        w=make_weight(8, 4),
    )
    assert "hidden" not in shape_deciding_nodes(model.graph)


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_that_is_told_its_lengths_or_reads_whole_numbers_makes_ordinary_data(
    build, make_weight, op_type, gates
):
    """PyTorch exports `pack_padded_sequence` as the input `sequence_lens`."""
    model = build(
        f"""packed (float[steps, 1, 16] x, int32[1] lens, int64[steps, 1, 8] ids) => (float[1, 1, 8] a, float[1, 1, 8] b) {{
            [told] unused, a = {op_type} <hidden_size = 8> (x, W, R, "", lens)
            [real] r = Cast <to = 1> (ids)
            [read] unread, b = {op_type} <hidden_size = 8> (r, V, R)
        }}""",
        W=make_weight(1, 8 * gates, 16),
        R=make_weight(1, 8 * gates, 8),
        V=make_weight(1, 8 * gates, 8, seed=1),
    )
    assert not {"told", "read"} & shape_deciding_nodes(model.graph)


def test_a_product_whose_rounded_result_becomes_a_shape_decides(build, make_weight):
    model = build(
        """durations (float[1, 8] x, float[1, 1] frame) => (float[1, frames] y) {
            [predict] d = MatMul (x, w)
            [scale] s = Exp (d)
            [total] t = ReduceSum <keepdims = 0> (s)
            [integer] n = Cast <to = 7> (t)
            [axis] m = Unsqueeze (n, zero)
            [shape] shape = Concat <axis = 0> (one, m)
            [expand] y = Expand (frame, shape)
        }""",
        w=make_weight(8, 1),
        zero=np.array([0]),
        one=np.array([1]),
    )
    assert {"predict", "scale", "total"} <= shape_deciding_nodes(model.graph)
    assert "expand" not in shape_deciding_nodes(model.graph)


def test_an_encoder_that_also_feeds_the_decoder_does_not_only_decide(build, make_weight):
    model = build(
        """encoder (float[1, 8] x) => (float[1, 8] y, float[frames] z) {
            [encode] h = MatMul (x, w)
            [predict] d = MatMul (h, w1)
            [total] t = ReduceSum <keepdims = 0> (d)
            [count] n = Cast <to = 7> (t)
            [axis] m = Unsqueeze (n, zero)
            [fill] z = ConstantOfShape (m)
            [decode] y = MatMul (h, w)
        }""",
        w=make_weight(8, 8),
        w1=make_weight(8, 1),
        zero=np.array([0]),
    )
    fixed = shape_deciding_nodes(model.graph)
    assert "predict" in fixed
    assert not {"encode", "decode"} & fixed


def test_a_product_with_a_mask_touches_what_was_decided_and_the_layers_around_it_do_not(build, make_weight):
    model = build(
        """masked (float[1, 4, frames] x, int64[1] length) => (float[1, 4, frames] y) {
            [before] a = Conv (x, w)
            [shape] s = Shape <start = 2> (x)
            [end] n = Squeeze (s)
            [positions] p = Range (zero, n, one)
            [inside] i = Less (p, length)
            [mask] m = Cast <to = 1> (i)
            [apply] b = Mul (a, m)
            [after] y = Conv (b, w)
        }""",
        w=make_weight(4, 4, 1),
        zero=np.array(0),
        one=np.array(1),
    )
    fixed = shape_deciding_nodes(model.graph)
    assert {"positions", "inside", "mask", "apply"} <= fixed
    assert not {"before", "after"} & fixed


POSITIONS = """
            [shape] s = Shape <end = 1> (x)
            [end] n = Squeeze (s)
            [positions] p = Range (zero, n, one)
            [real] r = Cast <to = 1> (p)
            [column] c = Unsqueeze (r, axis)"""  # of frames, as a column of numbers


def test_a_layer_that_reads_waves_of_positions_may_be_quantized_and_the_waves_may_not(build, make_weight):
    model = build(
        """attention (float[frames, 8] x) => (float[frames, 4] y) {
            POSITIONS
            [angles] a = Mul (c, rates)
            [sines] d = Sin (a)
            [cosines] e = Cos (a)
            [waves] w = Concat <axis = 1> (d, e)
            [distances] f = MatMul (w, weight)
            [layer] g = MatMul (x, weight)
            [sum] y = Add (f, g)
        }""".replace("POSITIONS", POSITIONS),
        weight=make_weight(8, 4),
        rates=np.geomspace(1, 0.01, 4, dtype=np.float32),
        zero=np.array(0),
        one=np.array(1),
        axis=np.array([1]),
    )
    fixed = shape_deciding_nodes(model.graph)
    assert {"positions", "angles", "sines", "cosines", "waves"} <= fixed
    assert not {"distances", "layer", "sum"} & fixed


def test_only_what_layers_read_of_positions_needs_a_range(build, make_weight):
    """The logarithm of the distance 0 is infinite: a graph that puts distances into buckets throws it away."""
    model = build(
        """buckets (float[frames, 8] x, float[heads, frames] scores) => (float[frames, 4] y, float[heads, frames] z) {
            POSITIONS
            [angles] a = Mul (c, rates)
            [waves] w = Sin (a)
            [distances] y = MatMul (w, weight)
            [logarithm] l = Log (r)
            [scaled] m = Mul (l, rate)
            [near] k = Less (p, one)
            [bucket] b = Where (k, r, m)
            [sum] z = Add (scores, b)
        }""".replace("POSITIONS", POSITIONS),
        weight=make_weight(8, 4), rates=np.geomspace(1, 0.01, 8, dtype=np.float32), rate=np.array(2, np.float32),
        zero=np.array(0), one=np.array(1), axis=np.array([1]),
    )  # fmt: skip
    assert set(quantizable_tensors(with_shapes(model))) == {"scores", "w", "y", "z"}


def test_what_was_decided_from_waves_stays_as_it_is(build, make_weight):
    model = build(
        """decided (int64[frames, 8] positions, float[frames, 8] x) => (float[frames, 8] y) {
            [real] r = Cast <to = 1> (positions)
            [sines] s = Sin (r)
            [ends] c = Ceil (s)
            [cut] y = Mul (x, c)
        }""",
    )
    assert {"sines", "ends", "cut"} <= shape_deciding_nodes(model.graph)


def test_all_products_of_the_shipped_recogniser_may_be_quantized(shipped):
    graph = shipped("asr").model.graph
    fixed = shape_deciding_nodes(graph)
    assert not [node.name for node in graph.node if node.op_type in PRODUCTS and node.name in fixed]


WITH_BRANCHES = """branches (float[1, 4, frames] x, bool[1] loud) => (float[1, 4, 1] y, float[1, 4, kept] z) {
    [layer] h = Conv (x, w)
    [shape] s = Shape <start = 2> (h)
    [single] c = Equal (s, one)
    [choice] y = If (c) <
        then_branch = yes () => (float[1, 4, 1] a) { a = Identity (h) },
        else_branch = no () => (float[1, 4, 1] b) { b = ReduceMean <axes = [2]> (h) }
    >
    [constant_choice] z = If (always) <
        then_branch = same () => (float[1, 4, kept] d) { d = Identity (h) },
        else_branch = other () => (float[1, 4, kept] e) { e = Neg (h) }
    >
}"""


def test_a_layer_that_the_bodies_of_an_if_read_is_no_decision_though_a_shape_is_asked_of_it(build, make_weight):
    model = build(WITH_BRANCHES, w=make_weight(4, 4, 1), one=np.array([1]), always=np.array([True]))
    assert "layer" not in shape_deciding_nodes(model.graph)


def test_what_an_if_gives_is_data_though_its_condition_is_constant(build, make_weight):
    model = build(WITH_BRANCHES, w=make_weight(4, 4, 1), one=np.array([1]), always=np.array([True]))
    assert "z" in quantizable_tensors(with_shapes(model), {"Conv", "If"})


def test_a_layer_that_reads_one_hot_characters_may_be_quantized(build, make_weight):
    model = build(
        """characters (int64[n] x) => (float[n, 4] y) {
            [one_hot] h = OneHot <axis = -1> (x, depth, values)
            [real] r = Cast <to = 1> (h)
            [layer] y = MatMul (r, w)
        }""",
        depth=np.array(8),
        values=np.array([0, 1]),
        w=make_weight(8, 4),
    )
    fixed = shape_deciding_nodes(model.graph)
    assert "layer" not in fixed
    assert "real" in fixed


def test_a_model_that_reads_samples_as_int16_may_be_quantized(build, make_weight):
    model = build(
        """waveform (int16[1, 1, n] x) => (float[1, 4, m] y) {
            [real] r = Cast <to = 1> (x)
            [loudness] l = Mul (r, scale)
            [first] f = Conv (l, w)
            [second] y = Conv (f, v)
        }""",
        scale=np.array(1 / 32768, np.float32),
        w=make_weight(4, 1, 5),
        v=make_weight(4, 4, 5),
    )
    assert not {"first", "second"} & shape_deciding_nodes(model.graph)


def test_sums_of_whole_numbers_and_products_of_positions_with_frequencies_stay_as_they_are(build, make_weight):
    model = build(
        """positions (int64[1, 8] lengths) => (float[1, 8] ends, float[8, 4] angles) {
            [real] r = Cast <to = 1> (lengths)
            [running_sum] ends = MatMul (r, triangle)
            [column] c = Transpose (ends)
            [outer] angles = MatMul (c, frequencies)
        }""",
        triangle=np.triu(np.ones((8, 8), np.float32)),
        frequencies=np.geomspace(1, 0.01, 4, dtype=np.float32).reshape(1, 4),
    )
    assert {"running_sum", "outer"} <= shape_deciding_nodes(model.graph)


def test_what_the_length_of_speech_follows_from_is_found_upstream_of_the_predictor_and_no_further(shipped):
    graph = shipped("matcha").model.graph
    lengths = length_deciding_nodes(graph)
    weights = {tensor.name for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in weights]
    upstream = [node.name for node in layers if node.name in lengths]
    assert upstream
    assert len(upstream) < len(layers) / 2, "the flow is no part of it"
    assert {node.name for node in layers} & shape_deciding_nodes(graph) <= set(upstream)


def test_lengths_that_follow_from_those_of_the_inputs_keep_no_layer(shipped):
    for model in ("asr", "vocoder"):
        graph = shipped(model).model.graph
        lengths = length_deciding_nodes(graph)
        assert not [node.name for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm") and node.name in lengths]


FIRED = """g (float[1, T, 8] x) => (float[1, U, 8] y, float[1, T, 1] told) {
    [encode] h = MatMul (x, w_e)
    [t_made] t = Transpose <perm = [0, 2, 1]> (h)
    [look] c = Conv <kernel_shape = [3], pads = [1, 1]> (t, w_c)
    [r_made] r = Relu (c)
    [back_made] back = Transpose <perm = [0, 2, 1]> (r)
    [weigh] logit = MatMul (back, w_o)
    [biased_made] biased = Add (logit, bias)
    [weight_made] weight = Sigmoid (biased)
    [tail_made] tail = Add (weight, rest)
    [sum_made] sum = ReduceSum <keepdims = 0> (tail)
    [whole_made] whole = Floor (sum)
    [count_made] count = Cast <to = 7> (whole)
    [places_made] places = Range (zero, count, one)
    [fired_made] fired = Mul (DATA, tail)
    [run_made] run = CumSum (fired, axis)
    [taken_made] taken = Gather <axis = 1> (run, places)
    [decode] y = MatMul (taken, w_d)
    [told_made] told = Identity (weight)
}"""


@pytest.mark.parametrize(("data", "found"), [("h", {"look", "weigh"}), ("tail", set())])
def test_what_weighs_frames_and_counts_them_decides_unless_it_is_all_that_the_model_computes(build, make_weight, data, found):
    """As in Paraformer, whose weights both sum frames and tell the number of tokens."""
    model = build(
        FIRED.replace("DATA", data), w_e=make_weight(8, 8), w_c=make_weight(8, 8, 3), w_o=make_weight(8, 1),
        bias=make_weight(1), rest=np.float32(0.4), zero=np.int64(0), one=np.int64(1), axis=np.int64(1),
        w_d=make_weight(8 if data == "h" else 1, 8),
    )  # fmt: skip
    assert shape_deciding_nodes(model.graph) & {"encode", "look", "weigh", "decode"} == found


REPEATED = """g (float[L, 4] x) => (float[T, 4] y) {
    [encode] h = MatMul (x, w)
    [predict] p = MatMul (h, w_p)
    r = Round (p)
    d = Cast <to = 7> (r)
    durations = Reshape (d, flat)
    [project] v = MatMul (h, w_v)
    size = Shape (durations)
    count = Squeeze (size)
    [repeat] y = Loop <body = each (int64 i, bool go_on, float[S, 4] before) => (bool still, float[U, 4] after) {
        place = Unsqueeze (i, axis)
        times = Gather (durations, place)
        shape = Concat <axis = 0> (times, width)
        row = Gather (v, place)
        rows = Expand (row, shape)
        after = Concat <axis = 0> (before, rows)
        still = Identity (go_on)
    }> (count, yes, none)
}"""


def test_a_length_that_only_the_body_of_a_loop_reads_follows_from_what_was_captured(build):
    """PyTorch exports repeat_interleave, which Kokoro repeats its frames with, as a Loop over Expand."""
    weights = {name: np.eye(4, dtype=np.float32) for name in ("w", "w_v")}
    model = build(
        REPEATED, **weights, w_p=np.ones((4, 1), np.float32), flat=np.array([-1]), axis=np.array([0]), width=np.array([4]),
        yes=np.array(True), none=np.zeros((0, 4), np.float32),
    )  # fmt: skip
    lengths = length_deciding_nodes(model.graph)
    assert {"encode", "predict"} <= lengths
    assert not {"project", "repeat"} & lengths
