"""Which nodes a setting means, and that it never means none in silence."""

import onnx
import pytest

from pipeline.errors import ConfigError
from pipeline.graph.node_patterns import check_op_types, ensure_names, match_nodes

NAMES = ["/encoder/conv", "/encoder/attention", "/decoder/conv", "layer[0]", "layer0", "Conv_1"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["/encoder/conv"], {"/encoder/conv"}),
        (["/encoder/*"], {"/encoder/conv", "/encoder/attention"}),
        (["*/conv"], {"/encoder/conv", "/decoder/conv"}),
        (["Conv_?"], {"Conv_1"}),
        (["/encoder/conv", "layer*"], {"/encoder/conv", "layer[0]", "layer0"}),
        ([], set()),
    ],
)
def test_exact_names_and_globs_select_nodes(patterns, expected):
    assert match_nodes(patterns, NAMES, "mode.nodes_to_exclude") == expected


def test_an_exact_name_with_brackets_means_that_node_and_no_character_class():
    assert match_nodes(["layer[0]"], NAMES, "key") == {"layer[0]"}


def test_brackets_are_a_glob_where_no_node_has_that_name():
    assert match_nodes(["layer[0-9]"], NAMES, "key") == {"layer0"}


def test_names_are_case_sensitive():
    with pytest.raises(ConfigError):
        match_nodes(["conv_1"], NAMES, "key")


def test_a_name_that_no_node_has_is_refused_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"mode\.nodes_to_exclude: no node is named '/encoder/conw'.*Did you mean.*/encoder/conv"
    ):
        match_nodes(["/decoder/conv", "/encoder/conw"], NAMES, "mode.nodes_to_exclude")


def test_a_glob_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"'/vocoder/\*', and none matches"):
        match_nodes(["/vocoder/*"], NAMES, "key")


def test_an_op_type_that_the_graph_lacks_is_fine_since_one_mode_serves_many_models():
    assert check_op_types(["Conv", "Gemm"], {"Conv", "Gemm", "MatMul"}, {"Conv"}, "key") == ["Conv", "Gemm"]


def test_all_means_every_type_that_the_quantizer_knows():
    assert check_op_types(["all"], {"MatMul", "Conv"}, set(), "key") == ["Conv", "MatMul"]


def test_an_unknown_op_type_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"mode\.op_types: 'MatMull' is not an operator type.*Did you mean MatMul"):
        check_op_types(["MatMull"], {"Conv", "MatMul"}, {"MatMul"}, "mode.op_types")


def test_an_op_type_that_the_graph_has_but_the_mode_cannot_quantize_is_refused_as_such():
    with pytest.raises(ConfigError, match="the graph has it, but this mode cannot quantize it"):
        check_op_types(["Sin"], {"Conv", "MatMul"}, {"Sin"}, "mode.op_types")


def test_every_node_gets_a_name_of_its_own_and_given_names_stay():
    graph = onnx.parser.parse_graph(
        """g (float[n] x) => (float[n] y) {
            a = Relu (x)
            [twice] b = Relu (a)
            [twice] c = Relu (b)
            [Relu_a] y = Relu (c)
        }"""
    )
    model = onnx.helper.make_model(graph)
    ensure_names(model)
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == 4
    assert names[1] == "twice"
    assert names[3] == "Relu_a"
