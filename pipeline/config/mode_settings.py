"""The settings of each mode: name, type, unit and default."""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from omegaconf import MISSING

from pipeline.config.choices import Format, IntegerType, ModeKind, RangeMethod, Target


@dataclass
class ModeConfig:
    """Settings that every mode has.

    Attributes:
        name: the mode's name in the path of the run and in the report.
        kind: the method; it decides which settings class applies.
        nodes_to_quantize: only these nodes (names, modules or calls of functions; globs); empty: all that the mode covers.
        nodes_to_exclude: never these nodes (names, modules or calls of functions; globs).
        preprocess: fold constants and remove identities with ONNX Runtime before quantizing.
        opset: convert the graph to this opset first; null: only where the mode needs a newer one.
        runtime: the ONNX Runtime that must run the artifact, such as 1.17.1: limits opset, types and operators to what that
            version has; null: this one.
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
    runtime: str | None = None
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
            GRU, RNN and small LSTM always do (`mode.op_types`): they have no integer kernel, or one that is slower.
        weight_type: null: uint8 for Conv, int8 for MatMul (uint8 for x86_avx2): fast kernels (that of int8 Conv is a loop).
        per_channel: one scale per output channel of a weight; a Conv has one for all, as in ONNX Runtime's quantizer.
        reduce_range: true: 7-bit weights; false: 8 bits; null: 8 bits, and where the target adds two products in 16 bits, the
            finest scales at which no sum of them can saturate.
        target: the processors that the model is for; `x86`: any of that family; null: this machine.
        subgraphs: also quantize inside If, Loop and Scan.
    """

    op_types: list[str] = field(default_factory=lambda: ["MatMul", "Conv", "Gemm", "ConvTranspose", "LSTM", "GRU", "RNN"])
    weight_only_op_types: list[str] = field(default_factory=lambda: ["Gemm", "ConvTranspose"])
    weight_type: IntegerType | None = None
    per_channel: bool = True
    reduce_range: bool | None = None
    target: Target | None = None
    subgraphs: bool = True


@dataclass
class Algorithms:
    """Post-training algorithms (`pipeline/ptq/`): quality that costs nothing at run time.

    Attributes:
        fold_batch_norm: batch normalizations become part of the convolutions in front of them; equal in real arithmetic.
        cross_layer_equalization: channels of activations between linear operators get ranges of equal size; equal in
            real arithmetic.
        smooth_quant: outliers move from activations behind a normalization into the weights that read them.
        rounding: weights are rounded so that the outputs of their nodes are kept, not each to the nearest integer (GPTQ); null:
            where the target adds two products in 16 bits, whose scales are coarser.
        bias_correction: biases take back what quantization adds to the mean of each channel.
    """

    fold_batch_norm: bool = False
    cross_layer_equalization: bool = False
    smooth_quant: bool = False
    rounding: bool | None = None
    bias_correction: bool = False

    @property
    def need_samples(self) -> bool:
        """Whether any of them learns from calibration samples."""
        return self.cross_layer_equalization or self.smooth_quant or bool(self.rounding) or self.bias_correction


@dataclass
class StaticConfig(Algorithms, ModeConfig):
    """Integer weights and activations, with ranges of activations fixed by calibration.

    Attributes:
        method: how ranges follow from the calibration data.
        percentile: with `method=percentile`: the share of values that must lie within a range, in percent.
        momentum: with `method=moving_average`: the weight of the past, 0 to 1.
        op_types: operator types to quantize; `all`: every type that the quantizer knows.
        dynamic_op_types: those of them with dynamic ranges (MatMul: fused as DynamicQuantizeMatMul, it is faster than Q/DQ
            pairs between float neighbours, and as accurate; LSTM of 128 units, or of 256 where its state is an input).
        weight_only_op_types: those of them that store weights as int8 and compute in float (ConvTranspose has no integer
            kernel; Gemm of one row gains nothing). GRU, RNN and other LSTM always do.
        weight_type: null: int8.
        activation_type: null: uint8.
        format: Q/DQ pairs (ONNX Runtime fuses them when it loads the model) or integer operators.
        per_channel: one scale per output channel of a weight.
        symmetric: activations get a range symmetric about zero.
        reduce_range: true: 7-bit weights; false: 8 bits; null: 8 bits, and where the target adds two products in 16 bits, the
            finest scales at which no sum of them can saturate.
        target: the processors that the model is for; `x86`: any of that family; null: this machine.
        float_outputs: operator types whose outputs stay float: no rounding, and no Q/DQ pair to compute.
        products_of_activations: also quantize MatMul of two activations (attention scores).
        min_channels: Conv of fewer input or output channels than this stay fp32: their integer kernel gains hardly anything,
            and those of a vocoder hiss. On x86 a depthwise one needs twice as many. Weights of 4096 values or more are stored
            as int8.
        subgraphs: also quantize inside If, Loop and Scan: MatMul and LSTM with dynamic ranges, the others store int8 weights.
        reconstruct: scales, zero points, weights and biases are learned from calibration data, block by block and then all
            at once, until the quantized graph gives what fp32 gives; the speed stays the same. Needs PyTorch (the extra
            `reconstruct`) and minutes (docs/reconstruction.md).
        reconstruct_seconds: no step of it is begun later, per graph; the best so far is kept.
    """

    method: RangeMethod = RangeMethod.minmax
    percentile: float = 99.999
    momentum: float = 0.9
    op_types: list[str] = field(default_factory=lambda: ["Conv", "MatMul", "Gemm", "ConvTranspose", "LSTM", "GRU", "RNN"])
    dynamic_op_types: list[str] = field(default_factory=lambda: ["MatMul", "LSTM"])
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
    subgraphs: bool = True
    reconstruct: bool = False
    reconstruct_seconds: float = 600.0
    fold_batch_norm: bool = True
    cross_layer_equalization: bool = True


@dataclass
class WeightOnlyConfig(ModeConfig):
    """Integer weights, float computation: smaller, hardly ever faster. Needs no data.

    Attributes:
        op_types: operator types whose weights are stored as integers.
        bits: 4 or 8, for MatMul (MatMulNBits); other operators always store int8, one scale per output channel.
        block_size: values of a MatMul weight that share a scale: 16, 32, 64, 128 or 256.
        symmetric: no zero points.
        accuracy_level: what MatMulNBits may compute in: 0 (as the input), 1 (fp32), 2 (fp16), 3 (bf16), 4 (int8).
        subgraphs: also store the weights inside If, Loop and Scan, as int8.
    """

    op_types: list[str] = field(default_factory=lambda: ["MatMul", "Conv", "Gemm", "ConvTranspose", "LSTM", "GRU", "RNN"])
    bits: int = 8
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 0
    subgraphs: bool = True


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
        seconds: the search ends after so long, with the best so far; its first log line says about how long it will take.
        samples: of the evaluation set, to measure candidates on; the chosen one is checked on all. null: 24, or 100 where the
            metric moves in steps (words, classes).
        probes: of the calibration set, shortened where the graph allows it, that each node is measured on alone.
        op_types: operator types that may be quantized.
        method: how ranges follow from the calibration data; null: what loses least of minmax, percentile (two) and mse.
        percentile: with `method=percentile`: the share of values that must lie within a range, in percent.
        target: the processors that the model is for; `x86`: any of that family; null: this machine, whose speed is measured.
        reconstruct: what is faster than the choice and loses up to half as much again as `max_loss` allows learns from
            calibration data what fp32 gives; where it then keeps to the limit, it is the choice. Needs PyTorch (the extra
            `reconstruct`) and minutes (docs/reconstruction.md).
        reconstruct_seconds: that the learning may take, per graph, beside `seconds`.
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
    op_types: list[str] = field(default_factory=lambda: ["Conv", "MatMul", "Gemm", "ConvTranspose", "LSTM", "GRU", "RNN"])
    method: RangeMethod | None = None
    percentile: float = 99.99
    target: Target | None = None
    optimize: bool = True
    reconstruct: bool = False
    reconstruct_seconds: float = 600.0


AnyModeConfig = AutoConfig | DynamicConfig | StaticConfig | WeightOnlyConfig | Fp16Config | OptimizeConfig


Mode = TypeVar("Mode", bound=ModeConfig)


def with_settings_of(source: ModeConfig, schema: type[Mode], **changes: Any) -> Mode:  # noqa: ANN401
    """Return another mode that has every setting that both know, and some of its own."""
    own = {entry.name for entry in fields(schema)}
    shared = {entry.name: getattr(source, entry.name) for entry in fields(source) if entry.name in own}
    return schema(**shared | changes)


MODE_SCHEMAS: dict[ModeKind, type[ModeConfig]] = {
    ModeKind.dynamic: DynamicConfig,
    ModeKind.static: StaticConfig,
    ModeKind.weight_only: WeightOnlyConfig,
    ModeKind.fp16: Fp16Config,
    ModeKind.optimize: OptimizeConfig,
    ModeKind.auto: AutoConfig,
}
