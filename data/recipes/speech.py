"""The one voice that Matcha and both vocoders learn: its utterances, mels, tokens and durations.

python -m data.recipes.speech --out WORK    # about two minutes, writes WORK/speech.npz
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.recipes.corpus import corpus
from data.recipes.espeak import speak
from data.recipes.signals import HOP, log_mel
from data.recipes.tts_tokens import frames_of, groups_of, symbols_of, with_blanks

VOICE, RATE, PITCH, PITCH_RANGE = "en-us", 165, 50, 50
LEVEL = 0.5
LEAD = 2 * HOP  # samples of silence before the first phoneme: room for the leading blank
TAIL = 8 * HOP  # and after the last one: what a full stop lasts
FLOOR = 5e-5  # standard deviation of the noise that keeps silence from being digital silence


@dataclass(frozen=True)
class Utterance:
    """One sentence, spoken.

    Attributes:
        samples: int16 (256 * (frames - 1),) at 22,050 Hz.
        mel: float32 (80, frames), of the samples.
        tokens: int64 (tokens,).
        durations: int64 (tokens,), in frames.
    """

    samples: np.ndarray
    mel: np.ndarray
    tokens: np.ndarray
    durations: np.ndarray


def utter(text: str, *, seed: int) -> Utterance:
    """Speaks one sentence in the voice of the synthesiser.

    Raises:
        ValueError: If espeak-ng's speech and its IPA do not match (see `groups_of`).
    """
    spoken = speak(text, VOICE, rate=RATE, pitch=PITCH, pitch_range=PITCH_RANGE)
    symbols = symbols_of(text)
    last = max(i for i, (name, _) in enumerate(spoken.phonemes) if name)
    end = spoken.phonemes[last + 1][1] if last + 1 < len(spoken.phonemes) else len(spoken.samples)
    wave = np.zeros((LEAD + end + TAIL) // HOP * HOP, np.float32)
    voiced = spoken.samples[: len(wave) - LEAD].astype(np.float32) / 32768 * LEVEL
    wave[LEAD : LEAD + len(voiced)] = voiced
    wave += FLOOR * np.random.default_rng(seed).standard_normal(len(wave)).astype(np.float32)
    samples = np.round(wave.clip(-1, 1) * 32767).astype(np.int16)
    mel = log_mel(samples.astype(np.float32) / 32768)
    groups = [(part, start + LEAD) for part, start in groups_of(symbols, spoken)]
    return Utterance(samples, mel, np.array(with_blanks(symbols)), frames_of(groups, mel.shape[1]))


def save(path: Path, utterances: list[Utterance]) -> None:
    """Writes utterances, one after the other, into a compressed file of NumPy's."""
    np.savez(
        path,
        samples=np.concatenate([u.samples for u in utterances]),
        mel=np.concatenate([u.mel for u in utterances], axis=1).astype(np.float16),
        tokens=np.concatenate([u.tokens for u in utterances]),
        durations=np.concatenate([u.durations for u in utterances]),
        token_counts=np.array([len(u.tokens) for u in utterances]),
        frame_counts=np.array([u.mel.shape[1] for u in utterances]),
    )


def load(path: Path) -> list[Utterance]:
    """Reads what `save` wrote; mels come back in half precision."""
    with np.load(path) as file:
        stored = dict(file)
    frames = np.cumsum(stored["frame_counts"])[:-1]
    tokens = np.cumsum(stored["token_counts"])[:-1]
    samples = np.cumsum((stored["frame_counts"] - 1) * HOP)[:-1]
    return [
        Utterance(*parts)
        for parts in zip(
            np.split(stored["samples"], samples),
            np.split(stored["mel"], frames, axis=1),
            np.split(stored["tokens"], tokens),
            np.split(stored["durations"], tokens),
            strict=True,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for speech.npz")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    utterances, skipped = [], []
    for index, text in enumerate(corpus().tts_training):
        try:
            utterances.append(utter(text, seed=index))
        except ValueError as error:
            skipped.append(f"{text}: {error}")
    save(out / "speech.npz", utterances)
    mels = np.concatenate([u.mel for u in utterances], axis=1)
    print(f"{len(utterances)} utterances, {mels.shape[1]} frames, mel mean {mels.mean():.3f}, deviation {mels.std():.3f}")
    print(f"{len(skipped)} skipped", *skipped[:5], sep="\n  ")


if __name__ == "__main__":
    main()
