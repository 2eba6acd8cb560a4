"""Small denoisers that let loud bins pass, with the inputs, outputs, states and metadata of those that sherpa-onnx runs."""

import numpy as np
import onnx

GTCRN = """denoiser (float[1, 257, 1, 2] mix, float[1, 8] conv_cache, float[1, 1, 16] tra_cache, float[1, 4] inter_cache)
    => (float[1, 257, 1, 2] enh, float[1, 8] conv_cache_out, float[1, 1, 16] tra_cache_out, float[1, 4] inter_cache_out) {
    BODY
    shaped = Reshape (mask, column)
    enh = Mul (mix, shaped)
    tra_cache_out = Identity (h_out)
    conv_cache_out = Identity (conv_cache)
    inter_cache_out = Identity (inter_cache)
}"""
DPDFNET = """denoiser (float[1, 1, 257, 2] spec, float[30] state) => (float[1, 1, 257, 2] spec_e, float[30] state_out) {
    started = Slice (state, zero, fourteen)
    kept = Slice (state, fourteen, thirty)
    tra_cache = Reshape (kept, as_h)
    BODY
    shaped = Reshape (mask, column)
    spec_e = Mul (spec, shaped)
    flat_h = Reshape (h_out, flat)
    state_out = Concat <axis = 0> (started, flat_h)
}"""
BODY = """
    squares = Mul (HEARD, HEARD)
    power = ReduceSum <keepdims = 0> (squares, last)
    row = Reshape (power, as_row)
    more = Add (row, little)
    loud = Log (more)
    [inward] seen = MatMul (loud, w_in)
    bent = Tanh (seen)
    step = Reshape (bent, as_step)
    [memory] all, h_out = GRU <hidden_size = 16, linear_before_reset = 1> (step, W, R, B, , tra_cache)
    memory = Reshape (h_out, as_memory)
    [outward] told = MatMul (memory, w_out)
    gate = Mul (loud, half)
    opened = Add (gate, told)
    moved = Add (opened, bias)
    mask = Sigmoid (moved)
"""
STARTED = {"erb_norm_init": np.linspace(-1, 1, 6), "spec_norm_init": np.linspace(0, 1, 8)}


def write_denoiser(folder, build, family, *, as_published=False, **metadata):
    """Write a denoiser as `denoiser.onnx`, gtcrn or dpdfnet, and return its path; as its authors do: without metadata."""
    rng = np.random.default_rng(3)

    def weight(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)

    gtcrn = family == "gtcrn"
    text = (GTCRN if gtcrn else DPDFNET).replace("BODY", BODY).replace("HEARD", "mix" if gtcrn else "spec")
    arrays = {
        "last": np.array([3]), "as_row": np.array([1, 257]), "little": np.float32(1e-6), "as_step": np.array([1, 1, 24]),
        "as_memory": np.array([1, 16]), "column": np.array([1, 257, 1, 1] if gtcrn else [1, 1, 257, 1]),
        "half": np.float32(0.7), "bias": np.float32(0.5), "w_in": 0.3 * weight(257, 24), "w_out": weight(16, 257, scale=2.0),
        "W": weight(1, 48, 24), "R": weight(1, 48, 16), "B": np.zeros((1, 96), np.float32), "zero": np.array([0]),
        "fourteen": np.array([14]), "thirty": np.array([30]), "as_h": np.array([1, 1, 16]), "flat": np.array([16]),
    }  # fmt: skip
    used = {
        name: array
        for name, array in arrays.items()
        if any(f"{before}{name}{after}" in text for before in " (" for after in ",)")
    }
    model = build(text, **used)
    facts = {"model_type": family, "sample_rate": 16_000, "n_fft": 512, "hop_length": 256, "window_length": 512, "version": 1}
    if gtcrn:
        facts |= {
            "window_type": "hann_sqrt",
            "conv_cache_shape": "1,8",
            "tra_cache_shape": "1,1,16",
            "inter_cache_shape": "1,4",
        }
    else:
        started = {key: ",".join(f"{value:.6g}" for value in values) for key, values in STARTED.items()}
        sizes = {key.replace("init", "state_size"): len(values) for key, values in STARTED.items()}
        facts |= {
            "profile": "small",
            "window_type": "vorbis",
            "pad_mode": "reflect",
            "freq_bins": 257,
            "erb_bins": 6,
            "spec_bins": 8,
        }
        facts |= {"state_size": 30, **started, **sizes}
    if not as_published:
        onnx.helper.set_model_props(model, {key: str(value) for key, value in (facts | metadata).items()})
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "denoiser.onnx")
    return folder / "denoiser.onnx"
