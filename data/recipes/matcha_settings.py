"""The sizes of a Matcha-TTS model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Sizes of a Matcha-TTS model; the defaults are the model that ships.

    Attributes:
        vocabulary: Number of tokens.
        mel_mean: Mean of the training data's log-mels.
        mel_deviation: Their standard deviation.
        width: Channels of the text encoder.
        hidden: Channels of its feed-forward layers.
        layers: Transformer layers of it.
        heads: Of attention, in encoder and U-Net.
        prenet: Convolutions before the encoder.
        duration_width: Channels of the duration predictor.
        unet: Channels of the U-Net.
        head_width: Of the U-Net's attention, per head.
        growth: How much wider the U-Net's feed-forward layers are than its channels.
        dropout: Of the duration predictor, in training; elsewhere it costs more time than it saves.
    """

    vocabulary: int
    mel_mean: float
    mel_deviation: float
    width: int = 72
    hidden: int = 160
    layers: int = 3
    heads: int = 2
    prenet: int = 2
    duration_width: int = 128
    unet: int = 80
    head_width: int = 40
    growth: int = 2
    dropout: float = 0.05
