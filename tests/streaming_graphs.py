"""A streaming Zipformer with random weights: the graphs that the `zipformer` package exports, small (data/recipes)."""

import gzip
from pathlib import Path

import numpy as np
import onnx

EXPORTED = Path(__file__).with_name("exported") / "streaming_zipformer"
PARTS = ("encoder", "decoder", "joiner")
CHUNK, HOP, PER_STEP = 45, 32, 8  # frames that a step takes, from one to the next, and that come out of one
LAYERS = 2
TOKENS = 28
LOUD = 8.0  # of the joiner's weights: no two tokens are nearly as good as each other


def write_streaming(folder, **metadata):
    """Write encoder, decoder, joiner and tokens; `metadata` goes into the encoder, None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        onnx.save(_with_weights(part, metadata if part == "encoder" else {}), folder / f"{part}.onnx")
    _write_tokens(folder, TOKENS)
    return folder


def write_streaming_ctc(folder):
    """Write the same encoder as a CTC model: what it gives is taken for the scores of 24 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    model = _with_weights("encoder", {})
    model.graph.output[0].name = "log_probs"
    for node in model.graph.node:
        node.output[:] = ["log_probs" if name == "encoder_out" else name for name in node.output]
    onnx.save(model, folder / "ctc-small.onnx")
    _write_tokens(folder, model.graph.output[0].type.tensor_type.shape.dim[2].dim_value)
    return folder


def _with_weights(part, metadata):
    model, rng = onnx.load_from_string(gzip.decompress((EXPORTED / f"{part}.onnx.gz").read_bytes())), np.random.default_rng(3)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.raw_data:
            scale = max(1, int(np.prod(tensor.dims[1:]))) ** -0.5 * (LOUD if part == "joiner" else 1.0)
            tensor.raw_data = (scale * rng.standard_normal(list(tensor.dims))).astype("<f4").tobytes()
    facts = {entry.key: entry.value for entry in model.metadata_props} | metadata
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: str(value) for key, value in facts.items() if value is not None})
    return model


def _write_tokens(folder, count):
    letters = "".join(f"\u2581{chr(96 + number)} {number}\n" for number in range(1, 27)) + "xy 27\n"
    table = ["<blk> 0", *letters.splitlines()][:count]
    (folder / "tokens.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
