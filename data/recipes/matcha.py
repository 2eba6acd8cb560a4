"""The synthesiser: training and export.

    python -m data.recipes.speech --out WORK
    python -m data.recipes.matcha --work WORK --out data/models/matcha

About ten minutes on one core.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from data.recipes.exporting import MAX_BYTES, export, largest_difference
from data.recipes.matcha_model import MatchaTTS
from data.recipes.matcha_settings import Settings
from data.recipes.speech import Utterance, load
from data.recipes.training import half_precision, prepare, train
from data.recipes.tts_tokens import PAD, SYMBOLS, tokens_txt

STEPS, BATCH, PEAK = 1600, 12, 1e-3
CROP = 96  # frames of an utterance that the U-Net sees at a time: 1.1 seconds
VALIDATION = 48
EULER_STEPS = 3


def metadata() -> dict[str, str | int]:
    """What sherpa-onnx reads from a Matcha graph, as icefall writes it."""
    return {
        "model_type": "matcha-tts",
        "language": "English",
        "voice": "en-us",
        "has_espeak": 1,
        "jieba": 0,
        "n_speakers": 1,
        "sample_rate": 22050,
        "version": 1,
        "pad_id": PAD,
        "use_eos_bos": 0,
        "num_ode_steps": EULER_STEPS,
        "comment": "made by data/recipes from speech of espeak-ng",
    }


def export_matcha(model: MatchaTTS, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Writes `model-steps-3.onnx` with the interface of icefall's Matcha models."""
    tokens = torch.randint(1, model.settings.vocabulary, (1, 60), generator=torch.Generator().manual_seed(0))
    export(
        model,
        (tokens, torch.tensor([60]), torch.tensor([0.667]), torch.tensor([1.0])),
        path,
        inputs=["x", "x_length", "noise_scale", "length_scale"],
        outputs=["mel"],
        dynamic={"x": {0: "N", 1: "L"}, "x_length": {0: "N"}, "mel": {0: "N", 2: "T"}},
        metadata=metadata(),
        max_bytes=max_bytes,
    )


def check(model: MatchaTTS, path: Path) -> None:
    """Prints how far the graph is from PyTorch, without noise, for two sentences of different length."""
    feeds = {
        "x": torch.randint(1, model.settings.vocabulary, (2, 81), generator=torch.Generator().manual_seed(1)),
        "x_length": torch.tensor([81, 60]),
        "noise_scale": torch.zeros(1),
        "length_scale": torch.ones(1),
    }
    print(f"largest difference between graph and PyTorch: {largest_difference(model, path, feeds):.2g}")


def collate(utterances: list[Utterance], settings: Settings) -> tuple[torch.Tensor, ...]:
    """The arguments of `MatchaTTS.losses`: tokens, their number, durations, normalised mels, their frames."""
    tokens = np.zeros((len(utterances), max(len(u.tokens) for u in utterances)), np.int64)
    durations = np.zeros(tokens.shape, np.float32)
    frames = [u.mel.shape[1] for u in utterances]
    mels = np.zeros((len(utterances), 80, -(-max(frames) // 4) * 4), np.float32)
    for row, utterance in enumerate(utterances):
        tokens[row, : len(utterance.tokens)] = utterance.tokens
        durations[row, : len(utterance.tokens)] = utterance.durations
        mels[row, :, : frames[row]] = (utterance.mel - settings.mel_mean) / settings.mel_deviation
    counts = torch.tensor([len(u.tokens) for u in utterances])
    return (torch.from_numpy(tokens), counts, *map(torch.from_numpy, (durations, mels)), torch.tensor(frames))


def batches(utterances: list[Utterance], settings: Settings) -> Iterator[tuple[torch.Tensor, ...]]:
    """Endless batches of utterances of similar length."""
    rng = np.random.default_rng(61)
    while True:
        order = np.argsort([u.mel.shape[1] + rng.uniform(-8, 8) for u in utterances])
        groups = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]
        for index in rng.permutation(len(groups)):
            yield collate([utterances[i] for i in groups[index]], settings)


def validation(model: MatchaTTS, utterances: list[Utterance]) -> str:
    """How well durations and, with the true durations, mels are met on utterances that training does not see."""
    settings, torch_state = model.settings, torch.get_rng_state()
    torch.manual_seed(1)
    tokens, counts, durations, mels, frames = collate(utterances, settings)
    mu, log_durations, mask = model.encoder(tokens, counts)
    found = (torch.ceil(torch.exp(log_durations)) * mask)[:, 0]
    exact = ((found == durations) * mask[:, 0]).sum() / mask.sum()
    drawn = model.draw(mu, durations, torch.tensor([0.667]))
    true = mels[:, :, : drawn.shape[2]] * settings.mel_deviation + settings.mel_mean
    inside = torch.arange(drawn.shape[2])[None] < frames[:, None]
    distance = ((drawn - true).abs().mean(1) * inside).sum() / inside.sum()
    torch.set_rng_state(torch_state)
    length = found.sum() / durations.sum()
    return f"{100 * exact:.1f} % of durations exact, length {length:.3f} of the truth, mel L1 {distance:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with speech.npz; the weights go there too")
    parser.add_argument("--out", type=Path, required=True, help="folder for model-steps-3.onnx and tokens.txt")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()

    prepare(seed=6)
    utterances = load(arguments.work / "speech.npz")
    mels = np.concatenate([u.mel for u in utterances], axis=1).astype(np.float32)
    settings = Settings(len(SYMBOLS), round(float(mels.mean()), 4), round(float(mels.std()), 4))
    utterances = [utterances[i] for i in np.random.default_rng(62).permutation(len(utterances))]
    held, used = utterances[:VALIDATION], utterances[VALIDATION:]
    model = MatchaTTS(settings, EULER_STEPS)

    def losses(tokens, counts, durations, mels, frames) -> dict[str, torch.Tensor]:
        with half_precision():
            return model.losses(tokens, counts, durations, mels, frames, crop=CROP)

    weights = arguments.work / "matcha.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights))
    else:
        train(
            model,
            batches(used, settings),
            losses,
            steps=arguments.steps,
            peak=PEAK,
            checkpoint=weights,
            weight_decay=0.001,
            clip=2.0,
            validate=lambda: validation(model, held),
        )
    path = arguments.out / "model-steps-3.onnx"
    export_matcha(model, path)
    (arguments.out / "tokens.txt").write_text(tokens_txt(), encoding="utf-8")
    check(model, path)


if __name__ == "__main__":
    main()
