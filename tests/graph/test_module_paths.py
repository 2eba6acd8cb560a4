"""Nodes may be named by the modules that exporters note in their metadata, and by the calls of functions around them."""

import onnx
import pytest

from pipeline.errors import ConfigError
from pipeline.graph.module_paths import module_of, module_paths
from pipeline.graph.node_patterns import match_nodes
from pipeline.graph.prepare import prepare
from pipeline.quantize.plan_of_mode import plan_for

SCOPES = "pkg.torch.onnx.name_scopes"


def noted(node: onnx.NodeProto, **metadata: str) -> None:
    for key, value in metadata.items():
        node.metadata_props.add(key=key.replace("__", "."), value=value)


@pytest.fixture
def exported(conv_net):
    """Return a model whose convolutions are named and noted as torch's exporter does."""
    model = conv_net()
    first, relu, second = model.graph.node
    first.name, relu.name, second.name = "node_conv1d", "node_relu", "node_conv1d_1"
    noted(first, **{SCOPES: "['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.conv', 'conv1d']"})
    noted(second, **{SCOPES: "['', 'encoder', 'encoder.layers.1', 'encoder.layers.1.conv', 'conv1d_1']"})
    return model


def test_the_modules_of_a_node_are_those_that_its_exporter_noted(exported):
    paths = module_paths(exported, {})
    assert paths["node_conv1d"] == ("encoder", "encoder.layers.0", "encoder.layers.0.conv")
    assert module_of(paths, "node_conv1d_1") == "encoder.layers.1.conv"
    assert module_of(paths, "node_relu") is None


def test_the_namespace_serves_where_there_are_no_scopes(conv_net):
    model = conv_net()
    noted(model.graph.node[0], namespace=": model.Net/encoder: model.Encoder/encoder.conv: torch.nn.Conv1d/conv1d: aten.conv1d")
    assert module_paths(model, {})["conv_a"] == ("encoder", "encoder.conv")


@pytest.mark.parametrize("value", ["", "no list", "[1, 2]", "__import__('os')", "['']", "{"])
def test_metadata_of_any_other_form_says_nothing(conv_net, value):
    model = conv_net()
    noted(model.graph.node[0], **{SCOPES: value}, namespace=value)
    assert module_paths(model, {}) == {}


PATHS = {
    "node_conv1d": ("encoder", "encoder.layers.0"),
    "node_conv1d_1": ("encoder", "encoder.layers.1"),
    "node_conv1d_2": ("decoder",),
}
NAMES = [*PATHS, "encoder.layers.9"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder", {"node_conv1d", "node_conv1d_1"}),
        ("encoder.layers.1", {"node_conv1d_1"}),
        ("encoder.layers", {"node_conv1d", "node_conv1d_1"}),  # a list of modules, which is never called itself
        ("encoder.layers.?", {"node_conv1d", "node_conv1d_1", "encoder.layers.9"}),
        ("*coder", {"node_conv1d", "node_conv1d_1", "node_conv1d_2"}),
        ("node_conv1d", {"node_conv1d"}),
        ("encoder.layers.9", {"encoder.layers.9"}),
    ],
)
def test_a_module_stands_for_all_nodes_in_it(pattern, expected):
    assert match_nodes([pattern], NAMES, "key", PATHS) == expected


def test_a_misspelt_module_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no node or module is named 'encoder\.layer\.1'.*encoder\.layers\.1"):
        match_nodes(["encoder.layer.1"], NAMES, "key", PATHS)


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
def test_a_module_is_left_out_of_a_mode_by_its_path(source_of, settings, exported, mode):

    prepared = prepare(source_of(exported), opset=None, needed_opset=13, preprocess=True)
    plan = plan_for(prepared, settings(mode, nodes_to_exclude=["encoder.layers.1"]))
    assert set(plan.precisions) == {"node_conv1d"}


def test_a_layer_of_a_function_is_left_out_by_the_name_of_the_call(source_of, settings):

    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "pkg" : 1]>
        g (float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] u = {1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,2.0}> {
            [first] h = pkg.Linear (x, u)
            [second] y = pkg.Linear (h, u)
        }
        <opset_import: ["" : 18], domain: "pkg"> Linear (x, w) => (y) { [mm] y = MatMul (x, w) }"""
    )
    prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
    plan = plan_for(prepared, settings("dynamic", nodes_to_exclude=["second"]))
    assert set(plan.precisions) == {"first/mm"}
    assert [(kept.node, kept.reason) for kept in plan.kept] == [("second/mm", "excluded by mode.nodes_to_exclude")]
