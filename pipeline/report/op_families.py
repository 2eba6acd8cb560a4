"""Families of operators: an operator, what ONNX Runtime fuses it with, and its integer kernels, under one name.

Quantization moves time from Conv to QLinearConv; side by side, the two say whether it pays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_MEMBERS = {
    "Conv": ("FusedConv", "NhwcFusedConv", "NhwcConv", "ConvInteger", "ConvIntegerToFloat", "QLinearConv"),
    "ConvTranspose": ("ConvTransposeWithDynamicPads", "QLinearConvTranspose"),
    "MatMul": (
        "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul", "GemmFastGelu", "GemmFloat8", "MatMulInteger", "MatMulInteger16",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4",
        "SparseToDenseMatMul",
    ),
    "LSTM": ("DynamicQuantizeLSTM",),
    "Attention": ("QAttention", "QOrderedAttention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"),
    "LayerNormalization": (
        "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization",
        "RMSNormalization",
    ),
    "Gelu": ("BiasGelu", "FastGelu", "QuickGelu"),
    "QuantizeLinear": ("DequantizeLinear", "DynamicQuantizeLinear"),
    "Transpose": ("ReorderInput", "ReorderOutput"),
}  # fmt: skip
_FAMILY_OF = {member: family for family, members in _MEMBERS.items() for member in members}
_INTEGER = ("QLinear", "NhwcQLinear", "FusedQLinear")  # QLinearAdd, QLinearSigmoid, ...: an operator's kernel for integers
_TITLES = {"QuantizeLinear": "Quantize and dequantize"}


@dataclass(frozen=True)
class Family:
    """A family of operators in two models.

    Attributes:
        name: of the operator that the others are kinds of.
        baseline: operator -> its time in the original, the largest first; so `quantized`.
        quantized: operator -> its time in the quantized model.
    """

    name: str
    baseline: dict[str, float]
    quantized: dict[str, float]

    @property
    def before(self) -> float:
        """The time of all of it in the original."""
        return sum(self.baseline.values())

    @property
    def after(self) -> float:
        """The time of all of it in the quantized model."""
        return sum(self.quantized.values())

    @property
    def title(self) -> str:
        """Its name for people."""
        return _TITLES.get(self.name, self.name)


def family_of(op_type: str) -> str:
    """Return the family of an operator; one that is not known here is a family of its own."""
    if op_type in _FAMILY_OF:
        return _FAMILY_OF[op_type]
    for prefix in _INTEGER:
        if op_type.startswith(prefix) and len(op_type) > len(prefix):
            return family_of(op_type.removeprefix(prefix))
    return op_type


def families(baseline: Mapping[str, float], quantized: Mapping[str, float]) -> list[Family]:
    """Return the families of two models, those that take most time in one of them first.

    Args:
        baseline: operator type -> its time in the original.
        quantized: the same of the quantized model; empty where there is none.
    """
    sides: list[dict[str, dict[str, float]]] = []
    for times in (baseline, quantized):
        side: dict[str, dict[str, float]] = {}
        for op, value in sorted(times.items(), key=lambda item: -item[1]):
            side.setdefault(family_of(op), {})[op] = value
        sides.append(side)
    names = dict.fromkeys((*sides[0], *sides[1]))
    found = [Family(name, sides[0].get(name, {}), sides[1].get(name, {})) for name in names]
    return sorted(found, key=lambda family: -max(family.before, family.after))
