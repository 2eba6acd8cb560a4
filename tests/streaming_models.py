"""Streaming models in the shape of those that people deploy, with random weights: small files that are mostly recurrent.

Every model takes its states and gives out new ones, as the exported files do.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.sample import Sample


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """Return a float32 weight that keeps the size of what passes through it."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) / np.prod(shape[1:]) ** 0.5
    return values.astype(np.float32)


def from_text(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """Return a model from the body of a graph in ONNX's text form, and its weights by name."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def recurrent(op_type: str, inputs: int, hidden: int, directions: int = 1, *, prefix: str = "", bias: bool = True) -> dict:
    """Return the weights of an LSTM, GRU or RNN: W, R and B, each with a prefix."""
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type] * hidden
    found = {
        f"{prefix}W": weight(directions, rows, inputs),
        f"{prefix}R": weight(directions, rows, hidden),
        f"{prefix}B": weight(directions, 2 * rows, seed=1),
    }
    return found if bias else {name: array for name, array in found.items() if not name.endswith("B")}


def dtln(bins: int = 257, hidden: int = 128) -> onnx.ModelProto:
    """Return a mask estimator of two LSTM layers and a dense one: the first half of DTLN, 1.4 MB."""
    text = f"""dtln (float[1, 1, {bins}] mag, float[2, 2, 1, 1, {hidden}] state)
        => (float[1, 1, {bins}] mask, float[2, 2, 1, 1, {hidden}] new_state) {{
        h1, c1, h2, c2 = Split <axis = 0> (flat, ones)
        flat = Reshape (state, four)
        h1s = Squeeze (h1, first) c1s = Squeeze (c1, first) h2s = Squeeze (h2, first) c2s = Squeeze (c2, first)
        [lstm_1] a, h1n, c1n = LSTM <hidden_size = {hidden}> (mag, aW, aR, aB, , h1s, c1s)
        b = Squeeze (a, second)
        [lstm_2] c, h2n, c2n = LSTM <hidden_size = {hidden}> (b, bW, bR, bB, , h2s, c2s)
        d = Squeeze (c, second)
        [dense] e = MatMul (d, w)
        f = Add (e, wb)
        mask = Sigmoid (f)
        joined = Concat <axis = 0> (h1n, c1n, h2n, c2n)
        new_state = Reshape (joined, back)
    }}"""
    nodes_in_order = text.replace(
        "h1, c1, h2, c2 = Split <axis = 0> (flat, ones)\n        flat = Reshape (state, four)",
        "flat = Reshape (state, four)\n        h1, c1, h2, c2 = Split <axis = 0> (flat, ones)",
    )
    return from_text(
        nodes_in_order, **recurrent("LSTM", bins, hidden, prefix="a"), **recurrent("LSTM", hidden, hidden, prefix="b"),
        w=weight(bins, hidden).T.copy(), wb=weight(bins),
        four=np.array([4, 1, 1, hidden]), back=np.array([2, 2, 1, 1, hidden]), ones=np.ones(4, np.int64),
        first=np.array([0]), second=np.array([1]),
    )  # fmt: skip


def ten_vad(hidden: int = 64) -> onnx.ModelProto:
    """Return depthwise separable Convs, two LSTM layers of 64 units and two dense ones: a TEN VAD, 0.3 MB."""
    text = f"""vad (
            float[1, 3, 41] x, float[1, {hidden}] h1, float[1, {hidden}] c1, float[1, {hidden}] h2, float[1, {hidden}] c2
        ) => (float[1, 1, 1] p, float[1, 1, {hidden}] g1, float[1, 1, {hidden}] d1, float[1, 1, {hidden}] g2,
            float[1, 1, {hidden}] d2) {{
        i = Unsqueeze (x, one)
        [depth] a = Conv <kernel_shape = [3, 3], pads = [0, 1, 0, 1]> (i, k1, kb1)
        [point] b = Conv (a, k2, kb2)
        r = Relu (b)
        [depth_2] m = Conv <kernel_shape = [1, 3], strides = [1, 2], pads = [0, 1, 0, 1], group = 16> (r, k3, kb3)
        [point_2] n = Conv (m, k4, kb4)
        s = Relu (n)
        q = MaxPool <kernel_shape = [1, 3], strides = [1, 4]> (s)
        flat = Reshape (q, shape)
        H1 = Unsqueeze (h1, zero) C1 = Unsqueeze (c1, zero) H2 = Unsqueeze (h2, zero) C2 = Unsqueeze (c2, zero)
        [lstm_1] y1, g1, d1 = LSTM <hidden_size = {hidden}> (flat, aW, aR, aB, , H1, C1)
        z1 = Squeeze (y1, one)
        [lstm_2] y2, g2, d2 = LSTM <hidden_size = {hidden}> (z1, bW, bR, bB, , H2, C2)
        both = Concat <axis = -1> (g1, g2)
        [dense_1] e = MatMul (both, w1)
        f = Relu (e)
        [dense_2] l = MatMul (f, w2)
        p = Sigmoid (l)
    }}"""
    return from_text(
        text, **recurrent("LSTM", 80, hidden, prefix="a"), **recurrent("LSTM", hidden, hidden, prefix="b"),
        k1=weight(1, 1, 3, 3), kb1=weight(1), k2=weight(16, 1, 1, 1), kb2=weight(16), k3=weight(16, 1, 1, 3), kb3=weight(16),
        k4=weight(16, 16, 1, 1), kb4=weight(16), w1=weight(2 * hidden, 32), w2=weight(32, 1),
        one=np.array([1]), zero=np.array([0]), shape=np.array([1, 1, 80]),
    )  # fmt: skip


def silero(hidden: int = 128) -> onnx.ModelProto:
    """Return a VAD like Silero's: an If on the sampling rate, in each branch a Fourier transform, Convs, an LSTM."""

    def branch(name: str, window: int, bins: int) -> onnx.GraphProto:
        p = f"{name}_"
        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.NodeProto] = []

        def constant(label: str, array: np.ndarray) -> str:
            tensor = numpy_helper.from_array(array, label)
            constants.append(helper.make_node("Constant", [], [p + label], value=tensor))
            return p + label

        def node(op_type: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
            named = [p + output if output else "" for output in outputs]
            nodes.append(helper.make_node(op_type, inputs, named, name=p + next(filter(None, outputs)), **attributes))
            return named[0]

        x = node("Unsqueeze", ["input", constant("axis_1", np.array([1]))], "framed")
        x = node("Conv", [x, constant("stft.basis", weight(2 * bins, 1, window))], "spectrum", strides=[window // 2])
        x = node("Abs", [x], "magnitude")
        channels = 2 * bins
        for index, width in enumerate((128, 64, 64, 128)):
            kernel = constant(f"encoder.{index}.weight", weight(width, channels, 3))
            x = node("Conv", [x, kernel, constant(f"encoder.{index}.bias", weight(width))], f"conv_{index}", pads=[1, 1])
            x = node("Relu", [x], f"relu_{index}")
            channels = width
        x = node("ReduceMean", [x], "mean", axes=[2], keepdims=1)
        x = node("Transpose", [x], "steps", perm=[2, 0, 1])
        h = node("Gather", ["state", constant("index_0", np.array([0]))], "h", axis=0)
        c = node("Gather", ["state", constant("index_1", np.array([1]))], "c", axis=0)
        weights = recurrent("LSTM", channels, hidden)
        given = []
        for label in "WRB":  # as traced: the gates reordered, a direction added
            gates = constant(f"rnn.{label}", weights[label][0])
            parts = [
                node("Slice", [gates, constant(f"{label}_{first}", np.array([first * hidden])),
                               constant(f"{label}_{first}_end", np.array([last * hidden]))], f"{label}_gates_{first}")
                for first, last in ((0, 1), (1, 8))
            ]  # fmt: skip
            joined = node("Concat", parts, f"{label}_joined", axis=0)
            given.append(node("Unsqueeze", [joined, constant(f"{label}_axis", np.array([0]))], f"{label}_whole"))
        node("LSTM", [x, *given, "", h, c], "rnn", "rnn_h", "rnn_c", hidden_size=hidden)
        node("Concat", [p + "rnn_h", p + "rnn_c"], "state_out", axis=0)
        y = node("Squeeze", [p + "rnn_h", constant("axis_0", np.array([0]))], "last")
        y = node("Gemm", [y, constant("decoder.weight", weight(1, hidden))], "logit", transB=1)
        node("Sigmoid", [y], "probability")
        outputs = [
            helper.make_tensor_value_info(p + "probability", onnx.TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info(p + "state_out", onnx.TensorProto.FLOAT, [2, 1, hidden]),
        ]
        return helper.make_graph([*constants, *nodes], name, [], outputs)

    condition = [
        helper.make_node("Equal", ["sr", "sixteen"], ["is_16k"], name="is_16k"),
        helper.make_node(
            "If", ["is_16k"], ["output", "stateN"], name="rate",
            then_branch=branch("then", 256, 65), else_branch=branch("else", 128, 33),
        ),
    ]  # fmt: skip
    value, kinds = helper.make_tensor_value_info, onnx.TensorProto
    graph = helper.make_graph(
        condition, "silero",
        [value("input", kinds.FLOAT, [1, "n"]), value("state", kinds.FLOAT, [2, 1, hidden]), value("sr", kinds.INT64, [])],
        [value("output", kinds.FLOAT, [1, 1]), value("stateN", kinds.FLOAT, [2, 1, hidden])],
        [numpy_helper.from_array(np.array(16000, np.int64), "sixteen")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)


def sample_of(model: onnx.ModelProto, seed: int = 0, *, sr: int = 16000, frames: int = 576) -> Sample:
    """Return random inputs of a model; every unknown length is `frames`."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    for entry in model.graph.input:
        shape = [dim.dim_value or frames for dim in entry.type.tensor_type.shape.dim]
        whole = entry.type.tensor_type.elem_type == onnx.TensorProto.INT64
        inputs[entry.name] = np.full(shape, sr) if whole else rng.standard_normal(shape).astype(np.float32)
    return Sample(f"s{seed}", inputs)
