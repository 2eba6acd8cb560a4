"""What both vocoders share: batches of mel and waveform, the loss, and the distance that counts.

There is no discriminator: the voice is one and always the same, and a spectral loss at several resolutions is enough to
make it clear. (For a human voice it would sound metallic.)
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.recipes.signals import FFT_SIZE, HOP, LOG_FLOOR, log_mel, mel_filters
from data.recipes.speech import Utterance, load
from data.recipes.training import half_precision, train

BATCH = 8
FRAMES = 40  # of a training example: 0.46 s
EDGE = 2  # frames at both ends that lack their context and are not judged
VALIDATION = 24
RESOLUTIONS = (512, 1024, 2048)

Vocode = Callable[[Tensor], Tensor]  # mel (batch, 80, frames) -> samples (batch, at least 256 * (frames - 1))


def batches(utterances: list[Utterance], *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random pieces: mels (batch, 80, 40), and the samples (batch, 256 * 36) of all frames but the edges'."""
    rng = np.random.default_rng(seed)
    while True:
        mels, waves = [], []
        for index in rng.integers(0, len(utterances), BATCH):
            utterance = utterances[index]
            start = rng.integers(0, utterance.mel.shape[1] - FRAMES)
            mels.append(utterance.mel[:, start : start + FRAMES].astype(np.float32))
            first, last = (start + EDGE) * HOP, (start + FRAMES - EDGE) * HOP
            waves.append(utterance.samples[first:last].astype(np.float32) / 32768)
        yield torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(waves))


def magnitudes(samples: Tensor, size: int) -> Tensor:
    """Magnitudes of the STFT of (batch, samples): (batch, size // 2 + 1, frames)."""
    spectrum = torch.stft(samples, size, size // 4, size, torch.hann_window(size), return_complex=True)
    return torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9)


def spectral_losses(found: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Distance of two waveforms (batch, samples).

    Returns:
        `stft`: spectral convergence and distance of log magnitudes, mean of three resolutions (Yamamoto et al., 2020);
        `mel`: mean absolute distance of log-mels.
    """
    stft, mel = torch.zeros(()), torch.zeros(())
    filters = torch.from_numpy(mel_filters())
    for size in RESOLUTIONS:
        a, b = magnitudes(found, size), magnitudes(true, size)
        stft = stft + torch.norm(a - b) / torch.norm(b) + (torch.log(a + 1e-4) - torch.log(b + 1e-4)).abs().mean()
        if size == FFT_SIZE:
            logs = [torch.log((filters @ part).clamp_min(LOG_FLOOR)) for part in (a, b)]
            mel = (logs[0] - logs[1]).abs().mean()
    return {"stft": stft / len(RESOLUTIONS), "mel": mel}


def distance(samples: np.ndarray, mel: np.ndarray) -> float:
    """Mean absolute difference of the log-mel of synthetic samples and the mel (80, frames) that they were made from."""
    found = log_mel(samples[: (mel.shape[1] - 1) * HOP])
    return float(np.abs(found[:, : mel.shape[1]] - mel[:, : found.shape[1]]).mean())


def train_vocoder(
    model: nn.Module, vocode: Vocode, work: Path, name: str, *, rounds: tuple[tuple[int, float], ...], mel_weight: float
) -> None:
    """Trains a vocoder on the utterances of `work/speech.npz`.

    Args:
        model: Trained in place.
        vocode: How the model makes samples from mels.
        work: The weights go there too, as `NAME-ROUND.pt`; a round whose weights are there is not trained again.
        name: Of the vocoder.
        rounds: Steps and peak learning rate of every round; each begins with a warm-up (Loshchilov & Hutter, 2017).
        mel_weight: Of the log-mel distance, against the STFT losses.
    """
    utterances = [u for u in load(work / "speech.npz") if u.mel.shape[1] > FRAMES]
    utterances = [utterances[i] for i in np.random.default_rng(72).permutation(len(utterances))]
    held, used = utterances[:VALIDATION], utterances[VALIDATION:]

    def losses(mel: Tensor, samples: Tensor) -> dict[str, Tensor]:
        with half_precision():
            found = vocode(mel)
        found = found[:, EDGE * HOP : EDGE * HOP + samples.shape[1]].float()
        parts = spectral_losses(found, samples)
        return {**parts, "mel": mel_weight * parts["mel"]}

    def validate() -> str:
        mels = [utterance.mel.astype(np.float32) for utterance in held]
        waves = [vocode(torch.from_numpy(mel)[None])[0].numpy() for mel in mels]
        return f"log-mel L1 {np.mean([distance(*pair) for pair in zip(waves, mels, strict=True)]):.4f}"

    for number, (steps, peak) in enumerate(rounds, start=1):
        weights = work / f"{name}-{number}.pt"
        if weights.exists():
            model.load_state_dict(torch.load(weights))
            continue
        train(
            model,
            batches(used, seed=70 + number),
            losses,
            steps=steps,
            peak=peak,
            checkpoint=weights,
            betas=(0.8, 0.99),
            weight_decay=0.001,
            validate=validate,
        )
