"""Algorithms that improve quality at no cost at inference; each is a switch of its own.

`fold` comes before the plan, since it removes nodes. `rewrite` comes before the ranges: it returns another float graph that
computes the same, and is easier to quantize. `fit` comes after them: it chooses weights and biases knowing what will be
rounded, and how. All read calibration samples only, one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from pipeline.config.settings import StaticConfig
from pipeline.ptq.batch_norm_folding import fold_batch_normalization
from pipeline.ptq.bias_correction import correct_biases
from pipeline.ptq.cross_layer_equalization import equalize
from pipeline.ptq.gptq import round_weights
from pipeline.ptq.smooth_quant import smooth_quant
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import Ranges
from pipeline.sample import Sample


@dataclass(frozen=True)
class Algorithms:
    """Which algorithms run.

    Attributes:
        fold_batch_norm: batch normalizations become part of the convolutions before them.
        cross_layer_equalization: channels of activations between linear operators get ranges of equal size.
        smooth_quant: outliers move from activations after a normalization into the weights that read them.
        rounding: weights are rounded so that the outputs of their nodes are kept, not each to the nearest integer.
        bias_correction: biases compensate what quantization adds to the mean of each channel.
    """

    fold_batch_norm: bool = False
    cross_layer_equalization: bool = False
    smooth_quant: bool = False
    rounding: bool = False
    bias_correction: bool = False

    @property
    def need_samples(self) -> bool:
        """Whether any of them learns from calibration samples."""
        return self.cross_layer_equalization or self.smooth_quant or self.rounding or self.bias_correction


def fold(model: onnx.ModelProto, algorithms: Algorithms) -> list[str]:
    """Fold batch normalizations, in place, where that is switched on; return the names of the removed nodes."""
    return fold_batch_normalization(model) if algorithms.fold_batch_norm else []


def rewrite(
    model: onnx.ModelProto, plan: Plan, algorithms: Algorithms, samples: Sequence[Sample], *, threads: int = 1
) -> onnx.ModelProto:
    """Return a float graph that computes the same, whose activations lose less in rounding; `model` is not changed."""
    if algorithms.cross_layer_equalization:
        model = equalize(model, plan, samples, threads=threads)
    if algorithms.smooth_quant:
        model = smooth_quant(model, plan, samples, threads=threads)
    return model


def fit(
    model: onnx.ModelProto,
    plan: Plan,
    mode: StaticConfig,
    ranges: Ranges,
    algorithms: Algorithms,
    samples: Sequence[Sample],
    *,
    threads: int = 1,
) -> onnx.ModelProto:
    """Return the float graph with weights and biases chosen for these ranges; `model` is not changed."""
    reference = model
    if algorithms.rounding:
        model = round_weights(model, plan, mode, ranges, samples, threads=threads)
    if algorithms.bias_correction:
        model = correct_biases(model, plan, mode, ranges, samples, reference=reference, threads=threads)
    return model
