"""Small detectors of speech that hear how loud it is, with the inputs, outputs and states of those that people deploy."""

import numpy as np
import onnx

TEN_STATISTICS = {"mean": np.full(41, -8.0), "inv_stddev": np.full(41, 0.2), "window": np.hanning(769)[:768]}
WAVE = """
    wave = Unsqueeze (HEARD, one)
    [bands] bands = Conv <strides = [64]> (wave, filters)
    bent = Relu (bands)
    loud = ReduceMean <axes = [2], keepdims = 0> (bent)
    more = Add (loud, little)
    features = Log (more)
"""
MEMORY = """
    row = Unsqueeze (features, zero)
    [memory] all, h_out, c_out = LSTM <hidden_size = HIDDEN> (row, W, R, B, , h_in, c_in)
    last = Squeeze (h_out, zero)
    known = Concat <axis = 1> (features, last)
    [score] score = MatMul (known, head)
    moved = Add (score, bias)
"""
V5 = """vad (float[1, n] input, float[2, 1, 128] state, int64 sr) => (float[1, 1] output, float[2, 1, 128] stateN) {
    h_in = Gather (state, first)
    c_in = Gather (state, second)
    WAVEMEMORYoutput = Sigmoid (moved)
    stateN = Concat <axis = 0> (h_out, c_out)
}"""
V4 = """vad (float[1, n] HEARD, SR float[2, 1, 64] h, float[2, 1, 64] c)
    => (float[1, 1] OUT, float[2, 1, 64] H_NEXT, float[2, 1, 64] C_NEXT) {
    h_in = Gather (h, first)
    c_in = Gather (c, first)
    WAVEMEMORYOUT = Sigmoid (moved)
    H_NEXT = Concat <axis = 0> (h_out, h_out)
    C_NEXT = Concat <axis = 0> (c_out, c_out)
}"""
TEN = """vad (float[B, 3, 41] input_1, float[B, 64] input_2, float[B, 64] input_3, float[B, 64] input_6, float[B, 64] input_7)
    => (float[1, 1, 1] output_1, float[1, 64] output_2, float[1, 64] output_3, float[1, 64] output_6, float[1, 64] output_7) {
    h_in = Unsqueeze (input_2, zero)
    c_in = Unsqueeze (input_3, zero)
    [bands] seen = Conv (input_1, filters)
    bent = Tanh (seen)
    features = Reshape (bent, flat)
    MEMORYchance = Sigmoid (moved)
    output_1 = Unsqueeze (chance, zero)
    output_2 = Squeeze (h_out, zero)
    output_3 = Squeeze (c_out, zero)
    output_6 = Identity (input_6)
    output_7 = Identity (input_7)
}"""
FSMN = """vad (float[1, T, 400] speech, float[1, 128, 19, 1] in_cache0, float[1, 128, 19, 1] in_cache1,
    float[1, 128, 19, 1] in_cache2, float[1, 128, 19, 1] in_cache3)
    => (float[1, T, 248] logits, float[1, 128, P, 1] out_cache0, float[1, 128, P, 1] out_cache1,
    float[1, 128, P, 1] out_cache2, float[1, 128, P, 1] out_cache3) {
    [project] seen = MatMul (speech, w_in)
    turned = Transpose <perm = [0, 2, 1]> (seen)
    four = Unsqueeze (turned, three)
    joined = Concat <axis = 2> (in_cache0, four)
    [memory] kept = Conv <group = 128> (joined, lags)
    out_cache0 = Slice (joined, minus_19, end, two)
    out_cache1 = Identity (in_cache1)
    out_cache2 = Identity (in_cache2)
    out_cache3 = Identity (in_cache3)
    flat = Squeeze (kept, three)
    back = Transpose <perm = [0, 2, 1]> (flat)
    [classes] scores = MatMul (back, w_out)
    logits = Softmax <axis = -1> (scores)
}"""


def write_vad(folder, build, family):
    """Write a detector as `vad.onnx`: silero_v5, silero_v4, k2, ten or fsmn; return its path."""
    rng = np.random.default_rng(7)

    def weight(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)

    folder.mkdir(exist_ok=True)
    path = folder / "vad.onnx"
    if family == "fsmn":
        onnx.save(_fsmn(build, weight), path)
        shift, scale = (" ".join(f"{value:.6g}" for value in values) for values in (np.full(400, -11.5), np.full(400, 0.2)))
        parts = f"<AddShift> 400 400\n<LearnRateCoef> 0 [ {shift} ]\n<Rescale> 400 400\n<LearnRateCoef> 0 [ {scale} ]\n"
        (folder / "am.mvn").write_text(f"<Nnet>\n{parts}</Nnet>\n", encoding="utf-8")
        return path
    text = {"silero_v5": V5, "ten": TEN}.get(family, V4)
    names = {"SR": "int64 sr,", "HEARD": "input", "OUT": "output", "H_NEXT": "hn", "C_NEXT": "cn"}
    if family == "k2":
        names = {"SR": "", "HEARD": "x", "OUT": "prob", "H_NEXT": "new_h", "C_NEXT": "new_c"}
    bands, hidden = 16, 128 if family == "silero_v5" else 64
    for place, given in {"WAVE": WAVE, "MEMORY": MEMORY, **names, "HIDDEN": str(hidden)}.items():
        text = text.replace(place, given)
    loudness = np.full(bands, 2.0 / bands)
    arrays = {
        "one": np.array([1]), "zero": np.array([0]), "first": np.array([0]), "second": np.array([1]),
        "little": np.float32(1e-4), "flat": np.array([1, bands]),
        "filters": weight(bands, 3, 41) if family == "ten" else weight(bands, 1, 64),
        "W": weight(1, 4 * hidden, bands), "R": weight(1, 4 * hidden, hidden), "B": np.zeros((1, 8 * hidden), np.float32),
        "bias": np.float32([[13.0]]),
    }  # fmt: skip
    if family == "ten":
        arrays["filters"] = np.full((bands, 3, 41), 0.02, np.float32) + weight(bands, 3, 41, scale=0.02)
        loudness, arrays["bias"] = np.full(bands, 6.0 / bands), np.float32([[2.0]])
    arrays["head"] = np.concatenate([loudness, 0.1 * rng.standard_normal(hidden)])[:, None].astype(np.float32)
    model = build(
        text,
        **{name: array for name, array in arrays.items() if f" {name})" in text or f"({name}," in text or f" {name}," in text},
    )
    if family == "ten":
        facts = {key: ",".join(f"{value:.9g}" for value in values) for key, values in TEN_STATISTICS.items()}
        onnx.helper.set_model_props(model, {"model_type": "ten-vad", **facts})
    onnx.save(model, path)
    return path


def _fsmn(build, weight):
    w_out = weight(128, 248, scale=0.1)
    w_out[:, 0] = -0.05
    w_in = np.abs(weight(400, 128))
    ends = {"three": np.array([3]), "two": np.array([2]), "minus_19": np.array([-19]), "end": np.array([1 << 40])}
    return build(FSMN, w_in=w_in, lags=np.full((128, 1, 20, 1), 0.05, np.float32), w_out=w_out, **ends)
