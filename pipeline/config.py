"""Every setting: its type, its unit, its limits. The only module that knows OmegaConf.

Hydra composes the YAML files of `conf/` over the dataclasses below (`register_schemas`), `to_run_config` converts the
result once into plain dataclasses and checks it once; after that there is no DictConfig. `read_run_config` does the same
for the `config.yaml` of a past run.
"""

import dataclasses
import inspect
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from pipeline.models import SpeechModel

STAGE_NAMES = ("load", "inspect", "quantize", "benchmark", "evaluate")
ADAPTER_PREFIX = "pipeline.models."  # the only place that a model's `_target_` may name a class of
ALL_OPS = "all"  # `mode.op_types=[all]`: every type that the quantizer of the mode knows

# Enum members are lower-case because Hydra 1.3 reads and writes an enum by its member's name.


class ModeKind(Enum):
    """The closed set of modes; each has one settings class below and one file in `pipeline/quantize/`."""

    dynamic = "dynamic"
    static = "static"
    weight_only = "weight_only"
    fp16 = "fp16"
    float = "float"


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


class EvaluationKind(Enum):
    """What quality means for a model: its output tensors, its audio, its speech, or its transcripts."""

    tensors = "tensors"
    audio = "audio"
    tts = "tts"
    asr = "asr"


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
        rewrite: first replace slow float operators by fast ones that compute the same, where that measures faster here.
        rewrites: names of the rewrites to try (`pipeline/rewrite/`); empty: all.
    """

    name: str = MISSING
    kind: ModeKind = MISSING
    nodes_to_quantize: list[str] = field(default_factory=list)
    nodes_to_exclude: list[str] = field(default_factory=list)
    preprocess: bool = True
    opset: int | None = None
    external_data: bool | None = None
    rewrite: bool = False
    rewrites: list[str] = field(default_factory=list)


@dataclass
class DynamicConfig(ModeConfig):
    """Integer weights; ranges of activations are computed while the model runs. Needs no data.

    Attributes:
        op_types: operator types to quantize; `all`: every type that the quantizer knows.
        storage_op_types: those of them that only store their weights as int8, and compute in float: small, no slower.
        weight_type: null: int8 for MatMul and uint8 for Conv, the fast kernels of each (a default QInt8 Conv runs a scalar
            kernel at a fifth of fp32's speed).
        per_channel: one scale per output channel of a weight.
        reduce_range: 7-bit weights; null: only where the target has no VNNI instructions.
        target: null: this machine.
        subgraphs: also quantize inside If, Loop and Scan.
    """

    op_types: list[str] = field(default_factory=list)
    storage_op_types: list[str] = field(default_factory=list)
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
        dynamic_op_types: those of them whose activations get their ranges while the model runs (MatMul: faster than Q/DQ
            pairs where its neighbours are float, and no less accurate).
        storage_op_types: those of them that only store their weights as int8, and compute in float (ConvTranspose: there is
            no integer kernel).
        weight_type: null: int8.
        activation_type: null: uint8 on x86, int8 on ARM.
        format: Q/DQ pairs (ONNX Runtime fuses them when it loads the model) or integer operators.
        per_channel: one scale per output channel of a weight.
        symmetric: activations get a range symmetric about zero.
        reduce_range: 7-bit weights; null: only where the target has no VNNI instructions.
        target: null: this machine.
        float_outputs: operator types whose outputs stay float: no rounding, and no Q/DQ pair to compute.
        products_of_activations: also quantize MatMul of two activations (attention scores).
        min_channels: Conv of fewer input or output channels than this stay fp32, since their integer kernel is slower.
        subgraphs: also quantize inside If, Loop and Scan.
        folding: batch normalizations become part of the convolutions in front of them.
        equalization: channels of activations between linear operators get ranges of equal size.
        smoothing: outliers move from activations behind a normalization into the weights that read them.
        rounding: weights are rounded so that the outputs of their nodes are kept, not each to the nearest integer.
        bias_correction: biases take back what quantization adds to the mean of each channel.
    """

    method: RangeMethod = RangeMethod.minmax
    percentile: float = 99.999
    momentum: float = 0.9
    op_types: list[str] = field(default_factory=list)
    dynamic_op_types: list[str] = field(default_factory=list)
    storage_op_types: list[str] = field(default_factory=list)
    weight_type: IntegerType | None = None
    activation_type: IntegerType | None = None
    format: Format = Format.qdq
    per_channel: bool = True
    symmetric: bool = False
    reduce_range: bool | None = None
    target: Target | None = None
    float_outputs: list[str] = field(default_factory=list)
    products_of_activations: bool = False
    min_channels: int = 1
    subgraphs: bool = False
    folding: bool = False
    equalization: bool = False
    smoothing: bool = False
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

    op_types: list[str] = field(default_factory=list)
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
class FloatConfig(ModeConfig):
    """No quantization and no loss: only the rewrites, each exact in float and faster on this machine."""

    rewrite: bool = True


AnyModeConfig = DynamicConfig | StaticConfig | WeightOnlyConfig | Fp16Config | FloatConfig

MODE_SCHEMAS: dict[ModeKind, type[ModeConfig]] = {
    ModeKind.dynamic: DynamicConfig,
    ModeKind.static: StaticConfig,
    ModeKind.weight_only: WeightOnlyConfig,
    ModeKind.fp16: Fp16Config,
    ModeKind.float: FloatConfig,
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
        listen: how many samples to write as audio before and after, where the model speaks.
        on_sample_rate: what happens to audio of another sample rate than the model's.
        on_bad_sample: what happens to a sample that cannot be used.
    """

    kind: EvaluationKind = MISSING
    path: str | None = None
    samples: int = 1000
    metrics: list[str] = field(default_factory=list)
    sample_rate_hz: int | None = None
    labels: str | None = None
    listen: int = 3
    on_sample_rate: SampleRateMismatch = SampleRateMismatch.resample
    on_bad_sample: OnBadSample = OnBadSample.refuse


@dataclass
class BenchmarkConfig:
    """How speed and memory are measured.

    Attributes:
        threads: intra-op threads of each session.
        runs: at least this many interleaved pairs of one original and one quantized inference.
        seconds: and at least this long.
    """

    threads: int = 1
    runs: int = 20
    seconds: float = 2.0


@dataclass
class RunSchema:
    """The top level, as Hydra composes it; `model` and `mode` get their own types by group."""

    model: Any = MISSING
    mode: Any = MISSING
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    stages: list[str] = field(default_factory=lambda: list(STAGE_NAMES))
    seed: int = 0
    rerun: str | None = None
    compare: list[str] = field(default_factory=list)
    sort_by: str | None = None
    graph_modes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """One run's settings, typed and checked.

    `graph_modes` holds the modes of graphs that do not follow `mode`: `+mode@graph_modes.joiner=dynamic`.
    """

    model: "SpeechModel"
    mode: AnyModeConfig
    calibration: CalibrationConfig
    evaluation: EvaluationConfig
    benchmark: BenchmarkConfig
    stages: tuple[str, ...]
    seed: int
    graph_modes: dict[str, AnyModeConfig] = field(default_factory=dict)

    def mode_of(self, graph: str) -> AnyModeConfig:
        """Return the mode that applies to a graph."""
        return self.graph_modes.get(graph, self.mode)


def register_schemas() -> None:
    """Make the dataclasses above known to Hydra, in a group of their own so that they are no choices."""
    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=RunSchema)
    for kind, schema in MODE_SCHEMAS.items():
        store.store(group="schema/mode", name=kind.value, node=schema)
    for group, node in (
        ("calibration", CalibrationConfig),
        ("evaluation", EvaluationConfig),
        ("benchmark", BenchmarkConfig),
    ):
        store.store(group="schema", name=group, node=node)


def to_run_config(composed: DictConfig) -> RunConfig:
    """Convert what Hydra composed, or what a past run saved, into typed settings, and check them.

    Raises:
        ConfigError: names every setting that is unknown, missing, of the wrong type or out of its limits.
    """
    unknown = sorted({str(key) for key in composed} - {f.name for f in dataclasses.fields(RunSchema)})
    problems = [f"{key}: no such setting.{did_you_mean(key, _names(RunSchema))}" for key in unknown]
    values = {
        "model": _convert(composed, "model", _adapter_class(composed), problems),
        "mode": _convert(composed, "mode", _mode_schema(composed.mode, "mode"), problems),
        "calibration": _convert(composed, "calibration", CalibrationConfig, problems),
        "evaluation": _convert(composed, "evaluation", EvaluationConfig, problems),
        "benchmark": _convert(composed, "benchmark", BenchmarkConfig, problems),
    }
    graph_modes = _graph_modes(composed, problems)
    if not problems:
        stages, seed = composed.get("stages"), composed.get("seed")
        problems += _limits(values["mode"], values["calibration"], values["evaluation"], values["benchmark"])
        for mode in graph_modes.values():
            problems += _limits(mode, values["calibration"], values["evaluation"], values["benchmark"])
        problems += _stage_problems(stages)
    if problems:
        raise ConfigError("\n".join(problems))
    selected = tuple(name for name in STAGE_NAMES if name in stages)
    return RunConfig(**values, stages=selected, seed=int(seed), graph_modes=graph_modes)


def read_run_config(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Read the `config.yaml` of a past run; return it typed, and as plain containers.

    Raises:
        ConfigError: the file is not one that a run has saved.
    """
    loaded = read_settings(path)
    return to_run_config(loaded), to_plain(loaded)


def read_settings(path: Path) -> DictConfig:
    """Read a YAML file of settings.

    Raises:
        ConfigError: the file is damaged, or holds something else.
    """
    try:
        loaded = OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"rerun: {path} cannot be read: {error}") from error
    if not isinstance(loaded, DictConfig) or not {"model", "mode"} <= set(loaded):
        raise ConfigError(f"rerun: {path} holds no settings of a run.")
    return loaded


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """Return resolved settings as dicts, lists, strings and numbers: what `config.yaml` and the report hold.

    Raises:
        ConfigError: a setting that has no default was not given.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: not set; it has no default. Give it as {error.full_key}=...") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def save_config(plain: dict[str, Any]) -> str:
    """Return the text of a run's `config.yaml`."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _names(schema: type) -> list[str]:
    return [f.name for f in dataclasses.fields(schema)]


def _adapter_class(composed: DictConfig) -> type:
    target = composed.model.get("_target_")
    if not isinstance(target, str) or not target.startswith(ADAPTER_PREFIX):
        raise ConfigError(
            f"model._target_: {target!r} is not allowed: a model's adapter is a class in {ADAPTER_PREFIX}*, "
            "such as pipeline.models.onnx_file.OnnxFile."
        )
    try:
        adapter = get_class(target)
    except Exception as error:  # Hydra raises ImportError, ValueError or its own, by how far it came
        raise ConfigError(f"model._target_: {target} cannot be imported: {error}") from error
    if not (inspect.isclass(adapter) and dataclasses.is_dataclass(adapter)):
        raise ConfigError(f"model._target_: {target} is no adapter: an adapter is a dataclass.")
    return adapter


def _graph_modes(composed: DictConfig, problems: list[str]) -> dict[str, AnyModeConfig]:
    """Return the modes of single graphs: each a whole mode, as `+mode@graph_modes.<graph>=<mode>` composes it."""
    modes = {}
    given = composed.get("graph_modes") or OmegaConf.create({})
    for name, node in given.items():
        graph = str(name)
        key = f"graph_modes.{graph}"
        if not isinstance(node, DictConfig):
            problems.append(f"{key}: {str(node)!r} is no mode; choose one with +mode@{key}=<mode>.")
            continue
        found: list[str] = []
        modes[graph] = _convert(given, graph, _mode_schema(node, key), found)
        problems += [f"graph_modes.{problem}" for problem in found]
    return modes


def _mode_schema(node: DictConfig, key: str) -> type[ModeConfig]:
    kind = node.get("kind")
    name = kind.name if isinstance(kind, ModeKind) else str(kind)
    if name not in ModeKind.__members__:
        raise ConfigError(f"{key}.kind: {name!r} is no mode.{did_you_mean(name, ModeKind.__members__)}")
    return MODE_SCHEMAS[ModeKind[name]]


def _convert(composed: DictConfig, key: str, schema: type, problems: list[str]) -> Any:  # noqa: ANN401
    """Return `composed[key]` as an instance of `schema`, or None after appending to `problems`.

    Struct mode rejects unknown keys only in overrides without `+`, and `to_object` drops the rest in silence: so names are
    compared here.
    """
    node = composed.get(key)
    given = {} if node is None else OmegaConf.to_container(node, resolve=False)
    assert isinstance(given, dict)
    given.pop("_target_", None)
    unknown = sorted(str(name) for name in set(given) - set(_names(schema)))
    problems += [f"{key}.{name}: no such setting.{did_you_mean(name, _names(schema))}" for name in unknown]
    if unknown:
        return None
    try:
        resolved = OmegaConf.to_container(node, resolve=True) if node is not None else {}
        assert isinstance(resolved, dict)
        resolved.pop("_target_", None)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), resolved))
    except OmegaConfBaseException as error:
        where = f"{key}.{error.key}" if error.key and not str(error.full_key or "").startswith(key) else error.full_key
        problems.append(f"{where or key}: {_first_line(error)}")
        return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _stage_problems(stages: Any) -> list[str]:  # noqa: ANN401
    if not stages:
        return [f"stages: empty; name at least one of {', '.join(STAGE_NAMES)}."]
    return [f"stages: no stage {name!r}.{did_you_mean(name, STAGE_NAMES)}" for name in stages if name not in STAGE_NAMES]


def _limits(
    mode: AnyModeConfig, calibration: CalibrationConfig, evaluation: EvaluationConfig, benchmark: BenchmarkConfig
) -> list[str]:
    """Return a sentence for each setting that is out of its limits."""
    checks: list[tuple[bool, str, object, str]] = [
        (calibration.samples >= 1, "calibration.samples", calibration.samples, "at least 1"),
        (calibration.length >= 1, "calibration.length", calibration.length, "at least 1"),
        (evaluation.samples >= 1, "evaluation.samples", evaluation.samples, "at least 1"),
        (evaluation.listen >= 0, "evaluation.listen", evaluation.listen, "at least 0"),
        ((evaluation.sample_rate_hz or 1) >= 1, "evaluation.sample_rate_hz", evaluation.sample_rate_hz, "at least 1"),
        (benchmark.threads >= 1, "benchmark.threads", benchmark.threads, "at least 1"),
        (benchmark.runs >= 5, "benchmark.runs", benchmark.runs, "at least 5"),
        (benchmark.seconds >= 0, "benchmark.seconds", benchmark.seconds, "at least 0"),
        (mode.opset is None or 7 <= mode.opset <= 25, "mode.opset", mode.opset, "null or 7 to 25"),
    ]
    match mode:
        case StaticConfig():
            eight = (IntegerType.int8, IntegerType.uint8)
            sixteen = (IntegerType.int16, IntegerType.uint16)
            checks += [
                (50 < mode.percentile <= 100, "mode.percentile", mode.percentile, "above 50, at most 100"),
                (0 <= mode.momentum < 1, "mode.momentum", mode.momentum, "0 or more, below 1"),
                (mode.min_channels >= 1, "mode.min_channels", mode.min_channels, "at least 1"),
                (
                    mode.activation_type in (None, *eight, *sixteen),
                    "mode.activation_type",
                    mode.activation_type,
                    "int8, uint8, int16 or uint16",
                ),
                (
                    mode.format is Format.qdq
                    or (mode.activation_type in (None, *eight) and mode.weight_type in (None, *eight)),
                    "mode.format",
                    mode.format.name,
                    "qdq, where a type is not of 8 bits",
                ),
            ]
        case DynamicConfig():
            checks.append(
                (
                    mode.weight_type in (None, IntegerType.int8, IntegerType.uint8),
                    "mode.weight_type",
                    mode.weight_type,
                    "null, int8 or uint8",
                )
            )
        case WeightOnlyConfig():
            checks += [
                (mode.bits in (4, 8), "mode.bits", mode.bits, "4 or 8"),
                (
                    mode.block_size in (16, 32, 64, 128, 256),
                    "mode.block_size",
                    mode.block_size,
                    "16, 32, 64, 128 or 256",
                ),
                (0 <= mode.accuracy_level <= 4, "mode.accuracy_level", mode.accuracy_level, "0 to 4"),
            ]
        case FloatConfig():
            checks.append((mode.rewrite, "mode.rewrite", mode.rewrite, "true, since mode=float does nothing else"))
        case Fp16Config():
            pass
    return [
        f"{key}: {found.name if isinstance(found, Enum) else found} is out of limits; allowed: {allowed}."
        for fine, key, found, allowed in checks
        if not fine
    ]
