"""The recogniser: data, training, export.

    python -m data.recipes.asr --work WORK --out data/models/asr

About four minutes to make the data and 22 to train, on one core. A second call reuses what it finds in WORK.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from data.recipes.conformer import Conformer
from data.recipes.corpus import corpus
from data.recipes.datasets import TRAINING_VOICES, voice_clip
from data.recipes.exporting import export, largest_difference
from data.recipes.sentences import words_of
from data.recipes.signals import add_echo, add_noise, kaldi_features
from data.recipes.training import groups_of_similar_length, half_precision, prepare, train
from data.recipes.word_pieces import WordPieces, decode

STEPS, BATCH, PEAK = 3000, 32, 2e-3
VALIDATION = 160  # utterances kept out of training to watch it; the shipped sets are not used before the end
SILENCE = -15.9  # what Kaldi's features are in digital silence


def disturbed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Makes a clean clip sound like a recording: silence around it, echo, noise, another loudness, 16 bits."""
    before, after = rng.integers(0, 3200, size=2)
    samples = np.pad(samples, (int(before) // 2, int(after))).astype(np.float32)
    samples = samples + 10 ** rng.uniform(-4.3, -3) * rng.standard_normal(len(samples)).astype(np.float32)
    if rng.random() < 0.4:
        samples = add_echo(samples, rng)
    if rng.random() < 0.7:
        samples = add_noise(samples, rng, snr_db=rng.uniform(5, 30))
    samples = samples * (10 ** rng.uniform(-1.4, -0.05) / np.abs(samples).max())
    return np.round(samples * 32767) / 32768


def make_data(path: Path) -> None:
    """Speaks every training sentence with a random training voice and stores the features in half precision."""
    draw, features = random.Random(51), []
    texts = corpus().asr_training
    for index, text in enumerate(texts):
        rng = np.random.default_rng([52, index])
        clip = voice_clip(text, draw.choice(TRAINING_VOICES), rng)
        features.append(kaldi_features(disturbed(clip, rng)).astype(np.float16))
        if index % 1000 == 0:
            print(f"{index} of {len(texts)} clips", flush=True)
    np.savez(path, features=np.concatenate(features), lengths=np.array([len(f) for f in features]))


def load_data(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Features (frames, 80) and words of every training clip, in a fixed random order."""
    with np.load(path) as file:
        features = np.split(file["features"], np.cumsum(file["lengths"])[:-1])
    order = np.random.default_rng(53).permutation(len(features))
    texts = [words_of(text) for text in corpus().asr_training]
    return [features[i] for i in order], [texts[i] for i in order]


def padded(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stacks clips: float32 (batch, frames, 80), and their lengths."""
    lengths = [len(clip) for clip in clips]
    x = np.full((len(clips), max(lengths), 80), SILENCE, np.float32)
    for row, clip in zip(x, clips, strict=True):
        row[: len(clip)] = clip
    return torch.from_numpy(x), torch.tensor(lengths)


def mask(x: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """SpecAugment (Park et al., 2019): hides two bands and two short times of every clip, in place."""
    for clip, length in zip(x, lengths.tolist(), strict=True):
        for _ in range(2):
            width = rng.integers(0, 14)
            low = rng.integers(0, 80 - width)
            clip[:, low : low + width] = -8.0
            width = rng.integers(0, 12)
            start = rng.integers(0, max(1, length - int(width)))
            clip[start : start + width] = -8.0
    return x


def batches(features: list[np.ndarray], targets: list[list[int]]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Endless batches of clips of similar length: features, lengths, all targets in a row, lengths of targets."""
    rng = np.random.default_rng(54)
    for group in groups_of_similar_length([len(clip) for clip in features], BATCH, 12, rng):
        x, lengths = padded([features[i] for i in group])
        tokens = torch.tensor([token for i in group for token in targets[i]])
        yield mask(x, lengths, rng), lengths, tokens, torch.tensor([len(targets[i]) for i in group])


def transcribe(model: Conformer, clips: list[np.ndarray], symbols: list[str]) -> list[str]:
    texts = []
    for start in range(0, len(clips), BATCH):
        log_probs, lengths = model(*padded(clips[start : start + BATCH]))
        best = log_probs.argmax(-1).tolist()
        texts += [decode(row[:length], symbols) for row, length in zip(best, lengths.tolist(), strict=True)]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx and tokens.txt")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    data, weights = arguments.work / "asr.npz", arguments.work / "asr.pt"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        make_data(data)

    prepare(seed=5)
    features, texts = load_data(data)
    pieces = WordPieces(texts)
    targets = [pieces.encode(text) for text in texts]
    model = Conformer(len(pieces.symbols))

    def losses(x, lengths, tokens, counts) -> dict[str, torch.Tensor]:
        with half_precision():
            log_probs, times = model(x, lengths)
        loss = functional.ctc_loss(
            log_probs.float().transpose(0, 1), tokens, times, counts, reduction="sum", zero_infinity=True
        )
        return {"ctc": loss / counts.sum()}

    def validate() -> str:
        found = transcribe(model, features[:VALIDATION], pieces.symbols)
        wrong = [(a, b) for a, b in zip(texts[:VALIDATION], found, strict=True) if a != b]
        return f"{len(wrong)} of {VALIDATION} sentences wrong, e.g. {json.dumps(wrong[:2])}"

    if weights.exists():
        model.load_state_dict(torch.load(weights))
    else:
        train(
            model,
            batches(features[VALIDATION:], targets[VALIDATION:]),
            losses,
            steps=arguments.steps,
            peak=PEAK,
            checkpoint=weights,
            warm_up=300,
            validate=validate,
        )

    path = arguments.out / "model.onnx"
    export(
        model,
        (torch.randn(2, 150, 80) - 6, torch.tensor([150, 120])),
        path,
        inputs=["x", "x_lens"],
        outputs=["log_probs", "log_probs_len"],
        dynamic={
            "x": {0: "N", 1: "T"},
            "x_lens": {0: "N"},
            "log_probs": {0: "N", 1: "T_out"},
            "log_probs_len": {0: "N"},
        },
        metadata={"model_type": "zipformer2_ctc", "version": 1, "comment": "Conformer CTC, made by data/recipes"},
    )
    table = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(pieces.symbols))
    (arguments.out / "tokens.txt").write_text(table, encoding="utf-8")
    feeds = {"x": torch.randn(3, 333, 80) - 6, "x_lens": torch.tensor([333, 313, 300])}
    print(f"largest difference between graph and PyTorch: {largest_difference(model, path, feeds):.2g}")


if __name__ == "__main__":
    main()
