"""What each version of ONNX Runtime loads and runs: features of graphs, and the artifacts of this project.

    python benchmarks/runtimes.py                      # both tables, of all versions
    python benchmarks/runtimes.py --versions 1.17.1 1.28.0 --models vocoder asr --write

Every version is installed into the cache once, and runs in a process of its own. A version counts as running a file only after
an inference. Artifacts are compared with the output of the installed version, and timed against the fp32 model in the same
version, on one thread. The tables of `pipeline/graph/runtime_versions.py` follow from the first table.
"""

import argparse
import pickle
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline import run
from pipeline.measure.other_runtime import OtherRuntime, find_runtime
from pipeline.metrics.tensor_metrics import sqnr_db
from pipeline.processor import cpu_name

# after the package, which turns its telemetry off
import onnxruntime  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "runtimes.md"
MARKER = "<!-- measured -->"
VERSIONS = [
    "1.15.1", "1.16.3", "1.17.1", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4", "1.25.1", "1.26.0",
    "1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0",
]  # fmt: skip
MODELS = ["vocoder", "hifigan", "asr", "matcha"]
MODES = ["dynamic", "static", "weight_only", "fp16", "optimize"]

CHILD = """
import pickle, sys, time
import numpy as np, onnxruntime
onnxruntime.set_default_logger_severity(4)
def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
with open(sys.argv[1], "rb") as file:  # written by the parent, a moment ago
    job = pickle.load(file)
found = {}
for name, (model, feeds, against) in job.items():
    stage = "load"
    try:
        opened = session(model)
        stage = "run"
        outputs = opened.run(None, feeds)
        ratio = None
        if against is not None:
            other = session(against)
            other.run(None, feeds)
            ratios = []
            for _ in range(15):
                spent = []
                for each in (other, opened):
                    start = time.process_time()
                    each.run(None, feeds)
                    spent.append(time.process_time() - start)
                ratios.append(spent[0] / max(spent[1], 1e-9))
            ratio = float(np.median(ratios))
        found[name] = ["ok", outputs if against is not None else None, ratio]
    except Exception as error:
        found[name] = [f"{stage}: {' '.join(str(error).split())[:200]}", None, None]
with open(sys.argv[2], "wb") as file:
    pickle.dump(found, file)
"""


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--modes", nargs="*", default=MODES)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    runtimes = [find_runtime(version) for version in options.versions]
    parts = [_features(runtimes)]
    print(parts[0], flush=True)
    for model in options.models:
        parts.append(_artifacts(model, options.modes, runtimes))
        print(parts[-1], flush=True)
    if options.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
        PAGE.write_text(f"{head}{MARKER}\n\n" + "\n".join(parts), encoding="utf-8")


def _features(runtimes: list[OtherRuntime]) -> str:
    """Return which version runs which feature: `yes`, `-` (does not load) or `no run` (loads, and fails at an inference)."""
    job = {name: (model.SerializeToString(), feeds, None) for name, model, feeds in feature_graphs()}
    found = {runtime.version: _in(runtime, job) for runtime in runtimes}
    lines = [f"| feature | {' | '.join(_short(version) for version in found)} |", f"|---|{'---|' * len(found)}"]
    for name in job:
        cells = [{"ok": "yes", "run": "no run"}.get(results[name][0].split(":")[0], "-") for results in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "## Features\n\n" + "\n".join(lines) + "\n"


def _artifacts(model: str, modes: list[str], runtimes: list[OtherRuntime]) -> str:
    """Return what each version makes of a model's artifacts: SQNR to the installed version's output, speed against fp32."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for mode in modes:
            folder = Path(place) / mode
            report = run([f"model={model}", f"mode={mode}", "stages=[load,quantize]", f"hydra.run.dir={folder}"])
            for artifact in report.artifacts or []:
                original = next(entry.path for entry in report.inputs if entry.bytes == artifact.baseline_bytes)
                job = _job_of(ROOT / original, folder / artifact.file)
                expected = _in(find_runtime(None), job)["model"][1]
                cells = []
                for runtime in runtimes:
                    state, outputs, ratio = _in(runtime, job)["model"]
                    cells.append(state.split(":")[0] if state != "ok" else f"{_same(expected, outputs)}, {ratio:.2f}")
                rows.append(f"| {artifact.graph}, {mode} | {artifact.runtime} | {' | '.join(cells)} |")
    versions = " | ".join(_short(runtime.version) for runtime in runtimes)
    head = f"| graph, mode | said to need | {versions} |\n|---|---|{'---|' * len(runtimes)}\n"
    return f"## {model}, on {cpu_name()}\n\n{head}" + "\n".join(rows) + "\n"


def _job_of(original: Path, artifact: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for value in onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"]).get_inputs():
        shape = [size if isinstance(size, int) else 1 if axis == 0 else 64 for axis, size in enumerate(value.shape)]
        if value.type.startswith("tensor(int"):
            feeds[value.name] = np.full(shape, 64 if "len" in value.name else 3, np.int64 if "64" in value.type else np.int32)
        else:
            feeds[value.name] = (rng.standard_normal(shape) if shape else np.array(0.0)).astype(np.float32)
    return {"model": (str(artifact), feeds, str(original))}


def _same(expected: list[Any], outputs: list[Any]) -> str:
    pairs = [(a, b) for a, b in zip(expected, outputs, strict=True) if getattr(a, "dtype", None) == np.float32]
    if all(a.shape == b.shape and np.array_equal(a, b) for a, b in pairs):
        return "same"
    if any(a.shape != b.shape for a, b in pairs):
        return "other length"
    return f"{min(sqnr_db(a, b) for a, b in pairs):.0f} dB"


def _in(runtime: OtherRuntime, job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        asked, answer = Path(place) / "job", Path(place) / "answer"
        asked.write_bytes(pickle.dumps(job))
        command = [runtime.python, "-c", CHILD, str(asked), str(answer)]
        done = subprocess.run(command, env=runtime.environment(Path(place)), capture_output=True, text=True, check=False)
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            return {name: [f"died: {last}", None, None] for name in job}
        found: dict[str, Any] = pickle.loads(answer.read_bytes())
        return found


def _short(version: str) -> str:
    return ".".join(version.split(".")[:2])


def feature_graphs() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    """Yield small graphs, each with one feature, and inputs for it."""
    rng = np.random.default_rng(0)
    x = {"x": rng.standard_normal((2, 32)).astype(np.float32)}
    scalar = {"s": np.array(0.1, np.float32)}
    for version in range(7, 15):
        yield f"IR version {version}", _graph([("Relu", ["x"], "y", {})], {}, ir=version), x
    for opset in range(13, 29):
        yield f"opset {opset}", _graph([("Mul", ["x", "x"], "y", {})], {}, opset=opset), x
    for bits, level in ((4, 0), (4, 4), (8, 0), (8, 4)):
        stored = {"w": np.zeros((16, 1, 32 * bits // 8), np.uint8), "s": np.ones(16, np.float32)}
        settings = {"K": 32, "N": 16, "bits": bits, "block_size": 32} | ({"accuracy_level": level} if level else {})
        node = ("com.microsoft.MatMulNBits", ["x", "w", "s"], "y", settings)
        yield f"MatMulNBits, {bits} bits, accuracy level {level}", _graph([node], stored), x
    for kind, code in (("int16", TensorProto.INT16), ("uint16", TensorProto.UINT16)):
        zero = scalar | {"z": helper.make_tensor("z", code, [], [0])}
        for domain, opset in (("", 21), ("com.microsoft.", 13)):
            nodes = [
                (f"{domain}QuantizeLinear", ["x", "s", "z"], "q", {}),
                (f"{domain}DequantizeLinear", ["q", "s", "z"], "y", {}),
            ]
            yield f"{domain}QuantizeLinear of {kind}", _graph(nodes, zero, opset=opset, ir=10 if opset == 21 else 7), x
    for kind, code in (("int4", TensorProto.INT4), ("uint4", TensorProto.UINT4)):
        stored = {"w": helper.make_tensor("w", code, [32, 16], [1] * 512), "s": np.ones(16, np.float32)}
        yield f"DequantizeLinear of {kind}", _graph(_dequantized(), stored, opset=21, ir=10), x
    weight = rng.integers(-127, 127, (32, 16)).astype(np.int8)
    yield "DequantizeLinear per channel", _graph(_dequantized(), {"w": weight, "s": np.ones(16, np.float32)}), x
    stored = {"w": weight, "sx": np.array(0.02, np.float32), "zx": np.array(128, np.uint8), "sw": np.full(16, 0.01, np.float32)}
    nodes = [
        ("QuantizeLinear", ["x", "sx", "zx"], "q", {}),
        ("com.microsoft.MatMulIntegerToFloat", ["q", "w", "sx", "sw", "zx"], "y", {}),
    ]
    yield "MatMulIntegerToFloat", _graph(nodes, stored), x


def _dequantized() -> list[tuple[str, list[str], str, dict[str, Any]]]:
    return [("DequantizeLinear", ["w", "s"], "wf", {"axis": 1}), ("MatMul", ["x", "wf"], "y", {})]


def _graph(
    nodes: list[tuple[str, list[str], str, dict[str, Any]]], stored: dict[str, Any], *, opset: int = 13, ir: int = 7
) -> onnx.ModelProto:
    made = []
    for op_type, inputs, output, settings in nodes:
        domain, _, name = op_type.rpartition(".")
        made.append(helper.make_node(name, inputs, [output], domain=domain, **settings))
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, key) for key, value in stored.items()
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns"]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(made, "g", ends[:1], ends[1:], tensors), opset_imports=opsets, ir_version=ir)


if __name__ == "__main__":
    main()
