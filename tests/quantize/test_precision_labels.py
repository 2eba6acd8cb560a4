"""The report says of each node what it has become in the written file: types that were asked for are not what all nodes get."""

import numpy as np
import pytest

from pipeline.config.choices import Format, IntegerType
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

INT8, INT16, INT4 = IntegerType.int8, IntegerType.int16, IntegerType.int4


@pytest.fixture
def artifact_of(source_of, conv_net, matmul_net, settings, run_directory):
    """Return a function: (net, mode, settings) -> the artifact of a small net."""

    def make(net, mode, **changes):
        model = {"conv": conv_net, "matmul": matmul_net}[net](opset=21)
        shape = (1, 16, 24) if net == "conv" else (24, 64)
        draw = np.random.default_rng(0)
        samples = [Sample(f"s{k}", {"x": draw.standard_normal(shape).astype(np.float32)}) for k in range(2)]
        source = source_of(model)
        data = {source.name: samples}
        made = quantize({source.name: source}, settings(mode, **changes), data, data, run_directory)
        return made.artifacts[source.name]

    return make


STATIC = {"dynamic_op_types": []}


@pytest.mark.parametrize(
    ("net", "mode", "changes", "label"),
    [
        ("conv", "static", {}, "int8, static ranges"),
        ("conv", "static", {"weight_type": INT16, "activation_type": INT16}, "int16, static ranges"),
        ("conv", "static", {"weight_type": INT8, "activation_type": INT16}, "int8 weight, int16 activations, static ranges"),
        ("conv", "static", {"weight_type": INT4}, "int4 weight, int8 activations, static ranges"),
        ("conv", "static", {"format": Format.qoperator}, "int8, static ranges"),
        ("matmul", "static", {"weight_type": INT16, "activation_type": INT16}, "int8, dynamic ranges"),
        ("matmul", "static", {**STATIC, "weight_type": INT16, "activation_type": INT16}, "int16, static ranges"),
        ("matmul", "dynamic", {}, "int8, dynamic ranges"),
        ("matmul", "weight_only", {"bits": 4, "block_size": 32}, "int4 weight in blocks of 32, float computation"),
        ("matmul", "weight_only", {"bits": 8, "block_size": 32}, "int8 weight in blocks of 32, float computation"),
        ("conv", "weight_only", {}, "int8 weight, float computation"),
        ("matmul", "fp16", {}, "fp16"),
    ],
)
def test_a_node_is_called_what_the_file_holds(artifact_of, net, mode, changes, label):
    assert set(artifact_of(net, mode, **changes).quantized_nodes.values()) == {label}


def test_the_shares_of_the_weights_are_those_of_the_file(artifact_of):
    shares = artifact_of("conv", "static", nodes_to_exclude=["conv_b"]).weights
    assert set(shares) == {"int8", "fp32"}
    assert 0.45 < shares["int8"] < 0.55  # one of two convolutions of the same size
    assert artifact_of("matmul", "weight_only", bits=4).weights["int4"] > 0.9
