"""An artifact runs in the ONNX Runtime that its report names, and in the one that was asked for."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.errors import ConfigError, StageError
from pipeline.graph.opset import opset_of
from pipeline.graph.runtime_versions import needed_runtime, newest_opset, parse_version, slower_elsewhere, wrong_on_amx
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize


@pytest.fixture
def artifact_of(source_of, run_directory, make_noise):
    """Return a function: (model, mode) -> (artifact, its graph)."""

    def make(model, mode):
        shape = [entry.dim_value or 4 for entry in model.graph.input[0].type.tensor_type.shape.dim]
        samples = [Sample("a", {model.graph.input[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)})]
        found = quantize({"model": source_of(model)}, mode, {"model": samples}, {"model": samples}, run_directory)
        artifact = found.artifacts["model"]
        return artifact, onnx.load(artifact.path)

    return make


@pytest.mark.parametrize("mode", ["dynamic", "static", "weight_only", "fp16"])
def test_the_ir_version_is_the_lowest_that_opset_and_types_need(matmul_net, artifact_of, settings, mode):
    model = matmul_net(17)
    model.ir_version = 13
    _, written = artifact_of(model, settings(mode))
    assert written.ir_version == 8  # of ONNX 1.12, which opset 17 came with


def test_the_ir_version_of_an_old_graph_is_not_raised(matmul_net, artifact_of, settings):
    model = matmul_net(13)
    model.ir_version = 7
    assert artifact_of(model, settings("static"))[1].ir_version == 7


@pytest.mark.parametrize(
    ("mode", "changes", "needs"),
    [
        ("static", {}, ">= 1.15"),
        ("dynamic", {}, ">= 1.15"),
        ("weight_only", {"bits": 4}, ">= 1.16"),
        ("weight_only", {"bits": 4, "accuracy_level": 4}, ">= 1.17"),
        ("weight_only", {"accuracy_level": 4}, ">= 1.22"),
        ("weight_only", {}, ">= 1.23"),
        ("static", {"weight_type": IntegerType.int4, "dynamic_op_types": []}, ">= 1.19"),
        ("static", {"activation_type": IntegerType.int16, "dynamic_op_types": []}, ">= 1.18"),
    ],
)
def test_an_artifact_names_the_oldest_onnx_runtime_that_runs_it(matmul_net, artifact_of, settings, mode, changes, needs):
    artifact, written = artifact_of(matmul_net(17), settings(mode, **changes))
    assert str(artifact.needs) == str(needed_runtime(written)) == needs


def test_what_an_older_runtime_lacks_is_refused_with_the_reason_and_what_to_do(matmul_net, artifact_of, settings):
    with pytest.raises(StageError, match=r"mode\.runtime: 1\.20\.1, .* >= 1\.23, because of MatMulNBits of 8 bits") as error:
        artifact_of(matmul_net(17), settings("weight_only", runtime="1.20.1"))
    assert "mode.bits=4" in str(error.value)


def test_a_graph_of_a_newer_opset_is_converted_to_the_newest_that_the_runtime_loads(matmul_net, artifact_of, settings):
    artifact, written = artifact_of(matmul_net(21), settings("dynamic", runtime="1.17.1"))
    assert opset_of(written) == newest_opset((1, 17)) == 20
    assert artifact.needs.version <= (1, 17)


def test_operators_of_an_unknown_domain_are_named(matmul_net):
    model = matmul_net(17)
    model.graph.node.append(helper.make_node("Beep", ["x"], ["beep"], domain="my.own"))
    assert needed_runtime(model).unknown == ("Beep",)


@pytest.mark.parametrize("text", ["newest", "1", "1.17.1.2", "2.0", "1.2"])
def test_what_is_no_known_version_is_refused(text):
    with pytest.raises(ConfigError, match=r"mode\.runtime: .*1\.15 to 1\.32"):
        parse_version(text, "mode.runtime")


def test_every_node_of_an_artifact_has_a_name_though_the_source_has_none(artifact_of, settings):
    """ONNX Runtime 1.18 to 1.21 refuses a graph in which it fuses two groups of unnamed Slice nodes.

    Its GatherSliceToSplitFusion gives both the same name: findings/unnamed_slices_end_onnxruntime_1_18_to_1_21.sh.
    """
    nodes, held = [], [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")]
    for group in "ab":
        nodes.append(helper.make_node("MatMul", ["x", "w"], [group]))
        for start in (0, 4):
            ends = [f"{group}{start}{kind}" for kind in ("from", "to", "axis")]
            held += [numpy_helper.from_array(np.array([at]), end) for end, at in zip(ends, (start, start + 4, 1), strict=True)]
            nodes.append(helper.make_node("Slice", [group, *ends], [f"{group}{start}"]))
    nodes.append(helper.make_node("Concat", ["a0", "b0", "a4", "b4"], ["y"], axis=1))
    ends = (helper.make_tensor_value_info(name, 1, ["n", width]) for name, width in (("x", 8), ("y", 16)))
    graph = helper.make_graph(nodes, "g", [next(ends)], [next(ends)], held)
    _, written = artifact_of(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), settings("dynamic")
    )
    assert all(node.name for scope in graphs_of(written.graph) for node in scope.node)


@pytest.mark.parametrize(
    ("op_types", "version", "warns"),
    [({"ConvInteger": 3}, "1.32.0", True), ({"ConvInteger": 3}, "1.28.0", False), ({"QLinearConv": 3}, "1.32.0", False)],
)
def test_a_speed_that_older_runtimes_do_not_reach_is_said_to_be_of_this_version(op_types, version, warns):
    note = slower_elsewhere(op_types, version)
    assert (note is not None) == warns
    assert not warns or ("before 1.31" in note and "benchmark.runtime=" in note)


@pytest.mark.parametrize(
    ("op_types", "version", "warns"),
    [
        ({"ConvInteger": 3}, "1.21.1", True),
        ({"ConvInteger": 3}, "1.24.4", True),
        ({"ConvInteger": 3}, "1.20.1", False),
        ({"ConvInteger": 3}, "1.25.1", False),
        ({"QLinearConv": 3}, "1.22.1", False),
    ],
)
def test_versions_that_add_wrong_sums_on_amx_are_warned_of(op_types, version, warns):
    """findings/amx_sums_are_wrong_in_onnxruntime_1_21_to_1_24.sh shows them."""
    note = wrong_on_amx(op_types, version)
    assert (note is not None) == warns
    assert not warns or "mode=static" in note
