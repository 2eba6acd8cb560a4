"""What integers are worth in recurrent layers, small products and small Convs, by size; limits of `pipeline/quantize/plan.py`.

    python benchmarks/small_layers.py

Speed is fp32's time divided by that of the form, one thread, interleaved runs. "Stored": int8 in the file, restored when the
model is loaded. A GRU has no integer operator: it is unrolled for one step into two products with dynamic ranges. Convs have
static ranges, between float neighbours; "four" of them follow each other, so that only the first and the last convert.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.measure.relative_speed import speedups
from pipeline.quantize.dynamic_ops import DynamicOpsSettings, quantize_with_dynamic_ops
from pipeline.quantize.qdq_placement import PairSettings
from pipeline.quantize.qdq_writer import Ranges, insert_pairs
from pipeline.quantize.weight_storage import store_weights
from pipeline.sample import Sample

SECONDS = 0.7  # of each form
LSTMS = ((1, 16, 33), (1, 64, 33), (1, 128, 1), (1, 128, 100), (2, 256, 100), (1, 512, 1), (1, 512, 50))
GRUS = (16, 64, 128, 256, 512)
PRODUCTS = ((1, 128), (1, 256), (1, 384), (4, 128), (4, 256), (16, 128), (16, 256))
CONVS = [(1, c, k, n) for c, k in ((16, 1), (16, 3), (32, 3), (64, 3), (128, 3)) for n in (4, 16, 64, 256)]
CONVS += [(2, c, k, n) for c, k in ((16, 1), (32, 1), (32, 3), (64, 3)) for n in (16, 64, 256)]
UNROLLED = """g (float[1, 1, {h}] x, float[1, 1, {h}] s) => (float[1, 1, {h}] y) {{
    [one] a = MatMul (x, WT) p = Add (a, bw) [two] b = MatMul (s, RT) q = Add (b, br)
    xz, xr, xh = Split <axis = -1> (p, parts) sz, sr, sh = Split <axis = -1> (q, parts)
    z0 = Add (xz, sz) z = Sigmoid (z0) r0 = Add (xr, sr) r = Sigmoid (r0) m = Mul (r, sh) n0 = Add (xh, m) n = Tanh (n0)
    d = Sub (s, n) e = Mul (z, d) y = Add (n, e)
}}"""


def main() -> None:
    """Measure and print."""
    print("| layer | steps or rows | integers | stored |\n|---|---|---|---|")
    for directions, hidden, steps in LSTMS:
        direction = "bidirectional" if directions > 1 else "forward"
        text = f"""g (float[n, 1, {hidden}] x) => (float[n, {directions}, 1, {hidden}] y) {{
            [one] y = LSTM <hidden_size = {hidden}, direction = "{direction}"> (x, W, R, B)
        }}"""
        model = _model(text, **_weights(4, hidden, directions))
        name = f"LSTM, {hidden} units{', both ways' if directions > 1 else ''}"
        _row(name, steps, model, model, ["one"], {"x": _random(steps, 1, hidden)})
    for hidden in GRUS:
        weights = _weights(3, hidden, 1)
        text = f"""g (float[1, 1, {hidden}] x, float[1, 1, {hidden}] s) => (float[1, 1, {hidden}] y) {{
            [one] u, y = GRU <hidden_size = {hidden}, linear_before_reset = 1> (x, W, R, B, , s)
        }}"""
        bias = weights["B"][0]
        unrolled = _model(
            UNROLLED.format(h=hidden), WT=weights["W"][0].T.copy(), RT=weights["R"][0].T.copy(), bw=bias[: 3 * hidden],
            br=bias[3 * hidden :], parts=np.array([hidden] * 3),
        )  # fmt: skip
        inputs = {"x": _random(1, 1, hidden), "s": _random(1, 1, hidden)}
        _row(f"GRU, {hidden} units, unrolled", 1, _model(text, **weights), unrolled, ["one", "two"], inputs)
    for rows, width in PRODUCTS:
        text = f"g (float[1, {rows}, {width}] x) => (float[1, {rows}, {width}] y) {{ a = Tanh (x) [one] y = MatMul (a, w) }}"
        model = _model(text, w=_random(width, width))
        _row(f"MatMul by {width} x {width}", rows, model, model, ["one"], {"x": _random(1, rows, width)})
    print("\n| Conv | thousands of products | one in integers | four in integers |\n|---|---|---|---|")
    for axes, channels, taps, length in CONVS:
        one, four = (_speed_of_convs(axes, channels, taps, length, count) for count in (1, 4))
        kind = f"{'1-D' if axes == 1 else '2-D'}, {channels} channels, {taps} tap{'s' if taps > 1 else ''}, {length} positions"
        print(f"| {kind} | {channels**2 * taps * length / 1000:.0f} | {one:.2f} | {four:.2f} |", flush=True)


def _speed_of_convs(axes: int, channels: int, taps: int, length: int, count: int) -> float:
    """Return how much faster Convs of one height, in a row, are in integers."""
    heights, pads = ([], [taps // 2] * 2) if axes == 1 else ([1], [0, taps // 2] * 2)
    shape = ", ".join(map(str, (1, channels, *heights, length)))
    nodes = " ".join(f"[conv{i}] t{i + 1} = Conv <pads = {pads}> (t{i}, w{i})" for i in range(count))
    text = f"g (float[{shape}] x) => (float[{shape}] y) {{ t0 = Neg (x) {nodes} y = Neg (t{count}) }}"
    model = _model(text, **{f"w{i}": _random(channels, channels, *heights, taps) for i in range(count)})
    integers, names = onnx.shape_inference.infer_shapes(model), {f"conv{i}" for i in range(count)}
    spans = {f"t{i}": (-4.0, 4.0) for i in range(count + 1)}
    insert_pairs(integers, names, PairSettings(), Ranges(spans))
    inputs = {"x": _random(1, channels, *heights, length)}
    return speedups(model, {"integers": integers}, [Sample("s", inputs)], threads=1, seconds=SECONDS)["integers"]


def _row(
    name: str,
    steps: int,
    model: onnx.ModelProto,
    for_integers: onnx.ModelProto,
    nodes: list[str],
    inputs: dict[str, np.ndarray],
) -> None:
    integers, stored = _copy(for_integers), _copy(model)
    quantize_with_dynamic_ops(integers, nodes, DynamicOpsSettings())
    store_weights(stored, ["one"])
    forms = {"integers": integers, "stored": stored}
    found = speedups(model, forms, [Sample("s", inputs)], threads=1, seconds=SECONDS)
    print(f"| {name} | {steps} | {found['integers']:.2f} | {found['stored']:.2f} |", flush=True)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def _weights(gates: int, hidden: int, directions: int) -> dict[str, np.ndarray]:
    rows = gates * hidden
    return {
        "W": _random(directions, rows, hidden), "R": _random(directions, rows, hidden), "B": _random(directions, 2 * rows),
    }  # fmt: skip


def _random(*shape: int) -> np.ndarray:
    values = np.random.default_rng(list(shape)).standard_normal(shape) / shape[-1] ** 0.5
    return values.astype(np.float32)


if __name__ == "__main__":
    main()
