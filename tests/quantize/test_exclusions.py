"""Of several graphs that follow one mode, each leaves out what is named of its own nodes; a name of none is a mistake."""

import pytest

from pipeline.errors import ConfigError
from pipeline.quantize.exclusions import modes_of_graphs


@pytest.fixture
def graphs(source_of, conv_net, matmul_net):
    """Return two graphs: one of conv_a and conv_b, one of matmul_a and matmul_b."""
    return {"encoder": source_of(conv_net(), "encoder"), "decoder": source_of(matmul_net(), "decoder")}


def excluded(graphs, mode, **graph_modes):
    return {name: found.nodes_to_exclude for name, found in modes_of_graphs(graphs, mode, graph_modes, 13).items()}


def test_each_graph_leaves_out_what_is_named_of_its_own_nodes(graphs, settings):
    mode = settings("static", nodes_to_exclude=["conv_a", "matmul_*", "*_b"])
    assert excluded(graphs, mode) == {"encoder": ["conv_a", "*_b"], "decoder": ["matmul_*", "*_b"]}


def test_a_name_of_no_graph_is_refused_with_the_nearest_of_all(graphs, settings):
    with pytest.raises(ConfigError, match=r"mode\.nodes_to_exclude: no node is named 'matmul_c'.*matmul_[ab]"):
        excluded(graphs, settings("static", nodes_to_exclude=["conv_a", "matmul_c"]))


def test_a_graph_with_a_mode_of_its_own_keeps_its_own_exclusions(graphs, settings):
    own = settings("dynamic", nodes_to_exclude=["matmul_a"])
    assert excluded(graphs, settings("static", nodes_to_exclude=["conv_a"]), decoder=own) == {
        "encoder": ["conv_a"],
        "decoder": ["matmul_a"],
    }
