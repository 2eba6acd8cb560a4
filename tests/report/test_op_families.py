"""Families of operators: what quantization moves from one operator to another stays in one row."""

import pytest

from pipeline.report.op_families import families, family_of


@pytest.mark.parametrize(
    ("op_type", "family"),
    [
        ("QLinearConv", "Conv"), ("ConvInteger", "Conv"), ("FusedConv", "Conv"), ("DynamicQuantizeMatMul", "MatMul"),
        ("MatMulNBits", "MatMul"), ("Gemm", "MatMul"), ("QLinearLeakyRelu", "LeakyRelu"), ("DynamicQuantizeLSTM", "LSTM"),
        ("DequantizeLinear", "QuantizeLinear"), ("QLinearMatMul", "MatMul"), ("Shape", "Shape"), ("QLinear", "QLinear"),
    ],
)  # fmt: skip
def test_an_operator_and_its_integer_kernels_are_one_family(op_type, family):
    assert family_of(op_type) == family


def test_families_keep_all_of_the_time_and_the_largest_comes_first():
    before = {"FusedConv": 24.0, "Conv": 21.0, "Add": 2.0}
    after = {"QLinearConv": 9.5, "FusedConv": 1.0, "Add": 2.5, "QuantizeLinear": 1.5, "DequantizeLinear": 1.0}
    found = families(before, after)
    assert [family.name for family in found] == ["Conv", "Add", "QuantizeLinear"]
    assert [(family.before, family.after) for family in found] == [(45.0, 10.5), (2.0, 2.5), (0, 2.5)]
    assert list(found[0].quantized) == ["QLinearConv", "FusedConv"]
