"""An untrained Matcha graph of the size that people deploy, to test tools on: it speaks noise.

    python -m data.recipes.full_size_matcha full_size_matcha.onnx

The widths are those of icefall's LJ Speech model; interface, metadata and node names are those of the model that ships.
"""

import argparse
from pathlib import Path

import torch

from data.recipes.matcha import check, export_matcha
from data.recipes.matcha_model import MatchaTTS
from data.recipes.matcha_settings import Settings
from data.recipes.training import prepare
from data.recipes.tts_tokens import SYMBOLS, tokens_txt

SETTINGS = Settings(
    vocabulary=len(SYMBOLS),
    mel_mean=-5.5,
    mel_deviation=2.1,
    width=192,
    hidden=768,
    layers=6,
    heads=2,
    prenet=3,
    duration_width=256,
    unet=256,
    head_width=64,
    growth=4,
)
FRAMES_PER_TOKEN = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="file to write; tokens.txt goes beside it")
    path = parser.parse_args().path
    prepare(seed=7)
    model = MatchaTTS(SETTINGS)
    with torch.no_grad():  # untrained, each token would last one or two frames
        model.encoder.proj_w.proj.bias.fill_(torch.log(torch.tensor(FRAMES_PER_TOKEN)).item())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    export_matcha(model, path, max_bytes=100_000_000)
    (path.parent / "tokens.txt").write_text(tokens_txt(), encoding="utf-8")
    check(model, path)


if __name__ == "__main__":
    main()
