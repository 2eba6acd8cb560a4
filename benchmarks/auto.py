"""`mode=auto` beside what today's tools make of the same models, on the same data, timed in one run.

    python benchmarks/auto.py                                           # the models that ship
    python benchmarks/auto.py --cases hifigan_v2 spelling_cnn --write   # real cases; writes docs/auto.md
    python benchmarks/auto.py --ranking                                 # is the order of nodes that of measuring each in full?
    python benchmarks/auto.py --against FOLDER                          # and what another checkout of this project chooses
    python benchmarks/without_vnni.py python benchmarks/auto.py         # on a processor with AVX2 alone

Losses are measured on the part of the evaluation set that the search has not seen, speeds on one thread with all contenders
taken in turn. NNCF and onnxsim take part where they are installed. The real cases are not part of the repository
(../shared/real); they are left out where absent.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import scipy.stats
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from calibration import reader  # noqa: E402

from pipeline.calibration.statistics_cache import cached_statistics  # noqa: E402
from pipeline.config.choices import ModeKind, RangeMethod, Target  # noqa: E402
from pipeline.config.compose import register_schemas, to_run_config  # noqa: E402
from pipeline.config.mode_settings import StaticConfig  # noqa: E402
from pipeline.config.settings import RunConfig  # noqa: E402
from pipeline.data.calibration_set import CalibrationSet  # noqa: E402
from pipeline.data.datasets import EvaluationSample  # noqa: E402
from pipeline.data.evaluation_set import EvaluationSet  # noqa: E402
from pipeline.evaluate.loss import LossEvaluator  # noqa: E402
from pipeline.graph.prepare import prepare  # noqa: E402
from pipeline.graph.shorten_samples import cropped  # noqa: E402
from pipeline.graph.source_graph import SourceGraph, load_graph  # noqa: E402
from pipeline.measure.relative_speed import speedups  # noqa: E402
from pipeline.metrics.metric_registry import proxy_of  # noqa: E402
from pipeline.mixed_precision.candidate_builder import Builder  # noqa: E402
from pipeline.mixed_precision.precision_groups import groups_of  # noqa: E402
from pipeline.mixed_precision.sensitivity import sensitivities  # noqa: E402
from pipeline.models.loaded_model import LoadedModel  # noqa: E402
from pipeline.quantize.plan import Precision  # noqa: E402
from pipeline.quantize.target import needs_reduced_range, this_machine  # noqa: E402
from pipeline.record.run_log import RunLog  # noqa: E402
from pipeline.report.report_file import read_report  # noqa: E402
from pipeline.sample import Sample  # noqa: E402
from pipeline.stages.load import load  # noqa: E402

# after the package, which turns ONNX Runtime's telemetry off
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static  # isort: skip  # noqa: E402

REAL = ROOT.parent / "shared" / "real" / "cases"
PAGE = ROOT / "docs" / "auto.md"
MARKER = "<!-- measured -->"


def real(name: str, *overrides: str) -> list[str]:
    """Return the overrides for a folder with model.onnx, calib.npz and eval.npz."""
    folder = REAL / name
    return [
        "model=onnx", f"model.path={folder / 'model.onnx'}", "calibration=arrays", f"calibration.path={folder / 'calib.npz'}",
        f"evaluation.path={folder / 'eval.npz'}", *overrides,
    ]  # fmt: skip


AUDIO = ("evaluation=audio", "evaluation.sample_rate_hz=22050")
# name -> (the model and its data, metric, limits to search within)
CASES: dict[str, tuple[list[str], str, tuple[float, ...]]] = {
    "matcha": (["model=matcha"], "roundtrip_wer_percent", (1.0,)),
    "asr": (["model=asr"], "wer_percent", (0.3,)),
    "vocoder": (["model=vocoder"], "truth_log_mel_l1", (0.01,)),
    "hifigan": (["model=hifigan"], "truth_log_mel_l1", (0.03,)),
    "hifigan_v2": (real("hifigan_v2", *AUDIO), "log_mel_l1", (0.15, 0.35)),
    "spelling_cnn": (real("spelling_cnn", f"evaluation.labels={REAL / 'spelling_cnn/labels.npy'}"), "accuracy_percent", (0.5,)),
    "gtcrn_simple": (real("gtcrn_simple"), "relative_error", (0.05,)),
}


ALL_ROUNDS = (0.0,) * 6  # of timing: none is left out, and each is opened anew in every one
BOTH_DIRECTIONS = ("hifigan_v2", "asr")  # searched with selection part and report part exchanged as well
EXCHANGED = "evaluation.exchange_parts=true"


@dataclass
class Case:
    """A model with its data."""

    config: RunConfig
    model: LoadedModel
    source: SourceGraph
    calibration: list[Sample]
    items: list[EvaluationSample]

    def evaluator(self, metric: str, items: Sequence[EvaluationSample] | None = None) -> LossEvaluator:
        """Return what scores changes of the model's graph, on the part of the evaluation set that is reported."""
        return LossEvaluator(self.model, self.source.name, items or self.items, self.config.evaluation, metric, seed=0)


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[name for name in CASES if name not in _elsewhere()], choices=CASES)
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing, per contender")
    parser.add_argument("--ranking", action="store_true", help="compare the order of nodes with measuring each in full")
    parser.add_argument(
        "--against", type=Path, nargs="*", default=[], help="other checkouts, whose choices are compared as well"
    )
    parser.add_argument("--limits", type=float, nargs="+", help="of the loss, in place of those of the table")
    parser.add_argument("--search-seconds", type=float, help="mode.seconds, in place of the default")
    parser.add_argument("--no-tools", action="store_true", help="leave other tools out")
    parser.add_argument("--write", action="store_true", help=f"put each table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    register_schemas()
    for name in options.cases:
        if name in _elsewhere() and not REAL.is_dir():
            print(f"{name}: left out, its files are not here", file=sys.stderr)
            continue
        table = ranking(name) if options.ranking else comparison(name, options)
        print(table, flush=True)
        if options.write and not options.ranking:
            write(_title(name), table)


def _title(name: str) -> str:
    """Return the title of a model's table: a table that was made without VNNI stands beside the usual one."""
    return f"{name} on {Target.x86_avx2.name}" if this_machine() is Target.x86_avx2 else name


def write(name: str, table: str) -> None:
    """Put the table of a model in the place of its older one; the others stay."""
    head, _, measured = PAGE.read_text(encoding="utf-8").partition(f"{MARKER}\n\n")
    sections = {section.split("\n", 1)[0]: f"### {section.rstrip()}\n" for section in measured.split("### ")[1:]}
    sections[name] = table
    PAGE.write_text(f"{head}{MARKER}\n\n" + "\n".join(sections.values()), encoding="utf-8")


def comparison(name: str, options: argparse.Namespace) -> str:
    """Return the table of one model: what each tool makes of it."""
    overrides, metric, limits = CASES[name]
    limits = options.limits or limits
    case = case_of(overrides)
    found: dict[str, Path | str] = {}
    notes: dict[str, str] = {}
    chosen: dict[str, str] = {}
    exchanged: set[str] = set()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runs = []
        for limit in limits:
            asked = [*overrides, "mode=auto", f"mode.metric={metric}", f"mode.max_loss={limit}"]
            asked += [f"mode.seconds={options.search_seconds}"] if options.search_seconds else []
            runs.append((f"mode=auto, at most +{limit:g}", asked, ROOT))
            runs += [(f"mode=auto, at most +{limit:g}, of commit {_commit(other)}", asked, other) for other in options.against]
            if name in BOTH_DIRECTIONS and not options.against:
                runs.append((f"mode=auto, at most +{limit:g}, parts exchanged", [*asked, EXCHANGED], ROOT))
        needless = ("calibration=", "calibration.")  # of a mode that needs no data
        runs.append(
            ("mode=optimize", [*(given for given in overrides if not given.startswith(needless)), "mode=optimize"], ROOT)
        )
        for number, (label, given, checkout) in enumerate(runs):
            found[label], notes[label], chosen[label] = by_command(given, folder / f"run{number}", checkout)
            exchanged |= {label} if EXCHANGED in given else set()
        for number, (label, recipe) in enumerate([] if options.no_tools else RECIPES.items()):
            found[label] = attempt(recipe, case, folder / f"recipe{number}.onnx")
        files = {label: file for label, file in found.items() if isinstance(file, Path)}
        evaluators = {False: case.evaluator(metric)}
        if exchanged:
            evaluators[True] = case_of([*overrides, EXCHANGED]).evaluator(metric)
        losses = {
            label: evaluators[label in exchanged].loss(file, with_interval=True).measured for label, file in files.items()
        }
        models = {label: onnx.load(file) for label, file in files.items()}
        sizes = {label: file.stat().st_size / case.source.size_bytes for label, file in files.items()}
    ordered = sorted((item.sample for item in case.items), key=lambda s: sum(a.size for a in s.inputs.values()))
    timed_on = [ordered[0], ordered[len(ordered) // 2]]
    speed = speedups(case.source.model, models, timed_on, threads=1, seconds=options.seconds, hopeless=ALL_ROUNDS)
    lines = [
        f"### {_title(name)}",
        "",
        f"| | speed | size | {metric}, more than fp32, on the report part | on the selection part | |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for label, file in found.items():
        if isinstance(file, str):
            lines.append(f"| {label} | | | | | {file} |")
        else:
            loss = _with_interval(None if losses[label] is None else dataclasses.asdict(losses[label]))
            search = f"{chosen.get(label, '')} | {notes.get(label, '')}"
            lines.append(f"| {label} | {speed[label]:.2f} | {sizes[label]:.2f} | {loss} | {search} |")
    return "\n".join(lines) + "\n"


def _with_interval(loss: dict[str, float] | None) -> str:
    """Return a loss with the ends of its interval, as far as they are known."""
    if loss is None or loss["value"] is None:
        return "infinite"
    # a sum with 0.0 makes 0.0 of -0.0
    ends = "" if loss["low"] is None else f" ({loss['low'] + 0.0:+.3g} to {loss['high'] + 0.0:+.3g})"
    return f"{loss['value'] + 0.0:+.4g}{ends}"


def by_command(overrides: list[str], folder: Path, checkout: Path) -> tuple[Path | str, str, str]:
    """Return the artifact of the real command, or why there is none; how long it took; and its loss where it chose.

    Of another checkout, whose report may have another form, the artifact and the time.
    """
    command = [
        sys.executable,
        str(checkout.resolve() / "run.py"),
        *overrides,
        "stages=[load,quantize]",
        f"hydra.run.dir={folder}",
    ]
    own_code = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    begun, cpu_begun = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=own_code, check=False)
    took = f"command {time.perf_counter() - begun:.0f} s, {_cpu_of_children() - cpu_begun:.0f} s of CPU"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1], "", ""
    if checkout != ROOT:
        file = json.loads((folder / "report.json").read_text(encoding="utf-8"))["artifacts"][0]["file"]
        return folder / file, took, ""
    report = read_report(folder, "benchmarks/auto.py")
    file = folder / (report.artifacts or [])[0].file
    found = next(iter((report.search or {}).values()), None)
    if found is None:
        return file, took, ""
    tried = f"{len(found.candidates)} candidates in {found.seconds:.0f} s{'' if found.met else '; budget not met'}"
    note = f"{tried}; {took}; {found.candidates[found.chosen].label}"
    return file, note, _with_interval(None if found.selection_loss is None else dataclasses.asdict(found.selection_loss))


def _cpu_of_children() -> float:
    """Return the CPU seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def attempt(recipe: Callable[[Case, Path], None], case: Case, file: Path) -> Path | str:
    """Return the file that another tool has made, or what it said instead."""
    try:
        recipe(case, file)
        load_graph("probe", str(file), quantizable=False)
    except Exception as error:  # whatever another tool throws is its result
        said = str(error).replace(str(file), file.name).splitlines() or [""]
        return f"fails: {type(error).__name__}: {said[0][:100]}"
    return file


def dynamic(weights: QuantType) -> Callable[[Case, Path], None]:
    """Return ONNX Runtime's dynamic quantization, with the 7 bits that its manual asks for where 8 saturate."""
    reduce_range = weights is QuantType.QInt8 and needs_reduced_range(None, None)
    return lambda case, file: quantize_dynamic(case.source.path, file, weight_type=weights, reduce_range=reduce_range)


def static(activations: QuantType, ops: list[str] | None) -> Callable[[Case, Path], None]:
    """Return ONNX Runtime's static quantization, calibrated on real data by MinMax; with 7 bits where 8 saturate."""
    return lambda case, file: quantize_static(
        case.source.path, file, reader(case.calibration[:32]), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=ops, activation_type=activations, weight_type=QuantType.QInt8,
        reduce_range=needs_reduced_range(None, None),
    )  # fmt: skip


def nncf_default(case: Case, file: Path) -> None:
    """Quantize by NNCF."""
    import nncf

    dataset = nncf.Dataset([dict(sample.inputs) for sample in case.calibration[:32]])
    onnx.save(nncf.quantize(case.source.model, dataset, subset_size=32), file)


def onnxsim_default(case: Case, file: Path) -> None:
    """Quantize by onnxsim."""
    import onnxsim

    onnx.save(onnxsim.quantize_static(str(case.source.path), [dict(sample.inputs) for sample in case.calibration[:32]]), file)


RECIPES: dict[str, Callable[[Case, Path], None]] = {
    "ONNX Runtime dynamic, default": dynamic(QuantType.QInt8),
    "ONNX Runtime dynamic, QUInt8": dynamic(QuantType.QUInt8),
    "ONNX Runtime static S8S8": static(QuantType.QInt8, None),
    "ONNX Runtime static U8S8": static(QuantType.QUInt8, None),
    "ONNX Runtime static U8S8, Conv and MatMul": static(QuantType.QUInt8, ["Conv", "MatMul"]),
}
if importlib.util.find_spec("nncf"):
    RECIPES["NNCF"] = nncf_default
if importlib.util.find_spec("onnxsim"):
    RECIPES["onnxsim"] = onnxsim_default


def ranking(name: str) -> str:
    """Return how well short samples and parts of the graph order the nodes, against whole graphs on all of the data."""
    overrides, metric, _ = CASES[name]
    case = case_of(overrides)
    fine = proxy_of(metric)
    static = StaticConfig(
        name="auto", kind=ModeKind.static, op_types=["Conv", "MatMul", "Gemm", "ConvTranspose"], method=RangeMethod.percentile,
        percentile=99.99, dynamic_op_types=[], weight_only_op_types=[], min_channels=1,
        fold_batch_norm=False, cross_layer_equalization=False,
    )  # fmt: skip
    prepared = prepare(case.source, opset=None, needed_opset=13, preprocess=True)
    groups, _ = groups_of(prepared, static)
    data = cropped(case.source.model, case.calibration, 0.33, 128)
    builder = Builder(prepared.model, groups, static, data, lambda model: cached_statistics(model, data), threads=1)
    utterances = sorted(case.calibration, key=lambda s: sum(a.size for a in s.inputs.values()))[:16][-8:]
    probes = [EvaluationSample(sample) for sample in cropped(case.source.model, utterances, 0.1, 32)]
    wanted = [(group.name, Precision.static_int8) for group in groups if Precision.static_int8 in group.precisions]
    quick = sensitivities(builder, case.evaluator(fine, probes), wanted, threads=1)
    evaluator = case.evaluator(fine, case.items[:24])
    full = {key: evaluator.loss(builder.build({key[0]: key[1]})).loss for key in quick}
    agreement = scipy.stats.spearmanr([quick[key] for key in quick], [full[key] for key in quick]).statistic
    return f"{name}: Spearman {float(np.asarray(agreement)):.3f} over {len(quick)} groups, in {fine}"


def case_of(overrides: list[str]) -> Case:
    """Return a model with its data, as the settings name them."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = to_run_config(compose("config", [*overrides, "mode=static"]))
    model = load(config.model)
    [source] = model.graphs.values()
    calibration = CalibrationSet(model, config.calibration, config.seed, RunLog())
    evaluation = EvaluationSet(model, config.evaluation, config.seed, RunLog())
    return Case(config, model, source, calibration.entry, evaluation.report.samples)


def _elsewhere() -> set[str]:
    return {"hifigan_v2", "spelling_cnn", "gtcrn_simple"}


if __name__ == "__main__":
    main()
