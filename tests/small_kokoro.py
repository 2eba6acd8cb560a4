"""A small Kokoro with random weights: Albert, durations by LSTM, pitch, a decoder of AdaIN, Snake and an inverse STFT."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HIDDEN, STYLE, ROWS, TOKENS, HOP, RATE_HZ = 32, 16, 90, 64, 40, 24_000
SYMBOLS = ("$", ";", ":", ",", ".", "!", "?", " ", *"abcdefghijklmnopqrstuvwxyz", *"ˈˌəʊɜːɪɚɑɛɹθðŋɔæʌʃɡɾᵻɐʔ")
METADATA = {
    "model_type": "kokoro", "language": "English", "has_espeak": "1", "sample_rate": str(RATE_HZ), "version": "1",
    "voice": "en-us", "style_dim": f"{ROWS},1,{STYLE}", "n_speakers": "3", "speaker_names": "af_one,af_two,am_three",
}  # fmt: skip
RECURRENT = """
    {to}_in = Transpose <perm = [{perm}]> ({of})
    [{to}_lstm] {to}_y = LSTM <direction = "bidirectional", hidden_size = 16> ({to}_in, w_{to}, r_{to}, b_{to})
    {to}_sides = Transpose <perm = [0, 2, 1, 3]> ({to}_y)
    {to} = Reshape ({to}_sides, joined)
"""  # (length, 1, hidden)
ADAIN = """
    [{to}_norm] {to}_n = InstanceNormalization ({of}, {to}_g, {to}_b)
    [{to}_fc] {to}_h = Gemm <transB = 1> (acoustic, w_{to}, c_{to})
    {to}_h3 = Reshape ({to}_h, upright)
    {to}_gamma, {to}_beta = Split <axis = 1, num_outputs = 2> ({to}_h3)
    {to}_gain = Add ({to}_gamma, unit)
    {to}_scaled = Mul ({to}_n, {to}_gain)
    {to} = Add ({to}_scaled, {to}_beta)
"""
BODY = (
    """
    [bert_embed] e = Gather (bert_table, ids)
    [bert_q] q = MatMul (e, w_q)
    [bert_k] k = MatMul (e, w_k)
    [bert_v] v = MatMul (e, w_v)
    k_t = Transpose <perm = [0, 2, 1]> (k)
    scores = MatMul (q, k_t)
    p = Softmax <axis = -1> (scores)
    c = MatMul (p, v)
    [bert_o] o = MatMul (c, w_o)
    attended = Add (e, o)
    [bert_norm] encoded = LayerNormalization <axis = -1> (attended, norm_g, norm_b)
    acoustic, prosody = Split <axis = 1, num_outputs = 2> (style)
"""
    + RECURRENT.format(of="encoded", to="spoken", perm="1, 0, 2")
    + """
    [duration_fc] d_h = Gemm <transB = 1> (prosody, w_d, c_d)
    d_gamma, d_beta = Split <axis = 1, num_outputs = 2> (d_h)
    d_gain = Add (d_gamma, unit)
    d_scaled = Mul (spoken, d_gain)
    d = Add (d_scaled, d_beta)
    [duration_proj] logits = MatMul (d, w_duration)
    shifted = Add (logits, c_duration)
    shares = Sigmoid (shifted)
    last = Constant <value = int64[1] {-1}> ()
    lengths_t = ReduceSum <keepdims = 0> (shares, last)
    lengths = Transpose <perm = [1, 0]> (lengths_t)
    slower = Div (lengths, pace)
    whole = Round (slower)
    duration = Max (whole, unit)
    sums = CumSum (duration, axis)
    begins = Sub (sums, duration)
    total = ReduceMax <keepdims = 0> (sums)
    count = Cast <to = 7> (total)
    place = Range (first, count, step)
    t = Cast <to = 1> (place)
    sums_t = Unsqueeze (sums, last)
    begins_t = Unsqueeze (begins, last)
    before_end = Less (t, sums_t)
    too_early = Less (t, begins_t)
    begun = Not (too_early)
    said = And (before_end, begun)
    path = Cast <to = 1> (said)
    d_t = Transpose <perm = [1, 2, 0]> (d)
    en = MatMul (d_t, path)
"""
    + RECURRENT.format(of="en", to="shared", perm="2, 0, 1")
    + """
    shared_t = Transpose <perm = [1, 2, 0]> (shared)
    [F0_proj] f0 = Conv <pads = [1, 1]> (shared_t, w_f0, c_f0)
    [text_embed] words = Gather (text_table, ids)
    words_t = Transpose <perm = [0, 2, 1]> (words)
    [text_cnn] letters = Conv <pads = [2, 2]> (words_t, w_cnn, c_cnn)
    letters_r = LeakyRelu <alpha = 0.2> (letters)
"""
    + RECURRENT.format(of="letters_r", to="text", perm="2, 0, 1")
    + """
    text_t = Transpose <perm = [1, 2, 0]> (text)
    asr = MatMul (text_t, path)
    both = Concat <axis = 1> (asr, f0)
"""
    + ADAIN.format(of="both", to="encode")
    + """
    encode_r = LeakyRelu <alpha = 0.2> (encode)
    [encode_conv] frames = Conv <pads = [1, 1]> (encode_r, w_frames, c_frames)
    [ups] u = ConvTranspose <strides = [8], pads = [4, 4]> (frames, w_ups, c_ups)
    f0_up = Resize <mode = "nearest"> (f0, , scales)
    pitch = Mul (f0_up, ten)
    sine = Sin (pitch)
    drawn = RandomNormalLike (sine)
    hiss = Mul (drawn, little)
    source = Add (sine, hiss)
    [noise_conv] har = Conv <pads = [1, 1]> (source, w_har, c_har)
    x = Add (u, har)
"""
    + ADAIN.format(of="x", to="res")
    + """
    turned = Mul (res, alpha)
    waves = Sin (turned)
    two = Constant <value_float = 2.0> ()
    squared = Pow (waves, two)
    by_alpha = Reciprocal (alpha)
    snaked = Mul (squared, by_alpha)
    snake = Add (res, snaked)
    [res_conv] r = Conv <pads = [3, 3], dilations = [3]> (snake, w_res_conv, c_res_conv)
    xr = Add (x, r)
    xl = LeakyRelu <alpha = 0.01> (xr)
    [conv_post] spectrum = Conv <pads = [3, 3]> (xl, w_post, c_post)
    log_size, angle = Split <axis = 1, num_outputs = 2> (spectrum)
    size = Exp (log_size)
    phase = Sin (angle)
    cosine = Cos (phase)
    sine_of = Sin (phase)
    re = Mul (size, cosine)
    im = Mul (size, sine_of)
    bins = Concat <axis = 1> (re, im)
    [istft] wave = ConvTranspose <strides = [5], pads = [8, 7]> (bins, w_istft)
"""
)


def kokoro_model(tokens: str = "tokens", speed: str = "float[1]", output: str = "audio", **metadata: str) -> onnx.ModelProto:
    """Return the model: token ids (1, length), a style (1, 16), a speed -> audio (samples,)."""
    rng = np.random.default_rng(0)

    def weight(*shape: int, gain: float = 1.0, fan_in: int | None = None) -> np.ndarray:
        size = int(np.prod(shape[1:])) if fan_in is None else fan_in
        return (gain * rng.standard_normal(shape) / size**0.5).astype(np.float32)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    h, half = HIDDEN, STYLE // 2
    weights = {
        "bert_table": weight(TOKENS, h, gain=h**0.5), **{f"w_{name}": weight(h, h) for name in "qkvo"},
        "norm_g": zeros(h) + 1, "norm_b": zeros(h), "joined": np.array([0, 0, -1]), "upright": np.array([1, -1, 1]),
        "unit": np.array([1], np.float32), "w_d": weight(2 * h, half, gain=0.3), "c_d": zeros(2 * h),
        "w_duration": weight(h, 20, fan_in=h), "c_duration": zeros(20) - 1, "axis": np.array(1), "first": np.array(0),
        "step": np.array(1), "w_f0": weight(1, h, 3), "c_f0": zeros(1), "text_table": weight(TOKENS, h, gain=h**0.5),
        "w_cnn": weight(h, h, 5), "c_cnn": zeros(h), "w_frames": weight(h, h + 1, 3), "c_frames": zeros(h),
        "w_ups": weight(h, 16, 16, gain=2), "c_ups": zeros(16), "scales": np.array([1, 1, 8], np.float32),
        "ten": np.float32(10), "little": np.float32(0.003), "w_har": weight(16, 1, 3), "c_har": zeros(16),
        "alpha": 1 + zeros(1, 16, 1), "w_res_conv": weight(16, 16, 3), "c_res_conv": zeros(16),
        "w_post": weight(22, 16, 7, gain=0.5), "c_post": zeros(22) - 1, "w_istft": weight(22, 1, 20, gain=0.1),
    }  # fmt: skip
    for name in ("spoken", "shared", "text"):
        weights |= {
            f"w_{name}": weight(2, 64, h, fan_in=h),
            f"r_{name}": weight(2, 64, 16, fan_in=16),
            f"b_{name}": zeros(2, 128),
        }
    for name, channels in (("encode", h + 1), ("res", 16)):
        weights |= {
            f"{name}_g": zeros(channels) + 1, f"{name}_b": zeros(channels), f"w_{name}": weight(2 * channels, half, gain=0.3),
            f"c_{name}": zeros(2 * channels),
        }  # fmt: skip
    head = f"kokoro (int64[1, L] {tokens}, float[1, {STYLE}] style, {speed} speed) => (float[samples] {output})"
    body = BODY.replace("_table, ids)", f"_table, {tokens})")
    text = f"""<ir_version: 8, opset_import: ["" : 18]> {head} {{
        pace = Cast <to = 1> (speed)
        {body}
        {output} = Reshape (wave, last)
    }}"""
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    onnx.helper.set_model_props(model, metadata)
    return model


def styles(voices: int = 3, rows: int = ROWS, width: int = STYLE) -> np.ndarray:
    """Return styles (voices, rows, width)."""
    return np.random.default_rng(1).standard_normal((voices, rows, width)).astype(np.float32)


def write_kokoro(folder: Path, model: onnx.ModelProto | None = None, symbols: tuple[str, ...] = SYMBOLS) -> Path:
    """Write model.onnx, voices.bin and tokens.txt as sherpa-onnx publishes them, and return the first."""
    folder.mkdir(exist_ok=True)
    onnx.save(kokoro_model(**METADATA) if model is None else model, folder / "model.onnx")
    styles().tofile(folder / "voices.bin")
    table = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
    (folder / "tokens.txt").write_text(table, encoding="utf-8")
    return folder / "model.onnx"
