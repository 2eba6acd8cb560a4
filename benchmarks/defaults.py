"""Why the defaults of `conf/mode/static.yaml` and `dynamic.yaml` are what they are: other choices, measured side by side.

    python benchmarks/defaults.py                 # prints a table per shipped model
    python benchmarks/defaults.py --write         # writes them into docs/defaults.md as well

Every variant is a set of overrides, as a user would give them. All variants of a model are timed in turn within one process,
one thread; a figure is the median of the ratios to fp32 on the same input.
"""

import argparse
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.config.compose import register_schemas, to_run_config  # noqa: E402
from pipeline.config.settings import RunConfig  # noqa: E402
from pipeline.data.calibration_set import CalibrationSet  # noqa: E402
from pipeline.data.evaluation_set import EvaluationSet  # noqa: E402
from pipeline.errors import PipelineError  # noqa: E402
from pipeline.graph.source_graph import SourceGraph  # noqa: E402
from pipeline.measure.session_rounds import timed_round  # noqa: E402
from pipeline.record.run_directory import RunDirectory  # noqa: E402
from pipeline.record.run_log import RunLog  # noqa: E402
from pipeline.sample import Sample  # noqa: E402
from pipeline.stages.load import load  # noqa: E402
from pipeline.stages.quantize import quantize  # noqa: E402

MODELS = ("matcha", "vocoder", "hifigan", "asr")
WEIGHTED = "[Conv,MatMul,Gemm,ConvTranspose]"
VARIANTS = {
    "static (default)": ["mode=static"],
    "static, MatMul static too": ["mode=static", "mode.dynamic_op_types=[]"],
    "static, MatMul static, its outputs float": ["mode=static", "mode.dynamic_op_types=[]", "mode.float_outputs=[MatMul,Gemm]"],
    "static, Conv of any size": ["mode=static", "mode.min_channels=1"],
    "static, Gemm and ConvTranspose as Q/DQ": ["mode=static", "mode.weight_only_op_types=[]"],
    "static, all operator types": [
        "mode=static",
        "mode.op_types=[all]",
        "mode.dynamic_op_types=[]",
        "mode.weight_only_op_types=[]",
    ],
    "static, int8 activations": ["mode=static", "mode.activation_type=int8"],
    "dynamic (default)": ["mode=dynamic"],
    "dynamic, MatMul only": ["mode=dynamic", "mode.op_types=[MatMul]"],
    "dynamic, uint8 weights everywhere": ["mode=dynamic", "mode.weight_type=uint8"],
    "dynamic, int8 weights everywhere": ["mode=dynamic", "mode.weight_type=int8"],
}


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, per model")
    parser.add_argument("--write", action="store_true", help="write docs/defaults.md")
    arguments = parser.parse_args()
    register_schemas()
    tables = [table_of(model, arguments.seconds) for model in arguments.models]
    text = "\n\n".join(tables)
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "defaults.md"
        head = page.read_text(encoding="utf-8").split("<!-- measured -->")[0]
        page.write_text(f"{head}<!-- measured -->\n\n{text}\n", encoding="utf-8")


def table_of(model: str, seconds: float) -> str:
    """Return one model's variants as a Markdown table: size and speed relative to fp32."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}
        failed: dict[str, str] = {}
        for number, (name, overrides) in enumerate(VARIANTS.items()):
            try:
                source, samples, files[name] = quantized(model, overrides, Path(folder) / str(number))
            except PipelineError as error:
                failed[name] = str(error).split(".")[0]
        speed = speed_ups(source.path, files, samples, seconds)
        sizes = {name: path.stat().st_size / source.size_bytes for name, path in files.items()}
    lines = [f"### {model}", "", "| variant | size | speed |", "|---|---|---|"]
    lines += [f"| {name} | {sizes[name]:.2f} | {speed[name]:.2f} |" for name in files]
    return "\n".join([*lines, *(f"| {name} | fails: {why} | |" for name, why in failed.items())])


def quantized(model: str, overrides: list[str], folder: Path) -> tuple[SourceGraph, list[Sample], Path]:
    """Quantize a shipped model as the overrides say; return the original, evaluation samples, and the artifact."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: RunConfig = to_run_config(compose("config", [f"model={model}", *overrides]))
    folder.mkdir()
    run_log = RunLog()
    model = load(config.model)
    [(graph, source)] = model.graphs.items()
    samples = EvaluationSet(model, config.evaluation, config.seed, run_log).report[graph][:12]
    calibration = CalibrationSet(model, config.calibration, config.seed, run_log)
    result = quantize(model.graphs, config.mode, calibration, {graph: samples[:1]}, RunDirectory(folder))
    return source, samples, result.artifacts[graph].path


def speed_ups(baseline: Path, files: dict[str, Path], samples: list[Sample], seconds: float) -> dict[str, float]:
    """Return the median ratio of fp32's time to each variant's, on the same inputs, taken in turn.

    Time is that of the process, which other programs on the machine lengthen less than that of the wall clock.
    """
    every_sample = ([sample] for sample in cycle(range(len(samples))))
    turns = list(
        timed_round(
            [baseline, *files.values()],
            samples,
            every_sample,
            threads=1,
            order=range(len(files) + 1),
            rng=np.random.default_rng(0),
            at_least=len(samples),
            seconds=seconds,
            watch=time.monotonic,
        )
    )
    return {name: median(turn[0] / turn[place] for turn in turns) for place, name in enumerate(files, 1)}


if __name__ == "__main__":
    main()
