"""SenseVoice and Paraformer with random weights, of FunASR's own layers, as sherpa-onnx is given them.

    pip install torch; pip install --no-deps funasr==1.4.16
    python benchmarks/funasr_models.py sense_voice SENSE
    python benchmarks/funasr_models.py paraformer PARA --width 256 --blocks 8

The published models are as wide as 512 and have 50 blocks; theirs come from hubs. Biases are set on the recordings of the
repository so that the random weights say different tokens. Quality on such a model means numerical agreement, nothing else.
FunASR's modules are imported one by one; what they import and is not installed is replaced by something empty.
"""

import argparse
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.kaldi_fbank import FUNASR, kaldi_fbank, stacked_frames
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.paths import resolve_path

CLIPS = "data/clips/calibration/manifest.jsonl"
SIZE, SHIFT, BANDS, RATE_HZ = 7, 6, 80, 16_000
LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
Tensor = Any
"""Of torch, which is imported late."""


@dataclass(frozen=True)
class Shape:
    """How large a model is.

    Attributes:
        width: of the layers, a multiple of four.
        blocks: of the encoder; Paraformer's decoder has a third as many.
        letters: in the token table.
        loop: whether Paraformer's integration is a Loop.
    """

    width: int = 256
    blocks: int = 8
    letters: int = 500
    loop: bool = False


def main() -> None:
    """Export one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("folder", type=Path, help="gets model.onnx and tokens.txt")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument(
        "--loop", action="store_true", help="paraformer: frame by frame, as older exports integrate the weights"
    )
    parser.add_argument("--letters", type=int, default=500, help="in the token table")
    options = parser.parse_args()
    shape = Shape(options.width, options.blocks, options.letters, options.loop)
    write(options.family, options.folder, shape)


def write(family: str, folder: Path, shape: Shape = Shape()) -> Path:
    """Write model.onnx and tokens.txt of a family, sense_voice or paraformer, into a folder.

    Raises:
        ImportError: torch or funasr is not installed.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    stacks = [stacked_frames(frames, SIZE, SHIFT, np.zeros(560, np.float32), np.ones(560, np.float32)) for frames in _frames()]
    every = np.concatenate(stacks)
    neg_mean, inv_stddev = -every.mean(axis=0), 1 / every.std(axis=0)
    recordings = [torch.from_numpy(((stack + neg_mean) * inv_stddev).astype(np.float32))[None] for stack in stacks]
    with torch.no_grad():
        FAMILIES[family](folder / "model.onnx", recordings, shape)
    model = onnx.load(folder / "model.onnx")
    metadata = {
        "lfr_window_size": SIZE, "lfr_window_shift": SHIFT, "neg_mean": ",".join(map(str, neg_mean)),
        "inv_stddev": ",".join(map(str, inv_stddev)), "vocab_size": len(_table(family, shape.letters)),
        "model_author": "random weights",
        "version": 1, "comment": "random weights", "normalize_samples": 0, **OF_FAMILY[family],
    }  # fmt: skip
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.save(model, folder / "model.onnx")
    lines = "".join(f"{token} {number}\n" for number, token in enumerate(_table(family, shape.letters)))
    (folder / "tokens.txt").write_text(lines, encoding="utf-8")
    return folder


def _table(family: str, count: int) -> list[str]:
    letters = [chr(0x4E00 + number) for number in range(count)]
    if family == "paraformer":
        return ["<blank>", "<s>", "</s>", *letters, "<unk>"]
    return ["<unk>", "<s>", "</s>", *(f"\u2581{letter}" if k % 3 == 0 else letter for k, letter in enumerate(letters))]


OF_FAMILY: dict[str, dict[str, Any]] = {
    "sense_voice": {
        "model_type": "sense_voice_ctc", "with_itn": 14, "without_itn": 15,
        **{f"lang_{name}": number for name, number in LANGUAGES.items()},
    },
    "paraformer": {"model_type": "paraformer"},
}  # fmt: skip


def _frames() -> Iterator[npt.NDArray[np.float32]]:
    for clip in islice(manifest_lines(resolve_path(CLIPS), "data"), 12):
        assert clip.audio is not None
        yield kaldi_fbank(read_audio(clip.audio, RATE_HZ, SampleRateMismatch.refuse, []), RATE_HZ, FUNASR)


@contextmanager
def _empty_where_missing() -> Iterator[None]:
    """Import FunASR without its package's __init__, which imports everything; what is not installed is empty."""
    spec = importlib.util.find_spec("funasr")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("pip install --no-deps funasr==1.4.16")
    package = types.ModuleType("funasr")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["funasr"] = package
    finder = _Empty()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Empty:
    """Finds every module that nothing else finds."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return None if name.startswith("funasr") else importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        del module


def _varied(layer: Tensor, hidden: list[Tensor], scale: float) -> None:
    """Scale a linear layer, and let all its classes be equally likely on what it is given."""
    layer.weight *= scale
    layer.bias.zero_()
    layer.bias -= sum(layer(one).mean(dim=(0, 1)) for one in hidden) / len(hidden)


def _sense_voice(path: Path, recordings: list[Tensor], shape: Shape) -> None:
    """SenseVoiceSmall: https://arxiv.org/abs/2407.04051."""
    import torch

    with _empty_where_missing():
        from funasr.models.sense_voice.model import SenseVoiceSmall  # type: ignore[import-not-found]
    conf = {
        "output_size": shape.width, "attention_heads": 4, "linear_units": 4 * shape.width, "num_blocks": shape.blocks,
        "tp_blocks": max(1, shape.blocks * 2 // 5), "kernel_size": 11, "sanm_shfit": 0, "input_layer": "pe",
    }  # fmt: skip
    model = SenseVoiceSmall(
        encoder="SenseVoiceEncoderSmall",
        encoder_conf=conf,
        input_size=SIZE * BANDS,
        vocab_size=len(_table("sense_voice", shape.letters)),
    ).eval()

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def hidden(self, x: Tensor, x_length: Tensor, language: Tensor, text_norm: Tensor) -> Tensor:
            asked, written = (self.model.embed(which).unsqueeze(1) for which in (language, text_norm))
            mood = self.model.embed(torch.tensor([[1, 2]])).repeat(x.size(0), 1, 1)
            found, _ = self.model.encoder(torch.cat((asked, mood, written, x), dim=1), x_length + 4)
            return found

        def forward(self, x: Tensor, x_length: Tensor, language: Tensor, text_norm: Tensor) -> Tensor:
            return self.model.ctc.ctc_lo(self.hidden(x, x_length, language, text_norm))

    exported = Exported()

    def inputs(x: Tensor) -> tuple[Tensor, ...]:
        return x, *(torch.tensor([value], dtype=torch.int32) for value in (x.shape[1], 0, 15))

    hidden = [exported.hidden(*inputs(x)) for x in recordings]
    _varied(model.ctc.ctc_lo, hidden, scale=4.0)
    model.ctc.ctc_lo.bias[0] += np.quantile(model.ctc.ctc_lo(hidden[0]).amax(dim=-1) - model.ctc.ctc_lo(hidden[0])[..., 0], 0.5)
    torch.onnx.export(
        exported, inputs(recordings[0]), str(path), dynamo=False, opset_version=13,
        input_names=["x", "x_length", "language", "text_norm"], output_names=["logits"],
        dynamic_axes={
            "x": {0: "N", 1: "T"}, "x_length": {0: "N"}, "language": {0: "N"}, "text_norm": {0: "N"},
            "logits": {0: "N", 1: "T"},
        },
    )  # fmt: skip


def _paraformer(path: Path, recordings: list[Tensor], shape: Shape) -> None:
    """Paraformer: https://arxiv.org/abs/2206.08317, with FunASR's own form for export."""
    import torch

    with _empty_where_missing():
        from funasr.models.paraformer import cif_predictor, decoder  # type: ignore[import-not-found]
        from funasr.models.paraformer.model import Paraformer  # type: ignore[import-not-found]
        from funasr.models.sanm import encoder  # type: ignore[import-not-found]
    assert decoder and encoder
    layers = max(1, shape.blocks // 3)
    names = {"encoder": "SANMEncoder", "decoder": "ParaformerSANMDecoder", "predictor": "CifPredictorV2"}
    model = Paraformer(
        **names,
        encoder_conf={
            "output_size": shape.width, "attention_heads": 4, "linear_units": 4 * shape.width, "num_blocks": shape.blocks,
            "input_layer": "pe", "kernel_size": 11, "sanm_shfit": 0, "selfattention_layer_type": "sanm",
        },
        decoder_conf={
            "attention_heads": 4, "linear_units": 4 * shape.width, "num_blocks": layers, "att_layer_num": layers,
            "kernel_size": 11, "sanm_shfit": 0,
        },
        predictor_conf={"idim": shape.width, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        input_size=SIZE * BANDS, vocab_size=len(_table("paraformer", shape.letters)),
    ).eval()  # fmt: skip
    predictor, head = model.predictor, model.decoder.output_layer
    exported = model.export(max_seq_len=512, type="onnx", **names) if hasattr(model, "export") else model
    if shape.loop:
        cif_predictor.cif_v1_export = cif_predictor.cif_export

    def inputs(x: Tensor) -> tuple[Tensor, ...]:
        return x, torch.tensor([x.shape[1]], dtype=torch.int32)

    seen: dict[Tensor, list[Tensor]] = {predictor.cif_output: [], head: []}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: seen.get(layer, []).append(given[0])) for layer in seen]
    for x in recordings:
        exported(*inputs(x))
    _varied(predictor.cif_output, seen.pop(predictor.cif_output), scale=8.0)
    predictor.cif_output.bias -= 1.4  # about a token every five frames
    seen[head].clear()
    for x in recordings:
        exported(*inputs(x))
    for hook in hooks:
        hook.remove()
    _varied(head, seen[head], scale=4.0)
    head.bias[[0, 1, 2, -1]] -= 50.0  # nothing but letters
    torch.onnx.export(
        exported, inputs(recordings[0]), str(path), dynamo=False, opset_version=14,
        input_names=["speech", "speech_lengths"], output_names=["logits", "token_num"],
        dynamic_axes={
            "speech": {0: "N", 1: "T"}, "speech_lengths": {0: "N"}, "logits": {0: "N", 1: "L"}, "token_num": {0: "N"},
        },
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Path, list[Tensor], Shape], None]] = {
    "sense_voice": _sense_voice, "paraformer": _paraformer,
}  # fmt: skip


if __name__ == "__main__":
    main()
