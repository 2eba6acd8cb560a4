"""SmoothQuant: move the outliers of a few channels from activations into the weights that read them.

Xiao et al. 2023, "SmoothQuant" (arXiv:2211.10438), section 4: s[c] = max |X[c]| ** strength / max |W[c]| ** (1 - strength).
The input of a MatMul or Conv is divided by s at no cost where the node that writes it has a constant per channel to take s
up: the scale and bias of a LayerNormalization, the vector of a Mul. Where nothing takes it up (after a GELU), the tensor
stays as it is: the Mul that other tools insert there costs time.
"""

from collections.abc import Sequence

import onnx

from pipeline.graph.op_sets import RESCALABLE
from pipeline.ptq.channel_search import channel_groups
from pipeline.ptq.cross_layer_equalization import level_channels, rounded_tensors
from pipeline.quantize.plan import Plan
from pipeline.sample import Sample


def smooth_quant(
    model: onnx.ModelProto, plan: Plan, samples: Sequence[Sample], *, strength: float = 0.5, threads: int = 1
) -> onnx.ModelProto:
    """Return an equal float graph whose inputs of linear operators have fewer outliers.

    The arguments are those of `equalize`; here `strength` is the share of the differences that the weights take over: 0 to 1.
    """
    groups = [group for group in channel_groups(model) if not group.op_types <= RESCALABLE]
    return level_channels(model, groups, rounded_tensors(model, plan), samples, strength=strength, threads=threads)
