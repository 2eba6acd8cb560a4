"""What calibration costs: time relative to plain fp32 inference of the same samples, and peak memory.

    python benchmarks/calibration.py                          # every shipped model; 8, 32 and 128 samples
    python benchmarks/calibration.py --models asr --samples 8 --write      # as a table in docs/calibration.md
    python benchmarks/calibration.py --model-file model.onnx --arrays calib.npz     # arrays named <sample>/<input>
    python benchmarks/calibration.py --one-length             # one sample repeated: what ONNX Runtime's histograms can take

Each contender runs in a process of its own, on one core, from reading the model to the ranges of all tensors; its time is
that of the process, without its imports, and its memory the process's peak. Samples repeat where a set has too few.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.calibration.collect import collect  # noqa: E402
from pipeline.calibration.ranges import Entropy, MeanSquaredError, Method, MinMax, Percentile, tensor_range  # noqa: E402
from pipeline.calibration.tensors import quantizable_tensors  # noqa: E402
from pipeline.data.arrays import read_arrays  # noqa: E402
from pipeline.samples import Sample  # noqa: E402

MODELS = ("asr", "matcha", "vocoder", "hifigan")
NOT_COMPARED = ("onnxsim", "nncf")
BASELINE = "fp32 inference"


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Samples as ONNX Runtime's calibrators want them."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next sample's inputs, or None after the last."""
        sample = next(self.samples, None)
        return None if sample is None else dict(sample.inputs)


def infer(model: Path, samples: list[Sample]) -> None:
    """Plain inference: what everything else is relative to."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    for sample in samples:
        session.run(None, dict(sample.inputs))


def calibrate(method: Method) -> Callable[[Path, list[Sample]], None]:
    """The range engine, over every tensor that any mode may quantize."""

    def run(model: Path, samples: list[Sample]) -> None:
        graph = onnx.load(model)
        tensors = quantizable_tensors(graph)
        statistics = collect(graph, samples, tensors=tensors, histograms=not isinstance(method, MinMax))
        for tensor in tensors:
            tensor_range(statistics, tensor, method)

    return run


def calibrate_with_onnxruntime(method: CalibrationMethod) -> Callable[[Path, list[Sample]], None]:
    """ONNX Runtime's calibrator, as its `quantize_static` uses it."""

    def run(model: Path, samples: list[Sample]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(model, None, augmented_model_path=augmented, calibrate_method=method)
            calibrator.collect_data(Reader(samples))
            calibrator.compute_data()

    return run


CONTENDERS: dict[str, Callable[[Path, list[Sample]], None]] = {
    BASELINE: infer,
    "minmax": calibrate(MinMax()),
    "percentile": calibrate(Percentile()),
    "entropy": calibrate(Entropy()),
    "mse": calibrate(MeanSquaredError()),
    "ONNX Runtime MinMax": calibrate_with_onnxruntime(CalibrationMethod.MinMax),
    "ONNX Runtime Percentile": calibrate_with_onnxruntime(CalibrationMethod.Percentile),
    "ONNX Runtime Entropy": calibrate_with_onnxruntime(CalibrationMethod.Entropy),
}


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--model-file", type=Path, help="another graph, instead of the shipped ones")
    parser.add_argument("--arrays", type=Path, help="its samples, an .npz")
    parser.add_argument("--samples", nargs="+", type=int, default=[8, 32, 128])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--repeats", type=int, default=3, help="the least time of so many turns counts")
    parser.add_argument("--one-length", action="store_true", help="repeat the first sample")
    parser.add_argument("--write", action="store_true", help="write docs/calibration.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.model_file, arguments.arrays, arguments.samples[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        tables = [table_of(name, model, arrays, arguments) for name, model, arrays in cases(arguments, Path(folder))]
    absent = [name for name in NOT_COMPARED if importlib.util.find_spec(name) is None]
    notes = [f"{name}: {'not installed' if name in absent else 'installed, not measured'}." for name in NOT_COMPARED]
    text = "\n\n".join([*tables, " ".join(notes)])
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "calibration.md"
        head = page.read_text(encoding="utf-8").split("<!-- measured -->")[0] if page.exists() else "# Calibration\n\n"
        page.write_text(f"{head}<!-- measured -->\n\n{text}\n", encoding="utf-8")


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield name, graph and samples (.npz) of each model to measure on."""
    if arguments.model_file:
        samples = read_arrays(arguments.arrays, "--arrays", max(arguments.samples))
        yield arguments.model_file.parent.name, arguments.model_file, save(samples, folder / "arrays.npz", arguments.one_length)
        return
    for name in arguments.models:
        model, samples = shipped(name, max(arguments.samples))
        yield name, model, save(samples, folder / f"{name}.npz", arguments.one_length)


def shipped(name: str, count: int) -> tuple[Path, list[Sample]]:
    """Return a shipped model's graph and calibration samples."""
    # Hydra and the adapters are needed here alone, and would weigh on the memory of every child.
    from hydra import compose, initialize_config_dir

    from pipeline.config import register_schemas, to_run_config
    from pipeline.journal import Journal
    from pipeline.load import load
    from pipeline.run_directory import register_resolver
    from pipeline.sample_sets import calibration_samples

    register_schemas()
    register_resolver()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_run_config(compose("config", [f"model={name}", "mode=static", f"calibration.samples={count}"]))
    [source] = load(config.model).values()
    return source.path, calibration_samples(config.model, source, config.calibration, config.seed, Journal())


def save(samples: list[Sample], path: Path, one_length: bool) -> Path:
    """Write samples as `read_arrays` reads them."""
    kept = samples[:1] if one_length else samples
    np.savez(
        path,
        allow_pickle=False,
        **{f"{index}/{name}": array for index, item in enumerate(kept) for name, array in item.inputs.items()},
    )
    return path


def table_of(name: str, model: Path, arrays: Path, arguments: argparse.Namespace) -> str:
    """Return one model's figures as a Markdown table."""
    counts, contenders = arguments.samples, list(dict.fromkeys([BASELINE, *arguments.contenders]))
    figures: dict[tuple[str, int], dict[str, float | str]] = {}
    for count in counts:
        for _ in range(arguments.repeats):  # in turn, so that what slows the machine slows all of them
            for contender in contenders:
                figure = spawn(contender, model, arrays, count)
                before = figures.get((contender, count), figure)
                figures[contender, count] = min(figure, before, key=lambda taken: float(taken.get("seconds", np.inf)))
    lengths = ", one sample repeated" if arguments.one_length else ""
    lines = [
        f"### {name}{lengths}",
        "",
        "| | " + " | ".join(f"{count} samples: time / fp32 | peak MB" for count in counts) + " |",
        "|---|" + "---|---|" * len(counts),
    ]
    for count in counts:
        if "error" in figures[BASELINE, count]:
            sys.exit(f"{name}: {BASELINE} fails: {figures[BASELINE, count]['error']}")
    for contender in contenders:
        cells = []
        for count in counts:
            figure, baseline = figures[contender, count], figures[BASELINE, count]
            if "error" in figure:
                cells.append(f"fails: {figure['error']} | ")
            else:
                cells.append(f"{float(figure['seconds']) / float(baseline['seconds']):.2f} | {figure['peak_mb']:.0f}")
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spawn(contender: str, model: Path, arrays: Path, count: int) -> dict[str, float | str]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, __file__, "--child", contender, "--model-file", str(model), "--arrays", str(arrays)]
    done = subprocess.run([*command, "--samples", str(count)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1][:80]}
    figure: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return figure


def measure(contender: str, model: Path, arrays: Path, count: int) -> dict[str, float]:
    """Run one contender in this process, and return its time and the peak of its memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    samples = read_arrays(arrays, "--arrays", count)
    samples = (samples * -(-count // len(samples)))[:count]
    start = time.process_time()
    CONTENDERS[contender](model, samples)
    seconds = time.process_time() - start
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


if __name__ == "__main__":
    main()
