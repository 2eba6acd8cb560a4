"""The text encoder of Matcha-TTS: from tokens to a first guess of the mel, and a duration for each of them."""

import math

import torch
from torch import Tensor, nn

from data.recipes.matcha_settings import Settings


class LayerNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, time)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = ((x - mean) ** 2).mean(1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-4) * self.gamma[None, :, None] + self.beta[None, :, None]


class Prenet(nn.Module):
    """Convolutions over the embedded tokens, added to them."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.conv_layers = nn.ModuleList([nn.Conv1d(channels, channels, 5, padding=2) for _ in range(count)])
        self.norm_layers = nn.ModuleList([LayerNorm(channels) for _ in range(count)])
        self.proj = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = x
        for conv, norm in zip(self.conv_layers, self.norm_layers, strict=True):
            y = torch.relu(norm(conv(y * mask)))
        return (x + self.proj(y)) * mask


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021) on the first half of the channels of (batch, heads, time, channels)."""
    rotary = x.shape[-1] // 2
    time = torch.arange(x.shape[2], device=x.device).float()
    frequency = 10_000.0 ** -(torch.arange(0, rotary, 2, device=x.device).float() / rotary)
    angle = time[:, None] * frequency[None]
    angle = torch.cat([angle, angle], 1)
    turned, rest = x[..., :rotary], x[..., rotary:]
    opposite = torch.cat([-turned[..., rotary // 2 :], turned[..., : rotary // 2]], -1)
    return torch.cat([turned * angle.cos() + opposite * angle.sin(), rest], -1)


class RotaryAttention(nn.Module):
    """Self-attention over the tokens, its projections written as convolutions."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.conv_q, self.conv_k = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)
        self.conv_v, self.conv_o = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps (batch, channels, time), given a mask (batch, 1, time, time)."""
        batch, channels, time = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, self.heads, channels // self.heads, time).transpose(2, 3)

        query, key, value = rotate(split(self.conv_q(x))), rotate(split(self.conv_k(x))), split(self.conv_v(x))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(channels // self.heads)
        weights = scores.masked_fill(mask == 0, -1e4).softmax(-1)
        return self.conv_o(torch.matmul(weights, value).transpose(2, 3).reshape(batch, channels, time))


class FeedForward(nn.Module):
    """Two convolutions of width three."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.conv_1 = nn.Conv1d(channels, hidden, 3, padding=1)
        self.conv_2 = nn.Conv1d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.conv_2(torch.relu(self.conv_1(x * mask)) * mask) * mask


class Encoder(nn.Module):
    """Transformer layers with the norm after each sum."""

    def __init__(self, settings: Settings):
        super().__init__()
        width, count = settings.width, settings.layers
        self.attn_layers = nn.ModuleList([RotaryAttention(width, settings.heads) for _ in range(count)])
        self.norm_layers_1 = nn.ModuleList([LayerNorm(width) for _ in range(count)])
        self.ffn_layers = nn.ModuleList([FeedForward(width, settings.hidden) for _ in range(count)])
        self.norm_layers_2 = nn.ModuleList([LayerNorm(width) for _ in range(count)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        pairs = mask.unsqueeze(2) * mask.unsqueeze(-1)
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = x * mask
            x = norm_1(x + attention(x, pairs))
            x = norm_2(x + feed_forward(x, mask))
        return x * mask


class DurationPredictor(nn.Module):
    """Two convolutions, then one number per token: the logarithm of its duration in frames."""

    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__()
        self.conv_1, self.norm_1 = nn.Conv1d(channels, hidden, 3, padding=1), LayerNorm(hidden)
        self.conv_2, self.norm_2 = nn.Conv1d(hidden, hidden, 3, padding=1), LayerNorm(hidden)
        self.proj = nn.Conv1d(hidden, 1, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * mask))))
        return self.proj(x * mask) * mask


class TextEncoder(nn.Module):
    """From tokens to a first guess of the mel and a duration for each of them."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.scale = math.sqrt(settings.width)
        self.emb = nn.Embedding(settings.vocabulary, settings.width)
        nn.init.normal_(self.emb.weight, 0.0, settings.width**-0.5)
        self.prenet = Prenet(settings.width, settings.prenet)
        self.encoder = Encoder(settings)
        self.proj_m = nn.Conv1d(settings.width, 80, 1)
        self.proj_w = DurationPredictor(settings.width, settings.duration_width, settings.dropout)

    def forward(self, x: Tensor, x_length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps tokens int64 (batch, tokens) to mel (batch, 80, tokens), log durations and mask (batch, 1, tokens)."""
        mask = (torch.arange(x.shape[1], device=x.device)[None] < x_length[:, None]).unsqueeze(1).float()
        h = self.encoder(self.prenet((self.emb(x) * self.scale).transpose(1, 2), mask), mask)
        return self.proj_m(h) * mask, self.proj_w(h.detach(), mask), mask
