"""A SenseVoice with random weights: its layers (SANM: attention beside a memory of neighbours), queries, metadata, tokens."""

import numpy as np
import onnx

WIDTH, HEADS, INNER, KERNEL, LETTERS = 64, 4, 128, 11, 26
SPECIAL = ["<blank>", "<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>", "<|withitn|>"]
CLASSES = len(SPECIAL) + LETTERS
METADATA = {
    "model_type": "sense_voice_ctc", "vocab_size": CLASSES, "lfr_window_size": 7, "lfr_window_shift": 6, "normalize_samples": 0,
    "version": 2, "with_itn": 14, "without_itn": 15, "lang_auto": 0, "lang_zh": 3, "lang_en": 4, "lang_yue": 7, "lang_ja": 11,
    "lang_ko": 12, "lang_nospeech": 13, "neg_mean": ",".join(["-9.0"] * 560), "inv_stddev": ",".join(["0.25"] * 560),
}  # fmt: skip
BEGIN = """sense_voice (float[N, T, 560] x, int32[N] x_length, int32[N] language, int32[N] text_norm)
    => (float[N, F, CLASSES] logits) {
    asked = Gather (embed, language)
    asked_row = Unsqueeze (asked, one)
    written = Gather (embed, text_norm)
    written_row = Unsqueeze (written, one)
    mood = Gather (embed, one_two)
    heard = Concat <axis = 1> (asked_row, mood, written_row, x)
    louder = Mul (heard, root)
    size = Shape (heard)
    frames = Gather (size, one)
    places = Slice (positions, zero, frames, one)
    a0 = Add (louder, places)
    count = Cast <to = 7> (x_length)
    all_frames = Add (count, four)
    last = Squeeze (frames, zero)
    steps = Range (none, last, step)
    there = Less (steps, all_frames)
    as_float = Cast <to = 1> (there)
    missing = Sub (as_float, unit)
    mask = Mul (missing, far)
"""
LAYER = """
    nK = LayerNormalization <axis = -1, epsilon = 1e-5> (IN, gK, hK)
    [qkvK] pK = MatMul (nK, wqK)
    qvK = Add (pK, bqK)
    qK, kK, vK = Split <axis = -1> (qvK, thirds)
    tK = Transpose <perm = [0, 2, 1]> (vK)
    [memoryK] cK = Conv <group = 64, kernel_shape = [11], pads = [5, 5]> (tK, fK)
    uK = Transpose <perm = [0, 2, 1]> (cK)
    mK = Add (uK, vK)
    qsK = Reshape (qK, heads)
    qtK = Transpose <perm = [0, 2, 1, 3]> (qsK)
    qdK = Mul (qtK, scale)
    ksK = Reshape (kK, heads)
    ktK = Transpose <perm = [0, 2, 3, 1]> (ksK)
    vsK = Reshape (vK, heads)
    vtK = Transpose <perm = [0, 2, 1, 3]> (vsK)
    [scoresK] sK = MatMul (qdK, ktK)
    smK = Add (sK, mask)
    softK = Softmax <axis = -1> (smK)
    [mixK] xK = MatMul (softK, vtK)
    ztK = Transpose <perm = [0, 2, 1, 3]> (xK)
    zK = Reshape (ztK, flat)
    [outK] oK = MatMul (zK, woK)
    obK = Add (oK, boK)
    rK = Add (obK, mK)
    REST
    n2K = LayerNormalization <axis = -1, epsilon = 1e-5> (r2K, g2K, h2K)
    [upK] upK = MatMul (n2K, w1K)
    ubK = Add (upK, b1K)
    actK = Relu (ubK)
    [downK] dnK = MatMul (actK, w2K)
    dbK = Add (dnK, b2K)
    OUT = Add (r2K, dbK)
"""
END = """
    normed = LayerNormalization <axis = -1, epsilon = 1e-5> (IN, gE, hE)
    [head] told = MatMul (normed, wE)
    logits = Add (told, bE)
}"""


def write_sense_voice(folder, build, layers=3, **metadata):
    """Write model.onnx and tokens.txt."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(11)

    def weight(rows, columns, scale=1.0):
        return (scale * rng.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)

    places = np.arange(1, 2001)[:, None] * np.exp(-np.arange(280) * np.log(10_000) / 279)[None]
    arrays = {
        "embed": weight(16, 560, scale=20.0),
        "positions": np.concatenate([np.sin(places), np.cos(places)], 1)[None].astype(np.float32),
        "root": np.float32(WIDTH**0.5), "one": np.array([1]), "zero": np.array([0]), "one_two": np.array([[1, 2]]),
        "none": np.int64(0), "step": np.int64(1), "four": np.array([4]), "unit": np.float32(1), "far": np.float32(1e4),
        "thirds": np.array([WIDTH] * 3), "heads": np.array([0, 0, HEADS, WIDTH // HEADS]), "flat": np.array([0, 0, WIDTH]),
        "scale": np.float32((WIDTH // HEADS) ** -0.5),
    }  # fmt: skip
    text, before = BEGIN.replace("CLASSES", str(CLASSES)), "a0"
    for number in range(layers):
        wide = 560 if number == 0 else WIDTH
        rest = "r2K = Identity (rK)" if number == 0 else "r2K = Add (rK, IN)"  # the first layer changes the width
        part = LAYER.replace("REST", rest).replace("IN", before).replace("OUT", f"a{number + 1}")
        text += part.replace("K", str(number) + "L")
        mine = {
            "g": np.ones(wide, np.float32), "h": np.zeros(wide, np.float32), "wq": weight(wide, 3 * WIDTH),
            "bq": weight(1, 3 * WIDTH)[0] * 0.1, "f": weight(KERNEL, WIDTH, scale=0.5).T[:, None].copy(),
            "wo": weight(WIDTH, WIDTH),
            "bo": np.zeros(WIDTH, np.float32), "g2": np.ones(WIDTH, np.float32), "h2": np.zeros(WIDTH, np.float32),
            "w1": weight(WIDTH, INNER), "b1": np.zeros(INNER, np.float32), "w2": weight(INNER, WIDTH),
            "b2": np.zeros(WIDTH, np.float32),
        }  # fmt: skip
        arrays |= {f"{name}{number}L": array for name, array in mine.items()}
        before = f"a{number + 1}"
    text += END.replace("IN", before)
    bias = np.zeros(CLASSES, np.float32)
    bias[0] = 2.0  # some frames are blank
    bias[1 : len(SPECIAL)] = -6.0
    arrays |= {
        "gE": np.ones(WIDTH, np.float32),
        "hE": np.zeros(WIDTH, np.float32),
        "wE": weight(WIDTH, CLASSES, scale=2.0),
        "bE": bias,
    }
    model = build(text, **arrays)
    onnx.helper.set_model_props(model, {key: str(value) for key, value in (METADATA | metadata).items()})
    onnx.save(model, folder / "model.onnx")
    pieces = [f"\u2581{chr(97 + k)}" if k % 3 == 0 else chr(97 + k) for k in range(LETTERS)]
    lines = [f"{piece} {index}\n" for index, piece in enumerate([*SPECIAL, *pieces])]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    return folder
