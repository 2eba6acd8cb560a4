"""Sums of two products in 16 bits: what processors without VNNI compute, simulated, and weights that keep such sums exact.

The simulation is compared with ONNX Runtime on a processor with AVX2 and nothing newer, emulated or masked, bit by bit.
"""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.config.choices import IntegerType
from pipeline.graph.shape_inference import with_shapes
from pipeline.quantize.paired_sums import ROOM, Pairing, PairLimits, in_rows, largest_sums, pairing_of
from pipeline.quantize.qdq_placement import PairSettings
from pipeline.quantize.qdq_writer import Ranges, insert_pairs
from pipeline.quantize.qparams import qparams_of_weights
from pipeline.quantize.saturation import integer_products, patches, saturating_shares, sums_in_16_bits
from pipeline.sample import Sample
from tests.test_avx2 import RUN_GRAPHS, needs_avx2_alone, on_avx2_alone

CASES, IN_A_GRAPH = 1000, 50


def random_case(rng, number):
    """Return a node with integer weights, its constants, and its input: a Conv in either layout, or a product of matrices."""
    kind = ("conv", "conv", "depthwise", "grouped", "pointwise", "matmul", "row", "two_axes")[number % 8]
    x, w, y = (f"{part}{number}" for part in "xwy")

    def weights(*shape):
        full = rng.choice([20, 60, 127])
        return np.clip(np.rint(rng.normal(0, full, shape)), -127, 127).astype(np.int8)

    def activations(*shape):
        return rng.integers(0, 256, shape).astype(np.uint8) if number % 3 else rng.choice([0, 250, 255], shape).astype(np.uint8)

    if kind in ("matmul", "row"):
        inputs, outputs = (int(n) for n in rng.integers(1, 140, 2))
        values = activations(1 if kind == "row" else int(rng.integers(2, 12)), inputs)
        return helper.make_node("MatMulInteger", [x, w], [y]), {w: weights(inputs, outputs)}, values
    group = int(rng.integers(2, 5)) if kind == "grouped" else 1
    channels = int(rng.choice([1, 3, 4, 8, 15, 16, 17, 32, 33, 64])) * group
    outputs = int(rng.choice([1, 5, 8, 16, 17, 24, 32, 48])) * group
    if kind == "depthwise":
        group = outputs = channels = int(rng.choice([3, 16, 17, 32, 48]))
    rank = 2 if kind == "two_axes" else 1
    kernel = [1] * rank if kind == "pointwise" else [int(n) for n in rng.integers(1, 6, rank)]
    dilations, strides = ([int(n) for n in rng.integers(1, 3, rank)] for _ in range(2))
    pads = [int(n) for n in rng.integers(0, 3, 2 * rank)]
    last = bool(number // 8 % 2)
    length = [int(n) for n in rng.integers(12, 24, rank)]
    values = activations(1, *length, channels) if last else activations(1, channels, *length)
    scale = np.float32(2.0 ** -int(rng.integers(7, 13)))  # of the output, so that the integers keep to their range or leave it
    constants = {
        w: weights(outputs, channels // group, *kernel), f"one{number}": np.float32(1), f"scale{number}": 1 / scale,
        f"zero{number}": np.uint8(rng.integers(0, 256)), f"middle{number}": np.uint8(128), f"none{number}": np.int8(0),
    }  # fmt: skip
    one, scale_name, zero, middle, none = (f"{part}{number}" for part in ("one", "scale", "zero", "middle", "none"))
    settings = {"group": group, "kernel_shape": kernel, "dilations": dilations, "strides": strides, "pads": pads}
    node = helper.make_node(
        "QLinearConv", [x, one, zero, w, one, none, scale_name, middle], [y], **settings,
        **({"channels_last": 1, "domain": "com.microsoft"} if last else {}),
    )  # fmt: skip
    return node, constants, values


def simulated(node, constants, values, *, exact=False):
    """Return what a processor without VNNI makes of a case, or one whose sums do not saturate."""
    weight = next(array for name, array in constants.items() if name.startswith("w"))
    if node.op_type == "MatMulInteger":
        return values.astype(np.int32) @ weight.astype(np.int32) if exact else sums_in_16_bits(values, weight.T)[0]
    zero_point, scale = (constants[node.input[place]] for place in (2, 6))
    last = any(entry.name == "channels_last" for entry in node.attribute)
    channels_first = np.moveaxis(values, -1, 1) if last else values
    groups, shape = patches(node, channels_first, weight.shape[2:], int(zero_point))
    form = helper.make_node("Conv", [], [])
    form.attribute.extend(entry for entry in node.attribute if entry.name == "group")
    pairing = pairing_of(form, weight.shape)
    rows = in_rows(weight, Pairing.conv).reshape(len(groups), -1, groups.shape[2])
    sums = []
    for seen, own in zip(groups, rows, strict=True):
        sums_of = seen.astype(np.int32) @ own.astype(np.int32).T
        found = sums_of if exact or pairing is None else sums_in_16_bits(seen, own)[0]
        sums.append(found - int(zero_point) * own.astype(np.int32).sum(axis=1))
    total = np.concatenate(sums, axis=1)  # (places, outputs)
    integers = np.clip(np.rint(total.astype(np.float32) * (np.float32(1) / scale)) + 128, 0, 255).astype(np.uint8)
    laid_out = integers.reshape(*shape, -1)
    return laid_out if last else np.moveaxis(laid_out, -1, 1)


def test_scales_are_the_finest_at_which_no_sum_of_two_products_saturates(make_weight):
    weight = make_weight(12, 17, 5)
    for shape, axis, pairing in [((12, 17, 5), 0, Pairing.conv), ((85, 12), 1, Pairing.columns), ((12, 85), 0, Pairing.rows)]:
        values = weight.reshape(shape)
        grids = {
            kind: qparams_of_weights(values, IntegerType.int8, axis=axis, reduced=kind == "seven", pairs=PairLimits(pairing))
            for kind in ("seven", "paired")
        }
        integers = grids["paired"].quantize(values)
        rows = in_rows(integers.astype(int), pairing)
        assert largest_sums(rows).max() <= ROOM
        # at no coarser a scale than needed: each channel is at one of its two limits
        assert np.all((largest_sums(rows) >= ROOM - 1) | (np.abs(rows).max(axis=1) == 127))
        errors = {kind: np.square(restored(grid, values) - values).mean() for kind, grid in grids.items()}
        assert errors["paired"] < 0.6 * errors["seven"]
        activations = np.random.default_rng(0).choice([0, 255], (200, rows.shape[1])).astype(np.uint8)
        assert sums_in_16_bits(activations, rows.astype(np.int8))[1] == 0


def restored(grid, values):
    """Return the floats that integers of a grid stand for."""
    return grid.quantize(values) * grid.scale.reshape([-1 if axis == grid.axis else 1 for axis in range(values.ndim)])


def test_weights_of_opposite_signs_and_small_partners_keep_eight_bits():
    weight = np.tile(np.array([127.0, -127.0, 127.0, 1.0, -127.0, 90.0], np.float32), (3, 1))
    grid = qparams_of_weights(weight, IntegerType.int8, axis=0, reduced=False, pairs=PairLimits(Pairing.rows))
    np.testing.assert_array_equal(grid.quantize(weight), weight)


def test_a_sum_that_rounding_makes_too_large_is_made_to_fit():
    weight = np.array([[64.5, 63.5, 10.0, 3.0], [-70.6, -57.4, 5.0, 0.0]], np.float32)
    grid = qparams_of_weights(weight, IntegerType.int8, axis=0, reduced=False, pairs=PairLimits(Pairing.rows))
    integers = grid.quantize(weight).astype(int)
    assert np.abs(integers[:, 0] + integers[:, 1]).max() <= ROOM
    assert np.abs(integers - weight).max() <= 1


def test_a_depthwise_conv_keeps_eight_bits_of_its_weights(build, make_weight):
    text = "g (float[1, 16, t] x) => (float[1, 16, t] y) { [one] y = Conv <pads = [1, 1], group = 16> (x, w) }"
    model = with_shapes(build(text, w=make_weight(16, 1, 3)))
    insert_pairs(model, ["one"], PairSettings(in_16_bits=True), Ranges({"x": (-1.0, 1.0), "y": (-1.0, 1.0)}))
    [product] = integer_products(model)
    assert np.all(np.abs(product.weights.astype(int)).max(axis=(1, 2)) == 127)
    assert not product.can_saturate


@pytest.mark.qemu
@needs_avx2_alone
def test_sums_of_a_product_with_a_transposed_input_are_counted(build):
    text = """transposed (float[6, 5] x) => (float[5, 4] y) {
        q = QuantizeLinear (x, scale, zero) a = DequantizeLinear (q, scale, zero) b = DequantizeLinear (w, scale, none)
        [gemm] y = Gemm <transA = 1> (a, b)
    }"""
    constants = {"w": np.full((6, 4), 127, np.int8), "scale": np.float32(0.1), "zero": np.uint8(0), "none": np.int8(0)}
    model = build(text, **constants)
    loud, quiet = (Sample("s", {"x": np.full((6, 5), level, np.float32)}) for level in (25, 1))
    assert saturating_shares(model, [loud]) == {"gemm": 1}
    assert saturating_shares(model, [quiet]) == {"gemm": 0}


def test_samples_that_leave_nothing_to_multiply_count_nothing(build):
    text = (
        "kept (float[n, 6] x) => (float[n, 4] y) { q, s, z = DynamicQuantizeLinear (x) [product] y = MatMulInteger (q, w, z) }"
    )
    model = build(text.replace("float[n, 4] y", "int32[n, 4] y"), w=np.full((6, 4), 127, np.int8))
    nothing, something = (Sample(f"s{rows}", {"x": np.ones((rows, 6), np.float32)}) for rows in (0, 2))
    assert saturating_shares(model, [nothing]) == {"product": None}
    assert saturating_shares(model, [nothing, something]) == {"product": 1}


def test_the_simulation_equals_onnxruntime_without_vnni_on_a_thousand_convs_and_matrix_products(tmp_path):
    rng = np.random.default_rng(0)
    graphs, results = tmp_path / "graphs", tmp_path / "results"
    graphs.mkdir()
    results.mkdir()
    cases = [random_case(rng, number) for number in range(CASES)]
    for first in range(0, CASES, IN_A_GRAPH):
        part = list(enumerate(cases))[first : first + IN_A_GRAPH]
        inputs = [helper.make_tensor_value_info(f"x{n}", TensorProto.UINT8, v.shape) for n, (_, _, v) in part]
        outputs = [
            helper.make_tensor_value_info(
                f"y{n}", TensorProto.INT32 if case[0].op_type == "MatMulInteger" else TensorProto.UINT8, None
            )
            for n, case in part
        ]
        constants = [onnx.numpy_helper.from_array(np.asarray(a), k) for _, case in part for k, a in case[1].items()]
        graph = helper.make_graph([case[0] for _, case in part], "cases", inputs, outputs, constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), graphs / f"{first}.onnx")
        np.savez(graphs / f"{first}.npz", **{f"x{n}": case[2] for n, case in part})
    on_avx2_alone(RUN_GRAPHS, graphs, results)
    wrong, saturating = [], Counter()
    for first in range(0, CASES, IN_A_GRAPH):
        with np.load(results / f"{first}.npz") as found:
            for number in range(first, first + IN_A_GRAPH):
                node, constants, values = cases[number]
                expected = simulated(node, constants, values)
                if not np.array_equal(found[f"y{number}"], expected):
                    wrong.append((number, node.op_type, [c.shape for c in constants.values() if np.ndim(c) > 1]))
                saturating[node.op_type] += not np.array_equal(expected, simulated(node, constants, values, exact=True))
    assert not wrong
    assert min(saturating.values()) > CASES / 10  # else equality would say nothing
