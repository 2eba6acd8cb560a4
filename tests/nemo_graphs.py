"""A transducer of NeMo with random weights: the interface, the metadata and the search of those that sherpa-onnx runs."""

import numpy as np
import onnx

BANDS, WIDTH, HIDDEN, LETTERS = 80, 48, 32, 26
CLASSES = LETTERS + 1  # the blank comes last
DURATIONS = 5
METADATA = {
    "vocab_size": LETTERS, "subsampling_factor": 4, "normalize_type": "per_feature", "pred_rnn_layers": 1,
    "pred_hidden": HIDDEN, "model_type": "EncDecRNNTBPEModel", "version": 2, "model_author": "NeMo",
    "url": "https://example.org/random-rnnt",
}  # fmt: skip
OF_NEMO = {"states_1": "states.1", "cell_1": "onnx::LSTM_3", "cell": "162"}
"""Names that ONNX's text form cannot write, as torch.onnx has made them."""

ENCODER = """encoder (float[N, 80, T] audio_signal, int64[N] length) => (float[N, 48, U] outputs, int64[N] encoded_lengths) {
    [conv_a] a = Conv <kernel_shape = [3], strides = [2], pads = [1, 1]> (audio_signal, w_a)
    a_relu = Relu (a)
    [conv_b] b = Conv <kernel_shape = [3], strides = [2], pads = [1, 1]> (a_relu, w_b)
    rows = Transpose <perm = [0, 2, 1]> (b)
    [project] p = MatMul (rows, w_p)
    bent = Tanh (p)
    outputs = Transpose <perm = [0, 2, 1]> (bent)
    longer = Add (length, three)
    encoded_lengths = Div (longer, four)
}"""
DECODER = """decoder (int32[N, 1] targets, int32[N] target_length, float[1, N, 32] states_1, float[1, N, 32] cell_1)
    => (float[N, 32, U] outputs, int32[N] prednet_lengths, float[1, N, 32] states, float[1, N, 32] cell) {
    e = Gather (embedding, targets)
    x = Transpose <perm = [1, 0, 2]> (e)
    [lstm] y, states, cell = LSTM <hidden_size = 32> (x, w_x, w_h, bias, none, states_1, cell_1)
    flat = Squeeze (y, one)
    outputs = Transpose <perm = [1, 2, 0]> (flat)
    prednet_lengths = Identity (target_length)
}"""
JOINER = """joiner (float[N, 48, T] encoder_outputs, float[N, 32, U] decoder_outputs) => (float[N, T, U, CLASSES] outputs) {
    et = Transpose <perm = [0, 2, 1]> (encoder_outputs)
    dt = Transpose <perm = [0, 2, 1]> (decoder_outputs)
    [enc] e = MatMul (et, w_e)
    [pred] d = MatMul (dt, w_d)
    e4 = Unsqueeze (e, two)
    d4 = Unsqueeze (d, one)
    s = Add (e4, d4)
    bent = Relu (s)
    [head] h = MatMul (bent, w_o)
    outputs = Add (h, b_o)
}"""


def write_nemo(folder, build, durations=0, **metadata):
    """Write encoder, decoder, joiner and tokens; with `durations` the joiner says too how many frames to skip (TDT)."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    facts = METADATA | ({"url": "https://example.org/random-tdt"} if durations else {}) | metadata
    bands = 64 if facts.get("is_giga_am") else BANDS

    def weight(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)

    bias = np.zeros(CLASSES + durations, np.float32)
    bias[LETTERS] = 5.0  # most frames are blank
    arrays = {
        "w_a": weight(32, bands, 3, scale=2.0), "w_b": weight(64, 32, 3, scale=2.0), "w_p": weight(64, WIDTH, scale=1.5),
        "embedding": weight(CLASSES, 24, scale=5.0), "w_x": weight(1, 4 * HIDDEN, 24, scale=1.0),
        "w_h": weight(1, 4 * HIDDEN, HIDDEN, scale=1.0), "bias": weight(1, 8 * HIDDEN), "w_e": weight(WIDTH, 40, scale=3.0),
        "w_d": weight(HIDDEN, 40, scale=3.0), "w_o": weight(40, CLASSES + durations, scale=1.5), "b_o": bias,
        "three": np.array([3]), "four": np.array([4]), "one": np.array([1]), "two": np.array([2]),
    }  # fmt: skip
    for part, text in (("encoder", ENCODER), ("decoder", DECODER), ("joiner", JOINER)):
        whole = text.replace("CLASSES", str(CLASSES + durations)).replace("[N, 80, T]", f"[N, {bands}, T]")
        whole = whole.replace("none, ", ", ")
        model = build(whole, **{name: array for name, array in arrays.items() if f"{name})" in text or f"{name}," in text})
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [OF_NEMO.get(name, name) for name in names]
        for value in (*model.graph.input, *model.graph.output):
            value.name = OF_NEMO.get(value.name, value.name)
        if part == "encoder":
            onnx.helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
        onnx.save(model, folder / f"{part}.onnx")
    pieces = [f"\u2581{chr(97 + k)}" if k % 3 == 0 else chr(97 + k) for k in range(LETTERS)]
    lines = [f"{piece} {index}\n" for index, piece in enumerate([*pieces, "<blk>"])]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    return folder
