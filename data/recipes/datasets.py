"""The data that ships: sentences for the synthesiser, clips of its voice for the vocoders, clips for the recogniser.

    python -m data.recipes.datasets --out data

Calibration and evaluation share no sentence, and neither shares one with training; the recogniser's evaluation clips are
also spoken by voices that training never heard.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import soundfile

from data.recipes import speech
from data.recipes.corpus import corpus
from data.recipes.espeak import SAMPLE_RATE_HZ, speak
from data.recipes.sentences import words_of
from data.recipes.signals import ASR_RATE_HZ, add_echo, add_noise, to_asr_rate, trim
from data.recipes.tts_tokens import tokens_of

VARIANTS = [
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m8",
    "f1",
    "f2",
    "f3",
    "f5",
    "max",
    "announcer",
    "Andy",
    "Annie",
    "Lee",
    "Denis",
    "Reed",
    "adam",
    "belinda",
    "linda",
    "john",
    "steph",
    "Alex",
    "Michael",
    "david",
    "edward",
    "shelby",
    "travis",
    "rob",
]
TRAINING_VOICES = [f"{accent}+{variant}" for accent in ("en-us", "en-us", "en", "en-gb-x-rp") for variant in VARIANTS]
HELD_OUT_VOICES = ["en-us+m7", "en-us+f4", "en+m7", "en+f4"]  # neither m7 nor f4 is in the list above
VOICE_CALIBRATION, VOICE_EVALUATION = 24, 60


def voice_clip(text: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """One clean 16 kHz clip with a random speed and pitch: float32 (samples,), its peak at 1."""
    spoken = speak(
        text,
        voice,
        rate=int(rng.integers(150, 216)),
        pitch=int(rng.integers(30, 75)),
        pitch_range=int(rng.integers(25, 75)),
    )
    samples = trim(to_asr_rate(spoken.samples.astype(np.float32) / 32768))
    return samples / np.abs(samples).max()


def write_json_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_clip(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, format="FLAC", subtype="PCM_16", compression_level=1.0)


def write_sentences(out: Path) -> None:
    for name, texts in (("calibration", corpus().tts_calibration), ("evaluation", corpus().tts_evaluation)):
        rows = [{"id": f"{name[0]}{index:03}", "text": text, "tokens": tokens_of(text)} for index, text in enumerate(texts)]
        write_json_lines(out / "sentences" / f"{name}.jsonl", rows)


def write_voice(out: Path) -> None:
    """The first sentences of both lists as the synthesiser should say them; the ids are those of the sentences."""
    for name, texts in (
        ("calibration", corpus().tts_calibration[:VOICE_CALIBRATION]),
        ("evaluation", corpus().tts_evaluation[:VOICE_EVALUATION]),
    ):
        folder, rows = out / "voice" / name, []
        for index, text in enumerate(texts):
            row = {"id": f"{name[0]}{index:03}", "audio": f"{name[0]}{index:03}.flac", "text": text}
            write_clip(folder / row["audio"], speech.utter(text, seed=10**6 + index).samples, SAMPLE_RATE_HZ)
            rows.append(row)
        write_json_lines(folder / "manifest.jsonl", rows)


def write_clips(out: Path) -> None:
    """Clips for the recogniser; every second one of a kind is noisy (and half of those have an echo)."""
    text, draw = corpus(), random.Random(41)
    evaluation = [("grammar", t) for t in text.asr_evaluation_grammar]
    evaluation += [("random", t) for t in text.asr_evaluation_random]
    calibration = [("grammar", t) for t in text.asr_calibration[:24]] + [("random", t) for t in text.asr_calibration[24:]]
    for name, voices, items in (
        ("calibration", draw.sample(TRAINING_VOICES, 48), calibration),
        ("evaluation", HELD_OUT_VOICES * 60, evaluation),
    ):
        folder, rows = out / "clips" / name, []
        for index, (kind, sentence) in enumerate(items):
            rng = np.random.default_rng([42, len(items), index])
            voice, noisy = voices[(index // 2) % len(voices)], index % 2 == 1
            samples = voice_clip(sentence, voice, rng)
            if noisy:
                if rng.random() < 0.5:
                    samples = add_echo(samples, rng)
                samples = add_noise(samples, rng, snr_db=rng.uniform(8, 20))
            else:
                samples = samples + 2e-4 * rng.standard_normal(len(samples))
            samples *= rng.uniform(0.07, 0.12) / np.abs(samples).max()
            row = {"id": f"{name[0]}{index:03}", "audio": f"{name[0]}{index:03}.flac", "text": words_of(sentence)}
            write_clip(folder / row["audio"], samples, ASR_RATE_HZ)
            rows.append({**row, "voice": voice, "kind": kind, "noisy": noisy})
        write_json_lines(folder / "manifest.jsonl", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for sentences/, voice/ and clips/")
    out = parser.parse_args().out
    write_sentences(out)
    write_voice(out)
    write_clips(out)
    for name in ("sentences", "voice", "clips"):
        files = [path for path in (out / name).rglob("*") if path.is_file()]
        print(f"{name}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
