"""Every setting: its name, type, unit and default. `pipeline/config/compose.py` composes, converts and checks them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from pipeline.evaluation_kind import EvaluationKind

if TYPE_CHECKING:
    from pipeline.models.speech_model import SpeechModel

STAGE_NAMES = ("load", "inspect", "quantize", "benchmark", "evaluate")

# The defaults stand here and nowhere else: `conf/` holds only what makes one option of a group differ from another.
# Enum members are lower-case because Hydra 1.3 reads and writes an enum by its member's name.


class ModeKind(Enum):
    """The closed set of modes; each has one settings class below and one file in `pipeline/quantize/`."""

    dynamic = "dynamic"
    static = "static"
    weight_only = "weight_only"
    fp16 = "fp16"
    optimize = "optimize"
    auto = "auto"


class Target(Enum):
    """The family of processors that the model will run on."""

    x86 = "x86"
    arm = "arm"


class IntegerType(Enum):
    """An integer type of weights or activations. Sub-byte and 16-bit types need an opset of 21."""

    int8 = "int8"
    uint8 = "uint8"
    int16 = "int16"
    uint16 = "uint16"
    int4 = "int4"
    uint4 = "uint4"


class Format(Enum):
    """How a statically quantized graph is written: Q/DQ pairs around float operators, or integer operators."""

    qdq = "qdq"
    qoperator = "qoperator"


class RangeMethod(Enum):
    """How the range of a tensor follows from what was seen during calibration."""

    minmax = "minmax"
    moving_average = "moving_average"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


class CalibrationKind(Enum):
    """Where calibration samples come from."""

    real = "real"
    audio = "audio"
    manifest = "manifest"
    sentences = "sentences"
    arrays = "arrays"
    random = "random"


class OnBadSample(Enum):
    """What happens to a sample that cannot be used: the run ends, or goes on without it and the report says so."""

    refuse = "refuse"
    skip = "skip"


class SampleRateMismatch(Enum):
    """What happens to an audio file whose sample rate is not the model's."""

    resample = "resample"
    refuse = "refuse"


@dataclass
class ModeConfig:
    """Settings that every mode has.

    Attributes:
        name: the mode's name in the path of the run and in the report.
        kind: the method; it decides which settings class applies.
        nodes_to_quantize: only these nodes (exact names or globs); empty: all that the mode covers.
        nodes_to_exclude: never these nodes (exact names or globs).
        preprocess: fold constants and remove identities with ONNX Runtime before quantizing.
        opset: convert the graph to this opset first; null: only where the mode needs a newer one.
        external_data: write weights beside the graph; null: only where a file would pass 2 GB.
        optimize: first replace slow float operators by fast ones that compute the same, where that measures faster here.
        rewrites: names of the rewrites to try (`pipeline/optimize/rewrite_registry.py`); empty: all.
        assume: also rewrite where that computes the same only for inputs with a property that the graph does not state (equal
            lengths, finite values). The report names what is assumed.
    """

    name: str = MISSING
    kind: ModeKind = MISSING
    nodes_to_quantize: list[str] = field(default_factory=list)
    nodes_to_exclude: list[str] = field(default_factory=list)
    preprocess: bool = True
    opset: int | None = None
    external_data: bool | None = None
    optimize: bool = False
    rewrites: list[str] = field(default_factory=list)
    assume: bool = False


@dataclass
class DynamicConfig(ModeConfig):
    """Integer weights; ranges of activations are computed while the model runs. Needs no data.

    Attributes:
        op_types: operator types to quantize; `all`: every type that the quantizer knows.
        weight_only_op_types: those of them that only store their weights as int8, and compute in float: small, no slower.
        weight_type: null: int8 for MatMul, uint8 for Conv: the fast kernels (that of QInt8 Conv is a scalar loop).
        per_channel: one scale per output channel of a weight.
        reduce_range: 7-bit weights; null: only where the target has no VNNI instructions.
        target: null: this machine.
        subgraphs: also quantize inside If, Loop and Scan.
    """

    op_types: list[str] = field(default_factory=lambda: ["MatMul", "Conv", "Gemm", "ConvTranspose"])
    weight_only_op_types: list[str] = field(default_factory=lambda: ["Gemm", "ConvTranspose"])
    weight_type: IntegerType | None = None
    per_channel: bool = True
    reduce_range: bool | None = None
    target: Target | None = None
    subgraphs: bool = False


@dataclass
class StaticConfig(ModeConfig):
    """Integer weights and activations, with ranges of activations fixed by calibration.

    Attributes:
        method: how ranges follow from the calibration data.
        percentile: with `method=percentile`: the share of values that must lie within a range, in percent.
        momentum: with `method=moving_average`: the weight of the past, 0 to 1.
        op_types: operator types to quantize; `all`: every type that the quantizer knows.
        dynamic_op_types: those of them with dynamic ranges (MatMul: fused as DynamicQuantizeMatMul, it is faster than Q/DQ
            pairs between float neighbours, and as accurate).
        weight_only_op_types: those of them that store weights as int8 and compute in float (ConvTranspose has no integer
            kernel; Gemm of one row gains nothing).
        weight_type: null: int8.
        activation_type: null: uint8 on x86, int8 on ARM.
        format: Q/DQ pairs (ONNX Runtime fuses them when it loads the model) or integer operators.
        per_channel: one scale per output channel of a weight.
        symmetric: activations get a range symmetric about zero.
        reduce_range: 7-bit weights; null: only where the target has no VNNI instructions.
        target: null: this machine.
        float_outputs: operator types whose outputs stay float: no rounding, and no Q/DQ pair to compute.
        products_of_activations: also quantize MatMul of two activations (attention scores).
        min_channels: Conv of fewer input or output channels than this stay fp32: their integer kernel gains hardly anything,
            and those of a vocoder hiss.
        subgraphs: also quantize inside If, Loop and Scan.
        fold_batch_norm: batch normalizations become part of the convolutions in front of them; equal in real arithmetic.
        cross_layer_equalization: channels of activations between linear operators get ranges of equal size; equal in
            real arithmetic, and free at run time.
        smooth_quant: outliers move from activations behind a normalization into the weights that read them.
        rounding: weights are rounded so that the outputs of their nodes are kept, not each to the nearest integer.
        bias_correction: biases take back what quantization adds to the mean of each channel.
    """

    method: RangeMethod = RangeMethod.minmax
    percentile: float = 99.999
    momentum: float = 0.9
    op_types: list[str] = field(default_factory=lambda: ["Conv", "MatMul", "Gemm", "ConvTranspose"])
    dynamic_op_types: list[str] = field(default_factory=lambda: ["MatMul"])
    weight_only_op_types: list[str] = field(default_factory=lambda: ["Gemm", "ConvTranspose"])
    weight_type: IntegerType | None = None
    activation_type: IntegerType | None = None
    format: Format = Format.qdq
    per_channel: bool = True
    symmetric: bool = False
    reduce_range: bool | None = None
    target: Target | None = None
    float_outputs: list[str] = field(default_factory=list)
    products_of_activations: bool = False
    min_channels: int = 16
    subgraphs: bool = False
    fold_batch_norm: bool = True
    cross_layer_equalization: bool = True
    smooth_quant: bool = False
    rounding: bool = False
    bias_correction: bool = False


@dataclass
class WeightOnlyConfig(ModeConfig):
    """Integer weights, float computation: smaller, hardly ever faster. Needs no data.

    Attributes:
        op_types: operator types whose weights are stored as integers.
        bits: 4 or 8, for MatMul (MatMulNBits); other operators always store int8, one scale per output channel.
        block_size: values of a MatMul weight that share a scale: 16, 32, 64, 128 or 256.
        symmetric: no zero points.
        accuracy_level: what MatMulNBits may compute in: 0 (as the input), 1 (fp32), 2 (fp16), 3 (bf16), 4 (int8).
    """

    op_types: list[str] = field(default_factory=lambda: ["MatMul", "Conv", "Gemm", "ConvTranspose"])
    bits: int = 8
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 0


@dataclass
class Fp16Config(ModeConfig):
    """Half-precision weights and computation, where the processor has it; else half the size only.

    Attributes:
        ops_in_fp32: operator types that stay in fp32.
        keep_io_types: inputs and outputs of the graph stay float32.
    """

    ops_in_fp32: list[str] = field(default_factory=list)
    keep_io_types: bool = True


@dataclass
class OptimizeConfig(ModeConfig):
    """No quantization: only the rewrites, each numerically equivalent and faster on this machine."""

    optimize: bool = True


@dataclass
class AutoConfig(ModeConfig):
    """Each node gets the precision that a search finds for it, by what it measures: loss, time and size.

    Attributes:
        metric: what a loss is measured in: a metric of the evaluation. null: what fits its kind (`DEFAULT_BUDGETS`).
        max_loss: how much worse than fp32 it may be in it; the fastest within it is chosen. Without any limit: the metric's.
        min_speedup: how many times as fast as fp32 it must be; without `max_loss`, what loses least is chosen.
        max_bytes: how large the file may be; without `max_loss`, what loses least is chosen.
        max_length_change: how much longer or shorter an output of the model may become, as a share of fp32's.
        size_weight: a file of no size at all would be worth as much as being faster by this share.
        seconds: the search ends after so long, with the best so far.
        samples: of the evaluation set, to measure candidates on; the chosen one is checked on all. null: 24, or 100 where the
            metric moves in steps (words, classes).
        probes: of the calibration set, shortened where the graph allows it, that each node is measured on alone.
        op_types: operator types that may be quantized.
        method: how ranges follow from the calibration data; null: what loses least of minmax, percentile (two) and mse.
        percentile: with `method=percentile`: the share of values that must lie within a range, in percent.
        target: null: this machine, whose speed is what is measured.
    """

    metric: str | None = None
    max_loss: float | None = None
    min_speedup: float | None = None
    max_bytes: int | None = None
    max_length_change: float = 0.02
    size_weight: float = 0.25
    seconds: float = 300.0
    samples: int | None = None
    probes: int = 8
    op_types: list[str] = field(default_factory=lambda: ["Conv", "MatMul", "Gemm", "ConvTranspose"])
    method: RangeMethod | None = None
    percentile: float = 99.99
    target: Target | None = None
    optimize: bool = True


AnyModeConfig = AutoConfig | DynamicConfig | StaticConfig | WeightOnlyConfig | Fp16Config | OptimizeConfig

MODE_SCHEMAS: dict[ModeKind, type[ModeConfig]] = {
    ModeKind.dynamic: DynamicConfig,
    ModeKind.static: StaticConfig,
    ModeKind.weight_only: WeightOnlyConfig,
    ModeKind.fp16: Fp16Config,
    ModeKind.optimize: OptimizeConfig,
    ModeKind.auto: AutoConfig,
}


@dataclass
class CalibrationConfig:
    """The data that activation ranges come from.

    Attributes:
        kind: the model's own data, arrays of the user's, or seeded noise.
        path: with `real`: any set of utterances; null: the model's own. With `audio`: a folder of recordings. With
            `manifest`: a .jsonl file, or a Kaldi folder (wav.scp and text). With `sentences`: text with a sentence a line.
            With `arrays`: an .npz of `<sample>/<input name>`.
        samples: how many to use at most.
        length: with `random`: the size of each axis whose size the graph leaves open, but the first (1).
        on_sample_rate: what happens to audio of another sample rate than the model's.
        on_bad_sample: what happens to a sample that cannot be used.
    """

    kind: CalibrationKind = MISSING
    path: str | None = None
    samples: int = 32
    length: int = 128
    on_sample_rate: SampleRateMismatch = SampleRateMismatch.resample
    on_bad_sample: OnBadSample = OnBadSample.refuse


@dataclass
class EvaluationConfig:
    """The data and the metrics that quality is measured with.

    Attributes:
        kind: what is compared.
        path: a manifest.jsonl, a Kaldi folder (wav.scp and text), a folder of recordings, a .txt with a sentence a line, or
            an .npz of `<sample>/<input name>`; null: the model's own evaluation set.
        samples: how many to use at most.
        metrics: names to report; empty: all that the kind computes.
        sample_rate_hz: of a model's audio output, where its metadata does not tell.
        labels: an .npy of one class per sample, in the order of the samples, for `accuracy_percent`.
        exchange_parts: the set is split into a half that choices are made on and a half that is reported; true: the other
            way round.
        listen: how many samples to write as audio before and after, where the model speaks.
        node_samples: how many samples the error of every node along the graph is measured on; 0: it is not measured.
        on_sample_rate: what happens to audio of another sample rate than the model's.
        on_bad_sample: what happens to a sample that cannot be used.
    """

    kind: EvaluationKind = MISSING
    path: str | None = None
    samples: int = 1000
    metrics: list[str] = field(default_factory=list)
    sample_rate_hz: int | None = None
    labels: str | None = None
    exchange_parts: bool = False
    listen: int = 3
    node_samples: int = 2
    on_sample_rate: SampleRateMismatch = SampleRateMismatch.resample
    on_bad_sample: OnBadSample = OnBadSample.refuse


@dataclass
class BenchmarkConfig:
    """How speed and memory are measured.

    Attributes:
        threads: further counts of intra-op threads to time with, after `runtime.threads`, which the main figures are of.
        runs: at least this many interleaved pairs of one original and one quantized inference.
        seconds: and at least this long.
        rounds: how often both sessions are built again: where a session's memory lies moves its latency by percents for as
            long as it lives, so more rounds make the interval narrower than more pairs do.
        self_check: also time the original against itself, the same way: that interval should hold 1.
    """

    threads: list[int] = field(default_factory=list)
    runs: int = 20
    seconds: float = 2.0
    rounds: int = 6
    self_check: bool = False


@dataclass
class RuntimeConfig:
    """How models are run, in every stage.

    Attributes:
        threads: intra-op threads of each session of ONNX Runtime: in calibration, search, benchmark and evaluation.
    """

    threads: int = 1


@dataclass
class RunSchema:
    """The top level, as Hydra composes it; `model`, `mode` and `benchmark` get their own types by group.

    Attributes:
        stages: which of load, inspect, quantize, benchmark, evaluate are run; their order is fixed.
        seed: of everything that is drawn: noise inside of models, random calibration data, the order of timings.
        rerun: a run's directory: it is run again from its own config.yaml, and the report says what came out differently.
        compare: runs' directories or globs: they are shown side by side, and nothing is run.
        sort_by: with `compare` or a sweep: a metric, speedup, bytes, latency_ms, ...; null: speedup.
        optimize_for: what a run returns to a sweeper that optimises: a metric, speedup, bytes or size_ratio, or a list of
            them; null: the first metric of the model.
        graph_modes: modes of single graphs of a model: +mode@graph_modes.joiner=dynamic.
    """

    model: Any = MISSING
    mode: Any = MISSING
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: Any = MISSING
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    stages: list[str] = field(default_factory=lambda: list(STAGE_NAMES))
    seed: int = 0
    rerun: str | None = None
    compare: list[str] = field(default_factory=list)
    sort_by: str | None = None
    optimize_for: Any = None  # a name or a list of names: OmegaConf knows no union of the two
    graph_modes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """One run's settings, typed and checked."""

    model: "SpeechModel"
    mode: AnyModeConfig
    calibration: CalibrationConfig
    evaluation: EvaluationConfig
    benchmark: BenchmarkConfig
    runtime: RuntimeConfig
    stages: tuple[str, ...]
    seed: int
    graph_modes: dict[str, AnyModeConfig] = field(default_factory=dict)  # of graphs that do not follow `mode`

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """The thread counts to time with: that of every stage first."""
        return tuple(dict.fromkeys((self.runtime.threads, *self.benchmark.threads)))

    def mode_of(self, graph: str) -> AnyModeConfig:
        """Return the mode that applies to a graph."""
        return self.graph_modes.get(graph, self.mode)
