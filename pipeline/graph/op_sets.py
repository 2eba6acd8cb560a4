"""Sets of operator types that several parts of the pipeline ask about, and how they differ."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Linear operators that multiply their first input with their second: what the modes quantize by default."""

FUSED_LAYERS = frozenset({"FusedConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul", "TransposeMatMul"})
"""What ONNX Runtime makes of a layer and its neighbours when it optimises a model: no mode quantizes it any more."""

WEIGHTED_OPS = LAYERS | FUSED_LAYERS | {"LSTM", "GRU", "Attention"}
"""Operators whose second input is a weight: the layers, and those that some mode quantizes as a whole. What of them a mode
leaves in fp32 is reported with a reason."""

DENSE_LAYERS = LAYERS - {"ConvTranspose"}
"""Layers that sum over several positions or channels for every output, so that they make ordinary data of whole numbers. A
ConvTranspose may only repeat its input at other positions (upsampling)."""

RECURRENT_LAYERS = frozenset({"LSTM", "GRU", "RNN"})
"""Layers that sum over their input and over their own state for every output."""

RESCALABLE = (LAYERS - {"Gemm"}) | {"Add", "Sub"}
"""Operators whose outputs cross-layer equalization may rescale: layers, and sums with a constant per channel. Gemm is left
out, since its `transB`, `alpha` and `beta` are not taken into account there."""
