"""What each rewrite gains on each model: python benchmarks/float_rewrites.py [model ...] [--threads N] [--assume].

A row for each rewrite that finds a place: how many, its speed-up alone on the original, the speed-up of the graph before it in
the chain where `apply` kept it, and the largest difference from the original relative to the output's scale. The last row of a
model is all that was kept, timed against the original. Models that ship are always there; real cases where ../shared/real is.

With --cost-of-proof, a row for each model instead: the speed-up of all rewrites over the original without and with mode.assume,
and of the second over the first. The graphs are prepared as mode=optimize does it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import soundfile

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from pipeline.graph.graph_editor import Graph  # noqa: E402
from pipeline.graph.prepare import prepare  # noqa: E402
from pipeline.graph.source_graph import load_graph  # noqa: E402
from pipeline.measure.rewrite_gain import measure_gain  # noqa: E402
from pipeline.models.ctc import Ctc  # noqa: E402
from pipeline.models.vocoder import Vocoder  # noqa: E402
from pipeline.optimize import engine  # noqa: E402
from pipeline.optimize.equivalence import Reference  # noqa: E402
from pipeline.optimize.outcome import Refusal  # noqa: E402
from pipeline.optimize.rewrite_registry import REWRITES  # noqa: E402
from pipeline.sample import Sample  # noqa: E402

REAL = REPO.parent / "shared" / "real" / "cases"
SHIPPED = {
    "matcha": "matcha/model-steps-3.onnx",
    "vocoder": "vocoder/vocos.onnx",
    "hifigan": "hifigan/hifigan.onnx",
    "asr": "asr/model.onnx",
}
CASES = ("hifigan_v2", "spelling_cnn", "gtcrn_simple")
PROBE = 3


def sentences() -> Iterator[Sample]:
    """Give the first sentences that the project evaluates on."""
    lines = (REPO / "data/sentences/evaluation.jsonl").read_text(encoding="utf-8").splitlines()[:PROBE]
    for line in map(json.loads, lines):
        scales = {"noise_scale": np.array([0.667], np.float32), "length_scale": np.ones(1, np.float32)}
        ids = np.array([line["tokens"]], np.int64)
        yield Sample(line["id"], {"x": ids, "x_length": np.array([ids.size], np.int64), **scales})


def clips() -> Iterator[tuple[str, np.ndarray]]:
    """Give the first recordings that the project evaluates on."""
    for path in sorted((REPO / "data/clips/evaluation").glob("*.flac"))[:PROBE]:
        yield path.stem, soundfile.read(path, dtype="float32")[0]


def case(folder: Path) -> Iterator[Sample]:
    """Give the first samples of a real case."""
    arrays = np.load(folder / "calib.npz")
    for sample in list(dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays.files))[:PROBE]:
        names = [name for name in arrays.files if name.rsplit("/", 1)[0] == sample]
        yield Sample(sample, {name.rsplit("/", 1)[1]: arrays[name] for name in names})


def load(name: str) -> tuple[onnx.ModelProto, list[Sample]]:
    """Return a model and a few real inputs."""
    if name in CASES:
        return onnx.load(REAL / name / "model.onnx"), list(case(REAL / name))
    model = onnx.load(REPO / "data/models" / SHIPPED[name])
    if name == "matcha":
        return model, list(sentences())
    if name == "asr":
        return model, [Ctc("asr", "").sample_of_audio(*clip) for clip in clips()]
    vocoder = Vocoder(name, "", input_name=model.graph.input[0].name, sample_rate_hz=16_000)
    return model, [vocoder.sample_of_mel(clip, vocoder.mel(audio)) for clip, audio in clips()]


def cost_of_proof(name: str, threads: int) -> None:
    """Print a row of one model: what rewrites gain without and with assumptions about the inputs."""
    model, probe = load(name)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        prepared = prepare(load_graph(name, f"{folder}/model.onnx"), opset=None, needed_opset=7, preprocess=True).model
    proven, assumed = (engine.apply(prepared, probe, threads=threads, assume=assume) for assume in (False, True))
    pairs = ((model, proven.model), (model, assumed.model), (proven.model, assumed.model))
    gains = [measure_gain(*pair, probe, threads, min_pairs=60, max_seconds=8.0).speedup for pair in pairs]
    places = ", ".join(f"{one.name} {one.assumed_sites}" for one in assumed.applied if one.assumed_sites) or "none"
    print(f"| {name} | {gains[0]:.2f} | {gains[1]:.2f} | {gains[2]:.3f} | {places} |", flush=True)


def table(name: str, threads: int, *, assume: bool) -> None:
    """Print the rows of one model."""
    model, probe = load(name)
    done = engine.apply(model, probe, threads=threads, assume=assume)
    kept = {applied.name: applied for applied in done.applied}
    reference = Reference(model, probe, threads)
    print(
        f"\n{name}, {threads} thread{'s' if threads > 1 else ''}\n{'rewrite':26}{'sites':>7}{'alone':>8}{'kept':>8}  difference"
    )
    for entry in REWRITES:
        graph = Graph(model)
        sites = entry.apply(graph, assume=assume)
        if isinstance(sites, Refusal):
            continue
        changed = graph.finish()
        alone = measure_gain(model, changed, probe, threads).speedup
        chain = f"{kept[entry.name].speedup:8.2f}" if entry.name in kept else f"{'-':>8}"
        print(f"{entry.name:26}{sites.count:7}{alone:8.2f}{chain}  {reference.difference(changed):.1e}", flush=True)
    together = measure_gain(model, done.model, probe, threads, min_pairs=30)
    print(f"{'all kept':26}{'':7}{together.speedup:8.2f}{len(kept):8}  {reference.difference(done.model):.1e}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=f"of {', '.join((*SHIPPED, *CASES))}; all that are there where none is given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--assume", action="store_true", help="also rewrite what rests on assumptions about the inputs")
    parser.add_argument("--cost-of-proof", action="store_true", help="what leaving out the assumed places costs")
    options = parser.parse_args(arguments)
    there = [*SHIPPED, *(name for name in CASES if (REAL / name).is_dir())]
    if options.cost_of_proof:
        print("| model | proven alone | with mode.assume=true | gain | assumed places that are kept |\n|---|---|---|---|---|")
        for name in options.models or SHIPPED:
            cost_of_proof(name, options.threads)
        return
    for name in options.models or there:
        table(name, options.threads, assume=options.assume)


if __name__ == "__main__":
    main()
