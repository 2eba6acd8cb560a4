"""What a processor without VNNI makes of quantized graphs: SQNR and speed of full, paired and 7-bit weights, here and there.

    python benchmarks/processors.py               # prints the tables
    python benchmarks/processors.py --write       # writes them into docs/processors.md as well
    python benchmarks/processors.py --arm FOLDER  # and runs the files for ARM there: see benchmarks/arm_environment.py

The arithmetic of a processor with AVX2 and nothing newer is this one's with the rest masked, else QEMU's
(benchmarks/without_vnni.py); the processor that runs this has to have VNNI, whose sums are exact. An emulator is not timed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from hydra import compose, initialize_config_dir
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import without_vnni  # noqa: E402
from benchmarks.arm_environment import command_in  # noqa: E402
from pipeline.config.choices import IntegerType, ModeKind, Target  # noqa: E402
from pipeline.config.compose import register_schemas, to_run_config  # noqa: E402
from pipeline.config.mode_settings import StaticConfig  # noqa: E402
from pipeline.config.settings import RunConfig  # noqa: E402
from pipeline.data.calibration_set import CalibrationSet  # noqa: E402
from pipeline.data.evaluation_set import EvaluationSet  # noqa: E402
from pipeline.graph.exact_products import with_uint8_weights  # noqa: E402
from pipeline.graph.noise_inputs import with_noise_inputs  # noqa: E402
from pipeline.graph.source_graph import load_graph  # noqa: E402
from pipeline.measure.relative_speed import speedups  # noqa: E402
from pipeline.processor import cpu_name  # noqa: E402
from pipeline.quantize.target import adds_in_16_bits, this_machine  # noqa: E402
from pipeline.record.run_directory import RunDirectory  # noqa: E402
from pipeline.record.run_log import RunLog  # noqa: E402
from pipeline.sample import Sample  # noqa: E402
from pipeline.stages.load import load  # noqa: E402
from pipeline.stages.quantize import quantize  # noqa: E402

MODELS = ("matcha", "vocoder", "hifigan", "asr")
WEIGHTS = {  # kind of weights -> settings
    "8 bits (`x86_vnni`)": {"target": Target.x86_vnni},
    "paired (`x86`)": {"target": Target.x86},
    "7 bits (`mode.reduce_range=true`)": {"target": Target.x86_vnni, "reduce_range": True},
}
KINDS_OF_CONV = {
    **WEIGHTS,
    "uint8": {"weight_type": IntegerType.uint8},
    "int8 activations": {"activation_type": IntegerType.int8, "target": Target.x86_vnni},
}
CONVS = ((64, 7, False), (32, 7, False), (256, 3, False), (16, 11, False), (64, 7, True))  # channels, kernel, behind a Relu
FRAMES = 400
SECONDS = 1.5  # of timing, per graph


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--case", type=Path, nargs="*", default=[], help="folders with model.onnx, calib.npz and eval.npz")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--arm", type=Path, help="an environment for ARM")
    parser.add_argument("--write", action="store_true", help="write docs/processors.md")
    parser.add_argument(
        "--time",
        type=Path,
        nargs=2,
        metavar="FOLDER",
        help="print the speed of the graphs of the second over those of the first",
    )
    arguments = parser.parse_args()
    if arguments.time:
        print(json.dumps(speeds_here(*arguments.time)))
        return
    if adds_in_16_bits(None):
        parser.error(f"this processor ({this_machine().name}) adds in 16 bits: no exact sums to compare with")
    text = "\n\n".join(
        [
            f"Processor: {cpu_name()} ({this_machine().name}); without VNNI: {_processor_without_vnni()}.",
            *(["### Single convolutions", table_of_convs()]),
            *(["### Models, `mode=static`", table_of_models(arguments)]),
            "Threads: 1. Speeds are ratios of pairs timed in turn; a second job ran on the other core." if _can_time() else "",
        ]
    )
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "processors.md"
        head = page.read_text(encoding="utf-8").split("<!-- measured -->")[0]
        page.write_text(f"{head}<!-- measured -->\n\n{text}\n", encoding="utf-8")


def _processor_without_vnni() -> str:
    if without_vnni.missing_for_masking():
        return "a Haswell, emulated by QEMU"
    return "this one, with all that is newer than AVX2 masked"


def _can_time() -> bool:
    return not without_vnni.missing_for_masking()


def table_of_convs() -> str:
    """Return SQNR and speed of single convolutions, with Gaussian weights and activations, here and without VNNI."""
    with tempfile.TemporaryDirectory() as folder:
        graphs = Graphs(Path(folder))
        for channels, kernel, relu in CONVS:
            rng = np.random.default_rng(0)
            weight = rng.standard_normal((channels, channels, kernel)).astype(np.float32)
            x = rng.standard_normal((1, channels, FRAMES)).astype(np.float32)
            sample = Sample("noise", {"x": np.maximum(x, 0) if relu else x})
            path = Path(folder) / f"conv_{channels}_{kernel}_{relu}.onnx"
            onnx.save(conv_of(weight, FRAMES - kernel + 1), path)
            source = load_graph("model", str(path))
            for kind, changes in KINDS_OF_CONV.items():
                mode = StaticConfig(name="static", kind=ModeKind.static, min_channels=1, **changes)
                found = quantize({"model": source}, mode, {"model": [sample]}, {"model": [sample]}, graphs.run_directory())
                graphs.add(f"{channels}_{kernel}_{relu} {kind}", path, found.artifacts["model"].path, [sample])
        names = {
            f"{channels}_{kernel}_{relu}": f"{channels} ch, k {kernel}{', behind a Relu' if relu else ''}"
            for channels, kernel, relu in CONVS
        }
        scores = _table("Conv1d", list(KINDS_OF_CONV), names, graphs.scores({"there": _without_vnni()}), 1)
        text = f"Each cell: SQNR in dB with exact sums, and without VNNI.\n\n{scores}"
        if _can_time():
            speeds = _table("Conv1d", list(KINDS_OF_CONV), names, graphs.speeds(), 2)
            text += f"\n\nEach cell: speed over fp32 here, and without VNNI, {FRAMES} frames.\n\n{speeds}"
    return text


def _table(what: str, kinds: list[str], names: dict[str, str], found: dict[str, dict[str, float]], digits: int) -> str:
    """Return a table with a row for each name and a column for each kind of weights."""
    lines = [f"| {what} | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for key, name in names.items():
        cells = [found[f"{key} {kind}"] for kind in kinds]
        told = [", ".join(_told(cell[where], digits) for where in ("here", "there")) for cell in cells]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def _told(value: float, digits: int) -> str:
    """Return a number; of outputs whose length differs from fp32's, no SQNR is known."""
    return "another length" if np.isnan(value) else f"{value:.{digits}f}"


def _without_vnni() -> tuple[str, ...]:
    return (*without_vnni.command(), sys.executable)


def table_of_models(arguments: argparse.Namespace) -> str:
    """Return SQNR of quantized models, the mean over samples of the report part, here, without VNNI and on ARM; and speeds."""
    commands = {"there": _without_vnni()} | ({"arm": command_in(arguments.arm)} if arguments.arm else {})
    kinds = WEIGHTS | ({"ARM (`arm`)": {"target": Target.arm}} if arguments.arm else {})
    names = {str(name): Path(name).name for name in [*arguments.models, *arguments.case]}
    scores: dict[str, dict[str, float]] = {}
    speeds: dict[str, dict[str, float]] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            graphs = Graphs(Path(folder))
            for kind, changes in kinds.items():
                add_model(graphs, name, f"{name} {kind}", changes, arguments.samples)
            scores |= graphs.scores(commands)
            speeds |= graphs.speeds() if _can_time() else {}
    for label, found in scores.items():
        if label.endswith("ARM (`arm`)"):
            found["there"] = found["arm"]
    text = f"SQNR in dB: exact sums, and without VNNI or on ARM.\n\n{_table('graph', list(kinds), names, scores, 1)}"
    if speeds:
        text += f"\n\nSpeed over fp32: here, and without VNNI.\n\n{_table('graph', list(WEIGHTS), names, speeds, 2)}"
    return text


def speeds_here(originals: Path, quantized: Path) -> dict[str, float]:
    """Return how many times as fast as the original each graph is that two folders have, timed in turn on one thread."""
    found = {}
    for path in sorted(quantized.glob("*.onnx")):
        with np.load(path.with_suffix(".npz")) as inputs:
            sample = Sample(path.stem, dict(inputs))
        original, model = onnx.load(originals / path.name), onnx.load(path)
        found[path.stem] = speedups(original, {"it": model}, [sample], threads=1, seconds=SECONDS)["it"]
    return found


class Graphs:
    """Float graphs and their quantized forms with inputs, to be run on this processor and on others."""

    def __init__(self, folder: Path) -> None:
        """Take a folder that is empty but for what the caller puts there."""
        self._folder = folder
        self._inputs = {form: folder / form for form in ("fp32", "int8", "exact")}
        for path in self._inputs.values():
            path.mkdir()
        self._members: dict[str, list[str]] = {}
        self._runs = 0

    def run_directory(self) -> RunDirectory:
        """Return a new directory of a run."""
        self._runs += 1
        path = self._folder / f"run{self._runs}"
        path.mkdir()
        return RunDirectory(path)

    def add(self, label: str, original: Path, quantized: Path, samples: list[Sample]) -> None:
        """Add a graph in both forms, which are given the same noise where they draw any."""
        for number, sample in enumerate(samples):
            key = f"{len(self._members)}_{number}"
            self._members.setdefault(label, [])
            forms = {"fp32": onnx.load(original), "int8": onnx.load(quantized)}
            forms["exact"] = with_uint8_weights(forms["int8"]) if adds_in_16_bits(None) else forms["int8"]
            for form, graph in forms.items():
                noisy = with_noise_inputs(graph)
                inputs = sample.inputs | noisy.noise(np.random.default_rng(number))
                onnx.save(noisy.model, self._inputs[form] / f"{key}.onnx")
                names = {value.name for value in noisy.model.graph.input}
                np.savez(self._inputs[form] / f"{key}.npz", **{k: v for k, v in inputs.items() if k in names})
            self._members[label].append(key)

    def scores(self, commands: dict[str, tuple[str, ...]]) -> dict[str, dict[str, float]]:
        """Return label -> processor -> SQNR in dB to this processor's fp32, the mean over samples; `here` with exact sums."""
        outputs: dict[str, Path] = {}
        runs = [("fp32", (sys.executable,)), ("here", (sys.executable,)), *commands.items()]
        for where, command in runs:
            form = {"fp32": "fp32", "here": "exact"}.get(where, "int8")
            results = self._folder / f"outputs_{where}"
            results.mkdir()
            program = [str(ROOT / "tests" / "run_graphs.py"), str(self._inputs[form]), str(results)]
            done = subprocess.run([*command, *program], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{where}: {done.stderr[-2000:]}")
            outputs[where] = results
        return {
            label: {where: float(np.mean([sqnr(outputs, where, key) for key in keys])) for where in outputs if where != "fp32"}
            for label, keys in self._members.items()
        }

    def speeds(self) -> dict[str, dict[str, float]]:
        """Return label -> here, and there without VNNI -> speed over fp32, the mean over samples."""
        folders = [str(self._inputs[form]) for form in ("fp32", "int8")]
        found = {}
        for where, command in (("here", (sys.executable,)), ("there", _without_vnni())):
            done = subprocess.run([*command, __file__, "--time", *folders], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{where}: {done.stderr[-2000:]}")
            found[where] = json.loads(done.stdout)
        return {
            label: {where: float(np.mean([ratios[key] for key in keys])) for where, ratios in found.items()}
            for label, keys in self._members.items()
        }


def sqnr(outputs: dict[str, Path], where: str, key: str) -> float:
    """Return the ratio of the first output's power to that of the difference from fp32."""
    with np.load(outputs["fp32"] / f"{key}.npz") as before, np.load(outputs[where] / f"{key}.npz") as after:
        name = before.files[0]
        if before[name].shape != after[name].shape:
            return float("nan")
        difference = np.square(before[name].astype(np.float64) - after[name]).sum()
        return float(10 * np.log10(np.square(before[name].astype(np.float64)).sum() / difference))


def add_model(graphs: Graphs, name: str, kind: str, changes: dict[str, object], samples: int, mode: str = "static") -> None:
    """Quantize a shipped model, or a case, and add it."""
    register_schemas()
    place = ["model=onnx", f"model.path={name}/model.onnx", "calibration=arrays", f"calibration.path={name}/calib.npz",
             "evaluation=tensors", f"evaluation.path={name}/eval.npz"]  # fmt: skip
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"model={name}"] if name in MODELS else place
        config: RunConfig = to_run_config(compose("config", [*overrides, f"mode={mode}"]))
    run_log, model = RunLog(), load(config.model)
    [(graph, source)] = model.graphs.items()
    given = list(EvaluationSet(model, config.evaluation, config.seed, run_log).report[graph][:samples])
    calibration = CalibrationSet(model, config.calibration, config.seed, run_log)
    changed = replace(config.mode, **changes)  # type: ignore[type-var]
    found = quantize(model.graphs, changed, calibration, {graph: given[:1]}, graphs.run_directory())  # type: ignore[arg-type]
    graphs.add(kind, source.path, found.artifacts[graph].path, given)


def conv_of(weight: np.ndarray, frames: int) -> onnx.ModelProto:
    """Return a graph of one convolution."""
    outputs, inputs, kernel = weight.shape
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, frames + kernel - 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, frames])
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    graph = helper.make_graph([node], "conv", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
