"""A Whisper of one layer with random weights: the interface, the metadata and the head of those that sherpa-onnx runs."""

import base64

import numpy as np
import onnx

BANDS, WIDTH, VOCABULARY, PLACES = 80, 32, 96, 40
EOT, SOT, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_SPEECH, NO_TIMESTAMPS = range(80, 88)
PIECES = ["日".encode()[:2], "日".encode()[2:], *(f" {letter}".encode() for letter in "abcdefghijklmnopqrstuvwxyz")]
METADATA = {
    "model_type": "whisper-small", "version": 1, "n_mels": BANDS, "n_audio_ctx": 1500, "n_text_layer": 1, "n_text_ctx": PLACES,
    "n_text_state": WIDTH, "n_vocab": VOCABULARY, "sot": SOT, "eot": EOT, "blank_id": 5, "translate": TRANSLATE,
    "transcribe": TRANSCRIBE, "is_multilingual": 0, "no_timestamps": NO_TIMESTAMPS, "no_speech": NO_SPEECH, "sot_sequence": SOT,
}  # fmt: skip
MULTILINGUAL = {
    "is_multilingual": 1, "sot_sequence": f"{SOT},{ENGLISH},{TRANSCRIBE}", "all_language_codes": "en,de",
    "all_language_tokens": f"{ENGLISH},{GERMAN}",
}  # fmt: skip

ENCODER = """encoder (float[N, 80, T] mel) => (float[1, N, U, 32] n_layer_cross_k, float[1, N, U, 32] n_layer_cross_v) {
    x = Transpose <perm = [0, 2, 1]> (mel)
    [project] h = MatMul (x, w_in)
    t = Tanh (h)
    half = Slice (t, start, all, time, two)
    [key] k = MatMul (half, w_k)
    [value] v = MatMul (half, w_v)
    n_layer_cross_k = Unsqueeze (k, start)
    n_layer_cross_v = Unsqueeze (v, start)
}"""
DECODER = """decoder (int64[N, n] tokens,
    float[1, N, 40, 32] in_n_layer_self_k_cache, float[1, N, 40, 32] in_n_layer_self_v_cache,
    float[1, N, T, 32] n_layer_cross_k, float[1, N, T, 32] n_layer_cross_v, int64[1] offset)
    => (float[N, n, 96] logits, float[1, N, 40, 32] out_n_layer_self_k_cache, float[1, N, 40, 32] out_n_layer_self_v_cache) {
    shape = Shape (tokens)
    count = Slice (shape, time, two)
    end = Add (offset, count)
    e = Gather (embedding, tokens)
    p = Slice (positions, offset, end, start)
    x = Add (e, p)
    [query] q = MatMul (x, w_q)
    [key] k = MatMul (x, w_k)
    [value] v = MatMul (x, w_v)
    k1 = Unsqueeze (k, start)
    v1 = Unsqueeze (v, start)
    k_before = Slice (in_n_layer_self_k_cache, start, offset, two)
    v_before = Slice (in_n_layer_self_v_cache, start, offset, two)
    k_after = Slice (in_n_layer_self_k_cache, end, all, two)
    v_after = Slice (in_n_layer_self_v_cache, end, all, two)
    out_n_layer_self_k_cache = Concat <axis = 2> (k_before, k1, k_after)
    out_n_layer_self_v_cache = Concat <axis = 2> (v_before, v1, v_after)
    k2 = Concat <axis = 2> (k_before, k1)
    v2 = Concat <axis = 2> (v_before, v1)
    k3 = Squeeze (k2, start)
    v3 = Squeeze (v2, start)
    kt = Transpose <perm = [0, 2, 1]> (k3)
    [scores] s = MatMul (q, kt)
    rows = Slice (mask, offset, end, start)
    seen = Slice (rows, start, end, time)
    masked = Add (s, seen)
    weights = Softmax <axis = -1> (masked)
    [attend] a = MatMul (weights, v3)
    y = Add (x, a)
    [cross_query] cq = MatMul (y, w_cq)
    ck = Squeeze (n_layer_cross_k, start)
    cv = Squeeze (n_layer_cross_v, start)
    ckt = Transpose <perm = [0, 2, 1]> (ck)
    [cross_scores] cs = MatMul (cq, ckt)
    cw = Softmax <axis = -1> (cs)
    [cross_attend] c = MatMul (cw, cv)
    z = Add (y, c)
    zt = Transpose <perm = [0, 2, 1]> (z)
    [head] l = MatMul (embedding, zt)
    logits = Transpose <perm = [0, 2, 1]> (l)
}"""


def write_whisper(folder, build, **metadata):
    """Write encoder, decoder and tokens; it says a few tokens of any sound, and ends where the sound ends."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)

    def weight(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)

    places = {name: np.array([value], np.int64) for name, value in (("start", 0), ("time", 1), ("two", 2), ("all", 1 << 40))}
    embedding = weight(VOCABULARY, WIDTH, scale=VOCABULARY**0.5)
    embedding[[0, 1, *range(len(PIECES), EOT)]] = 0.0  # parts of a character, and no text
    embedding[EOT + 1 :] *= 0.1  # read, and never written
    positions = weight(PLACES, WIDTH, scale=9.0)
    positions += np.linspace(0, 2.0, PLACES, dtype=np.float32)[:, None] * embedding[EOT]  # sooner or later it ends
    mask = np.triu(np.full((PLACES, PLACES), -1e9, np.float32), 1)
    arrays = {
        "encoder": {
            "w_in": weight(BANDS, WIDTH, scale=3.0), "w_k": weight(WIDTH, WIDTH), "w_v": weight(WIDTH, WIDTH, scale=4.0),
        },
        "decoder": {
            **{name: weight(WIDTH, WIDTH, scale=2.0) for name in ("w_q", "w_k", "w_v", "w_cq")}, "embedding": embedding,
            "positions": positions, "mask": mask,
        },
    }  # fmt: skip
    for part, text in (("encoder", ENCODER), ("decoder", DECODER)):
        used = {name: array for name, array in (arrays[part] | places).items() if name in text}
        model = build(text, opset=17, **used)
        if part == "encoder":
            onnx.helper.set_model_props(model, {key: str(value) for key, value in (METADATA | metadata).items()})
        onnx.save(model, folder / f"small-{part}.onnx")
    lines = [f"{base64.b64encode(piece).decode()} {index}\n" for index, piece in enumerate(PIECES)]
    (folder / "small-tokens.txt").write_text("".join(lines), encoding="ascii")
    return folder
