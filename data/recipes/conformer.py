"""A small Conformer with a CTC output (Gulati et al., 2020), as icefall's users know it, but for its size.

Convolutions reduce 100 frames per second to 25; five Conformer blocks with relative positions follow. The positions are
computed in the graph, so there is no table and no limit to the length of a clip.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Swish(nn.Module):
    """x * sigmoid(x), spelled out: two operators that every ONNX tool knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class RelativeAttention(nn.Module):
    """Self-attention that knows how far apart two frames are (Dai et al., 2019)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, 1, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, 1, self.head_width))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        """Maps (batch, time, width), given positions (2 time - 1, width) and padding (batch, time), true at padding."""
        batch, time, width = x.shape
        parts = self.in_proj(x).view(batch, time, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        position = self.linear_pos(positions).view(1, -1, self.heads, self.head_width).permute(0, 2, 3, 1)
        content = torch.matmul(query + self.pos_bias_u, key.transpose(-2, -1))
        distance = self._shift(torch.matmul(query + self.pos_bias_v, position), time)
        weights = (content + distance) * (1 / math.sqrt(self.head_width))
        weights = weights.masked_fill(padding[:, None, None, :], -1e4).softmax(-1)
        return self.out_proj(torch.matmul(weights, value).transpose(1, 2).reshape(batch, time, width))

    def _shift(self, scores: Tensor, time: int) -> Tensor:
        """From (.., time, 2 time - 1), by distance, to (.., time, time), by frame."""
        batch = scores.shape[0]
        flat = functional.pad(scores, (0, 1)).reshape(batch, self.heads, 2 * time * time)
        rows = flat[:, :, : 2 * time * time - time].reshape(batch, self.heads, time, 2 * time - 1)
        return rows[:, :, :, time - 1 :]


class ConvolutionModule(nn.Module):
    """Pointwise convolution, gate, depthwise convolution, batch norm, swish, pointwise convolution."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.BatchNorm1d(width)
        self.activation = Swish()
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = functional.glu(self.pointwise_conv1(x.transpose(1, 2)), 1).masked_fill(padding[:, None, :], 0.0)
        return self.pointwise_conv2(self.activation(self.norm(self.depthwise_conv(x)))).transpose(1, 2)


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half, and a norm."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float):
        super().__init__()

        def feed_forward() -> nn.Sequential:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), Swish(), nn.Linear(4 * width, width))

        self.feed_forward1, self.feed_forward2 = feed_forward(), feed_forward()
        self.norm_attention, self.self_attn = nn.LayerNorm(width), RelativeAttention(width, heads)
        self.norm_conv, self.conv_module = nn.LayerNorm(width), ConvolutionModule(width, kernel)
        self.norm_final = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward1(x))
        x = x + self.dropout(self.self_attn(self.norm_attention(x), positions, padding))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), padding))
        x = x + 0.5 * self.dropout(self.feed_forward2(x))
        return self.norm_final(x)


class Conformer(nn.Module):
    """The recogniser.

    Args:
        vocabulary: Number of tokens, the blank included.
        width: Of the encoder.
        heads: Of attention.
        blocks: Conformer blocks.
        kernel: Of the depthwise convolution, in frames of 40 ms.
        channels: Of the two convolutions that subsample.
        dropout: In training.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 96,
        heads: int = 4,
        blocks: int = 5,
        kernel: int = 15,
        channels: tuple[int, int] = (16, 32),
        dropout: float = 0.05,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3, 2)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, 2)
        self.activation = Swish()
        self.embed = nn.Linear(channels[1] * 19, width)
        self.embed_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([ConformerBlock(width, heads, kernel, dropout) for _ in range(blocks)])
        self.ctc_output = nn.Linear(width, vocabulary)
        frequencies = torch.exp(torch.arange(0, width, 2) * -(math.log(10_000.0) / width))
        self.register_buffer("frequencies", frequencies[None], persistent=False)

    def positions(self, time: int) -> Tensor:
        """Sines and cosines of every distance from time - 1 down to 1 - time: float32 (2 time - 1, width)."""
        distances = torch.arange(2 * time - 1, device=self.frequencies.device)
        angles = (time - 1 - distances).float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the tokens, every 40 ms.

        Args:
            x: float32 (batch, frames, 80), Kaldi features of samples in [-1, 1].
            x_lens: int64 (batch,), frames of each clip.

        Returns:
            float32 (batch, time, vocabulary) and int64 (batch,), the lengths in time.
        """
        x = (x + 6.0) * 0.25
        x = self.activation(self.conv1(x[:, None]))
        x = self.activation(self.conv2(x))
        batch, channels, time, bands = x.shape
        x = self.embed_norm(self.embed(x.transpose(1, 2).reshape(batch, time, channels * bands)))
        lengths = torch.div(torch.div(x_lens - 1, 2, rounding_mode="floor") - 1, 2, rounding_mode="floor")
        padding = torch.arange(time, device=x.device)[None] >= lengths[:, None]
        positions = self.positions(time)
        for layer in self.layers:
            x = layer(x, positions, padding)
        return self.ctc_output(x).log_softmax(-1), lengths
