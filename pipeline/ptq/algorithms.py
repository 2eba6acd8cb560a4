"""Algorithms that improve quality at no cost at inference; each is a switch of its own.

`fold` comes before the plan, since it removes nodes. `rewrite` comes before the ranges: it returns another float graph that
computes the same, and is easier to quantize. `fit` comes after them: it chooses weights and biases knowing what will be
rounded, and how. All read calibration samples only, one at a time.
"""

from collections.abc import Sequence

import onnx

from pipeline.config.mode_settings import Algorithms, StaticConfig
from pipeline.ptq.activation_pairs import looks_at_pairs
from pipeline.ptq.batch_norm_folding import fold_batch_normalization
from pipeline.ptq.bias_correction import correct_biases
from pipeline.ptq.cross_layer_equalization import equalize
from pipeline.ptq.gptq import round_weights
from pipeline.ptq.smooth_quant import smooth_quant
from pipeline.quantize.plan import Plan
from pipeline.quantize.static import Ranges
from pipeline.sample import Sample


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


def keeps_outputs(mode: StaticConfig) -> bool:
    """Return whether weights are rounded so that outputs are kept: if asked to, and by default where scales are coarser."""
    return looks_at_pairs(mode) if mode.rounding is None else mode.rounding


def fit(
    model: onnx.ModelProto, plan: Plan, mode: StaticConfig, ranges: Ranges, samples: Sequence[Sample], *, threads: int = 1
) -> onnx.ModelProto:
    """Return the float graph with weights and biases chosen for these ranges; `model` is not changed."""
    reference = model
    if keeps_outputs(mode):
        model = round_weights(model, plan, mode, ranges, samples, threads=threads)
    if mode.bias_correction:
        model = correct_biases(model, plan, mode, ranges, samples, reference=reference, threads=threads)
    return model
