"""Parakeet-TDT with random weights, of the layers of Transformers, as sherpa-onnx is given it.

    pip install torch transformers==5.24.0
    python benchmarks/parakeet_model.py PARAKEET

The published models are as wide as 1024 and have 24 layers; theirs come from hubs. Biases are set on the recordings of the
repository so that the random weights say different tokens. Quality on such a model means numerical agreement, nothing else.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.audio.kaldi_fbank import NEMO, NEMO_LOG_GUARD, kaldi_fbank, normalised_bands
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.paths import resolve_path

CLIPS = "data/clips/calibration/manifest.jsonl"
RATE_HZ, BANDS, SUBSAMPLING, LETTERS, HIDDEN = 16_000, 80, 8, 512, 320
METADATA = {
    "vocab_size": LETTERS, "normalize_type": "per_feature", "pred_rnn_layers": 2, "pred_hidden": HIDDEN, "feat_dim": BANDS,
    "subsampling_factor": SUBSAMPLING, "model_type": "EncDecRNNTBPEModel", "version": 2, "model_author": "random weights",
    "url": "tdt, random weights",
}  # fmt: skip
Axes = dict[str, dict[int, str]]
Tensor = Any
"""Of torch, which is imported late."""


def main() -> None:
    """Export encoder, decoder, joiner and tokens."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        write(options.folder, options.width, options.layers)
    pieces = [f"{chr(0x2581) if k % 3 == 0 else ''}{chr(0x4E00 + k)}" for k in range(LETTERS)]
    lines = "".join(f"{piece} {number}\n" for number, piece in enumerate([*pieces, "<blk>"]))
    (options.folder / "tokens.txt").write_text(lines, encoding="utf-8")


def write(folder: Path, width: int, layers: int) -> None:
    """Write the three graphs."""
    import torch
    from transformers import ParakeetForTDT, ParakeetTDTConfig  # type: ignore[import-not-found]

    encoder_config = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 4 * width,
        "subsampling_conv_channels": 64, "num_mel_bins": BANDS, "subsampling_factor": SUBSAMPLING,
        "attn_implementation": "eager",
    }  # fmt: skip
    model = ParakeetForTDT(
        ParakeetTDTConfig(
            encoder_config=encoder_config, vocab_size=LETTERS + 1, blank_token_id=LETTERS, decoder_hidden_size=HIDDEN,
            num_decoder_layers=2,
        )
    ).eval()  # fmt: skip

    class Encoder(torch.nn.Module):
        def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
            rows = audio_signal.transpose(1, 2)
            there = torch.arange(rows.shape[1])[None] < length[:, None]
            found = model.get_audio_features(input_features=rows, attention_mask=there)
            return found.pooler_output.transpose(1, 2), (length + SUBSAMPLING - 1) // SUBSAMPLING

    class Decoder(torch.nn.Module):
        def forward(self, targets: Tensor, target_length: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
            y, states = model.decoder.lstm(model.decoder.embedding(targets.long()), (h, c))
            return model.decoder.decoder_projector(y).transpose(1, 2), target_length.clone(), *states

    class Joiner(torch.nn.Module):
        def forward(self, encoder_outputs: Tensor, decoder_outputs: Tensor) -> Tensor:
            heard, said = encoder_outputs.transpose(1, 2)[:, :, None], decoder_outputs.transpose(1, 2)[:, None]
            return model.joint(said, heard)

    encoder, decoder, joiner = Encoder(), Decoder(), Joiner()
    for part, owned in ((encoder, model), (decoder, model.decoder), (joiner, model.joint)):
        part.owned = owned  # or the exporter takes the weights for constants of no module
        part.eval()
    recordings = [torch.from_numpy(frames.T.copy())[None] for frames in _frames()]
    start = (torch.tensor([[LETTERS]], dtype=torch.int32), torch.tensor([1], dtype=torch.int32))
    states = (torch.zeros(2, 1, HIDDEN), torch.zeros(2, 1, HIDDEN))
    heard = [encoder(x, torch.tensor([x.shape[2]]))[0] for x in recordings]
    tokens = torch.randint(LETTERS, (len(heard), 1, 1), dtype=torch.int32)
    said = [decoder(token, start[1], *states)[0] for token in tokens]
    _vary(model.joint.head, lambda: [joiner(*pair) for pair in zip(heard, said, strict=True)])
    batch = {0: "N"}
    _export(
        encoder, (recordings[0], torch.tensor([recordings[0].shape[2]])), folder / "encoder.onnx",
        {"audio_signal": {**batch, 2: "T"}, "length": batch}, {"outputs": {**batch, 2: "U"}, "encoded_lengths": batch},
    )  # fmt: skip
    _export(
        decoder, (*start, *states), folder / "decoder.onnx",
        {"targets": {**batch, 1: "L"}, "target_length": batch, "states.1": {1: "N"}, "onnx_cell": {1: "N"}},
        {"outputs": {**batch, 2: "L"}, "prednet_lengths": batch, "states": {1: "N"}, "cell": {1: "N"}},
    )  # fmt: skip
    _export(
        joiner, (heard[0][:, :, :1], said[0]), folder / "joiner.onnx",
        {"encoder_outputs": {**batch, 2: "T"}, "decoder_outputs": {**batch, 2: "L"}}, {"outputs": {**batch, 1: "T", 2: "L"}},
    )  # fmt: skip
    graph = onnx.load(folder / "encoder.onnx")
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in METADATA.items()})
    onnx.save(graph, folder / "encoder.onnx")


def _vary(head: Tensor, logits: Callable[[], list[Tensor]]) -> None:
    """Make all tokens equally likely on the recordings, a third of all frames blank, and most skips those of one frame."""
    head.weight *= 30.0
    head.bias.zero_()
    given = logits()
    head.bias -= sum(one.mean(dim=(0, 1, 2)) for one in given) / len(given)
    tokens = np.concatenate([one.reshape(-1, one.shape[-1]).numpy() for one in logits()])
    head.bias[LETTERS] += float(np.quantile(tokens[:, :LETTERS].max(axis=1) - tokens[:, LETTERS], 0.35))
    head.bias[LETTERS + 1] -= 100.0  # a token takes a frame at least
    head.bias[LETTERS + 2] += 2 * float(tokens[:, LETTERS + 1 :].std())


def _frames() -> Iterator[np.ndarray]:
    for clip in islice(manifest_lines(resolve_path(CLIPS), "data"), 8):
        assert clip.audio is not None
        audio = read_audio(clip.audio, RATE_HZ, SampleRateMismatch.refuse, [])
        yield normalised_bands(np.log(np.exp(kaldi_fbank(audio, RATE_HZ, NEMO)) + np.float32(NEMO_LOG_GUARD)))


def _export(module: Tensor, given: tuple[Tensor, ...], path: Path, inputs: Axes, outputs: Axes) -> None:
    """Export a module; inputs and outputs are in order, each with its axes that may have any size."""
    import torch

    names = {"input_names": list(inputs), "output_names": list(outputs), "dynamic_axes": inputs | outputs}
    torch.onnx.export(module, given, str(path), dynamo=False, opset_version=17, **names)


if __name__ == "__main__":
    main()
