"""Whisper in several modes beside the recipe of sherpa-onnx: bytes, time per token, words, divergence, text out of silence.

    python benchmarks/whisper.py WORK --model tiny.en --calibration calibration.jsonl --evaluation evaluation.jsonl

WORK keeps what was made and what was scored, clip by clip, so that a run can be ended and gone on with. The recipe is that of
sherpa-onnx's export script: `quantize_dynamic` of ONNX Runtime, MatMul alone, QInt8. The time of a token is the CPU time of one
step of the decoder after the prompt, on one thread, of all variants in turn; `--only time` repeats it, in another ONNX Runtime
where PYTHONPATH has one.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import mean, median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pipeline  # noqa: E402
from pipeline.audio.silent_clips import silent_clips  # noqa: E402
from pipeline.config.choices import SampleRateMismatch  # noqa: E402
from pipeline.data.audio_files import read_audio  # noqa: E402
from pipeline.data.manifest import manifest_lines  # noqa: E402
from pipeline.evaluate.decisions import outputs_beside  # noqa: E402
from pipeline.evaluate.silence_scorer import words_in  # noqa: E402
from pipeline.measure.session_rounds import timed_round  # noqa: E402
from pipeline.metrics.text_metrics import next_token_percent, posterior_kl, spoken_words, wer_percent  # noqa: E402
from pipeline.models.model_sessions import ModelSessions, traced  # noqa: E402
from pipeline.models.whisper import Whisper  # noqa: E402
from pipeline.paths import resolve_path  # noqa: E402
from pipeline.sample import Sample  # noqa: E402

# after the package, which turns its telemetry off
import onnxruntime  # noqa: E402  # isort: skip
from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: E402  # isort: skip

FP32, RECIPE = "fp32", "sherpa-onnx's recipe"
TIMED_CLIPS, TIMED_STEPS = 3, 8
Files = dict[str, Path]


def main() -> None:
    """Make, time, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a directory with encoder, decoder and tokens")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--modes", nargs="+", default=["dynamic", "static", "auto"])
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of these runs")
    parser.add_argument("--silent-clips", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, at least")
    parser.add_argument("--only", choices=("make", "time", "score"), help="one of the three steps")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    model = Whisper("whisper", dir=str(given.model.absolute()))
    model.check()
    variants = {FP32: {part: resolve_path(path) for part, path in model.graphs.items()}}
    variants[RECIPE] = recipe(variants[FP32], given.work / "recipe")
    for mode in given.modes:
        variants[mode] = made(mode, given, given.work / mode)
    times = timed(model, variants, given) if given.only in (None, "time") else {}
    if given.only in (None, "score"):
        score(model, variants, given)
    print(table(variants, times, given))


def recipe(fp32: Files, folder: Path) -> Files:
    """Quantize both graphs as the export script of sherpa-onnx does."""
    folder.mkdir(exist_ok=True)
    files = {part: folder / f"{part}.int8.onnx" for part in fp32}
    for part, path in files.items():
        if not path.exists():
            quantize_dynamic(fp32[part], path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    return files


def made(mode: str, given: argparse.Namespace, folder: Path) -> Files:
    """Quantize both graphs with a mode of this project."""
    files = {part: folder / f"{part}.int8.onnx" for part in ("encoder", "decoder")}
    if all(path.exists() for path in files.values()):
        return files
    folder.mkdir(exist_ok=True)
    data = [f"calibration.path={given.calibration.absolute()}"] if mode in ("static", "auto") else []
    start, cpu = time.monotonic(), time.process_time()
    report = pipeline.run([
        "model=whisper", f"model.dir={given.model.absolute()}", f"mode={mode}", *data, *given.settings,
        f"evaluation.path={given.evaluation.absolute()}", "stages=[load,quantize]", f"hydra.run.dir={folder.absolute()}/run",
    ])  # fmt: skip
    for artifact in report.artifacts:
        (folder.absolute() / "run" / artifact.file).rename(files[artifact.graph])
    print(f"{mode}: made in {time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} s of CPU time")
    return files


def inputs_of(model: Whisper, given: argparse.Namespace) -> list[tuple[str, str, Callable[[], Sample]]]:
    """Return the clips of speech and of silence: name, text, and a function that returns the inputs."""

    def heard(path: Path, rate_hz: int) -> np.ndarray:
        return read_audio(path, rate_hz, SampleRateMismatch.resample, [], model.resample)

    def of_speech(utterance):  # noqa: ANN001, ANN202
        return lambda: model.sample(utterance, heard)

    def of_silence(name, audio):  # noqa: ANN001, ANN202
        return lambda: model.sample_of_audio(name, audio)

    speech = [(each.id, each.text or "", of_speech(each)) for each in manifest_lines(given.evaluation, "evaluation")]
    silence = silent_clips(given.silent_clips, 0, model.rate_of_audio_hz)
    return [*speech, *((name, "", of_silence(name, audio)) for name, audio in silence)]


def timed(model: Whisper, variants: dict[str, Files], given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return how many times as fast as fp32 each variant is: part -> variant -> the median of ratios in turn."""
    clips = [load() for _, text, load in inputs_of(model, given) if text][:TIMED_CLIPS]
    steps = [step for step in traced(ModelSessions(variants[FP32], 1), model.infer, clips, 0, "decoder") if step.step]
    found: dict[str, dict[str, float]] = {}
    for part, samples in (("decoder", steps[:TIMED_STEPS]), ("encoder", clips[:1])):
        order = ([place] for place in cycle(range(len(samples))))
        turns = list(timed_round(
            [files[part] for files in variants.values()], samples, order, threads=1, order=range(len(variants)),
            rng=np.random.default_rng(0), at_least=10, seconds=given.seconds, watch=time.monotonic,
        ))  # fmt: skip
        found[part] = {name: median(turn[0] / turn[place] for turn in turns) for place, name in enumerate(variants)}
        print(f"{part}: fp32 {median(turn[0] for turn in turns):.2f} ms, {len(turns)} turns, ORT {onnxruntime.__version__}")
    return found


def score(model: Whisper, variants: dict[str, Files], given: argparse.Namespace) -> None:
    """Score every clip that is not yet scored, of all variants, and write that down."""
    file = given.work / "scores.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    sessions = {name: ModelSessions(files, 1) for name, files in variants.items()}
    for number, (name, text, load) in enumerate(inputs_of(model, given)):
        entry = known.setdefault(name, {"text": text, "variants": {}})
        if entry["variants"].keys() >= variants.keys():
            continue
        sample = load()
        fp32 = model.infer(sample, sessions[FP32].runner([0]))
        for variant in variants:
            if variant in entry["variants"]:
                continue
            run = sessions[variant].runner([0])
            own = fp32 if variant == FP32 else model.infer(sample, run)
            scores = {"transcript": model.transcript(own)}
            if text:
                beside = outputs_beside(model, sample, run, fp32, own)
                scores["posterior_kl"] = posterior_kl(fp32["logits"], beside["logits"])
                scores["next_token_percent"] = next_token_percent(fp32["logits"], beside["logits"])
            entry["variants"][variant] = scores
        if number % 10 == 0:
            file.write_text(json.dumps(known))
            print(f"{number}: {name}", file=sys.stderr)
    file.write_text(json.dumps(known))


def table(variants: dict[str, Files], times: dict[str, dict[str, float]], given: argparse.Namespace) -> str:
    """Return what was found as a Markdown table."""
    file = given.work / "scores.json"
    known = [entry for entry in json.loads(file.read_text()).values()] if file.exists() else []
    size = cache(lambda path: path.stat().st_size)
    words = sum(len(spoken_words(entry["text"]).split()) for entry in known)
    silent = sum(not entry["text"] for entry in known)
    lines = [
        f"{words} words, {silent} clips of silence and noise",
        "",
        "| | decoder, MB | of fp32's | encoder, of fp32's | a token, times as fast | encoder, times as fast | WER, % | "
        "KL, nat | fp32's next token, % | words in silence, % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, files in variants.items():
        scored = [(entry["text"], entry["variants"][name]) for entry in known if name in entry["variants"]]
        speech = [(text, scores) for text, scores in scored if text]
        quiet = [100.0 * bool(words_in(scores["transcript"])) for text, scores in scored if not text]
        said = [[spoken_words(text) for text, _ in speech], [spoken_words(scores["transcript"]) for _, scores in speech]]
        row = [
            f"{size(files['decoder']) / 1e6:.1f}",
            *(f"{size(files[part]) / size(variants[FP32][part]):.3f}" for part in ("decoder", "encoder")),
            *(f"{times[part][name]:.2f}" if times else "" for part in ("decoder", "encoder")),
            f"{wer_percent(*said):.2f}" if speech else "",
            *(f"{mean(s[key] for _, s in speech):.3g}" if speech else "" for key in ("posterior_kl", "next_token_percent")),
            f"{mean(quiet):.1f}" if quiet else "",
        ]
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
