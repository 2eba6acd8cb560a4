"""Vocos (Siuzdak, 2023): ConvNeXt blocks at the frame rate, then magnitude and phase of every frame's spectrum.

    python -m data.recipes.speech --out WORK
    python -m data.recipes.vocos --work WORK --out data/models/vocoder

The inverse STFT is left to the caller, as sherpa-onnx expects: waveform = ISTFT(mag * (x + i y)). About five minutes on
one core.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from data.recipes.exporting import export, largest_difference
from data.recipes.signals import FFT_SIZE, HOP
from data.recipes.training import prepare
from data.recipes.vocoder_training import train_vocoder

ROUNDS = ((1800, 2e-3), (1000, 1e-3))  # steps and peak learning rate
LARGEST = 100.0  # magnitude
BINS = FFT_SIZE // 2 + 1


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, two pointwise layers, a learned scale, added to the input."""

    def __init__(self, width: int, hidden: int, blocks: int):
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.full((width,), 1 / blocks))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).transpose(1, 2))
        return x + (self.gamma * self.pwconv2(self.act(self.pwconv1(y)))).transpose(1, 2)


class Backbone(nn.Module):
    """From mel to the features of every frame."""

    def __init__(self, width: int, hidden: int, blocks: int):
        super().__init__()
        self.embed, self.norm = nn.Conv1d(80, width, 7, padding=3), nn.LayerNorm(width, eps=1e-6)
        self.convnext = nn.ModuleList([ConvNeXtBlock(width, hidden, blocks) for _ in range(blocks)])
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.norm(self.embed((mel + 5.0) * 0.5).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x.transpose(1, 2))


class Head(nn.Module):
    """From features to the logarithm of the magnitude, and the phase."""

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, 2 * BINS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.out(x).transpose(1, 2)
        return y[:, :BINS], y[:, BINS:]


class Vocos(nn.Module):
    """The vocoder; `forward` is what is exported."""

    def __init__(self, width: int = 128, hidden: int = 384, blocks: int = 6):
        super().__init__()
        self.backbone, self.head = Backbone(width, hidden, blocks), Head(width)

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps log-mels (batch, 80, frames) to magnitude, cosine and sine of the phase, each (batch, 513, frames)."""
        log_magnitude, phase = self.head(self.backbone(mels))
        return torch.exp(log_magnitude).clamp_max(LARGEST), torch.cos(phase), torch.sin(phase)

    def vocode(self, mels: Tensor) -> Tensor:
        """Maps log-mels to samples (batch, 256 * (frames - 1)), its spectrum and ISTFT in full precision."""
        log_magnitude, phase = self.head(self.backbone(mels))
        magnitude = torch.exp(log_magnitude.float()).clamp_max(LARGEST)
        spectrum = torch.polar(magnitude, phase.float())
        return torch.istft(spectrum, FFT_SIZE, HOP, FFT_SIZE, torch.hann_window(FFT_SIZE), center=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with speech.npz; the weights go there too")
    parser.add_argument("--out", type=Path, required=True, help="folder for vocos.onnx")
    arguments = parser.parse_args()
    prepare(seed=8)
    model = Vocos()
    train_vocoder(model, model.vocode, arguments.work, "vocos", rounds=ROUNDS, mel_weight=1.0)
    path = arguments.out / "vocos.onnx"
    mel = torch.randn(1, 80, 120) - 5
    export(
        model,
        (mel,),
        path,
        inputs=["mels"],
        outputs=["mag", "x", "y"],
        dynamic={name: {0: "N", 2: "T"} for name in ("mels", "mag", "x", "y")},
        metadata={
            "model_type": "vocos",
            "sample_rate": 22050,
            "version": 1,
            "n_fft": FFT_SIZE,
            "hop_length": HOP,
            "win_length": FFT_SIZE,
            "window_type": "hann",
            "center": 1,
            "pad_mode": "reflect",
            "normalized": 0,
            "comment": "made by data/recipes from speech of espeak-ng",
        },
    )
    difference = largest_difference(model, path, {"mels": torch.randn(2, 80, 55) - 5})
    print(f"largest difference between graph and PyTorch: {difference:.2g}")


if __name__ == "__main__":
    main()
