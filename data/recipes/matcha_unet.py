"""The U-Net of Matcha-TTS: ResNet and transformer blocks at full and half the frame rate, told the time of the flow."""

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time, at many frequencies."""

    def __init__(self, channels: int):
        super().__init__()
        self.half = channels // 2

    def forward(self, time: Tensor) -> Tensor:
        ratio = -math.log(10_000) / (self.half - 1)
        frequency = torch.exp(torch.arange(self.half, device=time.device).float() * ratio)
        angle = 1000 * time[:, None] * frequency[None]
        return torch.cat([angle.sin(), angle.cos()], -1)


class TimeMLP(nn.Module):
    """Two linear layers over the embedded time."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.linear_1, self.act, self.linear_2 = nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(x)))


class Block(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.Mish())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.block(x * mask) * mask


class ResnetBlock(nn.Module):
    """Two blocks, the time added between them, beside a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, time: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time, outputs))
        self.block1, self.block2 = Block(inputs, outputs), Block(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        return self.block2(self.block1(x, mask) + self.mlp(time)[:, :, None], mask) + self.res_conv(x * mask)


class SnakeBeta(nn.Module):
    """A linear layer and x + sin²(a x) / b (Ziyin et al., 2020), with a and b per channel."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)
        self.alpha = nn.Parameter(torch.zeros(outputs))
        self.beta = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return x + (1.0 / (torch.exp(self.beta) + 1e-9)) * torch.sin(x * torch.exp(self.alpha)) ** 2


class Attention(nn.Module):
    """Self-attention over frames."""

    def __init__(self, channels: int, heads: int, head_width: int):
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width = heads, head_width
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Maps (batch, frames, channels), given what to add to the scores (batch, 1, 1, frames)."""
        batch, frames, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, frames, self.heads, self.head_width).transpose(1, 2)

        scores = torch.matmul(split(self.to_q(x)), split(self.to_k(x)).transpose(2, 3)) * self.head_width**-0.5
        mixed = torch.matmul((scores + bias).softmax(-1), split(self.to_v(x)))
        return self.to_out[0](mixed.transpose(1, 2).reshape(batch, frames, self.heads * self.head_width))


class TransformerFeedForward(nn.Module):
    """SnakeBeta and a linear layer."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.net = nn.Sequential(SnakeBeta(channels, growth * channels), nn.Linear(growth * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Attention and feed-forward layer, the norm before each."""

    def __init__(self, channels: int, heads: int, head_width: int, growth: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(channels), Attention(channels, heads, head_width)
        self.norm3, self.ff = nn.LayerNorm(channels), TransformerFeedForward(channels, growth)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, channels, frames), given a mask (batch, 1, frames)."""
        x = x.transpose(1, 2)
        x = x + self.attn1(self.norm1(x), (1 - mask).unsqueeze(1) * -1e4)
        return (x + self.ff(self.norm3(x))).transpose(1, 2)


class Downsample(nn.Module):
    """Halves the number of frames."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles the number of frames."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UNet(nn.Module):
    """Two steps down, two in the middle, two up.

    Args:
        channels: Of every block.
        heads: Of attention.
        head_width: Channels per head.
        growth: Of the feed-forward layers.
    """

    def __init__(self, channels: int, heads: int, head_width: int, growth: int):
        super().__init__()
        time = 2 * channels
        self.time_embeddings, self.time_mlp = TimeEmbedding(channels), TimeMLP(channels, time)

        def step(inputs: int, last: nn.Module | None) -> nn.ModuleList:
            transformers = nn.ModuleList([TransformerBlock(channels, heads, head_width, growth)])
            parts = [ResnetBlock(inputs, channels, time), transformers]
            return nn.ModuleList(parts if last is None else [*parts, last])

        def same() -> nn.Module:
            return nn.Conv1d(channels, channels, 3, padding=1)

        self.down_blocks = nn.ModuleList([step(160, Downsample(channels)), step(channels, same())])
        self.mid_blocks = nn.ModuleList([step(channels, None), step(channels, None)])
        self.up_blocks = nn.ModuleList([step(2 * channels, Upsample(channels)), step(2 * channels, same())])
        self.final_block, self.final_proj = Block(channels, channels), nn.Conv1d(channels, 80, 1)

    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, time: Tensor) -> Tensor:
        """The direction of the flow.

        Args:
            x: float32 (batch, 80, frames), where the flow is; frames are even.
            mask: float32 (batch, 1, frames).
            mu: float32 (batch, 80, frames), the encoder's guess.
            time: float32 (batch,) or (1,), from 0 (noise) to 1 (mel).
        """
        time = self.time_mlp(self.time_embeddings(time))
        x = torch.cat([x, mu], 1)
        masks, skips = [mask, mask[:, :, ::2]], []
        for level, (resnet, transformers, down) in enumerate(self.down_blocks):
            x = self._step(resnet, transformers, x, masks[level], time)
            skips.append(x)
            x = down(x * masks[level])
        for resnet, transformers in self.mid_blocks:
            x = self._step(resnet, transformers, x, masks[1], time)
        for level, (resnet, transformers, up) in zip((1, 0), self.up_blocks, strict=True):
            x = self._step(resnet, transformers, torch.cat([x, skips.pop()], 1), masks[level], time)
            x = up(x * masks[level])
        return self.final_proj(self.final_block(x, mask) * mask) * mask

    def _step(self, resnet: nn.Module, transformers: nn.ModuleList, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        x = resnet(x, mask, time)
        for transformer in transformers:
            x = transformer(x, mask)
        return x
