"""Sets of operator types that several parts of the pipeline ask about, and how they differ."""

import onnx

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Linear operators that multiply their first input with their second: what the modes quantize by default."""

FUSED_LAYERS = frozenset({"FusedConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul", "TransposeMatMul"})
"""What ONNX Runtime makes of a layer and its neighbours when it optimises a model: no mode quantizes it any more."""

RECURRENT_LAYERS = frozenset({"LSTM", "GRU", "RNN"})
"""Layers that sum over their input and over their own state for every output."""

WEIGHTED_OPS = LAYERS | FUSED_LAYERS | RECURRENT_LAYERS | {"Attention"}
"""Operators whose second input is a weight: the layers, and those that some mode quantizes as a whole. What of them a mode
leaves in fp32 is reported with a reason."""

STORABLE = LAYERS | RECURRENT_LAYERS
"""Operators whose weights may be stored as integers and computed with in float."""

DENSE_LAYERS = LAYERS - {"ConvTranspose"}
"""Layers that sum over several positions or channels for every output, so that they make ordinary data of whole numbers. A
ConvTranspose may only repeat its input at other positions (upsampling)."""

RESCALABLE = (LAYERS - {"Gemm"}) | {"Add", "Sub"}
"""Operators whose outputs cross-layer equalization may rescale: layers, and sums with a constant per channel. Gemm is left
out, since its `transB`, `alpha` and `beta` are not taken into account there."""


def weight_inputs(node: onnx.NodeProto) -> tuple[int, ...]:
    """Return which inputs of a layer, a recurrent layer or a look-up in a table are its weights."""
    return (1, 2) if node.op_type in RECURRENT_LAYERS else (0,) if node.op_type == "Gather" else (1,)
