"""What calibration costs, beside plain fp32 inference of the same samples and beside other tools.

    python benchmarks/calibration.py --folders ../shared/real/cases/hifigan_v2 --write      # docs/calibration.md
    python benchmarks/calibration.py --models asr --samples 8 --repeats 1
    python benchmarks/calibration.py --models --folders here      # here/model.onnx, and here/calib.npz: <sample>/<input>

Each contender runs in a process of its own, in turn with the others; fp32 and the range engine on one thread, other tools on
those that they choose. Time is from reading the model to the ranges of all tensors, or to the saved artifact where the whole
stage is measured, without imports; memory is the process's peak. The longest sample comes first, so that any number of
samples meets the same largest tensors; where a set has too few, it repeats. ONNX Runtime's histograms do not take samples of
different lengths: a second table repeats one sample.
"""

import argparse
import gc
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.data.arrays import read_arrays  # noqa: E402
from pipeline.sample import Sample  # noqa: E402

# after the package, which turns its telemetry off
import onnxruntime  # isort: skip  # noqa: E402

if TYPE_CHECKING:
    from pipeline.config.settings import RunConfig

MODELS = ("asr", "matcha")
BASELINE = "fp32 inference"
MARK = "<!-- measured -->"
Run = Callable[[Path, list[Sample], Path], None]  # graph, samples, where an artifact goes


@dataclass(frozen=True)
class Contender:
    """Something that is measured.

    Attributes:
        make: imports what it needs, which is not measured, and returns what is.
        needs: a package that may not be installed.
        repeated: measured as often as is asked for; others once.
        counted: up to so many samples; what grows with their number shows in less.
    """

    make: Callable[[], Run]
    needs: str | None = None
    repeated: bool = False
    counted: int = 128


def infer() -> Run:
    """Plain inference: what everything else is relative to."""

    def run(model: Path, samples: list[Sample], _: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for sample in samples:
            session.run(None, dict(sample.inputs))

    return run


def calibrate(method: str) -> Callable[[], Run]:
    """The range engine, over every tensor that any mode may quantize."""

    def make() -> Run:
        from pipeline.calibration import entropy, mse, range_selection  # noqa: F401 (the searches are imported with their first use)
        from pipeline.calibration.collect import collect
        from pipeline.calibration.derived_tensors import quantizable_tensors

        def run(model: Path, samples: list[Sample], _: Path) -> None:
            graph = onnx.load(model)
            tensors = quantizable_tensors(graph)
            seen = collect(graph, samples, tensors=tensors, histograms=method != "MinMax")
            range_selection.tensor_ranges(seen, tensors, getattr(range_selection, method)())

        return run

    return make


def quantize(method: str) -> Callable[[], Run]:
    """The whole stage: the range engine with an empty cache, the rewrite, the checked and saved artifact."""

    def make() -> Run:
        from pipeline.graph.source_graph import load_graph
        from pipeline.record.run_directory import RunDirectory
        from pipeline.stages import quantize

        mode = composed("model=asr", "mode=static", f"mode.method={method}").mode

        def run(model: Path, samples: list[Sample], folder: Path) -> None:
            os.environ["XDG_CACHE_HOME"] = str(folder)
            source = {"model": load_graph("model", str(model))}
            quantize.quantize(source, mode, {"model": samples}, {"model": samples[:1]}, RunDirectory(folder))

        return run

    return make


def calibrate_with_onnxruntime(method: str) -> Callable[[], Run]:
    """ONNX Runtime's calibrator, as its `quantize_static` uses it."""

    def make() -> Run:
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        def run(model: Path, samples: list[Sample], folder: Path) -> None:
            augmented = str(folder / "augmented.onnx")
            kind = CalibrationMethod[method]
            calibrator = create_calibrator(model, None, augmented_model_path=augmented, calibrate_method=kind)
            calibrator.collect_data(reader(samples))
            calibrator.compute_data()

        return run

    return make


def quantize_with_onnxruntime(method: str, op_types: Sequence[str] = (), all_but: Sequence[str] = ()) -> Callable[[], Run]:
    """ONNX Runtime's `quantize_static`, with the types that are fastest; of all operators that it knows, or of some."""

    def make() -> Run:
        from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        known = [*QDQRegistry, *(op_type for op_type in QLinearOpsRegistry if op_type not in QDQRegistry)]
        chosen = list(op_types) or [op_type for op_type in known if op_type not in all_but]

        def run(model: Path, samples: list[Sample], folder: Path) -> None:
            types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
            kind = CalibrationMethod[method]
            quantize_static(
                model, folder / "quantized.onnx", reader(samples), op_types_to_quantize=chosen, calibrate_method=kind, **types
            )

        return run

    return make


def reader(samples: list[Sample]) -> object:
    """Return samples as ONNX Runtime's calibrators want them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.samples, None)
            return None if sample is None else dict(sample.inputs)

    return Reader()


def quantize_with_onnxsim() -> Run:
    """Static quantization by onnxsim."""
    import onnxsim

    def run(model: Path, samples: list[Sample], folder: Path) -> None:
        quantized = onnxsim.quantize_static(str(model), [dict(sample.inputs) for sample in samples])
        if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
            raise RuntimeError("it quantized nothing, and did not say so")
        onnx.save(quantized, folder / "quantized.onnx")

    return run


def quantize_with_nncf() -> Run:
    """Post-training quantization by NNCF."""
    import nncf

    def run(model: Path, samples: list[Sample], folder: Path) -> None:
        dataset = nncf.Dataset([dict(sample.inputs) for sample in samples])
        onnx.save(nncf.quantize(onnx.load(model), dataset, subset_size=len(samples)), folder / "quantized.onnx")

    return run


CONTENDERS = {
    BASELINE: Contender(infer, repeated=True, counted=256),
    "minmax": Contender(calibrate("MinMax"), repeated=True, counted=256),
    "percentile": Contender(calibrate("Percentile"), repeated=True, counted=256),
    "entropy": Contender(calibrate("Entropy"), repeated=True),
    "mse": Contender(calibrate("MeanSquaredError"), repeated=True),
    "ONNX Runtime MinMax": Contender(calibrate_with_onnxruntime("MinMax")),
    "ONNX Runtime Percentile": Contender(calibrate_with_onnxruntime("Percentile")),
    "ONNX Runtime Entropy": Contender(calibrate_with_onnxruntime("Entropy")),
    "whole stage, minmax": Contender(quantize("minmax")),
    "whole stage, percentile": Contender(quantize("percentile")),
    "whole stage, ONNX Runtime MinMax": Contender(quantize_with_onnxruntime("MinMax")),
    "whole stage, ONNX Runtime Percentile": Contender(quantize_with_onnxruntime("Percentile")),
    "whole stage, ONNX Runtime Percentile of all but Where": Contender(
        quantize_with_onnxruntime("Percentile", all_but=["Where"])
    ),
    "whole stage, ONNX Runtime Percentile of all but Where and Mul": Contender(
        quantize_with_onnxruntime("Percentile", all_but=["Where", "Mul"])
    ),
    "whole stage, ONNX Runtime Percentile of Conv and MatMul": Contender(
        quantize_with_onnxruntime("Percentile", ["Conv", "MatMul"])
    ),
    "whole stage, onnxsim": Contender(quantize_with_onnxsim, needs="onnxsim"),
    "whole stage, NNCF": Contender(quantize_with_nncf, needs="nncf"),
}
OF_ONE_LENGTH = [
    name for name in CONTENDERS if "whole" in name and ("minmax" in name or "ercentile" in name or "MinMax" in name)
]
OF_ALL_LENGTHS = [name for name in CONTENDERS if name != BASELINE and "stage, ONNX Runtime Percentile" not in name]


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=("asr", "matcha", "vocoder", "hifigan"))
    parser.add_argument("--folders", nargs="*", type=Path, default=[], help="further graphs: model.onnx and calib.npz in each")
    parser.add_argument("--samples", nargs="+", type=int, default=[8, 32, 128, 256])
    parser.add_argument("--contenders", nargs="+", default=OF_ALL_LENGTHS, choices=CONTENDERS)
    parser.add_argument("--one-length", nargs="*", default=OF_ONE_LENGTH, choices=CONTENDERS, help="those of the second table")
    parser.add_argument("--repeats", type=int, default=3, help="turns of fp32 and the range engine; the median counts")
    parser.add_argument("--limit", type=int, default=180, help="seconds, after which a contender is stopped")
    parser.add_argument("--memory", type=int, default=12, help="GB that a contender may take")
    parser.add_argument("--write", action="store_true", help="write docs/calibration.md, one section a model")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child, arguments.samples[0], arguments.memory)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, model, samples in cases(arguments):
            text = section(name, model, samples, arguments, Path(folder))
            print(text, flush=True)
            if arguments.write:
                write(name, text)


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, Path, list[Sample]]]:
    """Yield name, graph and samples of each model to measure on, the longest sample first."""
    count = max(arguments.samples)
    for name in arguments.models:
        yield name, *shipped(name, count)
    for folder in arguments.folders:
        if not (folder / "model.onnx").is_file():
            print(f"{folder.name}: skipped, there is no {folder / 'model.onnx'}")
            continue
        yield folder.name, folder / "model.onnx", read_arrays(folder / "calib.npz", "--folders", count)


def shipped(name: str, count: int) -> tuple[Path, list[Sample]]:
    """Return a shipped model's graph and calibration samples."""
    from pipeline.data.datasets import calibration_samples
    from pipeline.record.run_log import RunLog
    from pipeline.stages.load import load

    config = composed(f"model={name}", "mode=static", f"calibration.samples={count}")
    [source] = load(config.model).graphs.values()
    return source.path, calibration_samples(config.model, source, config.calibration, config.seed, RunLog())


def composed(*overrides: str) -> "RunConfig":
    """Return the settings of a run."""
    # not above: Hydra would weigh on the memory of every child
    from hydra import compose, initialize_config_dir

    from pipeline.config.compose import register_schemas, to_run_config

    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_run_config(compose("config", list(overrides)))


def section(name: str, model: Path, samples: list[Sample], arguments: argparse.Namespace, folder: Path) -> str:
    """Return one model's figures as Markdown."""
    longest = max(range(len(samples)), key=lambda index: sum(array.size for array in samples[index].inputs.values()))
    samples.insert(0, samples.pop(longest))
    tables = [f"### {name}"]
    for title, kept, contenders in (
        (f"{len(samples)} samples of different lengths", samples, arguments.contenders),
        ("One sample repeated, all of one length", samples[:1], arguments.one_length),
    ):
        if contenders:
            arrays = folder / f"{name}-{len(kept)}.npz"
            named = {f"{index}/{key}": array for index, item in enumerate(kept) for key, array in item.inputs.items()}
            np.savez(arrays, allow_pickle=False, **named)
            tables.append(f"{title}:\n\n{table(model, arrays, [BASELINE, *contenders], arguments)}")
    return "\n\n".join(tables)


def table(model: Path, arrays: Path, contenders: list[str], arguments: argparse.Namespace) -> str:
    """Return what each contender takes for each number of samples: CPU time and wall time over fp32's, and peak memory."""
    cells: dict[tuple[str, int], str] = {}
    failed: dict[str, str] = {}
    for count in arguments.samples:
        turns: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
        for turn in range(arguments.repeats):  # in turn, so that what slows the machine slows all
            for contender in contenders:
                asked = CONTENDERS[contender]
                if contender in failed or count > asked.counted or (turn and not asked.repeated):
                    continue
                if asked.needs and importlib.util.find_spec(asked.needs) is None:
                    failed[contender] = "not installed"
                    continue
                figure = spawn(contender, model, arrays, count, arguments)
                if isinstance(figure, str):
                    failed[contender] = figure
                    if contender == BASELINE:
                        sys.exit(f"{model}: {figure}")
                else:
                    turns[contender].append(figure)
                    print(f"{model.parent.name} {count} {contender} {figure}", file=sys.stderr, flush=True)
        for contender, figures in turns.items():
            if figures:
                base = turns[BASELINE]
                cpu, wall = (
                    statistics.median(f[key] / b[key] for f, b in zip(figures, base, strict=False)) for key in ("cpu", "wall")
                )
                seconds = statistics.median(figure["wall"] for figure in figures)
                peak = statistics.median(figure["peak_mb"] for figure in figures)
                cells[contender, count] = f"{cpu:.2f} / {wall:.2f} / {seconds:.1f} s / {peak:.0f} MB"
            else:
                cells[contender, count] = failed.get(contender, "")
    head = (
        "| | " + " | ".join(f"{count} samples" for count in arguments.samples) + " |\n|---|" + "---|" * len(arguments.samples)
    )
    rows = [f"| {name} | " + " | ".join(cells[name, count] for count in arguments.samples) + " |" for name in contenders]
    return "\n".join([head, *rows])


def spawn(contender: str, model: Path, arrays: Path, count: int, arguments: argparse.Namespace) -> dict[str, float] | str:
    """Measure one contender in a process of its own; return its figures, or why there are none."""
    command = [sys.executable, __file__, "--child", contender, str(model), str(arrays)]
    command += ["--samples", str(count), "--memory", str(arguments.memory)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | one, timeout=arguments.limit
        )
    except subprocess.TimeoutExpired:
        return f"over {arguments.limit} s at {count}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
        return f"fails at {count}: {lines[-1][:60]}".replace("|", "/")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(contender: str, model: str, arrays: str, count: int, memory_gb: int) -> dict[str, float]:
    """Run one contender in this process; return its CPU and wall time in seconds, and the peak of its memory."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_gb << 30, memory_gb << 30))
    samples = read_arrays(Path(arrays), "--folders", count)
    samples = (samples * -(-count // len(samples)))[:count]
    run = CONTENDERS[contender].make()
    gc.freeze()  # as run.py does: what imports left is walked through for nobody
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        run(Path(model), samples, Path(folder))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return {"cpu": cpu, "wall": wall, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def write(name: str, text: str) -> None:
    """Replace one model's section of the page."""
    page = ROOT / "docs" / "calibration.md"
    head, _, measured = page.read_text(encoding="utf-8").partition(MARK)
    sections = {part.split("\n", 1)[0]: part.strip() for part in measured.split("\n### ")[1:]}
    sections[name] = text.removeprefix("### ")
    page.write_text(f"{head}{MARK}\n\n" + "\n\n".join(f"### {part}" for part in sections.values()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
