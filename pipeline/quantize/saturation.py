"""Where a finished graph would saturate on x86 processors without VNNI, and what they compute there, to the bit.

`paired_sums.py` says which products share a sum of 16 bits. Here the integer operators of a graph are found, with their
weights; their sums are computed as those processors do; and on samples, the share of sums that saturate is counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.attributes import attributes_of, int_attribute
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.session import infer, inputs_for, open_session
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize.paired_sums import ROOM, Pairing, in_pairs, in_rows, largest_sums, pairing_of
from pipeline.quantize.target import adds_in_16_bits
from pipeline.sample import Array, Sample

INT16 = np.iinfo(np.int16)
POSITIONS = 64  # of each sample's output, drawn at random
CHANNELS = 1024  # of each group's outputs, drawn at random where there are more
FEW = 2  # samples
SUMS_AT_ONCE = 1 << 20  # of two products
AT_ONCE = 32  # nodes whose activations are held at first,
HELD_BYTES = 128 << 20  # and later as many as take so much: each set of nodes needs a session of its own
ROWS = 1024  # output channels that are looked at at one time
WEIGHT_AT = {  # operators with integer weights -> (input that holds activations, input that holds weights)
    "QLinearConv": (0, 3), "QLinearMatMul": (0, 3), "QGemm": (0, 3), "MatMulInteger": (0, 1), "MatMulIntegerToFloat": (0, 1),
}  # fmt: skip
FLOAT_FORM = {"QLinearConv": "Conv", "QGemm": "Gemm"}  # of the others: MatMul
FUSED = frozenset({"Conv", "MatMul", "Gemm"})  # into such an operator, where Q/DQ pairs are around them

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Product:
    """A node that multiplies uint8 or int8 activations by constant int8 weights.

    Attributes:
        node: the node.
        activations: the tensor of integers that it reads; empty where it computes them itself.
        zero_point: the name of their zero point, which padding has.
        weights: its integers.
        pairing: which of them are added in 16 bits; None: none.
    """

    node: onnx.NodeProto
    activations: str
    zero_point: str
    weights: Int8Array
    pairing: Pairing | None

    @property
    def can_saturate(self) -> bool:
        """Whether activations exist for which a sum exceeds 16 bits."""
        if self.pairing is None or _largest(self.weights) <= ROOM // 2:
            return False
        rows = in_rows(self.weights, self.pairing)
        blocks = (rows[first : first + ROWS].astype(np.int16) for first in range(0, len(rows), ROWS))
        return any((largest_sums(block) > ROOM).any() for block in blocks)


def _largest(weights: Int8Array) -> int:
    """Return the largest absolute value, without a wider copy: weights may take gigabytes."""
    return max(int(weights.max(initial=0)), -int(weights.min(initial=0)))


def integer_products(model: onnx.ModelProto) -> Iterator[Product]:
    """Yield the nodes of a finished graph whose kernel multiplies by constant int8 weights, bodies included."""
    constants = {tensor.name: tensor for scope in graphs_of(model.graph) for tensor in scope.initializer}
    nodes = [node for scope in graphs_of(model.graph) for node in scope.node]
    restored = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}

    turned = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Transpose"}  # tables: `shared_tables.py`

    def weights_of(name: str) -> Int8Array | None:
        tensor = constants.get(turned.get(name, name))
        if tensor is None or tensor.data_type != TensorProto.INT8:
            return None
        values: Int8Array = numpy_helper.to_array(tensor)
        return values.T if name in turned else values

    for node in nodes:
        if node.op_type in WEIGHT_AT:
            first, second = WEIGHT_AT[node.op_type]
            weights = weights_of(node.input[second])
            if weights is not None:
                zero_point = {"QLinearConv": 2, "QLinearMatMul": 2, "QGemm": 2, "MatMulInteger": 2}.get(node.op_type, 4)
                named = node.input[zero_point] if len(node.input) > zero_point else ""
                yield Product(node, node.input[first], named, weights, _pairing(node, weights.shape))
        elif node.op_type == "DynamicQuantizeLSTM":
            for place in (1, 2):
                weights = weights_of(node.input[place])
                if weights is not None:
                    yield Product(node, "", "", weights, Pairing.columns)
        elif node.op_type in FUSED and len(node.input) > 1 and node.input[0] in restored and node.input[1] in restored:
            before, weights = restored[node.input[0]], weights_of(restored[node.input[1]].input[0])
            integer = node.op_type != "Conv" or node.output[0] in rounded
            if weights is not None and before.input[0] not in constants and integer:
                named = before.input[2] if len(before.input) > 2 else ""
                yield Product(node, before.input[0], named, weights, pairing_of(node, weights.shape))


def _pairing(node: onnx.NodeProto, shape: tuple[int, ...]) -> Pairing | None:
    form = helper.make_node(FLOAT_FORM.get(node.op_type, "MatMul"), [], [])
    form.attribute.extend(entry for entry in node.attribute if entry.name in ("group", "transB"))
    return pairing_of(form, shape)


def weight_bits_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many bits the int8 weights of each node use: 7 where none is beyond ±64, else 8."""
    found: dict[str, int] = {}
    for product in integer_products(model):
        bits = 7 if _largest(product.weights) <= ROOM // 2 else 8
        found[product.node.name] = max(found.get(product.node.name, 0), bits)
    return found


def sums_in_16_bits(activations: Array, rows: Array) -> tuple[Int32Array, int]:
    """Return what a processor without VNNI makes of products of uint8 activations and int8 weights.

    Args:
        activations: (positions, inputs), in the order of the kernel.
        rows: (outputs, inputs).

    Returns:
        The sums (positions, outputs), and how many sums of two products have saturated.
    """
    sums = np.asarray(activations.astype(np.int32) @ rows.astype(np.int32).T, np.int32)
    count = 0
    for outputs, excess in _excesses(activations, rows):
        np.subtract.at(sums.T, outputs, excess.T)
        count += int(np.count_nonzero(excess))
    return sums, count


def _excesses(activations: Array, rows: Array) -> Iterator[tuple[npt.NDArray[np.intp], Int32Array]]:
    """Yield by how much sums of two products exceed 16 bits, of those that can: their outputs (n,), and (positions, n)."""
    pairs = in_pairs(rows.astype(np.int32))  # (outputs, places, 2)
    largest = np.maximum(np.maximum(pairs, 0).sum(axis=2), -np.minimum(pairs, 0).sum(axis=2))
    outputs, places = np.nonzero(largest > ROOM)
    values = in_pairs(activations.astype(np.int32))
    first, second = np.ascontiguousarray(values[..., 0]), np.ascontiguousarray(values[..., 1])  # (positions, places)
    at_once = max(1, SUMS_AT_ONCE // max(len(values), 1))
    for start in range(0, len(outputs), at_once):
        part = slice(start, start + at_once)
        weights = pairs[outputs[part], places[part]]
        sums = first[:, places[part]] * weights[:, 0] + second[:, places[part]] * weights[:, 1]
        yield outputs[part], np.asarray(sums - np.clip(sums, INT16.min, INT16.max), np.int32)


def patches(
    node: onnx.NodeProto, array: Array, kernel: tuple[int, ...], zero_point: int, positions: int | None = None
) -> tuple[Array, tuple[int, ...]]:
    """Return what a convolution multiplies its weight with, inputs in the order of the kernel.

    Args:
        node: a convolution with explicit padding.
        array: its integers, (batch, channels, *axes).
        kernel: the lengths of its kernel.
        zero_point: what padding holds.
        positions: how many places of the output are drawn at random; None: all.

    Returns:
        (groups, places, inputs of a group), and (batch, *axes) of the output.
    """
    settings = attributes_of(node)
    rank, groups = len(kernel), int_attribute(node, "group", 1)
    pads = settings.get("pads") or [0] * 2 * rank
    strides, dilations = (settings.get(name) or [1] * rank for name in ("strides", "dilations"))
    ends = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(array, ends, constant_values=array.dtype.type(zero_point))
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = (slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations)))
    windows = np.moveaxis(windows[steps], 1, -1)  # (batch, *axes, *kernel, channels)
    shape = windows.shape[: 1 + rank]
    count = int(np.prod(shape))
    drawn = np.arange(count) if positions is None or count <= positions else np.random.default_rng(0).choice(count, positions)
    taken = windows[np.unravel_index(drawn, shape)].reshape(len(drawn), -1, groups, array.shape[1] // groups)
    return taken.transpose(2, 0, 1, 3).reshape(groups, len(drawn), -1), shape


def saturating_shares(model: onnx.ModelProto, samples: Sequence[Sample], *, threads: int = 1) -> dict[str, float | None]:
    """Return the share of sums of two products that would saturate, by node, of nodes where any can.

    Args:
        model: a finished graph.
        samples: its inputs; the first few are used, and some places and channels of each output, drawn at random.
        threads: intra-op threads.

    Returns:
        Node -> share, 0 to 1; None: its activations are computed inside of it, or in a body, and cannot be seen.
    """
    products = [product for product in integer_products(model) if product.can_saturate]
    outer = {tensor for node in model.graph.node for tensor in node.output}
    seen = [product for product in products if product.activations in outer and not _pads_itself(product.node)]
    shares: dict[str, float | None] = {product.node.name: None for product in products}
    if not seen:
        return shares
    counts = {product.node.name: np.zeros(2) for product in seen}
    first, number = 0, AT_ONCE
    while first < len(seen):
        largest = 1
        for product, array, zero_point in _activations(model, seen[first : first + number], samples[:FEW], threads):
            counts[product.node.name] += _count(product, array, zero_point)
            largest = max(largest, array.nbytes)
        first, number = first + number, max(AT_ONCE, HELD_BYTES // largest)
    return shares | {name: float(found[0] / found[1]) if found[1] else None for name, found in counts.items()}


def _activations(
    model: onnx.ModelProto, products: Sequence[Product], samples: Sequence[Sample], threads: int
) -> Iterator[tuple[Product, Array, int]]:
    """Yield what nodes multiply on each sample: the node, its integers, their zero point."""
    made = {tensor for node in model.graph.node for tensor in node.output}
    wanted = dict.fromkeys(name for p in products for name in (p.activations, p.zero_point) if name in made)
    exposed = onnx.ModelProto()
    exposed.CopyFrom(with_uint8_weights(model) if adds_in_16_bits(None) else model)  # the sums of this machine may saturate
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    session = open_session(exposed, threads, optimization="basic", known=True)
    for sample in samples:
        tensors = infer(session, Sample(sample.id, inputs_for(session, sample.inputs)))
        for product in products:
            zero = tensors.get(product.zero_point)
            if zero is None and product.zero_point in constants:
                zero = numpy_helper.to_array(constants[product.zero_point])
            yield product, tensors[product.activations], 0 if zero is None else int(zero.item())


def _pads_itself(node: onnx.NodeProto) -> bool:
    return attributes_of(node).get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", "NOTSET", "VALID", "", b"")


def _count(product: Product, array: Array, zero_point: int) -> npt.NDArray[np.float64]:
    """Return how many sums of two products saturate on an array of integers, and of how many."""
    values, zero = array, zero_point
    if array.dtype == np.int8:  # kernels for uint8 activations compute them, 128 higher
        values, zero = (array.astype(np.int16) + 128).astype(np.uint8), zero_point + 128
    assert product.pairing is not None
    if not array.size:  # an empty cache, frames of which none is kept
        return np.zeros(2)
    rows = in_rows(product.weights, product.pairing)
    if product.pairing is Pairing.conv:
        if int_attribute(product.node, "channels_last", 0):
            values = np.moveaxis(values, -1, 1)
        groups, _ = patches(product.node, values, product.weights.shape[2:], zero, POSITIONS)
    elif product.weights.ndim > 2:  # a stack of matrices: each with its own activations
        return np.zeros(2)
    else:
        values = values.T if int_attribute(product.node, "transA", 0) else values
        flat = values.reshape(-1, values.shape[-1])
        drawn = np.random.default_rng(0).choice(len(flat), min(len(flat), POSITIONS), replace=False)
        groups = flat[drawn][None]
    split = rows.reshape(len(groups), -1, rows.shape[1])
    channels = split.shape[1]
    some = np.random.default_rng(0).choice(channels, CHANNELS, replace=False) if channels > CHANNELS else slice(None)
    split = split[:, some]
    exceeding = (excess for seen, own in zip(groups, split, strict=True) for _, excess in _excesses(seen, own))
    saturated = sum(int(np.count_nonzero(excess)) for excess in exceeding)
    return np.array([saturated, groups.shape[1] * split.shape[0] * split.shape[1] * -(-rows.shape[1] // 2)], np.float64)
