"""A small VITS voice with random weights, as Piper exports one: text encoder, durations with noise, flow, HiFi-GAN decoder."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HIDDEN, TOKENS, HOP, RATE_HZ = 32, 64, 64, 22_050
SYMBOLS = ("_", "^", "$", " ", ".", ",", *"abcdefghijklmnopqrstuvwxyz", *"ˈˌəʊɜːɪɚɑɛɹθðŋɔæʌʃɡɾᵻɐ\u0329")
ONE_INPUT = "int64[N, L] input, int64[N] input_lengths, float[3] scales"
SPLIT = """zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    noise_scale = Gather (scales, zero)
    length_scale = Gather (scales, one)
    noise_scale_w = Gather (scales, two)"""
THREE_INPUTS = "int64[N, L] x, int64[N] x_length, float[1] noise_scale, float[1] length_scale, float[1] noise_scale_w"
BODY = """
    [enc_p_emb] e = Gather (table, {tokens})
    h = Transpose <perm = [0, 2, 1]> (e)
    [enc_p_q] q = Conv (h, w_q)
    [enc_p_k] k = Conv (h, w_k)
    [enc_p_v] v = Conv (h, w_v)
    q_t = Transpose <perm = [0, 2, 1]> (q)
    scores = MatMul (q_t, k)
    p = Softmax <axis = -1> (scores)
    v_t = Transpose <perm = [0, 2, 1]> (v)
    c_t = MatMul (p, v_t)
    c = Transpose <perm = [0, 2, 1]> (c_t)
    [enc_p_o] o = Conv (c, w_o)
    attended = Add (h, o)
    [enc_p_ffn_1] f1 = Conv <pads = [1, 1]> (attended, w_f1)
    f1r = Relu (f1)
    [enc_p_ffn_2] f2 = Conv <pads = [1, 1]> (f1r, w_f2)
    encoded = Add (attended, f2)
    [enc_p_proj] stats = Conv (encoded, w_stats)
    mean, log_scale = Split <axis = 1, num_outputs = 2> (stats)
    [dp_conv] d = Conv <pads = [1, 1]> (encoded, w_d)
    [dp_noise] drawn_w = RandomNormalLike (d)
    scaled_w = Mul (drawn_w, noise_scale_w)
    with_noise = Add (d, scaled_w)
    [dp_proj] log_w = Conv (with_noise, w_dp, b_dp)
    w = Exp (log_w)
    slower = Mul (w, length_scale)
    w_ceil = Ceil (slower)
    frames = ReduceSum <keepdims = 0> (w_ceil)
    count = Cast <to = 7> (frames)
    place = Range (first, count, step)
    t = Cast <to = 1> (place)
    axis = Constant <value_int = 2> ()
    sums = CumSum (w_ceil, axis)
    begins = Sub (sums, w_ceil)
    ends_t = Transpose <perm = [0, 2, 1]> (sums)
    begins_t = Transpose <perm = [0, 2, 1]> (begins)
    before_end = Less (t, ends_t)
    too_early = Less (t, begins_t)
    begun = Not (too_early)
    spoken = And (before_end, begun)
    path = Cast <to = 1> (spoken)
    m = MatMul (mean, path)
    s = MatMul (log_scale, path)
    [noise] drawn = RandomNormalLike (m)
    spread = Exp (s)
    spreading = Mul (drawn, spread)
    quieter = Mul (spreading, noise_scale)
    z0 = Add (m, quieter)
    a, b = Split <axis = 1, num_outputs = 2> (z0)
    [flow_pre] g0 = Conv (a, w_pre)
    [flow_in] g1 = Conv <pads = [2, 2]> (g0, w_in)
    g_tanh, g_sigmoid = Split <axis = 1, num_outputs = 2> (g1)
    g_t = Tanh (g_tanh)
    g_s = Sigmoid (g_sigmoid)
    gated = Mul (g_t, g_s)
    [flow_skip] skip = Conv (gated, w_skip)
    [flow_post] shift = Conv (skip, w_post)
    b_moved = Sub (b, shift)
    z = Concat <axis = 1> (b_moved, a)
    [dec_pre] u0 = Conv <pads = [3, 3]> (z, w_dec_pre)
    u0r = LeakyRelu <alpha = 0.1> (u0)
    [dec_up_0] u1 = ConvTranspose <strides = [8], pads = [4, 4]> (u0r, w_up_0)
    u1r = LeakyRelu <alpha = 0.1> (u1)
    [dec_res_0] r0 = Conv <pads = [1, 1]> (u1r, w_res_0)
    u1s = Add (u1, r0)
    u1sr = LeakyRelu <alpha = 0.1> (u1s)
    [dec_up_1] u2 = ConvTranspose <strides = [8], pads = [4, 4]> (u1sr, w_up_1)
    u2r = LeakyRelu <alpha = 0.1> (u2)
    [dec_res_1] r1 = Conv <pads = [2, 2], dilations = [2]> (u2r, w_res_1)
    u2s = Add (u2, r1)
    u2sr = LeakyRelu <alpha = 0.1> (u2s)
    [dec_post] audio = Conv <pads = [3, 3]> (u2sr, w_dec_post)
    audible = Tanh (audio)
    channel = Constant <value = int64[1] {{1}}> ()
    output = Unsqueeze (audible, channel)
"""


def voice_model(inputs: str = ONE_INPUT, **metadata: str) -> onnx.ModelProto:
    """Return the voice: token ids, their number and the scales -> audio (1, 1, 1, samples)."""
    rng = np.random.default_rng(0)

    def weight(*shape: int, gain: float = 1.0) -> np.ndarray:
        fan_in = np.prod(shape[1:])
        return (gain * rng.standard_normal(shape) / fan_in**0.5).astype(np.float32)

    size = HIDDEN
    weights = {
        "table": weight(TOKENS, size, gain=size**0.5), "w_q": weight(size, size, 1), "w_k": weight(size, size, 1),
        "w_v": weight(size, size, 1), "w_o": weight(size, size, 1), "w_f1": weight(2 * size, size, 3),
        "w_f2": weight(size, 2 * size, 3), "w_stats": weight(2 * size, size, 1), "w_d": weight(size, size, 3),
        "w_dp": weight(1, size, 1, gain=0.3), "b_dp": np.array([0.8], np.float32), "w_pre": weight(size, size // 2, 1),
        "w_in": weight(2 * size, size, 5), "w_skip": weight(size, size, 1), "w_post": weight(size // 2, size, 1),
        "w_dec_pre": weight(size, size, 7), "w_up_0": weight(size, size, 16, gain=3), "w_res_0": weight(size, size, 3),
        "w_up_1": weight(size, 16, 16, gain=3), "w_res_1": weight(16, 16, 3), "w_dec_post": weight(1, 16, 7, gain=0.2),
        "first": np.array(0), "step": np.array(1),
    }  # fmt: skip
    split = SPLIT if "scales" in inputs else ""
    tokens = "input" if "input" in inputs else "x"
    head = f"voice ({inputs}) => (float[N, one_channel, mono, samples] output)"
    text = f'<ir_version: 8, opset_import: ["" : 18]> {head} {{ {split} {BODY.format(tokens=tokens)} }}'
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.helper.set_model_props(model, metadata)
    return model


def piper_settings(**changes: object) -> dict[str, object]:
    """Return what Piper keeps beside a voice."""
    return {
        "audio": {"sample_rate": RATE_HZ}, "espeak": {"voice": "en-us"}, "phoneme_type": "espeak",
        "inference": {"noise_scale": 0.5, "length_scale": 1.25, "noise_w": 0.75}, "num_speakers": 1,
        "phoneme_id_map": {symbol: [index] for index, symbol in enumerate(SYMBOLS)},
        "language": {"code": "en_US", "name_english": "English"}, **changes,
    }  # fmt: skip


def write_piper_voice(folder: Path, **changes: object) -> Path:
    """Write a voice as Piper publishes it, without metadata, and return its ONNX file."""
    path = folder / "en_US-small-low.onnx"
    onnx.save(voice_model(), path)
    path.with_name(f"{path.name}.json").write_text(json.dumps(piper_settings(**changes)), encoding="utf-8")
    return path
