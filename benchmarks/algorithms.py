"""What each algorithm of `pipeline/ptq/` improves, alone and together, with the same nodes quantized and at the same speed.

    python benchmarks/algorithms.py                              # prints a table per model
    python benchmarks/algorithms.py --models hifigan_v2 --write  # writes docs/algorithms.md as well

Calibration data decide, evaluation data measure: log-mel L1 to the audio (or mel) of fp32, or the KL divergence from fp32's
posteriors. `hifigan_v2`, a trained HiFi-GAN V2, is not part of the repository (../shared/real); it is left out where absent.
Every number but the seconds is the same in every run.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.config.choices import RangeMethod  # noqa: E402
from pipeline.config.compose import register_schemas, to_run_config  # noqa: E402
from pipeline.config.mode_settings import Algorithms, StaticConfig  # noqa: E402
from pipeline.config.settings import RunConfig  # noqa: E402
from pipeline.data.arrays import read_arrays  # noqa: E402
from pipeline.data.datasets import calibration_samples, evaluation_samples  # noqa: E402
from pipeline.evaluate.sample_scores import comparable  # noqa: E402
from pipeline.graph.noise_inputs import with_noise_inputs  # noqa: E402
from pipeline.graph.prepare import prepare  # noqa: E402
from pipeline.graph.session import infer, open_session  # noqa: E402
from pipeline.graph.source_graph import SourceGraph  # noqa: E402
from pipeline.metrics.audio_metrics import log_mel_l1, log_mel_l1_of_audio  # noqa: E402
from pipeline.metrics.text_metrics import posterior_kl  # noqa: E402
from pipeline.models.matcha import Matcha  # noqa: E402
from pipeline.models.speech_model import Speaks, Transcribes  # noqa: E402
from pipeline.ptq.algorithms import fit, fold, rewrite  # noqa: E402
from pipeline.quantize.calibrated_ranges import measured_ranges  # noqa: E402
from pipeline.quantize.static import plan_static, quantize_static, tensors_to_calibrate  # noqa: E402
from pipeline.record.run_log import RunLog  # noqa: E402
from pipeline.sample import Outputs, Sample  # noqa: E402
from pipeline.stages.load import load  # noqa: E402

MODELS = ("hifigan_v2", "hifigan", "vocoder", "asr", "matcha")
REAL = ROOT.parent / "shared" / "real" / "cases" / "hifigan_v2"
CROP_FRAMES = 200  # of a calibration mel of hifigan_v2
PAGE = ROOT / "docs" / "algorithms.md"
ALL = Algorithms(fold_batch_norm=True, cross_layer_equalization=True, smooth_quant=True, rounding=True, bias_correction=True)
VARIANTS = {
    "none": Algorithms(),
    "equalization": Algorithms(cross_layer_equalization=True),
    "smoothing": Algorithms(smooth_quant=True),
    "rounding": Algorithms(rounding=True),
    "bias correction": Algorithms(bias_correction=True),
    "equalization, rounding": Algorithms(cross_layer_equalization=True, rounding=True),
    "all": ALL,
}
METHODS = {
    "minmax": {"method": RangeMethod.minmax},
    "percentile 99.99": {"method": RangeMethod.percentile, "percentile": 99.99},
    "mse": {"method": RangeMethod.mse},
}
COMBINATIONS = [(name, "minmax") for name in VARIANTS] + [
    (name, method) for name in ("none", "all") for method in list(METHODS)[1:]
]


@dataclass(frozen=True)
class Case:
    """A model, its data, and how far two outputs of it are apart."""

    source: SourceGraph
    mode: StaticConfig
    calibration: Sequence[Sample]
    evaluation: Sequence[Sample]
    metric: str
    distance: Callable[[Outputs, Outputs], float]


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    algorithms: str
    method: str
    value: float
    seconds: float


def main() -> None:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--calibration", type=int, default=24, help="samples, at most")
    parser.add_argument("--evaluation", type=int, default=24, help="samples, at most")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    register_schemas()
    tables = []
    for name in arguments.models:
        if name == "hifigan_v2" and not REAL.is_dir():
            print(f"{name}: left out, its files are not here", file=sys.stderr)
            continue
        case = case_of(name, arguments.calibration, arguments.evaluation)
        tables.append(table_of(name, case, list(measure(name, case))))
        print(tables[-1], flush=True)
    if arguments.write:
        PAGE.parent.mkdir(exist_ok=True)
        command = " ".join(["python benchmarks/algorithms.py", *sys.argv[1:]])
        PAGE.write_text("\n\n".join([HEADER.strip().format(command=command), *tables]) + "\n", encoding="utf-8")


def case_of(name: str, calibration: int, evaluation: int) -> Case:
    """Return a model with its data; hifigan_v2 with the Conv of 32 channels or more quantized, others by the default mode."""
    if name == "hifigan_v2":
        config = run_config("onnx", [f"model.path={REAL / 'model.onnx'}", "mode.op_types=[Conv]", "mode.min_channels=32"])
        samples = [_cropped(sample) for sample in read_arrays(REAL / "calib.npz", "calibration", calibration)]
        measured = read_arrays(REAL / "eval.npz", "evaluation", evaluation)
    else:
        config = run_config(name, [f"calibration.samples={calibration}", f"evaluation.samples={evaluation}"])
    [source] = load(config.model).graphs.values()
    if name != "hifigan_v2":
        samples = calibration_samples(config.model, source, config.calibration, config.seed, RunLog())
        items = evaluation_samples(config.model, source, config.evaluation, config.seed, RunLog())
        measured = [item.sample for item in items]
    assert isinstance(config.mode, StaticConfig)
    metric, distance = distance_of(config)
    return Case(source, config.mode, samples, measured, metric, distance)


def run_config(model: str, overrides: list[str]) -> RunConfig:
    """Return settings as a user would give them."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return to_run_config(compose("config", [f"model={model}", "mode=static", *overrides]))


def distance_of(config: RunConfig) -> tuple[str, Callable[[Outputs, Outputs], float]]:
    """Return the name of a model's metric against fp32, and the metric of two inferences."""
    model = config.model
    if isinstance(model, Transcribes):
        return "posterior KL, nats", lambda a, b: posterior_kl(model.posteriors(a), model.posteriors(b))
    if isinstance(model, Matcha):

        def of_mels(a: Outputs, b: Outputs) -> float:
            first, second = comparable("mel", a["mel"], b["mel"])
            bands = a["mel"].shape[1]
            return log_mel_l1(first.reshape(bands, -1), second.reshape(bands, -1))

        return "log-mel L1, nats", of_mels

    def audio(outputs: Outputs) -> np.ndarray:
        return model.audio(outputs) if isinstance(model, Speaks) else np.ravel(next(iter(outputs.values())))

    return "log-mel L1, nats", lambda a, b: log_mel_l1_of_audio(audio(a), audio(b), 22_050)


def measure(name: str, case: Case) -> Iterator[Row]:
    """Yield one row per combination of algorithms and range method."""
    before = list(outputs_of(prepared_model(case), case))
    for variant, method in COMBINATIONS:
        start = time.perf_counter()
        model = quantized(case, VARIANTS[variant], replace(case.mode, **METHODS[method]))
        seconds = time.perf_counter() - start
        distances = [case.distance(a, b) for a, b in zip(before, outputs_of(model, case), strict=True)]
        yield Row(variant, method, float(np.mean(distances)), seconds)
        print(f"{name}: {variant}, {method}: {np.mean(distances):.5f} ({seconds:.0f} s)", file=sys.stderr, flush=True)


def prepared_model(case: Case) -> onnx.ModelProto:
    """Return the float graph as the quantize stage prepares it."""
    return prepare(case.source, opset=None, needed_opset=13, preprocess=True).model


def quantized(case: Case, algorithms: Algorithms, mode: StaticConfig) -> onnx.ModelProto:
    """Return the quantized graph: what the quantize stage does."""
    prepared = prepare(case.source, opset=None, needed_opset=13, preprocess=True)
    fold(prepared.model, algorithms)
    plan = plan_static(prepared, mode)
    model = rewrite(prepared.model, plan, algorithms, case.calibration)
    tensors = tensors_to_calibrate(model, plan, mode)
    ranges = measured_ranges(model, case.calibration, tensors, mode, threads=1, seed=0, on_sample=lambda _: None)
    model = fit(model, plan, replace(mode, **asdict(algorithms)), ranges, case.calibration)
    return quantize_static(model, plan, mode, ranges)


def outputs_of(model: onnx.ModelProto, case: Case) -> Iterator[Outputs]:
    """Yield the outputs for each evaluation sample, fp32 and quantized graphs drawing the same noise."""
    noisy = with_noise_inputs(model)
    session = open_session(noisy.model)
    for index, sample in enumerate(case.evaluation):
        yield infer(session, Sample(sample.id, sample.inputs | noisy.noise(np.random.default_rng(index))))


def table_of(name: str, case: Case, rows: Sequence[Row]) -> str:
    """Return the table of one model, in Markdown."""
    plain = rows[0].value
    lines = [
        f"## {name}",
        "",
        f"{len(case.calibration)} samples to calibrate, {len(case.evaluation)} to measure.",
        "",
        f"| algorithms | ranges | {case.metric} | change | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        change = 100 * (row.value / plain - 1)
        lines.append(f"| {row.algorithms} | {row.method} | {row.value:.4g} | {change:+.0f} % | {row.seconds:.0f} |")
    return "\n".join(lines)


def _cropped(sample: Sample) -> Sample:
    return Sample(sample.id, {name: np.ascontiguousarray(array[..., :CROP_FRAMES]) for name, array in sample.inputs.items()})


HEADER = """
# What each algorithm improves

Measured by `{command}`.

Each algorithm is a setting of `mode=static` (`none` is `mode.fold_batch_norm=false mode.cross_layer_equalization=false`):
`mode.cross_layer_equalization`, `mode.smooth_quant`, `mode.rounding`, `mode.bias_correction`; `all` also has
`mode.fold_batch_norm`. None of them adds a node to the graph, so the speed of the model stays the same. Distances are to fp32
on the evaluation data, which no algorithm sees; smaller is better. "seconds" is the time of quantization on the machine that
measured. In hifigan_v2, Convs with 32 or more channels are quantized; in the others, what `mode=static` chooses. The modules of
`pipeline/ptq/` describe the methods and cite their papers.
"""


if __name__ == "__main__":
    main()
