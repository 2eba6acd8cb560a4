"""Can the benchmark be believed? What is known beforehand, measured: a model against itself, and what is twice as slow.

    python benchmarks/timing_validation.py --runs 3 --benchmark quick   # a look: minutes
    python benchmarks/timing_validation.py --write   # 20 runs with benchmark=full, and the tables of docs/trust.md

`itself`: each shipped model against itself: in how many runs the interval of the speed-up holds 1, and how wide it is.
`twice`: a session that is 2.00 times as slow by construction, and a chain of twice as many matrix products.
`sweep`: jobs of one sweep, one after the other and all at once: do the speed-ups agree within their intervals?
Every figure is a ratio of two models that were timed in turn. The machine should be idle.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from float_rewrites import SHIPPED, load  # noqa: E402

from pipeline.config.settings import BenchmarkConfig  # noqa: E402
from pipeline.measure import benchmark_child  # noqa: E402
from pipeline.measure.benchmark_graph import benchmark_graph  # noqa: E402
from pipeline.measure.benchmark_result import Speedup  # noqa: E402  # noqa: E402
from pipeline.measure.paired_timing import Pair, Rounds, speedup_of  # noqa: E402
from pipeline.report.report_file import read_report  # noqa: E402
from pipeline.sample import Sample  # noqa: E402

DOCUMENT = ROOT / "docs" / "trust.md"
MARKER = "<!-- measured -->\n"
PARTS = ("itself", "twice", "sweep")
SWEEP = (("vocoder", "static"), ("vocoder", "dynamic"), ("asr", "static"), ("asr", "dynamic"))
SPIN_S = 0.002
WIDTH, PRODUCTS = 128, 200


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--models", nargs="+", default=["matcha", "vocoder", "asr"], choices=list(SHIPPED))
    parser.add_argument("--benchmark", default="full", choices=("full", "quick"))
    parser.add_argument("--runs", type=int, default=20, help="of each measurement")
    parser.add_argument("--interval", type=float, default=BenchmarkConfig.interval, help="as benchmark.interval")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args()
    settings = OmegaConf.load(ROOT / "conf" / "benchmark" / f"{options.benchmark}.yaml")
    how = {"min_pairs": settings.runs, "min_seconds": settings.seconds, "rounds": settings.rounds, "interval": options.interval}
    parts = []
    for part in options.parts:
        match part:
            case "itself":
                parts.append(against_itself(options.models, options.runs, how))
            case "twice":
                parts.append(twice_as_slow(options.runs, how))
            case _:
                parts.append(parallel_sweep(options.benchmark))
        print(parts[-1], flush=True)
    if options.write:
        command = f"Measured with `benchmark={options.benchmark}`, {options.runs} runs of each, one thread.\n\n"
        before, _, _ = DOCUMENT.read_text(encoding="utf-8").partition(MARKER)
        DOCUMENT.write_text(before + MARKER + "\n" + command + "\n".join(parts), encoding="utf-8")


def against_itself(models: list[str], runs: int, how: dict[str, float]) -> str:
    """Return the table of each model against itself."""
    lines = ["### A model against itself\n",
             "| model | speed-ups | interval holds 1 | width, median | width, widest | warnings |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name in models:
        _, samples = load(name)
        path = ROOT / "data/models" / SHIPPED[name]
        found = [benchmark_graph(path, path, samples, seed=seed, **how) for seed in range(runs)]
        speedups = [one.speedup for one in found]
        held = sum(one.low <= 1.0 <= one.high for one in speedups)
        warned = sum(bool(one.warnings) for one in found)
        lines.append(f"| {name} | {_spread(speedups)} | {held} of {runs} | {_widths(speedups)} | {warned} of {runs} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


class Spinning:
    """A session whose inference takes as long as it is told, by the clock."""

    def __init__(self, seconds: float) -> None:
        """Take the time of one inference."""
        self._seconds = seconds

    def run(self, *_: object) -> list[npt.NDArray[np.float32]]:
        """Spin, and return one output."""
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            pass
        return [np.zeros(1, np.float32)]


def twice_as_slow(runs: int, how: dict[str, float]) -> str:
    """Return the table of what takes twice as long: by the clock, in the child's own loop; and by twice the work."""
    job = {"baseline": "twice", "quantized": "once", "threads": 1, "warmup_seconds": 0.5, **how}
    spun = []
    with mock.patch.object(benchmark_child, "load", lambda path, threads: Spinning(SPIN_S * (2 if path == "twice" else 1))):
        for seed in range(runs):
            pairs = benchmark_child.time_models({**job, "seed": seed}, [{}])["pairs"]
            widened = Rounds(how["rounds"], how["interval"]).widened
            spun.append(speedup_of([Pair(**pair) for pair in pairs], seed=seed, widened=widened))
    sample = Sample("noise", {"x": np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)})
    with tempfile.TemporaryDirectory() as name:
        once, twice = (chain(Path(name) / f"{count}.onnx", count) for count in (PRODUCTS, 2 * PRODUCTS))
        chained = [benchmark_graph(twice, once, [sample], seed=seed, **how).speedup for seed in range(runs)]
    lines = [
        "### Twice as slow\n",
        "| session | speed-ups | within 2 % | width, median | width, widest |",
        "|---|---|---|---|---|",
    ]
    for label, found in (
        ("2.00 by construction: inferences that spin for 4 ms and for 2 ms", spun),
        (f"{2 * PRODUCTS} matrix products against {PRODUCTS}, and the fixed cost of an inference on both sides", chained),
    ):
        within = sum(abs(one.median - 2.0) <= 0.04 for one in found)
        lines.append(f"| {label} | {_spread(found)} | {within} of {runs} | {_widths(found)} |")
    return "\n".join(lines) + "\n"


def chain(path: Path, count: int) -> Path:
    """Save y = x W W ... W, x: float (128, 128); W is a rotation, so that values keep their size."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))
    names = ["x", *(f"t{k}" for k in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [names[k], "w"], [names[k + 1]], f"product_{k}") for k in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH]) for name in ("x", "y")]
    weight = numpy_helper.from_array(rotation.astype(np.float32), "w")
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def parallel_sweep(benchmark: str) -> str:
    """Return the table of the speed-ups of several runs, one after the other and all at once."""
    with tempfile.TemporaryDirectory() as name:
        alone = [_speedup(_started(Path(name) / "alone" / f"{k}", job, benchmark)) for k, job in enumerate(SWEEP)]
        started = [_started(Path(name) / "at_once" / f"{k}", job, benchmark) for k, job in enumerate(SWEEP)]
        at_once = [_speedup(one) for one in started]
    lines = [f"### {len(SWEEP)} runs, one after the other and all at once\n",
             "| run | one after the other | all at once | intervals overlap |", "|---|---|---|---|"]  # fmt: skip
    for (model, mode), one, other in zip(SWEEP, alone, at_once, strict=True):
        overlap = one.low <= other.high and other.low <= one.high
        shown = " | ".join(f"{s.median:.3f} ({s.low:.3f} to {s.high:.3f})" for s in (one, other))
        lines.append(f"| {model} {mode} | {shown} | {'yes' if overlap else '**no**'} |")
    return "\n".join(lines) + "\n"


def _started(folder: Path, job: tuple[str, str], benchmark: str) -> tuple[Path, subprocess.Popen[str]]:
    """Start a run in a folder of its own; the lock of the machine is the same for all."""
    folder.mkdir(parents=True)
    model, mode = job
    command = [sys.executable, str(ROOT / "run.py"), f"model={model}", f"mode={mode}", f"benchmark={benchmark}",
               "stages=[load,quantize,benchmark]"]  # fmt: skip
    return folder, subprocess.Popen(command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    text=True)  # fmt: skip


def _speedup(started: tuple[Path, subprocess.Popen[str]]) -> Speedup:
    folder, process = started
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(printed)
    [path] = folder.glob("outputs/*/*/*/report.json")
    [measured] = (read_report(path.parent, "report").benchmark or {}).values()
    return measured.speedup


def _spread(found: list[Speedup]) -> str:
    medians = [one.median for one in found]
    return f"{min(medians):.3f} to {max(medians):.3f}"


def _widths(found: list[Speedup]) -> str:
    widths = [100 * (one.high - one.low) / one.median for one in found]
    return f"{median(widths):.1f} % | {max(widths):.1f} %"


if __name__ == "__main__":
    main()
