"""Models of users, in small: directories as icefall and sherpa-onnx have them."""

import numpy as np
import onnx
import pytest

TOKENS = ("<blk>", "\u2581a", "b", "\u2581c")
ENCODER = """encoder (float[N, T, 80] x, int64[N] x_lens) => (float[N, U, 4] encoder_out, int64[N] encoder_out_lens) {
    [project] encoder_out = MatMul (x, w)
    [length] encoder_out_lens = Identity (x_lens)
}"""
DECODER = """decoder (int64[N, 2] y) => (float[N, 4] decoder_out) {
    [embed] e = Gather (table, y)
    [mean] m = ReduceMean <axes = [1], keepdims = 0> (e)
    [project] decoder_out = MatMul (m, w)
}"""
JOINER = """joiner (float[N, 4] encoder_out, float[N, 4] decoder_out) => (float[N, 4] logit) {
    [sum] s = Add (encoder_out, decoder_out)
    [squash] t = Tanh (s)
    [project] logit = MatMul (t, w)
}"""


def write_tokens(path, tokens):
    path.write_text("".join(f"{token} {index}\n" for index, token in enumerate(tokens)), encoding="utf-8")


@pytest.fixture
def transducer_dir(tmp_path, build):
    """Return a directory with a transducer whose frames say which token it is: feature k stands for token k.

    The decoder takes back a token that has just been said: so each is said once, and the search is seen to look back.
    """
    folder = tmp_path / "transducer"
    folder.mkdir()
    said = np.zeros((4, 4), np.float32)
    said[1:, 1:] = -2 * np.eye(3)
    weights = {
        "encoder": (ENCODER, {"w": np.eye(80, 4, dtype=np.float32)}, {"model_type": "zipformer2"}),
        "decoder": (DECODER, {"table": np.eye(4, dtype=np.float32), "w": said}, {"context_size": "2", "vocab_size": "4"}),
        "joiner": (JOINER, {"w": np.eye(4, dtype=np.float32)}, {"joiner_dim": "4"}),
    }
    for part, (text, arrays, metadata) in weights.items():
        model = build(text, opset=13, **arrays)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, folder / f"{part}-epoch-99-avg-1.onnx")
        (folder / f"{part}-epoch-99-avg-1.int8.onnx").write_bytes(b"not to be chosen")
    write_tokens(folder / "tokens.txt", TOKENS)
    return folder


MATCHA = """matcha (int64[N, L] x, int64[N] x_length, float[1] noise_scale, float[1] length_scale) => (float[N, 80, T] mel) {
    [embed] e = Gather (table, x)
    [turn] t = Transpose <perm = [0, 2, 1]> (e)
    [scale] s = Mul (t, length_scale)
    [noise] mel = Add (s, noise_scale)
    [length] n = Identity (x_length)
}"""


@pytest.fixture
def matcha_dir(tmp_path, build):
    """Return a function that makes a directory as matcha-icefall-zh-baker, or with espeak's tokens as en_US-ljspeech."""

    def make(symbols, lexicon=None, rows=None, **metadata):
        folder = tmp_path / "matcha"
        folder.mkdir(exist_ok=True)
        table = np.random.default_rng(0).standard_normal((rows or len(symbols), 80)).astype(np.float32)
        model = build(MATCHA, opset=14, table=table)
        known = {"model_type": "matcha-tts", "sample_rate": "22050", "pad_id": "0", "use_eos_bos": "0", "n_speakers": "1"}
        onnx.helper.set_model_props(model, known | metadata)
        for steps in (3, 6):
            onnx.save(model, folder / f"model-steps-{steps}.onnx")
        write_tokens(folder / "tokens.txt", symbols)
        if lexicon is not None:
            (folder / "lexicon.txt").write_text(lexicon, encoding="utf-8")
        return folder

    return make
