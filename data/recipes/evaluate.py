"""Every figure of the README, measured on the exported graphs with the data that ships.

    python -m data.recipes.evaluate --models data/models --data data

With the package `sherpa-onnx` installed, its own engines run on the same files. Models that are missing are left out.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import onnx
import onnxruntime
import soundfile
from onnx import numpy_helper

from data.recipes.exporting import session
from data.recipes.sentences import words_of
from data.recipes.signals import ASR_RATE_HZ, inverse_stft, kaldi_features, log_mel, to_asr_rate
from data.recipes.vocoder_training import distance
from data.recipes.word_pieces import decode

NOISE_SCALE = 0.667
DAMAGE = 0.05  # share of the encoder's weights that are replaced by noise
VOCODERS = {"vocos": "vocoder/vocos.onnx", "hifigan": "hifigan/hifigan.onnx"}

Session = onnxruntime.InferenceSession


@dataclass(frozen=True)
class Clip:
    """One labelled clip: float32 samples at 16,000 Hz, the words, and the subset it belongs to."""

    samples: np.ndarray
    words: str
    subset: str


def read_json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asr_clips(data: Path) -> list[Clip]:
    folder = data / "clips" / "evaluation"
    return [
        Clip(
            soundfile.read(folder / row["audio"], dtype="float32")[0],
            row["text"],
            f"{row['kind']}, {'noisy' if row['noisy'] else 'clean'}",
        )
        for row in read_json_lines(folder / "manifest.jsonl")
    ]


def wer(words: list[str], found: list[str]) -> float:
    """Word error rate in percent."""
    return 100 * jiwer.wer(words, found)


class Recogniser:
    """The exported recogniser with greedy decoding."""

    def __init__(self, graph: Session, tokens: Path):
        self._graph = graph
        self._symbols = [line.rsplit(" ", 1)[0] for line in tokens.read_text(encoding="utf-8").splitlines()]

    def transcribe(self, samples: np.ndarray) -> str:
        """The words in float32 samples at 16,000 Hz."""
        features = kaldi_features(samples)[None]
        log_probs, lengths = self._graph.run(None, {"x": features, "x_lens": np.array([features.shape[1]])})
        return decode(log_probs[0, : lengths[0]].argmax(-1).tolist(), self._symbols)


def as_recording(samples: np.ndarray) -> np.ndarray:
    """Makes synthetic speech (22,050 Hz) a clip for the recogniser: a pause around it, level, a floor of noise."""
    pause = np.zeros(2205, np.float32)
    speech = to_asr_rate(np.concatenate([pause, samples, pause]))
    floor = 1e-4 * np.random.default_rng(0).standard_normal(len(speech))
    return (0.6 * speech / max(1e-3, np.abs(speech).max()) + floor).astype(np.float32)


def vocode(graph: Session, mel: np.ndarray) -> np.ndarray:
    """Samples from a log-mel (80, frames), through either vocoder: float32 (256 * (frames - 1),)."""
    outputs = graph.run(None, {graph.get_inputs()[0].name: mel[None].astype(np.float32)})
    if len(outputs) == 3:
        magnitude, x, y = (part[0] for part in outputs)
        return inverse_stft(magnitude * (x + 1j * y))
    return outputs[0][0, : (mel.shape[1] - 1) * 256]


def speak(graph: Session, tokens: list[int]) -> np.ndarray:
    """The log-mel (80, frames) of a sentence."""
    feeds = {
        "x": np.array([tokens]),
        "x_length": np.array([len(tokens)]),
        "noise_scale": np.array([NOISE_SCALE], np.float32),
        "length_scale": np.ones(1, np.float32),
    }
    return graph.run(None, feeds)[0][0]


def damaged(path: Path) -> Session:
    """The recogniser with noise of the same deviation in 5 % of each of its encoder's weight matrices and kernels."""
    model, rng = onnx.load(path), np.random.default_rng(81)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor).copy()
        if weights.ndim < 2 or weights.dtype != np.float32 or weights.size < 1000:
            continue
        hit = rng.random(weights.shape) < DAMAGE
        weights[hit] = rng.normal(0, weights.std(), int(hit.sum()))
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def evaluate_asr(recogniser: Recogniser, clips: list[Clip], name: str) -> list[str]:
    found = [recogniser.transcribe(clip.samples) for clip in clips]
    for subset in sorted({clip.subset for clip in clips}):
        chosen = [index for index, clip in enumerate(clips) if clip.subset == subset]
        rate = wer([clips[i].words for i in chosen], [found[i] for i in chosen])
        print(f"{name}, {subset} ({len(chosen)} clips): WER {rate:.2f} %")
    print(f"{name}, all ({len(clips)} clips): WER {wer([clip.words for clip in clips], found):.2f} %", flush=True)
    return found


def evaluate_vocoder(graph: Session, data: Path, name: str, recogniser: Recogniser) -> None:
    folder, distances, found, words = data / "voice" / "evaluation", [], [], []
    for row in read_json_lines(folder / "manifest.jsonl"):
        mel = log_mel(soundfile.read(folder / row["audio"], dtype="float32")[0])
        samples = vocode(graph, mel)
        distances.append(distance(samples, mel))
        found.append(recogniser.transcribe(as_recording(samples)))
        words.append(words_of(row["text"]))
    rate = wer(words, found)
    print(f"{name} ({len(words)} clips): log-mel L1 {np.mean(distances):.4f}, WER {rate:.2f} %", flush=True)


def evaluate_recordings(data: Path, recogniser: Recogniser) -> None:
    folder = data / "voice" / "evaluation"
    rows = read_json_lines(folder / "manifest.jsonl")
    clips = [soundfile.read(folder / row["audio"], dtype="float32")[0] for row in rows]
    found = [recogniser.transcribe(as_recording(clip)) for clip in clips]
    print(f"the voice itself ({len(rows)} clips): WER {wer([words_of(row['text']) for row in rows], found):.2f} %")


def evaluate_round_trip(matcha: Session, vocoder: Session, data: Path, name: str, recogniser: Recogniser) -> None:
    rows = read_json_lines(data / "sentences" / "evaluation.jsonl")
    found = [recogniser.transcribe(as_recording(vocode(vocoder, speak(matcha, row["tokens"])))) for row in rows]
    rate = wer([words_of(row["text"]) for row in rows], found)
    print(f"matcha + {name} ({len(rows)} sentences): round-trip WER {rate:.2f} %", flush=True)


def sherpa_asr(models: Path, clips: list[Clip], ours: list[str]) -> None:
    """Compares the transcripts of sherpa-onnx with this project's."""
    import sherpa_onnx  # an optional witness

    engine = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        str(models / "asr/model.onnx"), str(models / "asr/tokens.txt"), num_threads=1
    )
    same = 0
    for clip, text in zip(clips, ours, strict=True):
        stream = engine.create_stream()
        stream.accept_waveform(ASR_RATE_HZ, clip.samples)
        engine.decode_stream(stream)
        same += stream.result.text.lower().split() == text.split()
    print(f"sherpa-onnx {sherpa_onnx.__version__}: {same} of {len(clips)} transcripts are the same", flush=True)


def sherpa_tts(models: Path, vocoder: str, data: Path, name: str, recogniser: Recogniser) -> None:
    """Lets sherpa-onnx speak the sentences.

    Since version 2.0, it has no espeak-ng of its own and takes phonemes from outside; before, it makes them from the text.
    """
    import espeakng_loader
    import sherpa_onnx

    outside = int(sherpa_onnx.__version__.split(".")[0]) >= 2
    folder = models / "matcha"
    matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=str(folder / "model-steps-3.onnx"),
        vocoder=str(models / vocoder),
        lexicon="",
        tokens=str(folder / "tokens.txt"),
        data_dir="" if outside else espeakng_loader.get_data_path(),
        noise_scale=NOISE_SCALE,
    )
    config = sherpa_onnx.OfflineTtsConfig(model=sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, num_threads=1))
    engine = sherpa_onnx.OfflineTts(config)
    symbols = [line.rsplit(" ", 1)[0] for line in (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()]
    rows, found = read_json_lines(data / "sentences" / "evaluation.jsonl"), []
    for row in rows:
        if outside:
            request = sherpa_onnx.GenerationConfig()
            request.phoneme_codepoints = [[ord(symbols[token]) for token in row["tokens"][1::2]]]
            request.extra = {"min_words_in_sentence": "1000"}  # or a comma would begin a new sentence
            audio = engine.generate(row["text"], request)
        else:
            audio = engine.generate(row["text"])
        found.append(recogniser.transcribe(as_recording(np.array(audio.samples, np.float32))))
    rate = wer([words_of(row["text"]) for row in rows], found)
    print(f"sherpa-onnx {sherpa_onnx.__version__}, matcha + {name} ({len(rows)}): round-trip WER {rate:.2f} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with asr/, matcha/, vocoder/, hifigan/")
    parser.add_argument("--data", type=Path, required=True, help="folder with sentences/, voice/, clips/")
    parser.add_argument("--sherpa", action="store_true", help="run sherpa-onnx too")
    arguments = parser.parse_args()
    models, data = arguments.models, arguments.data

    asr, tokens = models / "asr" / "model.onnx", models / "asr" / "tokens.txt"
    recogniser, clips = Recogniser(session(asr), tokens), asr_clips(data)
    transcripts = evaluate_asr(recogniser, clips, "asr")
    evaluate_asr(Recogniser(damaged(asr), tokens), clips, "damaged asr")
    evaluate_recordings(data, recogniser)
    matcha = models / "matcha" / "model-steps-3.onnx"
    vocoders = {name: path for name, path in VOCODERS.items() if (models / path).exists()}
    for name, path in vocoders.items():
        evaluate_vocoder(session(models / path), data, name, recogniser)
        if matcha.exists():
            evaluate_round_trip(session(matcha), session(models / path), data, name, recogniser)
    if arguments.sherpa:
        sherpa_asr(models, clips, transcripts)
        for name, path in vocoders.items() if matcha.exists() else ():
            sherpa_tts(models, path, data, name, recogniser)


if __name__ == "__main__":
    main()
