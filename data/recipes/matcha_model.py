"""Matcha-TTS (Mehta et al., 2024): text encoder, duration predictor, and a U-Net that turns noise into a log-mel.

The parts and their names are those of the architecture that icefall trains (so a node is called
`/decoder/estimator/down_blocks.0.1.0/attn1/to_q/MatMul` here as there); the code is this project's own. The widths are
settings: a small model ships, `full_size_matcha.py` builds a large one.
"""

import torch
from torch import Tensor, nn

from data.recipes.matcha_encoder import TextEncoder
from data.recipes.matcha_settings import Settings
from data.recipes.matcha_unet import UNet


class FlowMatching(nn.Module):
    """Turns noise into a mel along straight lines (Lipman et al., 2023): the U-Net says which way to go."""

    floor = 1e-4  # the noise that is left at the end

    def __init__(self, settings: Settings):
        super().__init__()
        self.estimator = UNet(settings.unet, settings.heads, settings.head_width, settings.growth)

    def forward(self, mu: Tensor, mask: Tensor, steps: int, noise_scale: Tensor) -> Tensor:
        """Solves the equation with Euler's method from a noise drawn inside the graph."""
        x = torch.randn_like(mu) * noise_scale
        for step in range(steps):
            time = torch.full((1,), step / steps, device=mu.device)
            x = x + self.estimator(x, mask, mu, time) * (1 / steps)
        return x

    def loss(self, mel: Tensor, mask: Tensor, mu: Tensor) -> Tensor:
        """Mean squared error of the direction at a random time of every utterance."""
        time = torch.rand(len(mel))
        noise, t = torch.randn_like(mel), time[:, None, None]
        point = (1 - (1 - self.floor) * t) * noise + t * mel
        error = self.estimator(point, mask, mu, time) - (mel - (1 - self.floor) * noise)
        return (error**2 * mask).sum() / (mask.sum() * mel.shape[1])


def stretch(mu: Tensor, durations: Tensor, frames: Tensor | int) -> Tensor:
    """Repeats each token of (batch, 80, tokens) for as many frames as its duration (batch, tokens) says."""
    end = durations.cumsum(1)[:, :, None]
    frame = torch.arange(frames, device=mu.device).float()[None, None] + 0.5
    path = ((frame < end) & (frame >= end - durations[:, :, None])).float()
    return torch.matmul(mu, path)


class MatchaTTS(nn.Module):
    """The whole synthesiser; `forward` is what is exported."""

    def __init__(self, settings: Settings, steps: int = 3):
        super().__init__()
        self.settings, self.steps = settings, steps
        self.encoder = TextEncoder(settings)
        self.decoder = FlowMatching(settings)

    def forward(self, x: Tensor, x_length: Tensor, noise_scale: Tensor, length_scale: Tensor) -> Tensor:
        """Speaks.

        Args:
            x: int64 (batch, tokens).
            x_length: int64 (batch,).
            noise_scale: float32 (1,); 0 is flat, 1 is lively.
            length_scale: float32 (1,); 2 is half as fast.

        Returns:
            Log-mel, float32 (batch, 80, frames).
        """
        mu, log_durations, mask = self.encoder(x, x_length)
        durations = (torch.ceil(torch.exp(log_durations) * mask) * length_scale).squeeze(1)
        return self.draw(mu, durations, noise_scale)

    def draw(self, mu: Tensor, durations: Tensor, noise_scale: Tensor) -> Tensor:
        """From the encoder's guess (batch, 80, tokens) and durations in frames (batch, tokens) to the log-mel."""
        lengths = durations.sum(1).clamp_min(1).long()
        frames = lengths.max()
        even = torch.div(frames + 3, 4, rounding_mode="floor") * 4  # what the U-Net can halve, as icefall pads it
        mask = (torch.arange(even, device=mu.device)[None] < lengths[:, None]).unsqueeze(1).float()
        mel = self.decoder(stretch(mu, durations, even), mask, self.steps, noise_scale)[:, :, :frames]
        return mel * self.settings.mel_deviation + self.settings.mel_mean

    def losses(
        self, x: Tensor, x_length: Tensor, durations: Tensor, mel: Tensor, mel_length: Tensor, *, crop: int
    ) -> dict[str, Tensor]:
        """Losses of durations, first guess and flow.

        Args:
            x: int64 (batch, tokens).
            x_length: int64 (batch,).
            durations: float32 (batch, tokens), in frames, 0 at padding.
            mel: float32 (batch, 80, frames), normalised.
            mel_length: int64 (batch,).
            crop: Frames that the U-Net sees of every utterance, a multiple of 4.
        """
        mu, log_durations, mask = self.encoder(x, x_length)
        frames = mel.shape[2]
        mel_mask = (torch.arange(frames)[None] < mel_length[:, None]).unsqueeze(1).float()
        # ceil() turns d - 1/2 into d, with the same margin on both sides
        wanted = torch.log((durations - 0.5).clamp_min(0.5)).unsqueeze(1)
        duration = ((log_durations - wanted) ** 2 * mask).sum() / mask.sum()
        guess = stretch(mu.float(), durations, frames)
        prior = (0.5 * (mel - guess) ** 2 * mel_mask).sum() / (mel_mask.sum() * mel.shape[1])
        if frames > crop:
            start = (torch.rand(len(x)) * (mel_length - crop).clamp_min(0)).long()
            index = (start[:, None] + torch.arange(crop)[None])[:, None]
            mel, guess, mel_mask = (part.gather(2, index.expand(-1, part.shape[1], -1)) for part in (mel, guess, mel_mask))
        return {"duration": duration, "prior": prior, "flow": self.decoder.loss(mel, mel_mask, guess)}
