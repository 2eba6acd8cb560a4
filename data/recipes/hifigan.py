"""A small HiFi-GAN generator (Kong et al., 2020): transposed convolutions that raise 86 frames to 22,050 samples.

Its one addition is a set of residual blocks at the frame rate, where they cost next to nothing.

    python -m data.recipes.speech --out WORK
    python -m data.recipes.hifigan --work WORK --out data/models/hifigan

Sample n of the output is sample n of the speech, so T frames give 256 T samples, the last 256 of them beyond the end.
About 18 minutes on one core.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.recipes.exporting import export, largest_difference
from data.recipes.training import prepare
from data.recipes.vocoder_training import train_vocoder

ROUNDS = ((3000, 2e-3), (2200, 1e-3))  # steps and peak learning rate
CHANNELS = 128  # after the first convolution; halved by each of the three upsamplings
UPSAMPLING = ((8, 16), (8, 16), (4, 8))  # factor, kernel: 8 * 8 * 4 = 256 samples per frame
KERNELS, DILATIONS = (3, 7), (1, 3)
SLOPE = 0.1


class Conv(nn.Conv1d):
    """A convolution over time that also takes (batch, channels, 1, time).

    Training uses that form, with the channels last in memory: on a CPU it takes half the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return super().forward(x)
        padding, dilation = (0, *self.padding), (1, *self.dilation)
        return functional.conv2d(x, self.weight[:, :, None], self.bias, padding=padding, dilation=dilation)


class Upsample(nn.ConvTranspose1d):
    """A transposed convolution that takes both forms."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return super().forward(x)
        stride, padding = (1, *self.stride), (0, *self.padding)
        return functional.conv_transpose2d(x, self.weight[:, :, None], self.bias, stride, padding)


class ResBlock(nn.Module):
    """Pairs of convolutions, the first of each pair dilated, added to the input."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.convs1 = nn.ModuleList(
            [Conv(channels, channels, kernel, padding=d * (kernel // 2), dilation=d) for d in DILATIONS]
        )
        self.convs2 = nn.ModuleList([Conv(channels, channels, kernel, padding=kernel // 2) for _ in DILATIONS])

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            y = first(functional.leaky_relu(x, SLOPE))
            x = x + second(functional.leaky_relu(y, SLOPE))
        return x


class Generator(nn.Module):
    """The vocoder; `forward` is what is exported."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.conv_pre = Conv(80, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList([self._blocks(channels)])
        for factor, kernel in UPSAMPLING:
            self.ups.append(Upsample(channels, channels // 2, kernel, factor, (kernel - factor) // 2))
            channels //= 2
            self.resblocks.append(self._blocks(channels))
        self.conv_post = Conv(channels, 1, 7, padding=3)

    @staticmethod
    def _blocks(channels: int) -> nn.ModuleList:
        return nn.ModuleList([ResBlock(channels, kernel) for kernel in KERNELS])

    def forward(self, mel: Tensor) -> Tensor:
        """Maps log-mels (batch, 80, frames) to samples (batch, 256 * frames) in [-1, 1]."""
        x = self.conv_pre((mel + 5.0) * 0.5)
        for up, blocks in zip([None, *self.ups], self.resblocks, strict=True):
            x = x if up is None else up(functional.leaky_relu(x, SLOPE))
            x = sum(block(x) for block in blocks) / len(KERNELS)
        return torch.tanh(self.conv_post(functional.leaky_relu(x))).squeeze(1)

    def vocode(self, mel: Tensor) -> Tensor:
        """Does what `forward` does, faster in training."""
        return self(mel[:, :, None].contiguous(memory_format=torch.channels_last)).squeeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with speech.npz; the weights go there too")
    parser.add_argument("--out", type=Path, required=True, help="folder for hifigan.onnx")
    arguments = parser.parse_args()
    prepare(seed=9)
    model = Generator()
    train_vocoder(model, model.vocode, arguments.work, "hifigan", rounds=ROUNDS, mel_weight=3.0)
    path = arguments.out / "hifigan.onnx"
    export(
        model,
        (torch.randn(1, 80, 100) - 5,),
        path,
        inputs=["mel"],
        outputs=["audio"],
        dynamic={"mel": {0: "N", 2: "T"}, "audio": {0: "N", 1: "L"}},
        metadata={
            "model_type": "hifigan",
            "sample_rate": 22050,
            "version": 1,
            "comment": "made by data/recipes from speech of espeak-ng",
        },
    )
    difference = largest_difference(model, path, {"mel": torch.randn(2, 80, 55) - 5})
    print(f"largest difference between graph and PyTorch: {difference:.2g}")


if __name__ == "__main__":
    main()
